"""Reads rows with their line numbers: JSON objects, one per line or indented, a JSON list, CSV, Parquet, or Arrow."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from json import JSONDecodeError
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from zhllama.errors import InputError
from zhllama.io.column_files import SUFFIXES as COLUMNS
from zhllama.io.column_files import ColumnFile
from zhllama.io.files import require_regular
from zhllama.io.json import parse_member, parse_row, reason
from zhllama.io.text import Advance, decoded_lines, text_format

Row = TypeVar("Row", bound=BaseModel)
MEND = "Correct this row"
INDENTED = 10_000  # lines of one indented object
FIRST = 20  # lines, of which at least one must look like JSON
LARGEST = 2 << 30  # characters of a JSON list, which is read into memory; lines are streamed


@dataclass(frozen=True)
class NotJson:
    """Replaces a row that cannot be parsed."""

    reason: str


def read_rows(path: Path, advance: Advance | None = None) -> Iterator[tuple[int, Any]]:
    """Every row with the number of the line on which it begins, from a plain or compressed file.

    Lines are streamed; the text of a list is read into memory.
    Errors: InputError names the line that is not JSON.
    """
    for number, row in read_rows_or_faults(path, advance):
        if isinstance(row, NotJson):
            raise InputError(f"{path}:{number}", row.reason, "Give one JSON object a line")
        yield number, row


def read_rows_or_faults(path: Path, advance: Advance | None = None) -> Iterator[tuple[int, Any]]:
    """Every row with its line number as in `read_rows`, but NotJson for a line that is not JSON.

    Rows of Parquet and Arrow are numbered from 1; those of CSV are objects of text by the first line's names, without empty cells.
    Errors: InputError for a file that cannot be read, a file of prose, and a broken list, which cannot be parsed any further.
    """
    size = require_regular(path).st_size
    kind = text_format(path)
    if kind in COLUMNS:
        yield from _column_rows(path, size, advance)
        return
    if kind in (".csv", ".tsv"):
        yield from _table_rows(path, "," if kind == ".csv" else "\t", advance)
        return
    lines = enumerate(decoded_lines(path, advance), 1)
    begin, first = next(((n, line) for n, line in lines if line.strip()), (0, ""))
    if first.lstrip().startswith("["):
        text = "\n".join(_limited(path, chain([first], (line for _, line in lines))))
        yield from _members(path, text, begin)
        return
    yield from _objects(_not_prose(path, chain([(begin, first)], lines)))


def _not_prose(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """The same lines, without empty ones at first. Errors: InputError where none of the FIRST looks like JSON."""
    before: list[tuple[int, str]] = []
    for number, line in lines:
        if not line.strip():
            continue
        before.append((number, line))
        if line.lstrip().startswith(("{", "}")) or not isinstance(_row_or_fault(line), NotJson):
            break
        if len(before) == FIRST:
            message = f"contains no rows: none of its first {FIRST} lines is JSON"
            raise InputError(path, message, "Give JSON lines, a JSON list, .csv or .parquet")
    yield from chain(before, lines)


def _column_rows(path: Path, size: int, advance: Advance | None) -> Iterator[tuple[int, Any]]:
    file = ColumnFile(path)
    number = 0
    for records in file.batches(tuple(file.names)):
        for record in records:
            number += 1
            yield number, record
        if advance is not None:
            advance(round(len(records) * size / max(1, file.rows)))


def _table_rows(path: Path, delimiter: str, advance: Advance | None) -> Iterator[tuple[int, Any]]:
    csv.field_size_limit(LARGEST)
    lines = (f"{line}\n" for line in decoded_lines(path, advance))
    table = csv.DictReader(lines, delimiter=delimiter, strict=True)
    before = 1
    try:
        names = table.fieldnames or []
        if len(set(names)) < len(names):
            raise InputError(f"{path}:1", "names a column twice", "Rename one of them")
        before = table.line_num
        for row in table:
            number, before = before + 1, table.line_num
            if None in row or None in row.values():
                yield number, NotJson(f"does not have {len(names)} cells as the first line does")
            else:
                yield number, {name: cell for name, cell in row.items() if cell.strip()}
    except csv.Error as error:
        raise InputError(f"{path}:{before + 1}", f"is not CSV ({error})", "Write the table again") from None


def _objects(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, Any]]:
    """The row of each line; an object whose lines are indented is one row."""
    current = next(lines, None)
    while current is not None:
        (number, line), current = current, None
        row = _row_or_fault(line) if line.strip() else None
        if isinstance(row, NotJson) and line.startswith("{"):
            group, current = _indented(line, lines)
            whole = _row_or_fault("\n".join(group)) if len(group) > 1 else row
            if isinstance(whole, NotJson):
                rest = [(n, other) for n, other in enumerate(group[1:], number + 1) if other.strip()]
                yield number, row
                yield from ((n, _row_or_fault(other)) for n, other in rest)
            else:
                yield number, whole
        elif line.strip():
            yield number, row
        if current is None:
            current = next(lines, None)


def _indented(first: str, lines: Iterator[tuple[int, str]]) -> tuple[list[str], tuple[int, str] | None]:
    """The lines of an object up to its closing brace at the margin, and the line after them if it was read."""
    group = [first]
    for number, line in lines:
        if line.strip() and line[0] not in " \t}":
            return group, (number, line)
        group.append(line)
        if line.startswith("}") or len(group) > INDENTED:
            break
    return group, None


def _limited(path: Path, lines: Iterator[str]) -> Iterator[str]:
    """The lines of a JSON list. Errors: InputError for more than LARGEST characters."""
    size = 0
    for line in lines:
        size += len(line) + 1
        if size > LARGEST:
            message = f"is a JSON list of more than {LARGEST:,} characters"
            raise InputError(path, message, "Write one JSON object a line, which is streamed")
        yield line


def _row_or_fault(line: str) -> Any:
    try:
        return parse_row(line)
    except ValueError as error:
        return NotJson(reason(error))


def _members(path: Path, text: str, line: int) -> Iterator[tuple[int, Any]]:
    """The members of the list in `text`, decoded one at a time."""
    counted = 0  # index up to which line ends are counted

    def broken(at: int, message: str) -> InputError:
        where = f"{path}:{line + text.count(chr(10), counted, at)}"
        return InputError(where, message, "Give a JSON list, or one object a line")

    at = _skip(text, text.index("[") + 1)
    while text[at : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        try:
            member, at = parse_member(text, at)
        except JSONDecodeError as error:
            raise broken(error.pos, f"is not JSON ({error.msg})") from error
        except ValueError as error:
            raise broken(at, reason(error)) from error
        yield line, member
        at = _skip(text, at)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] != "]":
            detail = "the list ends too early" if at >= len(text) else "a comma is missing"
            raise broken(at, f"is not JSON ({detail})")
    end = _skip(text, at + 1)
    if end < len(text):
        raise broken(end, "is not JSON (more text after the list)")


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\n", "\r", "\t") and at < len(text):
        at += 1
    return at


def checked(kind: type[Row], row: Any, where: str) -> Row:
    """The row as `kind`. Errors: InputError names the invalid field."""
    try:
        return kind.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "row"
        message = "contains a lone surrogate" if first["type"] == "string_unicode" else first["msg"].lower()
        raise InputError(where, f"{field}: {message}", MEND) from None
