"""Reads a word list in any common form: one word per line, with counts, tags or a header, as CSV, or as jieba's user dictionary."""

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from zhllama.characters import chinese

ALL_BUT_A_FEW = 0.95  # of the lines have to fit a format
FEW_LINES, MANY = 3, 8  # so few lines of so many parts are words in one line
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)*(?:[eE][+-]?\d+)?%?")
# word, then a count, a part of speech, or both, as in jieba's dictionaries: 云计算 5, 凱特琳 nz, 李小福 2 nr
_SPACED = re.compile(r"(\S.*?)[ \u3000]+(?:\d+(?:\.\d+)?(?:[ \u3000]+[A-Za-z]{1,5}\d?)?|[a-z]{1,4})")
_SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons"}
# A mark or a number before each word: "- 合同", "1. 合同", "（2）合同", and "1000 合同" as `uniq -c` writes it.
_BEFORE = re.compile(r"(?:[-*•·●]|[(（]?\d+(?:[.、．)）]|(?=[ \t])))[ \t]*(?=\S)")
# A count or a part of speech behind it: 合同:15, 合同|15, 合同，15, 合同/n.
_BEHIND = re.compile(r"[ \t]*(?:[|:：，；][ \t]*[+-]?\d+(?:[.,]\d+)*%?|/[A-Za-z]{1,5})")
_IN_ONE_LINE = re.compile(r"[ \t\u3000]*[,，、;；|][ \t\u3000]*|[ \t\u3000]+")


@dataclass(frozen=True)
class WordTable:
    """The words of a list in its order, and how the list was read."""

    words: tuple[str, ...]
    reading: str


def read_words(lines: Iterable[str]) -> WordTable:
    """The words of a list; its columns are found over all lines, which are not empty."""
    lines = [line.strip("\r\n\ufeff ") for line in lines]
    lines = [line for line in lines if line]
    if 0 < len(lines) <= FEW_LINES and all(len(_IN_ONE_LINE.split(line)) >= MANY for line in lines):
        words = (word for line in lines for word in _IN_ONE_LINE.split(line))
        return WordTable(tuple(filter(None, words)), "words in one line, with spaces or marks between them")
    # A line of a European CSV has semicolons between its cells and commas in its numbers.
    order = sorted(_SEPARATORS.items(), key=lambda one: one[0] == "," and _numbers_have_commas(lines))
    for separator, name in order:
        rows = [_cells(line, separator) for line in lines]
        width = _usual_width(rows)
        if width > 1:
            return _from_columns([row for row in rows if len(row) >= 2], width, name)
    if (found := _without(lines, _BEFORE, True)) is not None:
        return WordTable(read_words(found).words, "a word a line, after a number or a mark")
    spaced = [_SPACED.fullmatch(line) for line in lines]
    whole = [match[1] if match else line for match, line in zip(spaced, lines, strict=True)]
    fits = sum(bool(match) or " " not in line for match, line in zip(spaced, lines, strict=True))
    counted = sum(map(bool, spaced))
    # With counts on a third of the lines at least: 苹果 15 in a list of product names is a word.
    if lines and fits >= ALL_BUT_A_FEW * len(lines) and counted * 3 >= len(lines):
        return WordTable(tuple(word.strip() for word in whole), "word, count or tag, separated by spaces")
    for found, name in (
        (_without(lines, _BEFORE, True), "after"),
        (_without(lines, _BEHIND, False), "before"),
    ):
        if found is not None:
            return WordTable(read_words(found).words, f"a word a line, {name} a number or a mark")
    return WordTable(tuple(lines), "a word a line")


def _numbers_have_commas(lines: Sequence[str]) -> bool:
    """Whether nearly every line has a semicolon before its first comma."""
    return _share(lines, lambda line: ";" in line.partition(",")[0]) >= ALL_BUT_A_FEW


def _without(lines: Sequence[str], mark: re.Pattern[str], first: bool) -> list[str] | None:
    """The lines without a mark before or behind a word, where nearly all have one and a word with Chinese remains."""

    def remaining(line: str) -> str | None:
        found = (
            mark.match(line)
            if first
            else next((m for m in mark.finditer(line) if m.end() == len(line)), None)
        )
        rest = None if found is None else line[found.end() :] if first else line[: found.start()]
        return rest if rest and chinese.search(rest) else None

    if len(lines) < FEW_LINES or _share(lines, lambda line: remaining(line) is not None) < ALL_BUT_A_FEW:
        return None
    return [remaining(line) or line for line in lines]


def _share(lines: Sequence[str], fits: Callable[[str], bool]) -> float:
    return sum(map(fits, lines)) / len(lines) if lines else 0.0


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
