"""A run folder is finished, unfinished or gone, and never a stranger's."""

import json
import multiprocessing
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from zhllama.errors import InputError, OutputError
from zhllama.run import Run, read_config, read_manifest

OPTIONS = {"size": 3, "text": [Path("a")]}


def finish(out: Path, **more: object) -> None:
    with Run(out, "demo", OPTIONS, **more) as run:  # type: ignore[arg-type]
        run.write("product.txt", "一")
        run.finish({"n": 1})


def test_config_products_manifest(tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("x", encoding="utf-8")
    finish(tmp_path / "out", inputs=[source], seed=7)
    assert read_config(tmp_path / "out") == {"command": "demo", "size": 3, "text": ["a"]}
    manifest = read_manifest(tmp_path / "out")
    assert manifest["inputs"][0]["sha256"].startswith("2d711642") and manifest["seed"] == 7
    assert set(manifest["outputs"]) == {"config.yaml", "product.txt"} and manifest["figures"] == {"n": 1}
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "config.yaml",
        "manifest.json",
        "product.txt",
    ]


def test_parents_are_the_runs_that_inputs_come_from(tmp_path: Path) -> None:
    finish(tmp_path / "one")
    finish(tmp_path / "two", inputs=[tmp_path / "one" / "product.txt"])
    assert read_manifest(tmp_path / "two")["parents"] == [str(tmp_path / "one")]


def test_finished_folder_needs_force(tmp_path: Path) -> None:
    finish(tmp_path)
    with pytest.raises(OutputError, match="holds a finished run"):
        finish(tmp_path)
    (tmp_path / "stale.txt").touch()
    finish(tmp_path, force=True)
    assert not (tmp_path / "stale.txt").exists()


def test_force_spares_strangers_and_inputs(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").touch()
    with pytest.raises(OutputError, match="not of a zhllama run"):
        finish(tmp_path, force=True)
    finish(tmp_path / "run")
    with pytest.raises(OutputError, match="would remove the input"):
        finish(tmp_path / "run", force=True, inputs=[tmp_path / "run" / "product.txt"])


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), Run(tmp_path / "a" / "b", "demo", OPTIONS) as run:
        run.write("product.txt", "x")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_unfinished_goes_on_only_with_equal_options(tmp_path: Path) -> None:
    with pytest.raises(KeyError), Run(tmp_path, "demo", OPTIONS, resume=False) as run:
        run.write("part", "x")
        raise KeyError
    assert (tmp_path / "part").exists()
    with pytest.raises(OutputError, match="--resume to go on"):
        Run(tmp_path, "demo", OPTIONS, resume=False).check()
    with pytest.raises(OutputError, match="size was 3 and is 4"):
        Run(tmp_path, "demo", OPTIONS | {"size": 4}, resume=True).check()
    with Run(tmp_path, "demo", OPTIONS, resume=True) as run:
        assert (tmp_path / "part").exists()
        run.finish()


def test_killed_while_its_config_was_written_it_can_be_begun_again(tmp_path: Path) -> None:
    (tmp_path / ".config.yaml.abcd1234").write_text("comma", encoding="utf-8")
    finish(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.yaml", "manifest.json", "product.txt"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".letter.abcd1234").touch()
    with pytest.raises(OutputError, match="not of a zhllama run"):
        finish(tmp_path / "other")


def test_killed_while_force_emptied_it_the_folder_is_still_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Run(tmp_path, "demo", OPTIONS) as run:
        for name in "abcdefgh":
            run.write(name, name)
        run.finish()
    gone: list[str] = []
    unlink = Path.unlink

    def killed(path: Path, missing_ok: bool = False) -> None:
        if len(gone) == 5:
            raise KeyboardInterrupt
        gone.append(path.name)
        unlink(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        patched.setattr("zhllama.run.Run._leave_nothing", lambda run: None)  # as after SIGKILL
        with pytest.raises(KeyboardInterrupt):
            finish(tmp_path, force=True)
    assert gone[0] == "manifest.json" and (tmp_path / "config.yaml").exists()
    finish(tmp_path, force=True)


def _hold(out: Path) -> None:
    with Run(out, "demo", OPTIONS, resume=True):
        time.sleep(30)


def test_second_run_on_a_folder_is_refused(tmp_path: Path) -> None:
    child = multiprocessing.get_context("fork").Process(target=_hold, args=(tmp_path,))
    child.start()
    try:
        while not (tmp_path / "config.yaml").exists():
            time.sleep(0.01)
        with pytest.raises(OutputError, match="another run is writing here"):
            finish(tmp_path, resume=True)
    finally:
        child.kill()
        child.join()
    finish(tmp_path, resume=True)  # the lock went with the process


def test_broken_manifest_is_told(tmp_path: Path) -> None:
    finish(tmp_path)
    (tmp_path / "manifest.json").write_text('{"command"', encoding="utf-8")
    with pytest.raises(InputError, match=r"manifest\.json: is broken"):
        read_manifest(tmp_path)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True
    ).returncode:
        pytest.skip("cannot mount a small tmpfs here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_full_disk_leaves_nothing(tiny_disk: Path) -> None:
    with pytest.raises(OutputError, match="No space left"), Run(tiny_disk / "out", "demo", OPTIONS) as run:
        run.write("big", b"x" * 1_000_000)
    assert list(tiny_disk.iterdir()) == []


@pytest.mark.parametrize("out", ["/proc/nope", "/dev/null"])
def test_unwritable_places(out: str) -> None:
    with pytest.raises(OutputError):
        finish(Path(out))


def test_manifest_is_json_with_readable_chinese(tmp_path: Path) -> None:
    with Run(tmp_path, "demo", {"text": "人工智能"}) as run:
        run.finish()
    content = (tmp_path / "manifest.json").read_text(encoding="utf-8")
    assert "人工智能" in content and json.loads(content)["options"] == {"text": "人工智能"}
