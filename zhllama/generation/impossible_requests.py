"""Recognizes instructions that ask for an act, such as a photograph or a phone call, that text cannot perform."""

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from zhllama.errors import InputError
from zhllama.io.files import read_utf8

_QUOTED = re.compile(
    r"“[^”]*”|‘[^’]*’|「[^」]*」|『[^』]*』|\"[^\"]*\"|《[^》]*》|（[^）]*）|\([^)]*\)|`[^`]*`"
)
_IN_TEXT = re.compile(
    r"[用以](?:.{0,4}(?:代码|程序|脚本|文字|语言|字符|符号|语句|诗)|[\w .]{0,12}(?:python|matplotlib|css|svg|html|canvas|javascript|js|java|latex|tikz|sql|mermaid|markdown|ascii|excel|linux|shell|r语言))",
    re.IGNORECASE,
)
_SENTENCE, _CLAUSE = re.compile(r"(?<=[。！？!?\n])"), re.compile(r"[，；,;、。！？!?\n]")
_POLITE_QUESTION = re.compile(
    r"能不能|能否|可不可以|可以.{0,20}吗|能.{0,20}吗|可否|好吗|行吗|好不好|行不行|帮我.{0,20}吗"
)
_OTHER_CLAUSE = re.compile(r"的时候|之[后前]|以[后前]|的话|过程")  # 转账之后, 拍照的时候
# Before the verb, these make the clause a question or a prohibition.
_NO_REQUEST = {"怎样", "怎么", "如何", "为什么", "为何", "什么", "谁", "何时", "哪里", "不", "别", "不要", "勿", "没", "没有", "无法", "禁止"}  # fmt: skip
# Words before the act that address the model or say with what, for whom, where and when.
_OPENERS = {"请", "请你", "请帮我", "你", "您", "麻烦", "麻烦你", "劳驾", "帮", "帮我", "帮忙", "替", "替我", "给", "给我", "为", "为我", "能", "能不能", "不能", "能否", "可以", "可否", "可不可以", "去", "来", "想请你", "想让你", "直接", "顺便", "然后", "接着", "并", "并且", "先", "再", "快", "一下", "要", "务必", "帮助"}  # fmt: skip
_PREPOSITIONS = {"把", "将", "给", "为", "替", "帮", "用", "在", "从", "到", "去", "向", "对", "跟", "和", "根据", "按照", "按", "以", "让", "由"}  # fmt: skip
# jieba joins some of them with the verb: 请拨 打电话.
_ADDRESS = re.compile(
    r"\s*(?:请(?![假求教柬客问示愿帖])你?|麻烦你?|劳驾|帮我|帮忙|替我|给我|为我|现在|马上)+"
)
_OBJECT_PREPOSITIONS = {"把", "将", "用", "在", "从", "去"}
_MEASURES = "个张幅段首份条次下"
_COUNTS = ("一", "两", "三", "几")  # 画一幅山水: the count is enough
_AFTER_OBJECT = {"给", "发", "发给", "并", "并且", "配上", "看看", "出来", "过来", "吧", "吗", "好", "然后", "送", "寄", "来", "去", "到", "回", "说", "订座"}  # fmt: skip


@dataclass(frozen=True)
class Act:
    """Verbs and their objects; without objects, the verb alone is the act."""

    verbs: frozenset[str]
    objects: tuple[str, ...]


def read_acts(path: Path) -> tuple[Act, ...]:
    """The acts of a file, one per line: verbs, then a slash and objects. Errors: InputError."""
    acts = []
    for number, line in enumerate(read_utf8(path).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        verbs, _, objects = (
            tuple(word.strip().lower() for word in part.split("|") if word.strip()) if part != "/" else ()
            for part in line.partition("/")
        )
        if not verbs:
            raise InputError(f"{path}:{number}", "has no verb", "Write verbs, a slash, and objects")
        acts.append(Act(frozenset(verbs), objects))
    return tuple(acts)


def impossible_request(instruction: str, acts: Iterable[Act]) -> str | None:
    """The clause of an instruction that asks for one of the acts, or None.

    An act counts if it is what a clause asks for: only an address, time and adverbs precede its verb, and the last noun
    is its object. What is quoted or follows a colon is material.
    """
    acts = tuple(acts)
    text = _QUOTED.sub("某", instruction.lower()).partition("：")[0]
    if _IN_TEXT.search(text):
        return None
    for sentence in _SENTENCE.split(text):
        if sentence.rstrip().endswith(("？", "?")) and not _POLITE_QUESTION.search(sentence):
            continue
        for clause in _CLAUSE.split(sentence):
            request = clause[found.end() :] if (found := _ADDRESS.match(clause)) else clause
            if request.strip() and not _OTHER_CLAUSE.search(request) and _asks_for(_tagged(request), acts):
                return clause.strip()
    return None


def words_of(text: str, wanted: Iterable[str]) -> str | None:
    """The first of the wanted words that begins and ends where words of the text do, or None."""
    ends, position = {0}, 0
    lowered = text.lower()
    for word, _ in _tagged(lowered):
        position += len(word)
        ends.add(position)
    for word in wanted:
        start = -1
        while (start := lowered.find(word.lower(), start + 1)) >= 0:
            if start in ends and start + len(word) in ends:
                return word
    return None


def _asks_for(words: Sequence[tuple[str, str]], acts: Sequence[Act]) -> bool:
    """True if the first verb of a clause that is no address or circumstance is one of the acts."""
    if any(word == "时" and not words[n - 1][1].startswith("m") for n, (word, _) in enumerate(words) if n):
        return False  # 订票时要注意……
    prepositional = False
    for start, (word, flag) in enumerate(words):
        for act in acts:
            end = _verb_end(words, start, act.verbs)
            if not end or (act.objects and not _has_object(words, start, end, act.objects)):
                continue
            after = words[end] if end < len(words) else ("", "x")
            # 上网的好处, 拍照软件 and 为拍摄提出建议 are no requests.
            noun = (after[1].startswith("n") and after[0] not in _MEASURES) or (
                prepositional and after[1] == "v"
            )
            return after[0] != "的" and (bool(act.objects) or not noun)
        if word in _NO_REQUEST:
            return False
        if word in _PREPOSITIONS:
            prepositional = True
        elif word in _OPENERS or flag[0] in "tdcmq" or word.isspace():
            continue
        elif not prepositional or (flag[0] not in "nrfsujalbxegz" and flag not in ("eng", "i", "ng")):
            return False
    return False


def _verb_end(words: Sequence[tuple[str, str]], start: int, verbs: frozenset[str]) -> int:
    """The position behind a verb that begins at a word, 0 if none begins there."""
    joined = ""
    for end in range(start, min(start + 3, len(words))):
        joined += words[end][0]
        if joined in verbs or (len(joined) > 1 and joined.rstrip(_MEASURES) in verbs):
            return end + 1
    return 0


def _has_object(words: Sequence[tuple[str, str]], start: int, end: int, objects: tuple[str, ...]) -> bool:
    """True if the head of what follows the verb is an object, or what 把 put in front of the verb contains one."""
    begins = [n + 1 for n, (word, _) in enumerate(words[:start]) if word in _OBJECT_PREPOSITIONS]
    front = "".join(word for word, _ in words[begins[-1] : start]) if begins else ""
    if any(one in front for one in objects if not one.startswith(_COUNTS)):
        return True
    rest = [word for word, _ in words[end:]]
    stops = [n for n, (word, flag) in enumerate(words[end:]) if n and (flag == "v" or word in _AFTER_OBJECT)]
    heads = ["".join(rest[:stop]).rstrip("了吧呀啊呢 .") for stop in (*stops, len(rest))]
    if heads[-1].startswith(tuple(one for one in objects if one.startswith(_COUNTS))):
        return True
    return any(
        head.endswith(objects) or any(f"{one}{place}的" in head for one in objects for place in "上里中")
        for head in heads
    )


@cache
def _tagger() -> "jieba.posseg.POSTokenizer":  # type: ignore[name-defined] # noqa: F821
    import jieba.posseg

    jieba.setLogLevel(logging.WARNING)
    return jieba.posseg.dt


def _tagged(text: str) -> list[tuple[str, str]]:
    """The words of a text with their parts of speech; unknown ones by character, since jieba's guess takes seconds on rare Han."""
    return [(pair.word, pair.flag) for pair in _tagger().cut(text, HMM=False)]
