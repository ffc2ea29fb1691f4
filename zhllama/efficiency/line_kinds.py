"""Simplified, Traditional, English, code: what a line of text is written in, told by its characters."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Literal

from zhllama.characters import charset, han
from zhllama.chinese_script import converter

LineKind = Literal["simplified", "traditional", "english", "code", "other"]
KINDS: tuple[LineKind, ...] = ("simplified", "traditional", "english", "code", "other")

SPARSE = 0.3  # a line that looks like code is Chinese all the same where more of it than this is Han
DENSE = 0.07  # share of signs that prose does not use so often
NEAR = 4  # lines before and after that decide about a comment or a bare word among code

_signs = dict.fromkeys(map(ord, "{}[]<>=;_\\|&*$@^~`+/#()"))
_begins = re.compile(
    r"\s*(?:[#@/]\S|//|/\*|\*/|\$ |--|[{}()\[\]]+[,;]?\s*$|[\w.\[\]\"']+\s*[-+*/]?=\s*\S|\"[\w-]+\":\s|"
    r"(?:import|from|def|class|return|for|if|elif|else|while|with|try|except|raise|function|const|let|var|public|private|"
    r"static|void|int|struct|fn|package|using|echo|export|local|done|fi|end)\b.*[(){}\[\]:=<>]\s*\S*$)"
)
_word = re.compile("[A-Za-z]{2}")


@cache
def _one_script() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The characters that only Simplified has, and those that only Traditional has.

    In GB 2312 and not in Big5, or the other way round, and changed by OpenCC: 2,188 and 3,122. Characters of both
    character sets (后, 台, 里) say nothing.
    """
    gb, big5 = set(charset("gb2312")), set(charset("big5"))
    to_traditional, to_simplified = converter("s2t"), converter("t2s")
    simplified = {c for c in gb - big5 if to_traditional(c) != c}
    traditional = {c for c in big5 - gb if to_simplified(c) != c}
    return re.compile(f"[{''.join(simplified)}]"), re.compile(f"[{''.join(traditional)}]")


def kinds_of(lines: Sequence[str]) -> list[LineKind]:
    """The kind of each line; one that tells nothing by itself goes with the lines around it."""
    told = [_kind(line) for line in lines]
    seen = Counter(kind for kind in told if kind in ("simplified", "traditional"))
    rest: LineKind = "traditional" if seen["traditional"] > seen["simplified"] else "simplified"
    if "code" in told:
        told = [_beside(told, place) for place in range(len(told))]
    return [kind or rest for kind in told]


def _beside(told: Sequence[LineKind | None], place: int) -> LineKind | None:
    kind = told[place]
    if kind not in ("english", "other"):
        return kind
    return "code" if told[max(0, place - NEAR) : place + NEAR + 1].count("code") >= NEAR - 1 else kind


def _kind(line: str) -> LineKind | None:
    """None is Chinese in characters that both scripts share."""
    found = 0 if line.isascii() else len(han.findall(line))
    if found:
        if found < SPARSE * len(line) and looks_like_code(line):
            return "code"
        simplified, traditional = _one_script()
        one, other = len(simplified.findall(line)), len(traditional.findall(line))
        return None if one == other else "simplified" if one > other else "traditional"
    if looks_like_code(line):
        return "code"
    return "english" if _word.search(line) else "other"


def looks_like_code(line: str) -> bool:
    """Whether a line without much Chinese is written for a machine: by how it begins or ends, or by its signs."""
    if line.rstrip()[-1:] in (";", "{", "}", "\\") or line.endswith("):") or _begins.match(line):
        return True
    return len(line) - len(line.translate(_signs)) > DENSE * len(line)
