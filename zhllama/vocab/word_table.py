"""Reads a word list in any common form: one word per line, with counts, tags or a header, as CSV, or as jieba's user dictionary."""

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from zhllama.characters import ascii_word, chinese, han
from zhllama.errors import InputError
from zhllama.io.json import parse_json

ALL_BUT_A_FEW = 0.95  # of the lines have to fit a format
LONG = 1000  # characters of a line that is no entry of a dictionary
FEW_LINES, MANY = 3, 8  # so few lines of so many parts are words in one line
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)*(?:[eE][+-]?\d+)?%?")
# word, then a count, a part of speech, or both, as in jieba's dictionaries: 云计算 5, 凱特琳 nz, 李小福 2 nr
_SPACED = re.compile(r"(\S.*?)[ \u3000]+(?:\d+(?:\.\d+)?(?:[ \u3000]+[A-Za-z]{1,5}\d?)?|[a-z]{1,4})")
# One word of that form: a count or tag is no gloss.
_SPACED_ALONE = re.compile(r"\S+[ \u3000]+(?:\d+(?:\.\d+)?(?:[ \u3000]+[A-Za-z]{1,5}\d?)?|[a-z]{1,4})")
_SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "vertical bars"}
# A mark or a number before each word: "- 合同", "1. 合同", "（2）合同", and "1000 合同" as `uniq -c` writes it.
_BEFORE = re.compile(r"(?:[-*•·●]|[(（]?\d+(?:[.、．)）]|(?=[ \t])))[ \t]*(?=\S)")
# A count or a part of speech behind it: 合同:15, 合同=15, 合同|15, 合同，15, 合同/n.
_BEHIND = re.compile(r"[ \t]*(?:[|:：=，；][ \t]*[+-]?\d+(?:[.,]\d+)*%?|/[A-Za-z]{1,5})")
# The two scripts of CC-CEDICT: 合約 合约 [he2 yue1] /contract/.
_CEDICT = re.compile(r"(\S+) (\S+) \[[^]]*\] /.*")
# A count in another form than the list has: a few lines of each list may differ from it.
_COUNT_BEHIND = re.compile(r"[\t,;:|=，；：][\s▁]*\d[\d.,]*%?\Z")
_RULE = re.compile(r"[-\s|:+=]*|[][{}()],?")  # of a table, or the brackets around a list
_COMMENT = re.compile(r"[ \t]#[ \t].*")
_QUOTED = re.compile("""[\\[{(]*(["'“‘`])(.+)["'”’`][])},;]*""")
_IN_ONE_LINE = re.compile(r"[ \t\u3000]*[,，、;；|][ \t\u3000]*|[ \t\u3000]+")


@dataclass(frozen=True)
class WordTable:
    """The words of a list in its order, and how the list was read."""

    words: tuple[str, ...]
    reading: str


def read_words(lines: Iterable[str]) -> WordTable:
    """The words of a list; its columns are found over all lines. Comments (#), rules of tables and quotes are removed."""
    table = _read(_without_comments(line.strip("\r\n\ufeff ") for line in lines))
    quoted = [_QUOTED.fullmatch(word) for word in table.words]
    if sum(map(bool, quoted)) < ALL_BUT_A_FEW * len(quoted) or not quoted:
        return table
    words = (match[2] if match else word for match, word in zip(quoted, table.words, strict=True))
    return replace(table, words=tuple(words), reading=f"{table.reading}, in quotes")


def why_not_text(word: str, mixed: bool) -> str | None:
    """Why a word of a list is not Chinese text alone, or None; `mixed` admits letters and digits beside a Han character."""
    if ascii_word.search(word) and not (mixed and han.search(word)):
        return "contains an ASCII letter or digit"
    if _COUNT_BEHIND.search(word):
        return "ends in a mark and a number, as a count does"
    return None


def _without_comments(lines: Iterable[str]) -> list[str]:
    """The lines that are not empty, without comments, the header of a Rime dictionary, and rules of tables."""
    kept = [line for line in lines if line]
    if kept[:1] == ["---"] and "..." in kept:
        kept = kept[kept.index("...") + 1 :]
    comments = sum(line.startswith("#") for line in kept)
    if comments * 2 < len(kept):  # else each is a hashtag
        kept = [line for line in kept if not line.startswith("#")]
    return [_COMMENT.sub("", line) for line in kept if not _RULE.fullmatch(line)]


def _read(lines: list[str]) -> WordTable:
    listed = _json(lines)
    if listed is not None:
        return listed
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
    if (found := _without(lines, _BEHIND, False)) is not None:
        return WordTable(read_words(found).words, "a word a line, before a number or a mark")
    if len(lines) >= FEW_LINES and all(len(line) < LONG for line in lines):
        scripts = [match.groups() for line in lines if (match := _CEDICT.fullmatch(line))]
        if len(scripts) >= ALL_BUT_A_FEW * len(lines):
            return WordTable(tuple(dict.fromkeys(chain.from_iterable(scripts))), "both scripts of CC-CEDICT")
        glossed = [
            word for line in lines if not _SPACED_ALONE.fullmatch(line) and (word := _beside_gloss(line))
        ]
        if len(glossed) >= ALL_BUT_A_FEW * len(lines):
            return WordTable(tuple(glossed), "a word and a text without Chinese, separated by spaces")
    spaced = [_SPACED.fullmatch(line) for line in lines]
    whole = [match[1] if match else line for match, line in zip(spaced, lines, strict=True)]
    fits = sum(bool(match) or " " not in line for match, line in zip(spaced, lines, strict=True))
    counted = sum(map(bool, spaced))
    # With counts on a third of the lines at least: 苹果 15 in a list of product names is a word.
    if lines and fits >= ALL_BUT_A_FEW * len(lines) and counted * 3 >= len(lines):
        return WordTable(tuple(word.strip() for word in whole), "word, count or tag, separated by spaces")
    return WordTable(tuple(lines), "a word a line")


def _beside_gloss(line: str) -> str | None:
    """The Chinese of a line whose other half has none, as in 合同 contract and hetong 合同; None for any other line."""
    parts = line.split()
    sides = [chinese.search(part) is not None for part in parts]
    if all(sides) or not any(sides) or sides not in (sorted(sides), sorted(sides, reverse=True)):
        return None
    return " ".join(part for part, side in zip(parts, sides, strict=True) if side)


def _json(lines: Sequence[str]) -> WordTable | None:
    """The strings of a JSON list, or the keys of an object; None where the lines are neither."""
    if not lines or lines[0][0] not in "[{":
        return None
    try:
        content = parse_json("\n".join(lines), "the list")
    except InputError:
        return None
    if isinstance(content, dict) or (isinstance(content, list) and all(isinstance(w, str) for w in content)):
        return WordTable(tuple(content), "JSON")
    return None


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
    if separator == "|":  # one alone is a mark in a word, or stands before its count
        return [cell.strip() for cell in line.strip("|").split("|")] if line.count("|") > 1 else [line]
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
