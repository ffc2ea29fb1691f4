"""Parses foreign JSON, with limits on what is accepted.

Python's parser takes NaN, keeps the last of two equal names, and ends a deeply nested text by RecursionError; what the
rest of the package is given is standard JSON, or an InputError.
"""

import json
import math
from pathlib import Path
from typing import Any

from zhllama.errors import InputError
from zhllama.io.files import read_whole

DEEPEST = 64  # levels of lists and objects; the deepest tokenizer.json known has 9
LARGEST = 1 << 28  # bytes of a JSON file that is read as a whole
AGAIN = "Fetch the file again"


class _Refused(ValueError):
    """A value that Python's parser would have taken."""


def parse_json(text: str | bytes, where: object, remedy: str = AGAIN, *, any_number: bool = False) -> Any:
    """The value of a JSON text.

    any_number: written by this program, whose figures may be NaN or infinite.
    Errors: InputError at `where` for text that is not UTF-8 or not JSON, for NaN, Infinity and numbers beyond a double,
    for integers of thousands of digits, a name that is given twice in one object, half a surrogate pair, and deep nesting.
    """
    try:
        value = parse_row(text, any_number=any_number)
        _refuse_surrogates(text, value)
        return value
    except ValueError as error:
        raise InputError(where, reason(error), remedy) from None


def parse_row(text: str | bytes, *, any_number: bool = False) -> Any:
    """The same for one row of many, whose text may hold half a surrogate pair: ValueError where it is refused."""
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    return checked_depth(text, _parsed(text, any_number))


def parse_member(text: str, at: int) -> tuple[Any, int]:
    """The value that begins at a place, and where it ends; ValueError where it is refused."""
    try:
        value, end = _FOREIGN.raw_decode(text, at)
    except RecursionError:
        raise _Refused(TOO_DEEP) from None
    return checked_depth(text[at:end], value), end


def reason(error: ValueError) -> str:
    """What is wrong with a text that `parse_row` refused, in our words."""
    if isinstance(error, _Refused):
        return str(error)
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 (byte {error.start:,})"
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON ({error})"
    return "holds an integer of thousands of digits"  # int() refuses to convert it


def read_json(path: Path, remedy: str = AGAIN, limit: int = LARGEST, *, any_number: bool = False) -> Any:
    """The value in a file; InputError as `parse_json`, and for a file that is missing, too large or not a regular one."""
    return parse_json(read_whole(path, limit), path, remedy, any_number=any_number)


def read_object(
    path: Path, remedy: str = "Mend the file, or remove it", limit: int = LARGEST, *, any_number: bool = False
) -> dict[str, Any]:
    """The JSON object in a file."""
    return as_object(read_json(path, remedy, limit, any_number=any_number), path, remedy)


def as_object(value: Any, where: object, remedy: str = AGAIN) -> dict[str, Any]:
    """A parsed value as the object that it must be."""
    if not isinstance(value, dict):
        raise InputError(where, "is not a JSON object ({...})", remedy)
    return value


def checked_depth(text: str, value: Any) -> Any:
    """The value, if it is not nested too deeply for code that walks over it; ValueError otherwise."""
    if text.count("[") + text.count("{") <= DEEPEST:  # not even strings could hold more levels than that
        return value
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise _Refused(TOO_DEEP)
        level = [
            part
            for held in level
            for part in (held.values() if isinstance(held, dict) else held if isinstance(held, list) else ())
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
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _Refused(f"names {twice[:40]!a} twice in one object")
    return made


def _constant(name: str) -> Any:
    raise _Refused(f"holds {name}, which is not JSON")


def _number(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _Refused(f"holds the number {digits[:20]}, which no double can hold")
    return number


_FOREIGN = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_number)
_LENIENT = json.JSONDecoder(object_pairs_hook=_object)
