"""Text from anywhere, as a stream; what cannot be read names its file and line."""

import gzip
import json
import lzma
from pathlib import Path

import pytest
import zstandard

from zhllama.errors import InputError
from zhllama.io.text import find_files, read_documents, read_lines

TEXT = "第一段。\n第二行。\r\n\n第二篇。\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", TEXT.encode()),
        ("bom.txt", b"\xef\xbb\xbf" + TEXT.encode()),
        ("a.txt.gz", gzip.compress(TEXT.encode(), mtime=0)),
        ("a.txt.xz", lzma.compress(TEXT.encode())),
        ("a.txt.zst", zstandard.compress(TEXT.encode())),
    ],
)
def test_plain_and_packed(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert list(read_lines([path])) == ["第一段。", "第二行。", "第二篇。"]
    assert list(read_documents([path])) == ["第一段。\n第二行。", "第二篇。"]


def test_jsonl_and_parquet(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    records = [{"body": "一\n二", "n": 1}, {"body": "三", "n": 2}]
    lines = tmp_path / "a.jsonl"
    lines.write_text("\n".join(json.dumps(r) for r in records) + "\n", encoding="utf-8")
    table = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(records), table)
    for path in (lines, table):
        assert list(read_lines([path], "body")) == ["一", "二", "三"]
        assert list(read_documents([path], "body")) == ["一\n二", "三"]
        with pytest.raises(InputError, match="`field`"):
            list(read_lines([path], "text"))


def test_text_without_blank_lines_is_split_at_line_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("zhllama.io.text.DOCUMENT_BYTES", 10)
    path = tmp_path / "a.txt"
    for content, expected, splits in (
        ("一二三\n四五\n六\n七八九十\n", ["一二三\n四五", "六\n七八九十"], 1),  # 9 + 6 bytes, 3 + 12 bytes
        ("一二三四\n\n五\n", ["一二三四", "五"], 0),  # a blank line is where it would be split
        ("一二三四五六七八九\n", ["一二三四五六七八九"], 0),  # never within a line
        ("abcdefghi\nj\nk\n", ["abcdefghi\nj", "k"], 1),
    ):
        caplog.clear()
        path.write_text(content, encoding="utf-8")
        assert list(read_documents([path])) == expected
        assert [record.getMessage() for record in caplog.records] == (
            [f"{path}: split 1 times at line ends, after 10 bytes without a blank line"] if splits else []
        )
        assert list(read_lines([path])) == content.split()


def test_a_field_may_be_nested(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    records = [{"段落": [{"内容": "甲"}, {"内容": "乙"}]}]
    lines = tmp_path / "a.JSONL"
    lines.write_text(json.dumps(records[0]), encoding="utf-8")
    table = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(records), table)
    for path in (lines, table):
        assert list(read_documents([path], "段落.内容")) == ["甲\n乙"]


def test_lines_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zhllama.io.text.CHUNK", 7)
    path = tmp_path / "a.txt"
    path.write_text("一二三四五六七八九十\n短\n", encoding="utf-8")
    assert list(read_lines([path])) == ["一二三四五六七八九十", "短"]


def test_bytes_read_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.xz"
    path.write_bytes(lzma.compress(TEXT.encode() * 1000))
    told: list[int] = []
    list(read_lines([path], advance=told.append))
    assert sum(told) == path.stat().st_size


@pytest.mark.parametrize(
    ("name", "content", "where", "what"),
    [
        ("a.txt", b"ok\n\xff\xfe\n", "a.txt:2", "is not UTF-8"),
        ("a.txt", "ok\n".encode("utf-16"), "a.txt:1", "is not UTF-8 but UTF-16"),
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', "a.jsonl:2", "is not JSON"),
        ("a.jsonl", b'{"text": 3}\n', "a.jsonl:1", "has no text in the field 'text'"),
        ("a.txt.xz", lzma.compress(b"x" * 9999)[:40], "a.txt.xz", "is cut off or not xz data"),
        ("a.txt.gz", b"not gzip", "a.txt.gz", "is cut off or not gz data"),
        ("a.txt.zst", b"not zstd", "a.txt.zst", "is cut off or not zst data"),
        ("a.parquet", b"not parquet", "a.parquet", "is not a readable Parquet file"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, name: str, content: bytes, where: str, what: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        list(read_lines([path]))
    assert error.value.where.endswith(where) and error.value.what.startswith(what)


def test_find_files(tmp_path: Path) -> None:
    for name in ("b.txt", "a.jsonl.gz", "no.png"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    assert [p.name for p in find_files([tmp_path])] == ["a.jsonl.gz", "b.txt"]
    assert [p.name for p in find_files([str(tmp_path / "*.txt"), tmp_path / "b.txt"])] == ["b.txt"]
    run = tmp_path / "run"
    for folder in ("documents", "rejected"):
        (run / folder).mkdir(parents=True)
        (run / folder / "0.jsonl").write_text("{}", encoding="utf-8")
    (run / "config.yaml").touch()
    assert find_files([run]) == [run / "documents" / "0.jsonl"]
    (tmp_path / "empty.txt").touch()
    for wrong, what in ((tmp_path / "nope", "no such file"), (tmp_path / "empty.txt", "is empty")):
        with pytest.raises(InputError, match=what):
            find_files([wrong])


@pytest.mark.parametrize(
    ("kept", "beside"),
    [
        ("documents/00000.jsonl", "rejected/length/00000.jsonl"),
        ("conversations.jsonl", "rejected.jsonl"),
        ("instructions.jsonl", "journal.jsonl"),
    ],
)
def test_of_a_run_what_it_kept_is_taken_and_nothing_else(tmp_path: Path, kept: str, beside: str) -> None:
    for name in ("config.yaml", "manifest.json", kept, beside):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}", encoding="utf-8")
    assert find_files([tmp_path]) == [tmp_path / kept]
    assert find_files([tmp_path], [beside]) == [tmp_path / beside]


def test_the_rows_of_parquet_are_told_as_they_are_read(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    path, told = tmp_path / "a.parquet", list[int]()
    parquet.write_table(pyarrow.Table.from_pylist([{"text": "好"}] * 1000), path)
    assert len(list(read_lines([path], advance=told.append))) == 1000
    assert sum(told) == pytest.approx(path.stat().st_size, abs=len(told))


@pytest.mark.parametrize(
    ("name", "begin", "kind"),
    [
        ("a.zip", b"PK\x03\x04\x14\0", "a ZIP archive"), ("a.docx", b"PK\x03\x04\x14\0", "a ZIP archive"),
        ("a.pdf", b"%PDF-1.7\n", "a PDF"), ("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1", "an old Office document"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c", "a 7z archive"), ("a.rar", b"Rar!\x1a\x07", "a RAR archive"),
        ("a.txt", b"PK\x03\x04\x14\0", "a ZIP archive"),
    ],
)  # fmt: skip
def test_archives_and_documents_are_told_by_name(tmp_path: Path, name: str, begin: bytes, kind: str) -> None:
    """Their remedy is not iconv."""
    (tmp_path / name).write_bytes(begin + b"\n\xe2\xff\x00" * 40)
    with pytest.raises(InputError, match=f"is no text but {kind}.*Take the text out of it first") as error:
        list(read_lines([tmp_path / name]))
    assert "iconv" not in str(error.value) and error.value.where == str(tmp_path / name)
