"""Parses tasks, lists and rankings in replies. Tolerates wrong numbers, bold labels, incomplete JSON and surrounding text."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from zhllama.generation.tasks import Task

_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"^```[a-z]{0,12}[ \t]{0,8}\n?|\n?```[ \t]{0,8}$", re.MULTILINE)
_EMPTY = {
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
_FIELDS = {
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
# White space is bounded, so that even a hostile reply is parsed in linear time.
_GAP = r"[ \t]{0,8}"
_LABEL = re.compile(
    rf"^{_GAP}(?:#{{1,6}}{_GAP})?(?:[-*]{_GAP})?\*{{0,3}}(?P<number>\d{{1,4}}{_GAP}[.、．)）:：]{_GAP})?\*{{0,3}}[【\[]?"
    rf"(?P<name>{'|'.join(sorted(map(re.escape, _FIELDS), key=len, reverse=True))})[】\]]?\*{{0,3}}{_GAP}[:：]\*{{0,3}}{_GAP}",
    re.MULTILINE | re.IGNORECASE,
)
_SEPARATOR = re.compile(rf"^{_GAP}#{{2,6}}{_GAP}(?:\d{{1,4}}{_GAP}[.、．]?)?{_GAP}$", re.MULTILINE)
_NUMBERED = re.compile(
    rf"^{_GAP}\*{{0,3}}(?:任务|指令)?{_GAP}\d{{1,4}}{_GAP}[.、．)）:：]\*{{0,3}}{_GAP}", re.MULTILINE
)
MAX_REPLY = 400_000  # characters; no valid reply to our prompts is longer


@dataclass(frozen=True)
class Unreadable:
    """A part of a reply that is not a task, and the reason."""

    text: str
    reason: str


ParsedTask = Task | Unreadable


def strip_thinking(text: str) -> str | Unreadable:
    """The reply of a reasoning model without its <think> block, with normalized line ends."""
    if len(text) > MAX_REPLY:
        return Unreadable(text, f"a reply of {len(text):,} characters")
    answer = _THOUGHT.sub("", text.replace("\r\n", "\n").replace("\x00", "")).strip()
    return Unreadable(text, "the thought never ends") if answer.startswith("<think>") else answer


def normalize_empty(field: str) -> str:
    """The stripped field; "" for the many spellings of "none"."""
    stripped = field.strip()
    return "" if stripped.lower() in _EMPTY else stripped


def parse_tasks(text: str, label_in_prompt: bool = False) -> list[ParsedTask]:
    """Tasks in a reply, in order: a JSON object or list, or blocks of 指令, 输入, 输出.

    `label_in_prompt`: the prompt ended with the label of the first instruction, so the reply starts without it. A reply
    without any task gives one Unreadable.
    """
    if not label_in_prompt and (tasks := list(_json_tasks(text))):
        return tasks
    labeled = f"指令：{text}" if label_in_prompt else text
    items: list[ParsedTask] = []
    for block in _blocks(labeled, first="instruction"):
        fields = dict(reversed(block))  # of a repeated label, the first counts
        if not fields.get("instruction", "").strip():
            items.append(Unreadable(fields.get("output", ""), "no instruction"))
        elif not fields.get("output", "").strip():
            items.append(Unreadable(fields["instruction"], "no output"))
        else:
            items.append(
                Task(
                    fields["instruction"].strip(),
                    normalize_empty(fields.get("input", "")),
                    fields["output"].strip(),
                )
            )
    return items or [Unreadable(text, "no task in the reply")]


def parse_question(text: str, label_in_prompt: bool = False) -> Task | Unreadable:
    """One task without output: 指令 and 输入, the format of the prompts for translation and evolution."""
    for block in _blocks(f"指令：{text}" if label_in_prompt else text, first="instruction"):
        fields = dict(reversed(block))
        if fields.get("instruction", "").strip():
            return Task(fields["instruction"].strip(), normalize_empty(fields.get("input", "")))
    return Unreadable(text, "no instruction")


def parse_instances(
    instruction: str, text: str, label_first: bool, label_in_prompt: bool = False
) -> list[ParsedTask]:
    """Instances of an instruction: pairs of 输入 and 输出 or, with `label_first`, of 标签 and 输入."""
    first, second = ("label", "input") if label_first else ("input", "output")
    if label_in_prompt:
        text = f"{'标签' if label_first else '输入'}：{text}"
    items: list[ParsedTask] = []
    for block in _blocks(text, first=first):
        fields = dict(reversed(block))
        output = fields.get("label" if label_first else "output", "").strip()
        if not output:
            items.append(Unreadable(fields.get(second, "") or fields.get(first, ""), "no output"))
        elif label_first and not fields.get("input", "").strip():
            # An explicit <无> is different: the instruction itself contains the text to classify.
            items.append(Unreadable(output, "a label without input"))
        else:
            items.append(Task(instruction, normalize_empty(fields.get("input", "")), output))
    return items or [Unreadable(text, "no instance in the reply")]


def parse_list(text: str, label_in_prompt: bool = False) -> list[str]:
    """The items of a numbered list, with any numbers; empty if there is none."""
    parts = _NUMBERED.split(f"1. {text}" if label_in_prompt else text)[1:]
    items = (_LABEL.sub("", part.strip().split("\n\n")[0]).strip(" *") for part in parts)
    return [item for item in items if item]


def parse_yes_no(text: str) -> bool | None:
    """True for 是 or yes, False for 否 or no, None for neither."""
    match = re.search(r"是|否|不|yes|no", text.lower())
    return None if match is None else match.group() in ("是", "yes")


def parse_ranking(text: str, count: int) -> list[int] | None:
    """Ranks, from 0, of answers 1..count in a line such as 2 > 1 = 3; None unless each answer occurs exactly once."""
    for line in text.replace("＞", ">").replace("＝", "=").splitlines():
        ranking = re.search(r"\d{1,4}(?:\s{0,4}[>=]\s{0,4}\d{1,4})+", line)
        if ranking is None:
            continue
        ranks: dict[int, int] = {}
        occurrences = 0
        for rank, tied in enumerate(ranking.group().split(">")):
            for number in re.findall(r"\d{1,4}", tied):
                ranks[int(number)] = rank
                occurrences += 1
        if occurrences == count and ranks.keys() == set(range(1, count + 1)):
            return [ranks[n] for n in range(1, count + 1)]
    return None


def _json_tasks(text: str) -> Iterator[ParsedTask]:
    """Every complete object with an instruction, also in JSON that is cut off."""
    body = _FENCE.sub("", text).strip()
    if not body.startswith(("{", "[")):
        return
    decoder, position = json.JSONDecoder(), 0
    while (position := body.find("{", position)) >= 0:
        try:
            row, end = decoder.raw_decode(body, position)
        except (ValueError, RecursionError):
            position += 1
            # An incomplete object contains tasks only if it is the wrapper {"tasks": [.
            if position > 1 or not re.match(r'\s*"tasks"\s*:\s*\[', body[position : position + 40]):
                following = re.search(r"\}\s{0,40},\s{0,40}(?=\{)", body[position:])
                if following is None:
                    yield Unreadable(body[position - 1 :], "half JSON")
                    return
                yield Unreadable(body[position - 1 : position + following.end()], "half JSON")
                position += following.end()
            continue
        position = end
        for entry in row["tasks"] if isinstance(row.get("tasks"), list) else [row]:
            texts = entry.items() if isinstance(entry, dict) else ()
            fields = {key: value for key, value in texts if isinstance(value, str)}
            if fields.get("instruction", "").strip() and fields.get("output", "").strip():
                yield Task(
                    fields["instruction"].strip(),
                    normalize_empty(fields.get("input", "")),
                    fields["output"].strip(),
                )
            else:
                yield Unreadable(json.dumps(entry, ensure_ascii=False), "no instruction or no output")


def _blocks(text: str, first: str) -> Iterator[list[tuple[str, str]]]:
    """Labeled fields, grouped into blocks; each block begins with the label `first`.

    If the first label is numbered, unnumbered labels are text, such as 输入： inside an output. A label that does not
    follow in the order of fields is text, too.
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
        label = _FIELDS[match["name"].lower()]
        if label not in order:
            continue
        if numbered is None:
            numbered = match["number"] is not None
        follows = bool(name) and order.index(label) > order.index(name)
        if (numbered and match["number"] is None) or not (label == first or follows):
            continue
        if name:
            block.append((name, _before_separator(text[start : match.start()])))
        if label == first and block:
            yield block
            block = []
        name, start = label, match.end()
    if name:
        yield [*block, (name, _before_separator(text[start:]))]


def _before_separator(field: str) -> str:
    """The field up to the ### between blocks."""
    return _SEPARATOR.split(field, maxsplit=1)[0].strip()
