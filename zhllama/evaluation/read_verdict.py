"""Reads a judge's verdict. The form may vary; an ambiguous verdict is None, never a guess."""

import re
import unicodedata
from collections.abc import Callable
from typing import Literal, TypeVar

from zhllama.generation.parse_replies import Unreadable, strip_thinking

Choice = Literal["first", "second", "tie"]
Verdict = TypeVar("Verdict", Choice, float)

LOWEST, HIGHEST = 1, 10
_BRACKETED = re.compile(r"\[\[([^\[\]\n]{1,20})\]\]")
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


def read_choice(text: str, complete: bool = True) -> Choice | None:
    """Which of two answers a judge prefers. With `complete` false (a reply that was cut off), only [[ ]] counts."""
    return _read(text, complete, _parse_choice)


def read_score(text: str, complete: bool = True) -> float | None:
    """The judge's score from 1 to 10; None for any other reply."""
    return _read(text, complete, _parse_score)


def _read(text: str, complete: bool, parse: Callable[[str], Verdict | None]) -> Verdict | None:
    """The verdict in the last line with [[ ]]; else in the last line with a label; else in a reply of one short line.

    The last line counts, because judges discuss before they decide. A line with two different verdicts gives None.
    """
    answer = strip_thinking(text)
    if isinstance(answer, Unreadable):
        return None
    lines = unicodedata.normalize("NFKC", answer).replace("【【", "[[").replace("】】", "]]").splitlines()
    for line in reversed(lines):
        if contents := _BRACKETED.findall(line):
            verdicts = {parse(content) for content in contents}
            return verdicts.pop() if len(verdicts) == 1 else None
    if not complete:
        return None
    for line in reversed(lines):
        if label := _LABEL.search(line):
            return parse(label[1])
    return parse(answer) if len(lines) == 1 and len(answer) <= 40 else None


def _parse_choice(words: str) -> Choice | None:
    return _CHOICES.get(_FILLER.sub("", words.lower()))


def _parse_score(words: str) -> float | None:
    match = _SCORE.fullmatch(words.strip(" \t*_`[]()【】「」。.,;"))
    if match is None or not LOWEST <= float(match[1]) <= HIGHEST:
        return None
    return float(match[1])
