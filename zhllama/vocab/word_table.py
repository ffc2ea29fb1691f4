"""Reads a word list in any common form: one word per line, with counts, tags or a header, as CSV, or as jieba's user dictionary."""

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from zhllama.characters import chinese

ALL_BUT_A_FEW = 0.95  # of the lines have to fit a format
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)*(?:[eE][+-]?\d+)?%?")
# word, then a count, a part of speech, or both, as in jieba's dictionaries: 云计算 5, 凱特琳 nz, 李小福 2 nr
_SPACED = re.compile(r"(\S.*?)[ \u3000]+(?:\d+(?:\.\d+)?(?:[ \u3000]+[A-Za-z]{1,5}\d?)?|[a-z]{1,4})")
_SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons"}


@dataclass(frozen=True)
class WordTable:
    """The words of a list in its order, and how the list was read."""

    words: tuple[str, ...]
    reading: str


def read_words(lines: Iterable[str]) -> WordTable:
    """The words of a list; its columns are found over all lines, which are not empty."""
    lines = [line.strip("\r\n\ufeff ") for line in lines]
    lines = [line for line in lines if line]
    for separator, name in _SEPARATORS.items():
        rows = [_cells(line, separator) for line in lines]
        width = _usual_width(rows)
        if width > 1:
            return _from_columns([row for row in rows if len(row) >= 2], width, name)
    spaced = [_SPACED.fullmatch(line) for line in lines]
    whole = [match[1] if match else line for match, line in zip(spaced, lines, strict=True)]
    fits = sum(bool(match) or " " not in line for match, line in zip(spaced, lines, strict=True))
    counted = sum(map(bool, spaced))
    # With counts on a third of the lines at least: 苹果 15 in a list of product names is a word.
    if lines and fits >= ALL_BUT_A_FEW * len(lines) and counted * 3 >= len(lines):
        return WordTable(tuple(word.strip() for word in whole), "word, count or tag, separated by spaces")
    return WordTable(tuple(lines), "a word a line")


def _cells(line: str, separator: str) -> list[str]:
    if separator == "\t":
        return [cell.strip() for cell in line.split("\t")]
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator))]


def _usual_width(rows: Sequence[Sequence[str]]) -> int:
    """How many columns nearly all rows have at least, 1 where there are no columns."""
    widths = sorted(len(row) for row in rows)
    return widths[int(len(widths) * (1 - ALL_BUT_A_FEW))] if widths else 1


def _from_columns(rows: Sequence[Sequence[str]], width: int, separator: str) -> WordTable:
    """The column with the most Chinese cells, the first of equal ones, without the header."""
    columns = [[row[i] if i < len(row) else "" for row in rows] for i in range(width)]
    with_chinese = [sum(chinese.search(cell) is not None for cell in column) for column in columns]
    chosen = with_chinese.index(max(with_chinese))
    if not any(with_chinese):  # then the first column that is not numbers
        chosen = next((i for i, column in enumerate(columns) if not _numeric(column[1:])), 0)
    numeric = [i for i in range(width) if i != chosen and _numeric(columns[i][1:])]
    first = rows[0]
    titled = any(i < len(first) and not _NUMBER.fullmatch(first[i]) for i in numeric)
    others = with_chinese[chosen] - bool(chinese.search(first[chosen]))
    titled |= not chinese.search(first[chosen]) and others >= ALL_BUT_A_FEW * (len(rows) - 1) > 0
    words = tuple(cell for cell in columns[chosen][titled:] if cell)
    header = f", with the header {first[chosen]!r}" if titled else ""
    return WordTable(words, f"column {chosen + 1} of {width}, separated by {separator}{header}")


def _numeric(cells: Sequence[str]) -> bool:
    """Whether nearly all cells are numbers."""
    return bool(cells) and sum(bool(_NUMBER.fullmatch(cell)) for cell in cells) >= ALL_BUT_A_FEW * len(cells)
