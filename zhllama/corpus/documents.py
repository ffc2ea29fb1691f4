"""Reads documents in any encoding for cleaning; an unreadable one is returned with a reason.

The files, their formats, records and document boundaries are those of zhllama/io/text.py, which says what differs.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

from zhllama.corpus.decode import SAMPLE, WIDE, Broken, decode, detect
from zhllama.errors import DamagedFile
from zhllama.io.column_files import SUFFIXES as COLUMNS
from zhllama.io.column_files import ColumnFile
from zhllama.io.json import parse_row
from zhllama.io.packed import PACKED, open_packed
from zhllama.io.records import Fields, text_of
from zhllama.io.text import DOCUMENT_BYTES, RECORDS, find_files, split_documents, text_format

Unit = Literal["blank-line", "line", "file"]
DOCUMENTS = "documents"  # folder of a run's text
HEAD = 1000  # characters kept of a document that is too long to read
PIECE = 256 << 20  # bytes of an uncompressed file that one task reads


@dataclass(frozen=True)
class Reading:
    """How files are read: the text fields of records, the unit of plain text, and the maximum size of a document."""

    fields: Fields = ("text",)
    unit: Unit = "blank-line"
    encoding: str | None = None
    max_bytes: int = 20_000_000


@dataclass(frozen=True)
class FilePiece:
    """A file, or the part of an uncompressed file whose documents begin in [start, stop)."""

    path: Path
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class CorpusDocument:
    """One document: its text, or the head of it and the reason why it cannot be read."""

    id: str
    text: str
    broken: str | None = None
    url: str | None = None
    continues: bool = False  # cut at a line end, after DOCUMENT_BYTES without a blank line


def find_inputs(names: Sequence[str | Path]) -> list[Path]:
    """Every file that the names mean, readable or not, since rejects are reported; of a run its documents."""
    return find_files(names, (DOCUMENTS,), every_file=True)


def split_files(paths: Sequence[Path], reading: Reading, piece_bytes: int = PIECE) -> list[FilePiece]:
    """The files in order; large uncompressed ones as several pieces, each starting where a document starts."""
    pieces = []
    for path in paths:
        size = path.stat().st_size
        if (
            reading.unit == "file"
            or path.suffix in PACKED
            or text_format(path) in COLUMNS
            or size <= piece_bytes
        ):
            pieces.append(FilePiece(path))
            continue
        by_line = reading.unit == "line" or text_format(path) in RECORDS
        with path.open("rb") as file:
            if (reading.encoding or detect(file.read(SAMPLE))) in WIDE:
                pieces.append(FilePiece(path))
                continue
            start = 0
            while start < size:
                stop = min(_next_document(file, start + piece_bytes, by_line), size)
                pieces.append(FilePiece(path, start, stop))
                start = stop
    return pieces


def read_piece(piece: FilePiece, reading: Reading) -> Iterator[CorpusDocument]:
    """The documents of one piece in order; a damaged end of the file is one more, broken document."""
    name = str(piece.path)
    prefix = f"{name}@{piece.start}" if piece.start else name
    count = 0
    if piece.path.stat().st_size == 0:
        yield CorpusDocument(f"{name}#0", "", "empty file")
        return
    try:
        for document in _documents(piece, reading):
            yield replace(document, id=document.id or f"{prefix}#{count}")
            count += 1
    except DamagedFile:
        yield CorpusDocument(f"{prefix}#{count}", "", "damaged file")


def _documents(piece: FilePiece, reading: Reading) -> Iterator[CorpusDocument]:
    """The documents of a piece; the id is empty where the record has none."""
    kind = text_format(piece.path)
    if kind in COLUMNS:
        for records in ColumnFile(piece.path).batches((*reading.fields, "id", "url")):
            yield from (_from_record(record, reading.fields, "") for record in records)
        return
    with open_packed(piece.path)[0] as file:
        sample = file.read(SAMPLE)
    encoding = reading.encoding or detect(sample)
    if isinstance(encoding, Broken):
        yield CorpusDocument("", "", encoding.reason)
        return
    unit = "line" if kind in RECORDS else reading.unit
    stored = "utf-8" if encoding in WIDE else encoding  # of the lines that `_lines` returns
    for lines, continues in _split(_lines(piece, encoding, reading.max_bytes), unit, reading.max_bytes):
        data = b"".join(lines)
        if len(data) >= reading.max_bytes:
            head = data[: 4 * HEAD].decode(stored, "ignore")[:HEAD]
            yield CorpusDocument("", head, "too long to read")
            continue
        if not data.strip():
            continue
        data = data.rstrip(b"\r\n")
        text = decode(data, stored, declared=reading.encoding is not None)
        if isinstance(text, Broken):
            yield CorpusDocument("", data.decode(stored, "replace"), text.reason)
        elif encoding in WIDE and "\ufffd" in text:
            yield CorpusDocument("", text, f"broken {encoding}")
        elif kind in RECORDS:
            yield _from_line(text, reading.fields)
        else:
            yield CorpusDocument("", text, continues=continues)


def _from_line(line: str, fields: Fields) -> CorpusDocument:
    try:
        record = parse_row(line)
    except ValueError:
        return CorpusDocument("", line, "not JSON")
    return _from_record(record, fields, line)


def _from_record(record: Any, fields: Fields, raw: str) -> CorpusDocument:
    text = text_of(record, fields) if isinstance(record, dict) else None
    if text is None:
        return CorpusDocument("", raw, "no text in the record")
    id, url = record.get("id"), record.get("url")
    return CorpusDocument(id if isinstance(id, str) else "", text, url=url if isinstance(url, str) else None)


def _lines(piece: FilePiece, encoding: str, max_bytes: int) -> Iterator[bytes]:
    """The lines of a piece with their ends, in UTF-8 if the file is wide; only the head of a line beyond `max_bytes`."""
    with open_packed(piece.path)[0] as file:
        if piece.start:  # only of uncompressed files; a compressed one cannot seek
            file.seek(piece.start)
        wide = io.TextIOWrapper(file, encoding, "replace", newline="\n") if encoding in WIDE else None
        offset = piece.start

        def read_part() -> bytes:
            nonlocal offset
            part = wide.readline(max_bytes).encode("utf-8", "replace") if wide else file.readline(max_bytes)
            offset += len(part)
            return part

        while (piece.stop is None or offset < piece.stop) and (line := read_part()):
            part = line
            while part and not part.endswith(b"\n"):
                part = read_part()
            yield line


def _split(lines: Iterable[bytes], unit: Unit, max_bytes: int) -> Iterator[tuple[list[bytes], bool]]:
    """The lines of each document, and whether it was cut; those of a document beyond `max_bytes` as far as that."""
    if unit == "line":
        yield from (([line], False) for line in lines)
    elif unit == "blank-line":
        yield from split_documents(lines)
    else:
        document, size = [], 0
        for line in lines:
            if size < max_bytes:
                document.append(line)
            size += len(line)
        yield document, False


def _next_document(file: IO[bytes], offset: int, by_line: bool) -> int:
    """The first place after `offset` where a document may begin: after a line, or a blank line within DOCUMENT_BYTES."""
    file.seek(offset - 1)
    at_line_start = False
    while part := file.readline(DOCUMENT_BYTES):
        blank = at_line_start and not part.strip()
        at_line_start = part.endswith(b"\n")
        if at_line_start and (by_line or blank or file.tell() - offset >= DOCUMENT_BYTES):
            break
    return file.tell()
