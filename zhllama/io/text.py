"""Reads text from files, folders and globs as a stream of lines or documents: .txt, .jsonl, .parquet, also compressed.

Every command reads text through this module. `corpus clean` shares its file search, formats, records and document
boundaries (zhllama/corpus/documents.py), but decodes each document by itself: there every document may have another
encoding, and an unreadable one is rejected with a reason. Here one bad line ends the command with its line number.

Not on fsspec: inputs are local regular files whose hashes go into the manifest, and a stream of fsspec neither refuses a
pipe or device nor locates damage in compressed data. Remote text comes in through `corpus fetch`, where `datasets` uses it.
"""

import glob
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO, AnyStr, Literal

from zhllama.errors import InputError, MissingPackage
from zhllama.io.column_files import SUFFIXES as COLUMNS
from zhllama.io.column_files import ColumnFile
from zhllama.io.files import LONGEST_LINE, require_regular, unreadable
from zhllama.io.json import parse_row, reason
from zhllama.io.packed import PACKED, open_packed
from zhllama.io.records import text_of
from zhllama.io.saved_datasets import describes_dataset, saved_dataset_files
from zhllama.manifest import check_outputs
from zhllama.run_folder import CONFIG, MANIFEST

FORMATS = (".txt", ".md", ".jsonl", ".json", ".parquet", ".arrow", ".tsv")
RECORDS = (".jsonl", ".json", ".parquet", ".arrow")  # each record is a document
READERS = {
    ".parquet": "pyarrow",
    ".arrow": "pyarrow",
    ".zst": "zstandard",
}  # packages of an extra that read a format
# What people take for text, by how the file begins.
NO_TEXT = {
    b"PK\x03\x04": "a ZIP archive, such as .zip, .docx, .xlsx and .epub",
    b"%PDF-": "a PDF",
    b"\xd0\xcf\x11\xe0": "an old Office document, such as .doc and .xls",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
}
CHUNK = 1 << 20
# Plain text without blank lines is split at the first line end after this many bytes, so that a document fits in memory.
# The longest document of the project's own data, a novel, has 3.2 MB.
DOCUMENT_BYTES = 1 << 22
# The texts, conversations or tasks in a run folder: of corpus, sharegpt, gen-zh and review.
TEXT_OUTPUTS = ("documents", "conversations.jsonl", "instructions.jsonl", "reviewed.jsonl")
LoneSurrogates = Literal["refuse", "keep"]
LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # not encodable as UTF-8
Advance = Callable[[int], None]  # called with the number of bytes read since the last call, as stored on disk
_line_limit = LONGEST_LINE
_log = logging.getLogger(__name__)


def limit_lines(limit: int) -> None:
    """Set the maximum bytes of one line, for this process."""
    global _line_limit
    _line_limit = limit


def find_files(
    names: Sequence[str | Path],
    outputs: Sequence[str] = TEXT_OUTPUTS,
    *,
    formats: Sequence[str] = FORMATS,
    every_file: bool = False,
) -> list[Path]:
    """The files that the given files, folders and globs name, sorted within each, without duplicates.

    From a run folder, only the first of `outputs` that exists is used: rejects and the journal are not text. Of a folder that
    `datasets` saved, its Arrow files.
    formats: suffixes of the files that are taken from a folder.
    every_file: for `corpus clean`, which reports what it cannot read: every visible file in a folder, whatever its name
    and even if it is empty, but no unfinished run.
    Errors: InputError for a name that matches nothing, for a file name that is not UTF-8, and for an empty file.
    """
    files: dict[Path, None] = {}
    for name in names:
        path = Path(name).expanduser()
        try:
            is_run = (path / CONFIG).is_file()
        except PermissionError as error:
            raise InputError(path, "cannot be read", "Check its permissions") from error
        if is_run:
            path = _run_output(path, outputs, every_file)
        else:
            check_outputs([path])
        if path.is_dir() and (saved := saved_dataset_files(path)) is not None:
            files.update(dict.fromkeys(saved))
        elif path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and _is_wanted(p, formats, every_file))
            if not inside:
                kinds = "" if every_file else f"text file ({', '.join(formats)})"
                raise InputError(path, f"contains no {kinds or 'file'}", "Name another folder")
            files.update(dict.fromkeys(inside))
        elif path.exists():
            files[path] = None
        else:
            matches = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file())
            if not matches:
                raise InputError(path, "no such file", "Check the path")
            files.update(dict.fromkeys(matches))
    for path in files:
        if os.fsencode(path).decode("utf-8", "replace") != str(path):
            raise InputError(ascii(str(path)), "has a name that is not UTF-8", "Rename it")
        if require_regular(path).st_size == 0 and not every_file:
            raise InputError(path, "is empty", "Name a file with text")
        if not os.access(path, os.R_OK):
            raise InputError(path, "cannot be read", "Check its permissions")
    for ending, package in READERS.items():
        if (first := next((p for p in files if p.suffix == ending), None)) and find_spec(package) is None:
            raise MissingPackage(str(first), package, "corpus")
    return list(files)


def _run_output(run: Path, outputs: Sequence[str], finished: bool) -> Path:
    if finished and not (run / MANIFEST).exists():
        raise InputError(run, "is an unfinished run", "Finish it with `resume`")
    check_outputs([run], *outputs)
    return next((run / name for name in outputs if (run / name).exists()), run)


def _is_wanted(path: Path, formats: Sequence[str], every_file: bool) -> bool:
    if describes_dataset(path):
        return False
    return not path.name.startswith(".") if every_file else text_format(path) in formats


def text_format(path: Path) -> str:
    """The suffix that decides how a file is read, in lower case and without that of compression: `.jsonl` for a.jsonl.gz."""
    return (path.with_suffix("") if path.suffix in PACKED else path).suffix.lower()


def read_lines(
    paths: Iterable[Path],
    field: str = "text",
    advance: Advance | None = None,
    lone_surrogates: LoneSurrogates = "refuse",
) -> Iterator[str]:
    """The non-empty lines of all files in order, without their line ends; a record's text is split into its lines.

    lone_surrogates: a lone surrogate in a record, which has no UTF-8, raises InputError or is passed on.
    """
    for path in paths:
        for text in _lines_or_records(path, field, advance, lone_surrogates):
            yield from (line for line in text.splitlines() if line.strip())


def read_documents(
    paths: Iterable[Path], field: str = "text", advance: Advance | None = None
) -> Iterator[str]:
    """Whole documents: a record, or in plain text the lines up to a blank line, joined by newlines.

    Plain text without blank lines is split at a line end after DOCUMENT_BYTES, which is logged once per file.
    """
    for path in paths:
        if text_format(path) in RECORDS:
            yield from (text for text in _lines_or_records(path, field, advance) if text.strip())
            continue
        splits = 0
        for lines, continues in split_documents(decoded_lines(path, advance)):
            splits += continues
            yield "\n".join(lines)
        if splits:
            _log.warning(
                "%s: split %s times at line ends, after %s bytes without a blank line",
                path, f"{splits:,}", f"{DOCUMENT_BYTES:,}",
            )  # fmt: skip


def split_documents(lines: Iterable[AnyStr]) -> Iterator[tuple[list[AnyStr], bool]]:
    """The lines of each document of plain text, and whether it was cut: its text continues in the next document.

    A document ends at a blank line, which belongs to none, or at the first line end after DOCUMENT_BYTES.
    """
    document: list[AnyStr] = []
    size = 0
    for line in lines:
        blank = not line.strip()
        if document and (blank or size >= DOCUMENT_BYTES):
            yield document, not blank
            document, size = [], 0
        if not blank:
            document.append(line)
            size += len(line) if isinstance(line, bytes) or line.isascii() else len(line.encode())
    if document:
        yield document, False


def _lines_or_records(
    path: Path, field: str, advance: Advance | None, lone_surrogates: LoneSurrogates = "refuse"
) -> Iterator[str]:
    """The lines of plain text, including blank ones, or the texts of the records."""
    kind = text_format(path)
    if kind in COLUMNS:
        yield from _column_texts(path, field, advance)
    elif kind in RECORDS:
        for number, line in enumerate(decoded_lines(path, advance), 1):
            if line.strip():
                yield _record(path, number, line, field, lone_surrogates)
    else:
        yield from decoded_lines(path, advance)


def _record(path: Path, number: int, line: str, field: str, lone_surrogates: LoneSurrogates) -> str:
    try:
        record = parse_row(line)
    except ValueError as error:
        raise InputError(f"{path}:{number}", reason(error), "Give one JSON object a line") from error
    text = text_of(record, (field,)) if isinstance(record, dict) else None
    if text is None:
        raise InputError(
            f"{path}:{number}", f"has no text in the field {field!r}", "Name the field with `field`"
        )
    if lone_surrogates == "refuse" and (lone := LONE_SURROGATE.search(text)):
        message = f"contains a lone surrogate (U+{ord(lone[0]):04X}) in the field {field!r}"
        raise InputError(f"{path}:{number}", message, "Correct this row")
    return text


def _column_texts(path: Path, field: str, advance: Advance | None) -> Iterator[str]:
    file = ColumnFile(path)
    file.require_text(field)
    bytes_per_row = require_regular(path).st_size / max(1, file.rows)
    for records in file.batches((field,)):
        yield from (text for record in records if (text := text_of(record, (field,))) is not None)
        if advance is not None:
            advance(round(len(records) * bytes_per_row))


def decoded_lines(path: Path, advance: Advance | None = None) -> Iterator[str]:
    """The lines of a compressed or plain file, decoded by chunks, without their line ends.

    Errors: InputError for a file that is not regular, and for a line that is not UTF-8 or longer than `--max-line-bytes`.
    """
    number, reported = 1, 0
    file, raw = open_packed(path)
    with file:
        parts: list[bytes] = []  # of a line whose end was not read yet
        size = 0
        while True:
            chunk = _read(path, file)
            if advance is not None:
                advance(raw.tell() - reported)
                reported = raw.tell()
            end = chunk.rfind(b"\n") + 1 if chunk else 0
            if chunk and not end:
                parts.append(chunk)
                size += len(chunk)
                _refuse_longer(path, number, size)
                continue
            block = b"".join((*parts, chunk[:end]))
            parts, size = [chunk[end:]], len(chunk) - end
            if block:
                text = _decode(path, number, block)
                lines = text.split("\n")
                if block.endswith(b"\n"):
                    lines.pop()
                if len(block) > _line_limit:
                    for at, line in enumerate(lines, number):
                        _refuse_longer(path, at, len(line.encode()))
                number += len(lines)
                yield from (line.removesuffix("\r") for line in lines)
            if not chunk:
                return


def _read(path: Path, file: IO[bytes]) -> bytes:
    try:
        return file.read(CHUNK)
    except OSError as error:
        raise unreadable(path, error) from error


def _refuse_longer(path: Path, number: int, size: int) -> None:
    if size > _line_limit:
        message = f"is a line of more than {_line_limit:,} bytes"
        raise InputError(f"{path}:{number}", message, "Split it into lines, or raise `max_line_bytes`")


def _no_text(path: Path) -> str | None:
    """The kind of a file that contains text but is none, by how it begins."""
    with path.open("rb") as file:
        begin = file.read(8)
    return next((kind for mark, kind in NO_TEXT.items() if begin.startswith(mark)), None)


def _decode(path: Path, number: int, block: bytes) -> str:
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError as error:
        if kind := _no_text(path):
            raise InputError(path, f"is no text but {kind}", "Take the text out of it first") from None
        line = number + block.count(b"\n", 0, error.start)
        is_utf16 = number == 1 and block[:2] in (b"\xff\xfe", b"\xfe\xff")
        message = "is not UTF-8 but UTF-16" if is_utf16 else "is not UTF-8"
        encoding = "UTF-16" if is_utf16 else "GB18030"
        remedy = f"Convert it first, e.g. iconv -f {encoding} -t UTF-8, or zhllama corpus clean"
        raise InputError(f"{path}:{line}", message, remedy) from None
    return text.removeprefix("\ufeff") if number == 1 else text
