"""Streams text from files, folders and globs: .txt, .jsonl, .parquet, also compressed."""

import glob
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Literal

from zhllama.errors import InputError
from zhllama.io.files import LONGEST_LINE, require_regular, unreadable
from zhllama.io.json import parse_row, reason
from zhllama.io.packed import PACKED, open_packed
from zhllama.io.parquet import Parquet
from zhllama.manifest import check_outputs
from zhllama.run_folder import CONFIG

FORMATS = (".txt", ".md", ".jsonl", ".json", ".parquet", ".tsv")
CHUNK = 1 << 20
# What a run of ours keeps of texts, conversations or tasks: documents, sharegpt's conversations, gen-zh's instructions.
KEPT = ("documents", "conversations.jsonl", "instructions.jsonl")
HalfPairs = Literal["refuse", "keep"]
HALF = re.compile("[\ud800-\udfff]")  # has no UTF-8
Advance = Callable[[int], None]  # told how many bytes of the file, as it lies on disk, were read
_longest = LONGEST_LINE


def limit_lines(most: int) -> None:
    """Set how many bytes one line may have, for this process."""
    global _longest
    _longest = most


def find_files(given: Sequence[str | Path], kept: Sequence[str] = KEPT) -> list[Path]:
    """Every text file that the given files, folders and globs name, sorted within each, none twice.

    Of a run of ours only the first of `kept` that it has is taken: neither what it rejected nor its journal is text.
    Errors: InputError for a name that matches nothing, and for an empty file.
    """
    found: dict[Path, None] = {}
    for name in given:
        path = Path(name).expanduser()
        if (path / CONFIG).is_file():
            check_outputs([path], *kept)
            path = next((path / own for own in kept if (path / own).exists()), path)
        else:
            check_outputs([path])
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and _format(p) is not None)
            if not inside:
                raise InputError(path, f"holds no text file ({', '.join(FORMATS)})", "Name another folder")
            found.update(dict.fromkeys(inside))
        elif path.exists():
            found[path] = None
        else:
            matches = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file())
            if not matches:
                raise InputError(path, "no such file", "Check the path")
            found.update(dict.fromkeys(matches))
    for path in found:
        if require_regular(path).st_size == 0:
            raise InputError(path, "is empty", "Name a file with text")
    return list(found)


def read_lines(
    paths: Iterable[Path],
    field: str = "text",
    advance: Advance | None = None,
    half_pairs: HalfPairs = "refuse",
) -> Iterator[str]:
    """The non-empty lines of all files in order, without their line ends; a record's text is split into its lines.

    `half_pairs`: half a surrogate pair in a record, which has no UTF-8, is an InputError or is passed on.
    """
    for path in paths:
        for document in _records(path, field, advance, half_pairs):
            yield from (line for line in document.splitlines() if line.strip())


def read_documents(
    paths: Iterable[Path], field: str = "text", advance: Advance | None = None
) -> Iterator[str]:
    """Whole documents: a record, or in plain text a run of lines up to a blank one, joined by newlines."""
    for path in paths:
        if _format(path) in (".jsonl", ".json", ".parquet"):
            yield from (d for d in _records(path, field, advance) if d.strip())
            continue
        lines: list[str] = []
        for line in _records(path, field, advance):
            if line.strip():
                lines.append(line)
            elif lines:
                yield "\n".join(lines)
                lines = []
        if lines:
            yield "\n".join(lines)


def _format(path: Path) -> str | None:
    """The text format that a name tells, `.txt` also for no ending at all; None for what is no text of ours."""
    name = path.with_suffix("") if path.suffix in PACKED else path
    return name.suffix if name.suffix in FORMATS else None


def _records(
    path: Path, field: str, advance: Advance | None, half_pairs: HalfPairs = "refuse"
) -> Iterator[str]:
    """Lines of plain text, blank ones included, or the records' texts."""
    kind = _format(path)
    if kind == ".parquet":
        yield from _parquet(path, field, advance)
    elif kind in (".jsonl", ".json"):
        for number, line in enumerate(decoded_lines(path, advance), 1):
            if line.strip():
                yield _field(path, number, line, field, half_pairs)
    else:
        yield from decoded_lines(path, advance)


def _field(path: Path, number: int, line: str, field: str, half_pairs: HalfPairs) -> str:
    try:
        record = parse_row(line)
    except ValueError as error:
        raise InputError(f"{path}:{number}", reason(error), "Give one JSON object a line") from error
    text = record.get(field) if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise InputError(
            f"{path}:{number}", f"has no text in the field {field!r}", "Name the field with --field"
        )
    if half_pairs == "refuse" and (half := HALF.search(text)):
        told = f"holds half a surrogate pair (U+{ord(half[0]):04X}) in the field {field!r}"
        raise InputError(f"{path}:{number}", told, "Mend this row")
    return text


def _parquet(path: Path, field: str, advance: Advance | None) -> Iterator[str]:
    file = Parquet(path)
    file.require_text(field)
    a_row = require_regular(path).st_size / max(1, file.rows)
    for records in file.batches([field]):
        yield from (record[field] for record in records if record[field] is not None)
        if advance is not None:
            advance(round(len(records) * a_row))


def decoded_lines(path: Path, advance: Advance | None = None) -> Iterator[str]:
    """The lines of a packed or plain file without their ends, a chunk at a time.

    Errors: InputError names the line that is not UTF-8, or longer than `--max-line-bytes`, and what is not a regular file.
    """
    number, told = 1, 0
    file, raw = open_packed(path)
    with file:
        parts: list[bytes] = []  # of a line whose end has not come yet
        size = 0
        while True:
            chunk = _read(path, file)
            if advance is not None:
                advance(raw.tell() - told)
                told = raw.tell()
            cut = chunk.rfind(b"\n") + 1 if chunk else 0
            if chunk and not cut:
                parts.append(chunk)
                size += len(chunk)
                _refuse_longer(path, number, size)
                continue
            block = b"".join((*parts, chunk[:cut]))
            parts, size = [chunk[cut:]], len(chunk) - cut
            if block:
                text = _decode(path, number, block)
                lines = text.split("\n")
                if block.endswith(b"\n"):
                    lines.pop()
                if len(block) > _longest:
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
    if size > _longest:
        told = f"is a line of more than {_longest:,} bytes"
        raise InputError(f"{path}:{number}", told, "Cut it into lines, or raise --max-line-bytes")


def _decode(path: Path, number: int, block: bytes) -> str:
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError as error:
        line = number + block.count(b"\n", 0, error.start)
        known = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}.get(block[:2]) if number == 1 else None
        remedy = "Convert it first, e.g. iconv -f GB18030 -t UTF-8, or zhllama corpus clean"
        raise InputError(
            f"{path}:{line}", f"is not UTF-8{f' but {known}' if known else ''}", remedy
        ) from None
    return text.removeprefix("\ufeff") if number == 1 else text
