"""Sources and fetching: the YAML files, a server on this machine, interruptions, and every way that a source fails."""

import functools
import gzip
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tests.conftest import Zhllama
from zhllama.cli import app
from zhllama.corpus import fetch as fetching
from zhllama.corpus.sources import find_source, read_source, shipped_sources
from zhllama.errors import InputError
from zhllama.io.records import text_of

ENTRY = {
    "name": "mine", "title": "Mine", "title_zh": "我的", "kind": "local", "path": "texts", "config": None, "split": None,
    "field": "text", "language": "zh", "script": "simplified", "domain": "web", "size": "small", "licence": "mine",
    "checked": "written here", "notes": "",
}  # fmt: skip


def invoke(*arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["corpus", *map(str, arguments), "--json"])
    if result.exception is not None:
        raise result.exception
    return dict(json.loads(result.stdout))


def source_file(folder: Path, **changes: object) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**ENTRY, **changes}, allow_unicode=True), encoding="utf-8")
    return path


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for p in sorted(folder.glob("*.jsonl")) for line in p.open(encoding="utf-8")]


def test_every_shipped_source_is_read() -> None:
    names = [source.name for source in shipped_sources()]
    assert len(names) >= 15
    listed = invoke("list")["sources"]
    assert [entry["name"] for entry in listed] == names
    assert all(entry["checked"] for entry in listed)
    assert invoke("show", "skypile")["hub"] == "Skywork/SkyPile-150B"


def test_text_of_a_record() -> None:
    record = {
        "a": "甲",
        "b": {"c": "乙"},
        "d": [{"e": "丙"}, {"e": 1}, {"e": "丁"}],
        "f": ["戊", "己"],
        "x.y": "庚",
    }
    assert text_of(record, ("a", "b.c", "d.e", "f", "x.y")) == "甲\n乙\n丙\n丁\n戊\n己\n庚"
    assert text_of(record, ("none", "a.b", "b")) is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kind": "hub"}, "kind hub needs hub"),
        ({"extra": 1}, "extra"),
        ({"field": 3}, "field"),
        ({"kind": "ftp"}, "kind"),
    ],
)
def test_a_bad_entry_names_its_field(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_source(source_file(tmp_path, **changes))


def test_broken_and_missing_entries(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("a: [", encoding="utf-8")
    (tmp_path / "list.yaml").write_text("- a", encoding="utf-8")
    for name, told in (
        ("bad.yaml", "not readable"),
        ("list.yaml", "not a mapping"),
        ("none.yaml", "no such file"),
    ):
        with pytest.raises(InputError, match=told):
            find_source(str(tmp_path / name))
    with pytest.raises(InputError, match="neither a known source"):
        find_source("no-such-thing")


def test_a_folder_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    first, second = "第一篇说的是春天的故事，河边的柳树发了芽。", "第二篇说的是秋天的故事，山上的叶子都红了。"
    (tmp_path / "texts/a.txt").write_bytes(f"{first}\n\n{second}".encode("gb18030"))
    (tmp_path / "texts/b.bin").write_bytes(bytes(500))
    told = invoke("fetch", source_file(tmp_path), "--out", tmp_path / "out")
    assert (told["documents"], told["rows"], told["without_text"]) == (2, 3, 1)
    assert [line["text"] for line in lines(tmp_path / "out/documents")] == [first, second]
    assert invoke("fetch", tmp_path / "texts", "--out", tmp_path / "two", "--limit", 1)["documents"] == 1


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and its address on this machine."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


KILLED_AFTER_THREE = """
import os
import zhllama.corpus.fetch as fetching
from zhllama.cli import main

fetching.SHARD_DOCUMENTS, write, written = 100, fetching._write, []

def killed(*arguments):
    write(*arguments)
    written.append(1)
    if len(written) == 3:
        os.kill(os.getpid(), 9)

fetching._write = killed
main()
"""


def test_streams_from_an_address_and_goes_on_after_an_interruption(
    tmp_path: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = server
    rows = [json.dumps({"title": f"题{n}", "content": f"内容{n}"}, ensure_ascii=False) for n in range(1000)]
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress("\n".join(rows).encode(), mtime=0))
    url = f"{address}/rows.jsonl.gz"
    entry = source_file(tmp_path, kind="url", url=url, path=None, field=["title", "content"])
    monkeypatch.setattr(fetching, "SHARD_DOCUMENTS", 100)
    command = ["fetch", entry, "--limit", 750, "--out"]
    invoke(*command, tmp_path / "whole")
    killed = [sys.executable, "-c", KILLED_AFTER_THREE, "corpus", *map(str, command), str(tmp_path / "cut")]
    assert subprocess.run(killed, capture_output=True).returncode == -9
    assert invoke(*command, tmp_path / "cut", "--resume")["documents"] == 750
    whole, cut = (sorted((tmp_path / name / "documents").iterdir()) for name in ("whole", "cut"))
    assert lines(tmp_path / "whole/documents")[749]["text"] == "题749\n内容749"
    assert [p.read_bytes() for p in cut] == [p.read_bytes() for p in whole]


def test_a_wrong_field_names_the_right_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.jsonl").write_text('{"body": "x"}\n' * 200, encoding="utf-8")
    with pytest.raises(InputError, match="has no text in text"):
        invoke("fetch", source_file(tmp_path), "--out", tmp_path / "out")


def test_no_network_is_told_at_once_and_nothing_is_left(tmp_path: Path, zhllama: Zhllama) -> None:
    result = zhllama("corpus", "fetch", "skypile", "--out", "out")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "zhllama: Skywork/SkyPile-150B: cannot be reached because HF_HUB_OFFLINE is set. "
        "Unset it, or download the data elsewhere and name its folder.\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("url", "told"),
    [("https://a.cn/corpus", "is a page, not a file"), ("https://a.cn/x.zip", "is an archive"),
     ("http://127.0.0.1:9/x.jsonl", "cannot be reached")],
)  # fmt: skip
def test_what_cannot_be_fetched(tmp_path: Path, url: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        fetching.reach(read_source(source_file(tmp_path, kind="url", url=url, path=None)))
