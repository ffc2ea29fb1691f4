"""A judge's verdict, read with tolerance for its form and none for its meaning: what is not plain is None, never a guess."""

import re
import unicodedata
from collections.abc import Callable
from typing import Literal, TypeVar

from zhllama.generation.parse_replies import Unreadable, without_thought

Choice = Literal["first", "second", "tie"]
Read = TypeVar("Read", Choice, float)

LOWEST, HIGHEST = 1, 10
_MARK = re.compile(r"\[\[([^\[\]\n]{1,20})\]\]")
_LABEL = re.compile(
    r"(?:结论|判定|裁决|评分|打分|得分|分数|总分|verdict|winner|rating|score)[^\w\n]{0,4}(?::|是|为|is)(.{1,40})\Z",
    re.IGNORECASE,
)
_FILLER = re.compile(
    r"助手|回答|答案|更好|较好|更优|较优|胜出|获胜|胜|assistant|answer|is|better|wins?|[^\w]", re.I
)
_CHOICES: dict[str, Choice] = {
    "a": "first",
    "b": "second",
    **dict.fromkeys(("c", "平局", "平", "平手", "不相上下", "不分高下", "一样好", "tie", "draw"), "tie"),
}
_SCORE = re.compile(r"(\d{1,2}(?:\.\d{1,2})?)(?:\s{0,2}分|\s{0,2}/\s{0,2}10(?:\s{0,2}分)?)?")


def read_choice(text: str, whole: bool = True) -> Choice | None:
    """Which of two answers a judge prefers. Without `whole`, where a reply was cut off, only a closed [[ ]] counts."""
    return _read(text, whole, _choice)


def read_score(text: str, whole: bool = True) -> float | None:
    """The score that a judge gives, from 1 to 10; others are None."""
    return _read(text, whole, _score)


def _read(text: str, whole: bool, meaning: Callable[[str], Read | None]) -> Read | None:
    """What the last line with [[ ]] says; where none has it, the last line with a label; else the whole reply, if one line.

    Last, because judges weigh before they decide. A line that says two things says nothing.
    """
    said = without_thought(text)
    if isinstance(said, Unreadable):
        return None
    lines = unicodedata.normalize("NFKC", said).replace("【【", "[[").replace("】】", "]]").splitlines()
    for line in reversed(lines):
        if marks := _MARK.findall(line):
            found = {meaning(mark) for mark in marks}
            return found.pop() if len(found) == 1 else None
    if not whole:
        return None
    for line in reversed(lines):
        if label := _LABEL.search(line):
            return meaning(label[1])
    return meaning(said) if len(lines) == 1 and len(said) <= 40 else None


def _choice(words: str) -> Choice | None:
    return _CHOICES.get(_FILLER.sub("", words.lower()))


def _score(words: str) -> float | None:
    found = _SCORE.fullmatch(words.strip(" \t*_`[]()【】「」。.,;"))
    if found is None or not LOWEST <= float(found[1]) <= HIGHEST:
        return None
    return float(found[1])
