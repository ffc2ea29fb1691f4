"""Replies read with tolerance: wrong numbers, bold labels, half JSON, chatter around; what cannot be read is told, not guessed."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from zhllama.generation.tasks import Task

_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"^```[a-z]{0,12}[ \t]{0,8}\n?|\n?```[ \t]{0,8}$", re.MULTILINE)
_NONE = {
    "",
    "无",
    "<无>",
    "＜无＞",
    "《无》",
    "（无）",
    "(无)",
    "[无]",
    "无。",
    "无输入",
    "<无输入>",
    "（无输入）",
    "<noinput>",
    "noinput",
    "none",
    "n/a",
    "空",
    "<空>",
    "（空）",
}
_NAMES = {
    "指令": "instruction",
    "任务": "instruction",
    "instruction": "instruction",
    "输入": "input",
    "input": "input",
    "输出": "output",
    "回答": "output",
    "答案": "output",
    "output": "output",
    "标签": "label",
    "类别": "label",
    "label": "label",
    "class label": "label",
}
# White space is bounded, so that no reply, however hostile, takes more than linear time.
_GAP = r"[ \t]{0,8}"
_LABEL = re.compile(
    rf"^{_GAP}(?:#{{1,6}}{_GAP})?(?:[-*]{_GAP})?\*{{0,3}}(?P<number>\d{{1,4}}{_GAP}[.、．)）:：]{_GAP})?\*{{0,3}}[【\[]?"
    rf"(?P<name>{'|'.join(sorted(map(re.escape, _NAMES), key=len, reverse=True))})[】\]]?\*{{0,3}}{_GAP}[:：]\*{{0,3}}{_GAP}",
    re.MULTILINE | re.IGNORECASE,
)
_RULE = re.compile(rf"^{_GAP}#{{2,6}}{_GAP}(?:\d{{1,4}}{_GAP}[.、．]?)?{_GAP}$", re.MULTILINE)
_NUMBERED = re.compile(
    rf"^{_GAP}\*{{0,3}}(?:任务|指令)?{_GAP}\d{{1,4}}{_GAP}[.、．)）:：]\*{{0,3}}{_GAP}", re.MULTILINE
)
LONGEST = 400_000  # characters; a longer reply is nobody's answer to our questions


@dataclass(frozen=True)
class Unreadable:
    """A piece of a reply that is no task, and why."""

    text: str
    why: str


Piece = Task | Unreadable


def without_thought(text: str) -> str | Unreadable:
    """What a reply says, line ends mended, without a reasoning model's thoughts."""
    if len(text) > LONGEST:
        return Unreadable(text, f"a reply of {len(text):,} characters")
    rest = _THOUGHT.sub("", text.replace("\r\n", "\n").replace("\x00", "")).strip()
    return Unreadable(text, "the thought never ends") if rest.startswith("<think>") else rest


def no_text(field: str) -> str:
    """A field, with the many ways to say that there is none made empty."""
    stripped = field.strip()
    return "" if stripped.lower() in _NONE else stripped


def read_tasks(text: str, opened: bool = False) -> list[Piece]:
    """Tasks in a reply, in order: a JSON object or list, or blocks of 指令, 输入, 输出.

    `opened` tells that the prompt ended with the label of the first instruction. A reply without any task is one
    Unreadable.
    """
    if not opened and (found := list(_json_tasks(text))):
        return found
    blocks = list(_blocks(f"指令：{text}" if opened else text, first="instruction"))
    pieces: list[Piece] = []
    for block in blocks:
        fields = dict(reversed(block))  # of a label that comes twice the first counts
        if not fields.get("instruction", "").strip():
            pieces.append(Unreadable(fields.get("output", ""), "no instruction"))
        elif not fields.get("output", "").strip():
            pieces.append(Unreadable(fields["instruction"], "no output"))
        else:
            pieces.append(
                Task(
                    fields["instruction"].strip(), no_text(fields.get("input", "")), fields["output"].strip()
                )
            )
    return pieces or [Unreadable(text, "no task in the reply")]


def read_question(text: str, opened: bool = False) -> Task | Unreadable:
    """One task without its answer: 指令 and 输入, as the prompts for translation and evolution ask for."""
    for block in _blocks(f"指令：{text}" if opened else text, first="instruction"):
        fields = dict(reversed(block))
        if fields.get("instruction", "").strip():
            return Task(fields["instruction"].strip(), no_text(fields.get("input", "")))
    return Unreadable(text, "no instruction")


def read_instances(instruction: str, text: str, label_first: bool, opened: bool = False) -> list[Piece]:
    """Instances of an instruction: pairs of 输入 and 输出, or where `label_first` of 标签 and 输入."""
    first, second = ("label", "input") if label_first else ("input", "output")
    if opened:
        text = f"{'标签' if label_first else '输入'}：{text}"
    pieces: list[Piece] = []
    for block in _blocks(text, first=first):
        fields = dict(reversed(block))
        answer = fields.get("label" if label_first else "output", "").strip()
        if not answer:
            pieces.append(Unreadable(fields.get(second, "") or fields.get(first, ""), "no output"))
        elif label_first and not fields.get("input", "").strip():
            # An explicit <无> is different: the instruction itself contains what is to be classified.
            pieces.append(Unreadable(answer, "a label without input"))
        else:
            pieces.append(Task(instruction, no_text(fields.get("input", "")), answer))
    return pieces or [Unreadable(text, "no instance in the reply")]


def read_list(text: str, opened: bool = False) -> list[str]:
    """The items of a numbered list, whatever their numbers; empty where there is none."""
    parts = _NUMBERED.split(f"1. {text}" if opened else text)[1:]
    items = (_LABEL.sub("", part.strip().split("\n\n")[0]).strip(" *") for part in parts)
    return [item for item in items if item]


def read_yes(text: str) -> bool | None:
    """Whether a reply says 是 or 否; None for neither."""
    found = re.search(r"是|否|不|yes|no", text.lower())
    return None if found is None else found.group() in ("是", "yes")


def read_ranking(text: str, count: int) -> list[int] | None:
    """Ranks from 0 of answers 1..count in a line such as 2 > 1 = 3; None unless each is named just once."""
    for line in text.replace("＞", ">").replace("＝", "=").splitlines():
        ranked = re.search(r"\d{1,4}(?:\s{0,4}[>=]\s{0,4}\d{1,4})+", line)
        if ranked is None:
            continue
        ranks: dict[int, int] = {}
        named = 0
        for rank, tied in enumerate(ranked.group().split(">")):
            for number in re.findall(r"\d{1,4}", tied):
                ranks[int(number)] = rank
                named += 1
        if named == count and ranks.keys() == set(range(1, count + 1)):
            return [ranks[n] for n in range(1, count + 1)]
    return None


def _json_tasks(text: str) -> Iterator[Piece]:
    """Every whole object with an instruction, also from JSON that is cut off."""
    body = _FENCE.sub("", text).strip()
    if not body.startswith(("{", "[")):
        return
    decoder, at = json.JSONDecoder(), 0
    while (at := body.find("{", at)) >= 0:
        try:
            row, end = decoder.raw_decode(body, at)
        except (ValueError, RecursionError):
            at += 1
            # A wrapper whose list is cut off; of a cut object nothing inside is a task.
            if at > 1 or not re.match(r'\s*"tasks"\s*:\s*\[', body[at : at + 40]):
                following = re.search(r"\}\s{0,40},\s{0,40}(?=\{)", body[at:])
                if following is None:
                    yield Unreadable(body[at - 1 :], "half JSON")
                    return
                yield Unreadable(body[at - 1 : at + following.end()], "half JSON")
                at += following.end()
            continue
        at = end
        for one in row["tasks"] if isinstance(row.get("tasks"), list) else [row]:
            fields = {k: v for k, v in one.items() if isinstance(v, str)} if isinstance(one, dict) else {}
            if fields.get("instruction", "").strip() and fields.get("output", "").strip():
                yield Task(
                    fields["instruction"].strip(), no_text(fields.get("input", "")), fields["output"].strip()
                )
            else:
                yield Unreadable(json.dumps(one, ensure_ascii=False), "no instruction or no output")


def _blocks(text: str, first: str) -> Iterator[list[tuple[str, str]]]:
    """Labelled fields, grouped: a block begins with the label `first`.

    Where the first label bears a number all must, so that 输入： inside an answer stays text; so does any label that
    does not come later in the order of fields.
    """
    order = (
        ("instruction", "input", "output")
        if first == "instruction"
        else (first, "input" if first == "label" else "output")
    )
    numbered: bool | None = None
    block: list[tuple[str, str]] = []
    name, start = "", 0
    for match in _LABEL.finditer(text):
        label = _NAMES[match["name"].lower()]
        if label not in order:
            continue
        if numbered is None:
            numbered = match["number"] is not None
        follows = bool(name) and order.index(label) > order.index(name)
        if (numbered and match["number"] is None) or not (label == first or follows):
            continue
        if name:
            block.append((name, _ended(text[start : match.start()])))
        if label == first and block:
            yield block
            block = []
        name, start = label, match.end()
    if name:
        yield [*block, (name, _ended(text[start:]))]


def _ended(field: str) -> str:
    """A field up to the ### that parts blocks."""
    return _RULE.split(field, maxsplit=1)[0].strip()
