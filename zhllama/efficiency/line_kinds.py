"""Classifies lines of text by their characters: Simplified, Traditional, English, code."""

import re
import sys
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from zhllama.characters import HAN_RANGES, charset
from zhllama.chinese_script import converter

LineKind = Literal["simplified", "traditional", "english", "code", "other"]
KINDS: tuple[LineKind, ...] = ("simplified", "traditional", "english", "code", "other")

SPARSE = 0.3  # a line that looks like code counts as Chinese if its share of Han is at least this
DENSE = 0.07  # a line with a larger share of code symbols is code
NEAR = 4  # lines before and after that decide about a comment or a bare word among code

_code_symbols = dict.fromkeys(map(ord, "{}[]<>=;_\\|&*$@^~`+/#()"))
_code_start = re.compile(
    r"\s*(?:[#@/]\S|//|/\*|\*/|\$ |--|[{}()\[\]]+[,;]?\s*$|[\w.\[\]\"']+\s*[-+*/]?=\s*\S|\"[\w-]+\":\s|"
    r"(?:import|from|def|class|return|for|if|elif|else|while|with|try|except|raise|function|const|let|var|public|private|"
    r"static|void|int|struct|fn|package|using|echo|export|local|done|fi|end)\b.*[(){}\[\]:=<>]\s*\S*$)"
)
_word = re.compile("[A-Za-z]{2}")


_HAN, _SIMPLIFIED, _TRADITIONAL = 1, 2, 4  # bits of a character's class


@cache
def _classes() -> NDArray[np.uint8]:
    """The class of each code point: Han, only Simplified, only Traditional.

    In GB 2312 and not in Big5, or the other way round, and changed by OpenCC: 2,188 and 3,122. Characters of both
    character sets (后, 台, 里) do not count.
    """
    classes = np.zeros(sys.maxunicode + 1, np.uint8)
    for first, last in HAN_RANGES:
        classes[first : last + 1] |= _HAN
    gb, big5 = set(charset("gb2312")), set(charset("big5"))
    to_traditional, to_simplified = converter("s2t"), converter("t2s")
    classes[[ord(c) for c in gb - big5 if to_traditional(c) != c]] |= _SIMPLIFIED
    classes[[ord(c) for c in big5 - gb if to_simplified(c) != c]] |= _TRADITIONAL
    return classes


def _class_counts(lines: Sequence[str]) -> list[tuple[int, int, int]]:
    """How many characters of each line are Han, only Simplified and only Traditional; a numpy pass over all lines."""
    ends = np.cumsum([0, *map(len, lines)])
    classes = _classes()[np.frombuffer("".join(lines).encode("utf-32-le", "surrogatepass"), np.uint32)]
    columns = []
    for bit in (_HAN, _SIMPLIFIED, _TRADITIONAL):
        before = np.concatenate([[0], np.cumsum(classes & bit != 0)])
        columns.append((before[ends[1:]] - before[ends[:-1]]).tolist())
    return list(zip(*columns, strict=True))


def kinds_of(lines: Sequence[str]) -> list[LineKind]:
    """The kind of each line; an ambiguous line takes the kind of the lines around it."""
    kinds = [_kind(line, *counts) for line, counts in zip(lines, _class_counts(lines), strict=True)]
    counts = Counter(kind for kind in kinds if kind in ("simplified", "traditional"))
    default: LineKind = "traditional" if counts["traditional"] > counts["simplified"] else "simplified"
    if "code" in kinds:
        kinds = [_kind_among(kinds, number) for number in range(len(kinds))]
    return [kind or default for kind in kinds]


def _kind_among(kinds: Sequence[LineKind | None], number: int) -> LineKind | None:
    kind = kinds[number]
    if kind not in ("english", "other"):
        return kind
    return "code" if kinds[max(0, number - NEAR) : number + NEAR + 1].count("code") >= NEAR - 1 else kind


def _kind(line: str, n_han: int, n_simplified: int, n_traditional: int) -> LineKind | None:
    """The kind of a line by itself; None for Chinese in characters that both scripts share."""
    if n_han:
        if n_han < SPARSE * len(line) and looks_like_code(line):
            return "code"
        if n_simplified == n_traditional:
            return None
        return "simplified" if n_simplified > n_traditional else "traditional"
    if looks_like_code(line):
        return "code"
    return "english" if _word.search(line) else "other"


def looks_like_code(line: str) -> bool:
    """Whether a line looks like code: by its start, its end, or its share of symbols."""
    if line.rstrip()[-1:] in (";", "{", "}", "\\") or line.endswith("):") or _code_start.match(line):
        return True
    return len(line) - len(line.translate(_code_symbols)) > DENSE * len(line)
