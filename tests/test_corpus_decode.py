"""Encodings: declared, detected, mixed and broken; and files to documents."""

import json
import lzma
from pathlib import Path

import pytest

from zhllama.corpus.decode import Broken, decode, detect, known_encoding
from zhllama.corpus.documents import CorpusDocument, FilePiece, Reading, find_inputs, read_piece, split_files
from zhllama.errors import InputError, OptionError

SIMPLIFIED = "今天的天气很好，我们一起去公园散步，看见许多孩子在草地上放风筝。\n"
TRADITIONAL = "今天的天氣很好，我們一起去公園散步，看見許多孩子在草地上放風箏。\n"


def read(path: Path, **how: object) -> list[CorpusDocument]:
    return list(read_piece(FilePiece(path), Reading(**how)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [(SIMPLIFIED, "utf-8"), (SIMPLIFIED, "gb18030"), (TRADITIONAL, "gb18030"), (TRADITIONAL, "big5"),
     (SIMPLIFIED, "utf-16-le"), (SIMPLIFIED, "utf-16"), (SIMPLIFIED, "utf-32"), ("plain ASCII, nothing else", "ascii")],
)  # fmt: skip
def test_detects(text: str, encoding: str) -> None:
    data = text.encode(encoding)
    found = detect(data)
    assert isinstance(found, str)
    assert data.decode(found) == text


def test_says_why_it_is_no_text() -> None:
    assert detect(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256))) == Broken("binary file")
    assert detect(bytes(range(128, 256)) * 3) == Broken("unknown encoding")


def test_utf8_with_a_broken_line_is_still_utf8() -> None:
    data = (SIMPLIFIED * 3).encode() + b"\xe4\xb8\n" + SIMPLIFIED.encode()
    assert detect(data) == "utf-8"
    assert decode(b"\xe4\xb8" + SIMPLIFIED.encode(), "utf-8") == Broken("broken utf-8")


def test_a_file_of_mixed_encodings_gives_all_its_documents(tmp_path: Path) -> None:
    path = tmp_path / "mixed.txt"
    path.write_bytes(
        b"\n".join([SIMPLIFIED.encode(), (SIMPLIFIED * 2).encode("gb18030"), TRADITIONAL.encode("big5")])
    )
    assert [one.text for one in read(path)] == [
        SIMPLIFIED.strip(),
        (SIMPLIFIED * 2).strip(),
        TRADITIONAL.strip(),
    ]


def test_a_declared_encoding_is_taken_strictly(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(SIMPLIFIED.encode("gb18030") + b"\n" + b"\xff\xff" + SIMPLIFIED.encode("gb18030"))
    found = read(path, encoding=known_encoding("GB2312"))
    assert [one.broken for one in found] == [None, "broken gb18030"]
    with pytest.raises(OptionError, match="unknown encoding"):
        known_encoding("klingon")
    with pytest.raises(OptionError, match="unknown encoding"):
        known_encoding("hex")


def test_units_of_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("甲\r\n乙\r\n \r\n\r\n丙".encode())
    assert [one.text for one in read(path)] == ["甲\r\n乙", "丙"]
    assert [one.text for one in read(path, unit="line")] == ["甲", "乙", "丙"]
    assert [one.text for one in read(path, unit="file")] == ["甲\r\n乙\r\n \r\n\r\n丙"]


def test_records_keep_their_id_and_address_and_join_their_fields(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.xz"
    record = {"id": "x1", "url": "https://a.cn/1", "title": "题", "段落": [{"内容": "甲"}, {"内容": "乙"}]}
    path.write_bytes(lzma.compress(json.dumps(record).encode() + b"\n\n[1]\n"))
    assert read(path, fields=("title", "段落.内容")) == [
        CorpusDocument("x1", "题\n甲\n乙", None, "https://a.cn/1"),
        CorpusDocument(f"{path}#1", "[1]", "no text in the record"),
    ]


def test_parquet(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    path = tmp_path / "a.parquet"
    write_table(pyarrow.table({"text": ["甲", None], "n": [1, 2]}), path)
    assert [(one.text, one.broken) for one in read(path)] == [("甲", None), ("", "no text in the record")]


@pytest.mark.parametrize("unit", ["blank-line", "line", "file"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_document_too_long_to_hold_is_told_by_its_head(tmp_path: Path, unit: str, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(("字" * 5000 + "\n\n" + "乙").encode(encoding))
    found = read(path, unit=unit, max_bytes=2000)
    assert found[0].broken == "too long to read"
    assert found[0].text.startswith("字" * 100) and len(found[0].text) <= 1000
    assert [one.text for one in found[1:]] == ([] if unit == "file" else ["乙"])


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "utf-16"])
def test_text_without_blank_lines_is_split_at_line_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setattr("zhllama.io.text.DOCUMENT_BYTES", 1000)
    monkeypatch.setattr("zhllama.corpus.documents.DOCUMENT_BYTES", 1000)
    path = tmp_path / "a.txt"
    path.write_bytes((SIMPLIFIED * 100).encode(encoding))
    documents = read(path)
    assert 5 < len(documents) < 15 and all(one.broken is None for one in documents)
    assert "\n".join(one.text for one in documents) == (SIMPLIFIED * 100).strip()
    assert all(len(one.text) < 540 for one in documents)  # 1,000 bytes and one line, in GB18030
    assert [one.continues for one in documents] == [True] * (len(documents) - 1) + [False]
    pieces = split_files([path], Reading(), 2000)
    assert len(pieces) == 1 if encoding == "utf-16" else len(pieces) > 2
    parts = [one.text for piece in pieces for one in read_piece(piece, Reading())]
    assert "\n".join(parts) == (SIMPLIFIED * 100).strip()


@pytest.mark.parametrize("unit", ["blank-line", "line"])
@pytest.mark.parametrize("ending", [".txt", ".jsonl"])
@pytest.mark.parametrize("piece", [1, 7, 64, 100, 333, 10_000])
def test_pieces_hold_each_document_once(tmp_path: Path, unit: str, ending: str, piece: int) -> None:
    path = tmp_path / f"a{ending}"
    texts = [f"第{n}行" * (n % 5 + 1) + ("\n" if n % 3 == 0 and ending == ".txt" else "") for n in range(40)]
    path.write_text(
        "\n".join(json.dumps({"text": t}) if ending == ".jsonl" else t for t in texts), encoding="utf-8"
    )
    reading = Reading(unit=unit)  # type: ignore[arg-type]
    whole = [one.text for one in read_piece(FilePiece(path), reading)]
    pieces = split_files([path], reading, piece)
    found = [one for p in pieces for one in read_piece(p, reading)]
    assert [one.text for one in found] == whole
    assert len({one.id for one in found}) == len(whole)


def test_inputs_pass_over_nothing(tmp_path: Path) -> None:
    for name in ("b.dat", "a.txt", "sub/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("字", encoding="utf-8")
    assert [p.name for p in find_inputs([tmp_path, tmp_path / "a.txt"])] == ["a.txt", "b.dat", "c"]
    assert [p.name for p in find_inputs([tmp_path / "*.txt"])] == ["a.txt"]
    with pytest.raises(InputError, match="no such file"):
        find_inputs([tmp_path / "*.none"])
    (tmp_path / "bad\udcff.txt").write_text("字", encoding="utf-8")
    with pytest.raises(InputError, match="not UTF-8"):
        find_inputs([tmp_path])


def test_a_run_is_read_by_its_documents_and_only_when_it_is_finished(tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents/00000.jsonl").write_text('{"text": "字"}', encoding="utf-8")
    (tmp_path / "config.yaml").write_text("command: corpus fetch", encoding="utf-8")
    with pytest.raises(InputError, match="is an unfinished run"):
        find_inputs([tmp_path])
    (tmp_path / "manifest.json").write_text("{}", encoding="utf-8")
    assert [p.name for p in find_inputs([tmp_path])] == ["00000.jsonl"]
