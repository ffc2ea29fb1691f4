"""Parses foreign JSON strictly: standard JSON or an InputError.

Python's own parser accepts NaN, keeps the last of two equal names, and raises RecursionError for deep nesting.
"""

import json
import math
from pathlib import Path
from typing import Any

from zhllama.errors import InputError
from zhllama.io.files import read_whole

DEEPEST = 64  # levels of lists and objects; the deepest known tokenizer.json has 9
LARGEST = 1 << 28  # bytes of a JSON file that is read as a whole
AGAIN = "Download the file again"


class _Refused(ValueError):
    """A value that Python's parser would accept."""


def parse_json(text: str | bytes, where: object, remedy: str = AGAIN, *, any_number: bool = False) -> Any:
    """The value of a JSON text.

    any_number: allow NaN and infinity, which this program writes into its own files.
    Errors: InputError at `where` for text that is not UTF-8 or not JSON, NaN, Infinity, numbers beyond a double,
    integers of thousands of digits, a duplicate name in one object, a lone surrogate, and deep nesting.
    """
    try:
        value = parse_row(text, any_number=any_number)
        _refuse_surrogates(text, value)
        return value
    except ValueError as error:
        raise InputError(where, reason(error), remedy) from None


def parse_row(text: str | bytes, *, any_number: bool = False) -> Any:
    """The value of one row of many, which may contain lone surrogates. Errors: ValueError (see `reason`)."""
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    return checked_depth(text, _parsed(text, any_number))


def parse_member(text: str, at: int) -> tuple[Any, int]:
    """The value that begins at index `at`, and the index of its end. Errors: ValueError (see `reason`)."""
    try:
        value, end = _FOREIGN.raw_decode(text, at)
    except RecursionError:
        raise _Refused(TOO_DEEP) from None
    return checked_depth(text[at:end], value), end


def reason(error: ValueError) -> str:
    """The error message for a text that `parse_row` refused."""
    if isinstance(error, _Refused):
        return str(error)
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 (byte {error.start:,})"
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON ({error})"
    return "contains an integer of thousands of digits"  # int() refuses to convert it


def read_json(path: Path, remedy: str = AGAIN, limit: int = LARGEST, *, any_number: bool = False) -> Any:
    """The value in a file. Errors: InputError as in `parse_json`, and for a missing, too large or irregular file."""
    return parse_json(read_whole(path, limit), path, remedy, any_number=any_number)


def read_object(
    path: Path,
    remedy: str = "Correct the file, or remove it",
    limit: int = LARGEST,
    *,
    any_number: bool = False,
) -> dict[str, Any]:
    """The JSON object in a file."""
    return as_object(read_json(path, remedy, limit, any_number=any_number), path, remedy)


def as_object(value: Any, where: object, remedy: str = AGAIN) -> dict[str, Any]:
    """A parsed value, checked to be an object. Errors: InputError."""
    if not isinstance(value, dict):
        raise InputError(where, "is not a JSON object ({...})", remedy)
    return value


def checked_depth(text: str, value: Any) -> Any:
    """The value, if it is not nested too deeply for recursive code. Errors: ValueError."""
    if text.count("[") + text.count("{") <= DEEPEST:  # too few brackets for more levels
        return value
    level, depth = [value] if isinstance(value, dict | list) else [], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise _Refused(TOO_DEEP)
        level = [
            part
            for container in level
            for part in (container.values() if isinstance(container, dict) else container)
            if isinstance(part, dict | list)
        ]
    return value


TOO_DEEP = "is not JSON (nested too deeply)"


def _parsed(text: str, any_number: bool) -> Any:
    try:
        return (_LENIENT if any_number else _FOREIGN).decode(text)
    except RecursionError:
        raise _Refused(TOO_DEEP) from None


def _refuse_surrogates(text: str | bytes, value: Any) -> None:
    marks = (b"\\ud", b"\\uD") if isinstance(text, bytes) else ("\\ud", "\\uD")
    if any(mark in text for mark in marks):  # type: ignore[operator]
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise _Refused("contains a lone surrogate") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        duplicate = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _Refused(f"names {duplicate[:40]!a} twice in one object")
    return value


def _constant(name: str) -> Any:
    raise _Refused(f"contains {name}, which is not JSON")


def _number(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _Refused(f"contains the number {digits[:20]}, which exceeds a double")
    return number


_FOREIGN = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_number)
_LENIENT = json.JSONDecoder(object_pairs_hook=_object)
