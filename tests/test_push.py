"""`export --push`: dry by default, only the model's files and card, a private repository, and the login of the hub's client alone."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Zhllama
from tests.fake_hub import fake_hub
from tests.model_toys import line, write_chain
from zhllama import modelscope_client
from zhllama.errors import InputError, MissingPackage, OptionError, OutputError
from zhllama.hub_name import HubName
from zhllama.model import push as pushing
from zhllama.model.push import check_push, files_to_push, push

TOKEN = "hf_of_the_login"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("model")
    run = write_chain(work)
    told = line(work, "export", run, "--out", "out", "--push", "me/zh-llama")
    assert told.code == 0, told.err
    assert "Nothing was sent:" in told.out and "https://huggingface.co/me/zh-llama" in told.out
    assert "export --push me/zh-llama --push-now --out out" in told.out
    assert "model.safetensors" in told.out and "manifest.json" not in told.out
    return work / "out"


def test_what_would_be_sent_names_no_path_of_this_machine(exported: Path) -> None:
    files = files_to_push(exported)
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= files.keys()
    assert files.keys() | {"config.yaml", "manifest.json"} == {
        p.name for p in exported.iterdir() if p.name[0] != "."
    }
    for name in files:
        assert str(exported.parent).encode() not in (exported / name).read_bytes(), name
    assert "me/zh-llama" in (exported / "README.md").read_text(encoding="utf-8")
    assert "push" not in (exported / "config.yaml").read_text(encoding="utf-8")


def test_a_dry_push_sends_nothing(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_hub({}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        told = line(exported.parent, "export", "--push", "me/zh-llama", "--out", "out", "--json")
        assert hub.asked == []
    assert told.code == 0, told.err
    result = json.loads(told.out)["push"]
    assert (result["repository"], result["sent"], result["files"]) == (
        "me/zh-llama",
        False,
        files_to_push(exported),
    )


def test_the_upload_reaches_the_hub(exported: Path, zhllama: Zhllama, tmp_path: Path) -> None:
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/token").write_text(TOKEN, encoding="utf-8")  # as `hf auth login` stores it
    shutil.copytree(exported, tmp_path / "out")
    env = {"HF_HUB_OFFLINE": "0", "HF_TOKEN": "", "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "hf")}
    with fake_hub({}) as hub:
        env |= {"HF_ENDPOINT": hub.url}
        told = zhllama("export", "--push", "me/zh-llama", "--push-now", "--out", "out", env=env)
        assert told.returncode == 0, told.stderr
        assert hub.created[0]["name"] == "zh-llama" and hub.created[0]["organization"] == "me"
        assert hub.created[0]["visibility"] == "private"
        assert hub.sent == {name: (exported / name).read_bytes() for name in files_to_push(exported)}
        assert TOKEN not in told.stdout + told.stderr
        (tmp_path / "hf/token").write_text("hf_expired", encoding="utf-8")
        refused = zhllama("export", "--push", "me/zh-llama", "--push-now", "--out", "out", env=env)
    assert refused.returncode == 1 and "me/zh-llama: cannot be uploaded (" in refused.stderr
    assert "is complete; push it again" in refused.stderr and "hf_expired" not in refused.stderr


class FakeApi:
    """ModelScope's HubApi, as far as an upload uses it."""

    def __init__(self, exists: bool = False, error: Exception | None = None) -> None:
        self.exists, self.error, self.called = exists, error, list[tuple[str, Any, Any]]()

    def repo_exists(self, *arguments: Any) -> bool:
        return self.exists

    def create_repo(self, *arguments: Any, **named: Any) -> None:
        self.called.append(("create_repo", arguments, named))

    def upload_folder(self, *arguments: Any, **named: Any) -> None:
        if self.error is not None:
            raise self.error
        self.called.append(("upload_folder", arguments, named))


def test_modelscope_gets_the_same_files(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = HubName("modelscope", "me/zh-llama")
    for exists in (False, True):
        api = FakeApi(exists)
        monkeypatch.setattr(modelscope_client, "_api", lambda api=api: api)
        push(name, exported, {"README.md": 1, "a[1].json": 2})
        upload = ("upload_folder", ("me/zh-llama", "model", exported),
                  {"allow_patterns": ["README.md", "a[[]1].json"], "commit_message": pushing.MESSAGE})  # fmt: skip
        created = ("create_repo", ("me/zh-llama", "model"), {"visibility": "private"})
        assert api.called == ([upload] if exists else [created, upload])
    monkeypatch.setattr(modelscope_client, "_api", lambda: FakeApi(error=OSError("disk  on\nfire")))
    with pytest.raises(OutputError, match=r"me/zh-llama: cannot be uploaded \(disk on fire\)"):
        push(name, exported, {"README.md": 1})


def test_the_calls_fit_the_client_of_modelscope() -> None:
    """The arguments that the fake takes above are those of the real client."""
    from inspect import signature

    api = pytest.importorskip("modelscope_hub").HubApi
    signature(api.repo_exists).bind(None, "a/b", "model")
    signature(api.create_repo).bind(None, "a/b", "model", visibility="private")
    signature(api.upload_folder).bind(None, "a/b", "model", Path(), allow_patterns=["x"], commit_message="m")


def test_what_is_refused_before_any_work(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for target, told in (
        ("zh-llama", "zh-llama is not a hub name"), ("me/zh@v1", "me/zh@v1 names a revision. Leave out the part from @ on"), (str(tmp_path), "is not a hub name"),
    ):  # fmt: skip
        with pytest.raises(OptionError, match=told):
            check_push(target, False)
    with pytest.raises(InputError, match="me/zh: cannot be uploaded: HF_HUB_OFFLINE is set"):
        check_push("me/zh", True)
    monkeypatch.setattr(pushing, "why_unreachable", lambda hub: None)
    monkeypatch.setattr(pushing, "_is_logged_in", lambda name: False)
    for target, login in (("me/zh", "hf auth login"), ("modelscope:me/zh", "modelscope login")):
        with pytest.raises(InputError, match=f"needs a login to .*Log in by: {login}"):
            check_push(target, True)
    monkeypatch.setattr(modelscope_client, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match=r"needs the package modelscope-hub"):
        check_push("modelscope:me/zh", False)
    work = exported.parent
    for arguments, told in (
        (
            ("export", "run", "--push-now", "--out", "o"),
            "--push-now: needs the repository. Give --push OWNER/NAME",
        ),
        (("export", "--push", "me/zh", "--out", "o"), "o: does not exist"),
    ):
        ended = line(work, *arguments)
        assert ended.code == 1 and told in ended.err, ended.err
        assert not (work / "o").exists()
    broken = tmp_path / "broken"
    shutil.copytree(exported, broken)
    (broken / "config.json").write_text("{}", encoding="utf-8")
    assert (
        "config.json: changed since its run wrote it"
        in line(work, "export", "--push", "me/zh", "--out", broken).err
    )
