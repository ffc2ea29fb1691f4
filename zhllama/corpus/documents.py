"""Reads documents from text, JSON lines and Parquet; unreadable ones are returned with a reason."""

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from zhllama.corpus.decode import SAMPLE, WIDE, Broken, decode, detect
from zhllama.corpus.sources import Fields, text_of
from zhllama.errors import DamagedFile, InputError
from zhllama.io.files import require_regular
from zhllama.io.json import parse_row
from zhllama.io.packed import PACKED, open_packed
from zhllama.io.parquet import Parquet
from zhllama.manifest import check_outputs
from zhllama.run_folder import CONFIG, MANIFEST

Unit = Literal["blank-line", "line", "file"]
DOCUMENTS = "documents"  # where a run of ours keeps its text
HEAD = 1000  # characters kept of a document that is too long to hold
PIECE = 256 << 20  # bytes of an unpacked file that one task reads


@dataclass(frozen=True)
class Reading:
    """How files are read: the fields of records, what one document of plain text is, and how long one may be."""

    fields: Fields = ("text",)
    unit: Unit = "blank-line"
    encoding: str | None = None
    max_bytes: int = 20_000_000


@dataclass(frozen=True)
class FilePiece:
    """A file, or the part of an unpacked one whose documents begin in [start, stop)."""

    path: Path
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class Found:
    """One document: its text, or the head of it and why it could not be read."""

    id: str
    text: str
    broken: str | None = None
    url: str | None = None


def find_inputs(given: Sequence[str | Path]) -> list[Path]:
    """Every file that is named or lies in a named folder, sorted within each, none twice; of a run of ours its documents.

    Unlike zhllama.io.text.find_files it passes over nothing, since what is not text shall be told. Errors: InputError.
    """
    found: dict[Path, None] = {}
    for name in given:
        path = Path(name).expanduser()
        if path.is_dir():
            ours = (path / CONFIG).exists()
            if ours and not (path / MANIFEST).exists():
                raise InputError(path, "is an unfinished run", "Finish it with --resume")
            check_outputs([path], DOCUMENTS) if (path / DOCUMENTS).is_dir() else check_outputs([path])
            root = path / DOCUMENTS if ours and (path / DOCUMENTS).is_dir() else path
            files = sorted(p for p in root.rglob("*") if p.is_file() and not p.name.startswith("."))
        elif path.exists():
            require_regular(path)
            files = [path]
        else:
            files = sorted(
                p for p in Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))) if p.is_file()
            )
        if not files:
            raise InputError(path, "no such file" if not path.exists() else "holds no file", "Check the path")
        found.update(dict.fromkeys(files))
    for path in found:
        if os.fsencode(path).decode("utf-8", "replace") != str(path):
            raise InputError(ascii(str(path)), "has a name that is not UTF-8", "Rename it")
        if not os.access(path, os.R_OK):
            raise InputError(path, "cannot be read", "Check its rights")
    return list(found)


def cut(paths: Sequence[Path], reading: Reading, piece: int = PIECE) -> list[FilePiece]:
    """The files in order, large unpacked ones as several pieces that begin where a document begins."""
    pieces = []
    for path in paths:
        if reading.unit == "file" or path.suffix in (*PACKED, ".parquet") or path.stat().st_size <= piece:
            pieces.append(FilePiece(path))
            continue
        with path.open("rb") as file:
            if (reading.encoding or detect(file.read(SAMPLE))) in WIDE:
                pieces.append(FilePiece(path))
                continue
            start, size = 0, path.stat().st_size
            while start < size:
                stop = _next_document(file, start + piece, reading.unit, _kind(path))
                pieces.append(FilePiece(path, start, min(stop, size)))
                start = stop
    return pieces


def read_piece(piece: FilePiece, reading: Reading) -> Iterator[Found]:
    """The documents of one piece in order; a damaged end comes out as one more that is broken."""
    name = str(piece.path)
    prefix = f"{name}@{piece.start}" if piece.start else name
    count = 0
    if piece.path.stat().st_size == 0:
        yield Found(f"{name}#0", "", "empty file")
        return
    try:
        for text, broken, url, own in _documents(piece, reading):
            yield Found(own or f"{prefix}#{count}", text, broken, url)
            count += 1
    except DamagedFile:
        yield Found(f"{prefix}#{count}", "", "damaged file")


RawDocument = tuple[str, str | None, str | None, str | None]  # text, broken, url, id


def _documents(piece: FilePiece, reading: Reading) -> Iterator[RawDocument]:
    kind = _kind(piece.path)
    if kind == ".parquet":
        yield from _parquet(piece.path, reading.fields)
        return
    with _open(piece.path) as file:
        sample = file.read(SAMPLE)
    encoding = reading.encoding or detect(sample)
    if isinstance(encoding, Broken):
        yield "", encoding.reason, None, None
        return
    unit = "line" if kind in (".jsonl", ".json") else reading.unit
    for block in _blocks(piece, encoding, unit, reading.max_bytes):
        if isinstance(block, Broken):
            yield block.reason.partition(":")[2], block.reason.partition(":")[0], None, None
            continue
        name = "utf-8" if encoding in WIDE else encoding
        text = decode(block, name, declared=reading.encoding is not None)
        if isinstance(text, Broken):
            yield block.decode(name, "replace"), text.reason, None, None
        elif encoding in WIDE and "\ufffd" in text:
            yield text, f"broken {encoding}", None, None
        elif kind in (".jsonl", ".json"):
            yield _record(text, reading.fields)
        else:
            yield text, None, None, None


def _record(line: str, fields: Fields) -> RawDocument:
    try:
        record = parse_row(line)
    except ValueError:
        return line, "not JSON", None, None
    text = text_of(record, fields) if isinstance(record, dict) else None
    if text is None:
        return line, "no text in the record", None, None
    url, own = record.get("url"), record.get("id")
    return (text, None, url if isinstance(url, str) else None, own if isinstance(own, str) and own else None)


def _parquet(path: Path, fields: Fields) -> Iterator[RawDocument]:
    file = Parquet(path)
    wanted = {field.partition(".")[0] for field in fields} | {"id", "url", *fields}
    columns = [name for name in file.names if name in wanted]
    for record in (record for batch in file.batches(columns) for record in batch):
        text = text_of(record, fields)
        url, own = record.get("url"), record.get("id")
        yield (
            text or "",
            None if text is not None else "no text in the record",
            url if isinstance(url, str) else None,
            own if isinstance(own, str) and own else None,
        )


def _blocks(piece: FilePiece, encoding: str, unit: str, limit: int) -> Iterator[bytes | Broken]:
    """The bytes of each document, as UTF-8 where the file is wide; one beyond `limit` bytes as Broken with its head."""
    with _open(piece.path) as file:
        if piece.start:  # of unpacked files alone; a packed one cannot seek
            file.seek(piece.start)
        wide = io.TextIOWrapper(file, encoding, "replace", newline="\n") if encoding in WIDE else None
        lines: list[bytes] = []
        size, at = 0, piece.start
        while piece.stop is None or at < piece.stop:
            line = wide.readline(limit).encode("utf-8", "replace") if wide else file.readline(limit)
            at += len(line)
            end_of_document = (
                not line or unit == "line" or (unit == "blank-line" and not line.strip(b" \t\r\n"))
            )
            if not end_of_document or unit == "line":
                size += len(line)
                if size - len(line) < limit:  # what lies beyond is counted and let go
                    lines.append(line)
            if unit == "line" and line and not line.endswith(b"\n"):
                end_of_document = size < limit and len(line) < limit  # the last line, or a part of a long one
            if end_of_document and size:
                yield from _block(lines, size, limit, encoding)
                lines, size = [], 0
            if not line:
                return
        if size:
            yield from _block(lines, size, limit, encoding)


def _block(lines: list[bytes], size: int, limit: int, encoding: str) -> Iterator[bytes | Broken]:
    data = b"".join(lines)
    if size >= limit:
        head = data[: 4 * HEAD].decode("utf-8" if encoding in WIDE else encoding, "ignore")[:HEAD]
        yield Broken(f"too long to read:{head}")
    elif data.strip(b" \t\r\n"):
        yield data.rstrip(b"\r\n")


def _next_document(file: IO[bytes], offset: int, unit: Unit, kind: str) -> int:
    file.seek(offset - 1)
    file.readline()
    while unit == "blank-line" and kind not in (".jsonl", ".json"):
        line = file.readline()
        if not line.strip(b" \t\r\n"):
            break
    return file.tell()


def _kind(path: Path) -> str:
    return (path.with_suffix("") if path.suffix in PACKED else path).suffix.lower()


def _open(path: Path) -> IO[bytes]:
    return open_packed(path)[0]
