"""Models, tokenizers and datasets of both hubs: names, revisions, mirrors, the cache, and what is said where something is missing."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.fake_hub import FakeHub, commit, fake_hub
from zhllama.errors import InputError
from zhllama.hub_name import HubName, is_hub_name, parse_hub_name

V1 = {
    "README.md": b"card",
    "image.png": b"p",
    "config.json": b'{"v": 1}',
    "tokenizer.json": b'{"t": 1}',
    "model.safetensors": b"one",
    "pytorch_model.bin": b"old",
}
V2 = V1 | {"config.json": b'{"v": 2}', "model.safetensors": b"two"}
SHARDED = {
    "config.json": b"{}",
    "pytorch_model.bin.index.json": json.dumps({"weight_map": {"a": "m-1.bin", "b": "m-2.bin"}}).encode(),
    "m-1.bin": b"1",
    "m-2.bin": b"2",
}
ROWS = [{"instruction": "问？", "output": "答。"}]
DATA = {"train.jsonl": json.dumps(ROWS[0]).encode() + b"\n"}


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("Qwen/Qwen3-0.6B", HubName("huggingface", "Qwen/Qwen3-0.6B")),
        ("Qwen/Qwen3-0.6B@v1.0", HubName("huggingface", "Qwen/Qwen3-0.6B", "v1.0")),
        ("a/b@refs/pr/1", HubName("huggingface", "a/b", "refs/pr/1")),
        ("modelscope:Qwen/Qwen3-0.6B", HubName("modelscope", "Qwen/Qwen3-0.6B")),
        ("modelscope:Qwen/Qwen3-0.6B@v1.0", HubName("modelscope", "Qwen/Qwen3-0.6B", "v1.0")),
        ("hf:a/b@main", HubName("huggingface", "a/b", "main")),
        ("huggingface:a/b", HubName("huggingface", "a/b")),
        *((text, None) for text in (
            "a", "a/b/c", "/a/b", "./b", "../b", "a/b@", "a/b@x y", "a/b@/x", "other:a/b", "modelscope:a", "zh=a/b", "a\\b", "",
        )),
    ],
)  # fmt: skip
def test_what_a_name_means(monkeypatch: pytest.MonkeyPatch, name: str, parsed: HubName | None) -> None:
    monkeypatch.delenv("ZHLLAMA_HUB", raising=False)
    assert parse_hub_name(name) == parsed
    assert is_hub_name(name) == (parsed is not None)


def test_the_default_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ZHLLAMA_HUB", "ModelScope")
    assert parse_hub_name("a/b@v1") == HubName("modelscope", "a/b", "v1")
    assert parse_hub_name("hf:a/b") == HubName("huggingface", "a/b")
    assert parse_hub_name("a/b", "huggingface") == HubName("huggingface", "a/b")
    monkeypatch.setenv("ZHLLAMA_HUB", "gitee")
    with pytest.raises(InputError, match=r"ZHLLAMA_HUB: is 'gitee'\. Set it to huggingface or modelscope"):
        parse_hub_name("a/b")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b").touch()
    assert parse_hub_name("a/b") is None


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    both = {"main": V2, "master": V2, "v1": V1}
    sharded = {"main": SHARDED, "master": SHARDED}
    data = {"main": DATA, "master": DATA}
    with fake_hub(
        {("models", "own/er"): both, ("models", "own/big"): sharded, ("datasets", "own/rows"): data}
    ) as served:
        yield served


# Asks for everything in one process: the clients read their addresses when they are imported.
ASKER = """
import json, sys
from zhllama.conversation.row_files import find_row_files
from zhllama.corpus.fetch import _open, reach
from zhllama.corpus.fetch import Fetched
from zhllama.corpus.sources import CorpusSource
from zhllama.errors import ZhllamaError
from zhllama.model.chain import local_folder
from zhllama.vocab.any_tokenizer import tokenizer_file

def fetched(hub):
    told = {key: "" for key in ("title", "title_zh", "language", "script", "domain", "size", "licence", "checked")}
    source = CorpusSource(name="rows", kind="hub", hub=hub, field="instruction", **told)
    reach(source)
    return list(_open(source, Fetched()))

DO = {
    "folder": lambda name: {p.name: p.read_text() for p in local_folder(name).iterdir()} | {"": str(local_folder(name))},
    "file": lambda name: [tokenizer_file(name).name, tokenizer_file(name).read_text()],
    "rows": lambda name: [p.is_file() for p in find_row_files([name]).files],
    "fetch": fetched,
}
for kind, name in json.loads(sys.argv[1]):
    try:
        print(json.dumps(DO[kind](name)))
    except ZhllamaError as error:
        print(json.dumps(str(error)))
"""


def ask(home: Path, asked: list[tuple[str, str]], **settings: str) -> list[object]:
    """The answers of one process with caches of its own."""
    env = {
        key: value
        for key, value in os.environ.items()
        if key not in ("HF_HUB_OFFLINE", "ZHLLAMA_HUB", "HF_TOKEN")
    }
    env |= {
        "HF_HOME": str(home / "hf"),
        "MODELSCOPE_CACHE": str(home / "ms"),
        "MODELSCOPE_HOME": str(home / "login"),
    }
    env |= {"PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))), **settings}
    command = [sys.executable, "-c", ASKER, json.dumps(asked)]
    ended = subprocess.run(command, capture_output=True, text=True, env=env, timeout=100)
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_hugging_face(hub: FakeHub, tmp_path: Path) -> None:
    names = [
        ("file", "own/er@v1"), ("folder", "own/er@v1"), ("folder", "own/er"), ("folder", f"own/er@{commit('v1')}"), ("folder", "own/big"),
        ("fetch", "own/rows"), ("rows", "own/rows"),
    ]  # fmt: skip
    settings = {"HF_ENDPOINT": hub.url}  # as a mirror is set
    wrong = [
        ("folder", "own/er@v9"),
        ("folder", "own/nothing"),
        ("file", "own/big"),
        ("fetch", "own/rows@v9"),
        ("fetch", "own/no"),
    ]
    file, first, second, by_commit, big, fetched, rows, *told = ask(tmp_path, [*names, *wrong], **settings)
    assert file == ["tokenizer.json", '{"t": 1}']
    assert (
        isinstance(first, dict)
        and isinstance(second, dict)
        and isinstance(by_commit, dict)
        and isinstance(big, dict)
    )
    assert (first["config.json"], first["model.safetensors"]) == ('{"v": 1}', "one")
    assert (second["config.json"], second["model.safetensors"]) == ('{"v": 2}', "two")
    assert (
        first.keys() == {*V1, ""} - {"pytorch_model.bin", "image.png"}
        and first == by_commit
        and commit("v1") in first[""]
    )
    assert big.keys() == {*SHARDED, ""}
    assert fetched == ROWS and rows == [True]
    assert told == [
        "own/er@v9: has no such revision. Name a branch, a tag or a commit after the @.",
        "own/nothing: is neither a path here nor a repository on the hub. Check the name.",
        "own/big: has none of tokenizer.model, tokenizer.json, tekken.json. Give a path instead.",
        "own/rows@v9: has no such revision. Name a branch, a tag or a commit after the @.",
        "own/no: is not on the Hub, or is private. Check the name; for a private one, hf auth login.",
    ]
    hub.asked.clear()
    (
        tmp_path / "hf/hub/models--own--big/snapshots" / commit("main") / "m-2.bin"
    ).unlink()  # an interrupted download
    offline = [*names[:4], ("rows", "own/rows"), ("file", "a/b@v1"), ("folder", "own/big")]
    again = ask(tmp_path, offline, HF_HUB_OFFLINE="1", **settings)
    assert again == [
        file, first, second, by_commit, [True],
        *(f"{name}: is not in the cache, and HF_HUB_OFFLINE is set. Download it on a machine with a network, and give the path."
          for name in ("a/b@v1", "own/big")),
    ]  # fmt: skip
    assert hub.asked == []


def test_modelscope(hub: FakeHub, tmp_path: Path) -> None:
    pytest.importorskip("modelscope_hub")
    names = [
        ("file", "modelscope:own/er@v1"), ("folder", "modelscope:own/er@v1"), ("folder", "own/er"), ("folder", "own/big"),
        ("fetch", "modelscope:own/rows"), ("rows", "own/rows"),
    ]  # fmt: skip
    settings = {
        "MODELSCOPE_ENDPOINT": hub.url,
        "ZHLLAMA_HUB": "modelscope",
        "HF_ENDPOINT": "http://127.0.0.1:9",
    }
    wrong = [
        ("folder", "own/er@v9"),
        ("folder", "own/nothing"),
        ("file", "own/big"),
        ("fetch", "modelscope:own/no"),
    ]
    file, first, second, big, fetched, rows, *told = ask(tmp_path, [*names, *wrong], **settings)
    assert file == ["tokenizer.json", '{"t": 1}']
    assert isinstance(first, dict) and isinstance(second, dict) and isinstance(big, dict)
    assert (first["config.json"], first["model.safetensors"]) == ('{"v": 1}', "one")
    assert (second["config.json"], second["model.safetensors"]) == ('{"v": 2}', "two")
    assert "pytorch_model.bin" not in first
    assert big.keys() >= {*SHARDED, ""}
    assert fetched == ROWS and rows == [True]
    assert told == [
        "own/er@v9: is not on ModelScope at the revision v9. Check the name and the revision.",
        "own/nothing: is not on ModelScope. Check the name and the revision.",
        "own/big: has none of tokenizer.model, tokenizer.json, tekken.json. Check the name and the revision.",
        "modelscope:own/no: is not on ModelScope. Check the name and the revision.",
    ]
    hub.asked.clear()
    again = ask(tmp_path, [*names, ("file", "modelscope:a/b")], HF_HUB_OFFLINE="1", **settings)
    assert again[:-1] == [file, first, second, big, fetched, rows]
    assert "modelscope:a/b: is not in the cache, and HF_HUB_OFFLINE is set" in str(again[-1])
    assert hub.asked == []


def test_without_the_client_of_modelscope(monkeypatch: pytest.MonkeyPatch) -> None:
    from zhllama import modelscope_client
    from zhllama.errors import MissingPackage
    from zhllama.hub import hub_dataset, hub_file, hub_folder

    monkeypatch.setattr(modelscope_client, "find_spec", lambda name: None)
    for call in (hub_file, hub_folder, hub_dataset):
        with pytest.raises(
            MissingPackage, match=r"modelscope:a/b: needs the package modelscope-hub\. .*\[modelscope"
        ):
            call("modelscope:a/b")


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    from zhllama.hub import require_network

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for name in ("modelscope:a/b@v1", "a/b"):
        with pytest.raises(InputError, match=f"{name}: is not a path here, and 127.0.0.1 cannot be reached"):
            require_network(name)
