"""Reads a judge's verdict. The form may vary; an ambiguous verdict is None, never a guess."""

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar

from zhllama.generation.parse_replies import Unreadable, strip_thinking

Choice = Literal["first", "second", "tie"]
Verdict = TypeVar("Verdict", Choice, float)

LOWEST, HIGHEST = 1, 10
_MARK = re.compile(r"\[\[([^\[\]\n]{1,20})\]\]")
_WORDS = "结论|結論|判定|判决|判決|裁决|裁決|评判结果|評判結果|评分|評分|打分|得分|分数|分數|总分|總分|verdict|winner|rating|score|result"
# At the start of a line: 准确性得分 is a part of a score, and 暂不下结论 none at all.
_LABEL = re.compile(
    rf"[\s#>*_\-•\d.、()【\[“\"]{{0,12}}(?P<sure>最终的?|最終的?|最后的?|最後的?|综合|綜合|总体|總體|final|overall)?\s?"
    rf"(?:我的|我给出的|因此|所以|故|my|the)?,?\s?(?:{_WORDS})(?:结果)?[】\]*_\s]{{0,4}}(?:\((?:满分)?\s?[\d\-~～—到至/\s分]{{1,12}}\))?[】\]*_\s\"]{{0,4}}"
    rf"(?:(?::|是|为|為|\bis\b)+(?P<value>.{{0,200}})|(?P<alone>))\Z",
    re.IGNORECASE,
)
_FILLER = re.compile(
    r"助手|回答|答案|略胜一筹|略勝一籌|更胜一筹|更勝一籌|略好|稍好|略优|略優|稍优|稍優|明显更好|明顯更好|更好|较好|較好|更优|更優|较优|较佳|更佳|优胜|優勝|胜出|勝出|获胜|獲勝|胜|勝|的|assistant|answer|response|\bis\b|\bthe\b|better|wins?|[^\w]",
    re.I,
)
_CHOICES: dict[str, Choice] = {
    "a": "first",
    "b": "second",
    "a>b": "first",
    "b<a": "first",
    "b>a": "second",
    "a<b": "second",
    "a=b": "tie",
    "b=a": "tie",
    **dict.fromkeys(("c", "平局", "平", "平手", "不相上下", "不分高下", "一样好", "一樣好", "同样好", "tie", "draw"), "tie"),
}  # fmt: skip
_COMPARED = re.compile(r"(?:助手|回答|答案|assistant|answer)?\s?([ab])\s{0,2}([<>=])\2{0,2}\s{0,2}(?:助手|回答|答案|assistant|answer)?\s?([ab])", re.I)  # fmt: skip
_OWNER = r"(?:助手|回答|答案|assistant|answer)?\s?"
_OWNED = r"(?:的回答)?\s{0,2}"
# A比B更好; A没有B好 and A不如B are no such clause, and stay unread.
_BETTER = re.compile(
    rf"{_OWNER}([ab]){_OWNED}(?:比\s{{0,2}}{_OWNER}([ab]){_OWNED}(?:要|更|略|稍|明显|明顯)?(?:更|略)?(?:好|优|優|佳|强|強|出色|胜一筹|勝一籌)(?:一些|一点|一點)?"
    rf"|(?:明显|明顯|略|稍)?(?:优于|優於|好于|好於|胜过|勝過|强于|強於|(?:is )?(?:much |slightly |clearly )?better than|beats)\s{{0,2}}{_OWNER}([ab]){_OWNED})",
    re.I,
)
_NUMERALS = {numeral: float(number) for number, numeral in enumerate("一二三四五六七八九十", 1)}
_SCORE = re.compile(r"(\d{1,2}(?:\.\d{1,2})?)(?:\s{0,2}分|\s{0,2}/\s{0,2}10(?:\s{0,2}分)?|\s?out of 10)?(?:\s?\(满分\s?(?:为|是)?\s?10\s?分?\))?")  # fmt: skip
# A mark after one of these, or in a line with one of the others, is no verdict.
_DENIED = re.compile(
    r"(?:不是|并非|並非|不应|不應|不选|不選|不该|不给|不給|不能|不会|而非|不认为|\bnot\b|n't|\bnor\b)[^,。:;.]{0,12}\[\[",
    re.I,
)
_UNSURE = re.compile(
    r"如果|若|假如|要是|倘若|也可|或许|或許|可能|本来|本來|原本|一开始|起初|先前|初步|倾向|除非|写作|写成|格式|例如|比如|\bif\b|\bcould\b|\bmay\b|\bwould\b|initially",
    re.I,
)
_DOUBT = re.compile(r"不对|不對|更正|改为|改為|其实|應該|应该|应为|修正|不如|逊|遜|输给|輸給|不及|差|弱|错|worse|loses|wrong|actually|不是|并非|not\b|n't", re.I)  # fmt: skip
_JSON_KEY = re.compile(rf"(?:final_?|overall_?|最终|综合)?(?:{_WORDS}|choice|better|胜者|优胜者|更好的回答)(?:_?(?:result|value))?", re.IGNORECASE)  # fmt: skip


def read_choice(text: str, complete: bool = True) -> Choice | None:
    """Which of two answers a judge prefers. With `complete` false (a reply that was cut off), only [[ ]] counts."""
    return _read(text, complete, _parse_choice)


def read_score(text: str, complete: bool = True) -> float | None:
    """The judge's score from 1 to 10; None for any other reply."""
    return _read(text, complete, _parse_score)


def _read(text: str, complete: bool, parse: Callable[[str], Verdict | None]) -> Verdict | None:
    """The verdict of the lines with a label such as 结论：; else the marks [[ ]], if all agree; else JSON; else one short line.

    Judges discuss before they decide and add remarks after it, so a labeled line wins over marks elsewhere. Labeled lines that differ
    give None, unless one of them is labeled as final.
    """
    answer = strip_thinking(text)
    if isinstance(answer, Unreadable):
        return None
    lines = unicodedata.normalize("NFKC", answer).replace("【【", "[[").replace("】】", "]]").split("\n")
    verdicts: list[
        tuple[bool, Verdict | None]
    ] = []  # of labeled lines, and whether the label says that it is final
    for sure, value in _labeled(lines):
        if _MARK.search(value):
            verdicts.append((sure, _from_marks(value, parse)))
        elif complete:
            verdicts.append((sure, _from_words(value, parse)))
    if verdicts:
        final = [verdict for sure, verdict in verdicts if sure] or [verdict for _, verdict in verdicts]
        return final[0] if len(set(final)) == 1 else None
    marked = [line for line in lines if _MARK.search(line)]
    if marked:
        if any(_DENIED.search(line) or _UNSURE.search(line) for line in marked):
            return None
        readings = {parse(content) for line in marked for content in _MARK.findall(line)}
        if not complete and _MARK.sub("", marked[-1]).strip(" *。."):
            return None
        return readings.pop() if len(readings) == 1 else None
    if not complete:
        return None
    if (row := _json_object(answer)) is not None:
        return _from_json(row, parse)
    return parse(answer) if len(lines) == 1 and len(answer) <= 40 else None


def _labeled(lines: list[str]) -> Iterator[tuple[bool, str]]:
    """What follows each label, on its line or on the next line that is not empty."""
    for number, line in enumerate(lines):
        label = _LABEL.match(line[:400])
        if label is None or len(line) > 400:
            continue
        value = label["value"] or ""
        if label["alone"] is None and value.strip(' *_"`'):
            yield label["sure"] is not None, value
        else:
            following = next((text for text in lines[number + 1 : number + 4] if text.strip()), "")
            if following and not _LABEL.match(following[:400]) and len(following) <= 200:
                yield label["sure"] is not None, following


def _from_marks(value: str, parse: Callable[[str], Verdict | None]) -> Verdict | None:
    """The verdict in [[ ]] on a labeled line, unless the words around it doubt it."""
    readings = {parse(content) for content in _MARK.findall(value)}
    around = re.sub(r"\([^()]{0,200}\)", "", _MARK.sub("", value))
    if len(readings) != 1 or _DENIED.search(value) or _DOUBT.search(around) or _UNSURE.search(around):
        return None
    return readings.pop()


def _from_words(value: str, parse: Callable[[str], Verdict | None]) -> Verdict | None:
    """The verdict in words: a clause that says nothing else, and no clause after it that doubts it."""
    if (verdict := parse(value)) is not None:
        return verdict
    clause, *rest = re.split(r"[,;。]", value.strip(" *"), maxsplit=1)
    verdict = parse(clause)
    after = rest[0] if rest else ""
    if (
        verdict is None
        or _DOUBT.search(after)
        or _UNSURE.search(after)
        or re.search(r"\d|[ab]\b|(?<![a-z])[ab](?![a-z])|平", after, re.I)
    ):
        return None
    return verdict


def _json_object(text: str) -> dict[str, Any] | None:
    """The only JSON object in a reply."""
    start = text.find("{")
    if start < 0:
        return None
    try:
        row, end = json.JSONDecoder(strict=False).raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and "{" not in text[end:] else None


def _from_json(row: dict[str, Any], parse: Callable[[str], Verdict | None]) -> Verdict | None:
    values = [value for key, value in row.items() if _JSON_KEY.fullmatch(key.strip())]
    readings = {
        parse(unicodedata.normalize("NFKC", str(value)).replace("[[", "").replace("]]", ""))
        for value in values
        if not isinstance(value, bool)
    }
    return readings.pop() if len(readings) == 1 else None


def _parse_choice(words: str) -> Choice | None:
    if compared := _COMPARED.fullmatch(words.strip(" \t*_`[]()【】「」。.,;")):
        left, sign, right = (part.lower() for part in compared.groups())
        return None if left == right else _CHOICES.get(f"{left}{sign}{right}")
    if better := _BETTER.fullmatch(words.strip(" \t*_`[]()【】「」。.,;")):
        first, *others = (part.lower() for part in better.groups() if part)
        return None if others == [first] else _CHOICES[first]
    if re.search(r"[<>=]", words):
        return None
    return _CHOICES.get(_FILLER.sub("", words.lower()))


def _parse_score(words: str) -> float | None:
    words = words.strip(' \t*_`[]【】「」。.,;"')
    if words.endswith("分") and (number := _NUMERALS.get(words[:-1].strip())) is not None:
        return number
    match = _SCORE.fullmatch(words)
    if match is None or not LOWEST <= float(match[1]) <= HIGHEST:
        return None
    return float(match[1])
