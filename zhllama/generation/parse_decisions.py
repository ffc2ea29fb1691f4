"""Parses short replies: yes or no, and the ranking of answers; an ambiguous reply gives None."""

import re

from zhllama.generation.reply_thoughts import strip_thinking
from zhllama.generation.tasks import Unreadable

_NO = r"不属于|不屬於|不是|并非|並非|不算|不能算|不应|不應|否|non-?classification|not a|\bno\b|\bnot\b|\bfalse\b|错误|不对"


_YES = (
    r"属于|屬於|是(?:一[个個道种種项項]|个)?(?:典型的?|标准的?|明确的?)?(?:多|二)?分[类類]|\byes\b|\btrue\b"
)


_WHOLE = re.compile(r"(?P<yes>是的?|对|對|yes|true|属于|y)|(?P<no>不是的?|否|不|不对|no|false|不属于|n|并非)", re.IGNORECASE)  # fmt: skip


_ANSWERED = re.compile(
    r"(?:答案|结论|結論|判断|判斷|回答|答|结果|結果|[吗嗎]|是否[^，。：:\n]{0,16}|answer|classification)(?:是|为|為|应为|應為|is)?"
    r"[^\w\n]{0,6}(?P<word>是|否|不是|yes|no)(?:的)?(?=[^\w]|$)",
    re.IGNORECASE,
)


def parse_yes_no(text: str) -> bool | None:
    """True for 是 or yes, False for 否 or no, None where a reply says neither or both.

    In order: the reply as a whole, a labeled answer (答案是：否), its first word, and its statements (不属于分类任务).
    """
    reply = text.strip().lower()
    if whole := _WHOLE.fullmatch(reply.strip(" \t\n。.！!，,*`\"'“”「」【】[]（）()")):
        return whole["yes"] is not None
    if len(reply) > 4000:
        return None
    if answers := {match["word"] in ("是", "yes") for match in _ANSWERED.finditer(reply)}:
        return answers.pop() if len(answers) == 1 else None
    parts = re.split(r"[^\w]", reply.lstrip(" *`\"'“「【[（("), maxsplit=1)
    first = _WHOLE.fullmatch(parts[0])
    decisions: set[bool] = {first["yes"] is not None} if first else set()
    for sentence in re.split(r"[。！？!?\n；;]", reply):
        if re.search(r"[吗嗎]$|是否|是不是|属不属于", sentence):
            continue
        if whole := _WHOLE.fullmatch(sentence.strip(" *")):
            decisions.add(whole["yes"] is not None)
        rest = re.sub(_NO, "", sentence)
        if rest != sentence and re.search(r"分[类類]|classif", sentence):
            decisions.add(False)
            rest = re.sub(r"分[类類]", "", rest)
        if re.search(_YES, rest) and re.search(r"分[类類]|classif", rest):
            decisions.add(True)
    last = re.split(r"所以|因此|故|综上|therefore|so,", reply)[-1] if len(decisions) > 1 else ""
    if last and last != reply and not re.search(r"所以|因此|故", last):
        return parse_yes_no(last)
    if not decisions and (denied := re.match(r"不\w", reply)):
        return False if len(reply) <= 8 and denied else None
    return decisions.pop() if len(decisions) == 1 else None


_ANSWER_NUMBER = r"(?:(?:回答|答案|答|回复|选项|answer|response|no\.?|第)\s{0,2})?[#\[【(（]?\s?(?P<n>\d{1,4}|[①-⑳])\s?[\]】)）]?(?:\s?[个個号號])?(?:回答|答案)?"


_TOKEN = re.compile(_ANSWER_NUMBER.replace("?P<n>", ""), re.IGNORECASE)


_RANKING = re.compile(
    rf"(?<![\w.<>=])(?:{_TOKEN.pattern})(?:\s{{0,4}}[>=]\s{{0,4}}(?:{_TOKEN.pattern})){{1,40}}(?![\w<>=]|\.\d|\s{{0,4}}[<>=])",
    re.IGNORECASE,
)


_RANKING_LABEL = re.compile(r"排名|排序|名次|结论|結論|最终|最終|ranking|final", re.IGNORECASE)


def parse_ranking(text: str, count: int) -> list[int] | None:
    """Ranks, from 0, of answers 1..count in a line such as 2 > 1 = 3 or 答案2 > 答案1.

    None unless each answer occurs exactly once, and where lines differ that no label such as 排名 decides between.
    """
    answer = strip_thinking(text)
    if isinstance(answer, Unreadable):
        return None
    labeled: list[list[int]] = []
    others: list[list[int]] = []
    plain = (
        answer.replace("＞", ">").replace("≻", ">").replace("＝", "=").replace("≈", "=").replace("&gt;", ">")
    )
    for line in plain.replace("*", "").replace("`", "").splitlines():
        for match in _RANKING.finditer(line):
            if (ranks := _ranks(match.group(), count)) is not None:
                (labeled if _RANKING_LABEL.search(line) else others).append(ranks)
    rankings = labeled or others
    return rankings[0] if rankings and all(ranks == rankings[0] for ranks in rankings) else None


def _ranks(ranking: str, count: int) -> list[int] | None:
    ranks: dict[int, int] = {}
    occurrences = 0
    for rank, tied in enumerate(ranking.split(">")):
        for number in re.findall(r"\d{1,4}|[①-⑳]", tied):
            ranks[int(number) if number.isdecimal() else ord(number) - 0x245F] = rank
            occurrences += 1
    if occurrences == count and ranks.keys() == set(range(1, count + 1)):
        return [ranks[number] for number in range(1, count + 1)]
    return None
