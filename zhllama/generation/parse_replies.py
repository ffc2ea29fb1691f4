"""Parses models' replies into tasks, instances, lists, decisions and rankings; ambiguous parts are rejected with a reason.

docs/generate.md describes the grammar. A task is returned exactly as the model wrote it, or not at all.
"""

import re

from zhllama.generation.parse_decisions import parse_ranking, parse_yes_no
from zhllama.generation.parse_lists import parse_list
from zhllama.generation.reply_blocks import read_blocks
from zhllama.generation.reply_checks import Block
from zhllama.generation.reply_grammar import read_line
from zhllama.generation.reply_json import json_start, read_json
from zhllama.generation.reply_remarks import normalize_empty
from zhllama.generation.reply_thoughts import strip_thinking
from zhllama.generation.reply_words import STRONG, WORDS, Role
from zhllama.generation.tasks import Task, Unreadable

__all__ = ["ParsedTask", "Unreadable", "normalize_empty", "parse_instances", "parse_list", "parse_question", "parse_ranking", "parse_tasks", "parse_yes_no", "strip_thinking"]  # fmt: skip

ParsedTask = Task | Unreadable
_TAGS = re.compile(rf"<(/?)({'|'.join(sorted(WORDS, key=len, reverse=True))})>", re.IGNORECASE)
_INSTRUCTION = re.compile(r"<(?:instruction|指令)>", re.I)
_WRAPPED = re.compile(rf"<(?:task|任务|任務)>\s{{0,9}}(?={_INSTRUCTION.pattern})", re.I)
_WRAPPER_ENDS = re.compile(r"(?<=>)\s{0,9}</(?:task|任务|任務)>", re.I)


def parse_tasks(text: str, label_in_prompt: bool = False) -> list[ParsedTask]:
    """Tasks in a reply, in order: JSON, tags such as <指令>, or blocks of 指令, 输入, 输出 in one of the known styles.

    `label_in_prompt`: the prompt ended with the label of the first instruction, so the reply starts without it. A reply
    without any task gives one Unreadable.
    """
    if not label_in_prompt:
        if tasks := _json(text):
            return tasks
        if tasks := _tagged(text):
            return tasks
    items = [_task(block) for block in read_blocks(text, ("instruction", "input", "output"), label_in_prompt)]
    return items or [Unreadable(text, "no task in the reply")]


def _json(text: str) -> list[ParsedTask]:
    """Tasks written as JSON; empty if the reply has labels before or after its JSON, which then is part of a text."""
    start = json_start(text)
    if start is None or _first_label(text[:start]) is not None:
        return []
    objects = list(read_json(text, start))
    end = objects[-1][0] if objects else start
    tasks = [task for _, items in objects for task in items]
    outside = f"{text[:start]}\n{text[end:]}"
    labeled = any(line.kind == "label" and line.value.strip() for line in map(read_line, outside.split("\n")))
    return [] if labeled or _first_label(text[end:]) is not None or _TAGS.search(outside) else tasks


def _first_label(text: str) -> int | None:
    """Where the first line with the label of an instruction starts."""
    position = 0
    for line in text.split("\n"):
        if (read := read_line(line)).role == "instruction" and read.kind == "label":
            return position
        position += len(line) + 1
    return None


def _task(block: Block) -> ParsedTask:
    instruction, output = block.fields.get("instruction", ""), block.fields.get("output", "")
    if not instruction:
        return Unreadable(output, "no instruction")
    if not output:
        return Unreadable(instruction, "no output")
    input = block.fields.get("input", "")
    reason = block.reason or ("quoted instruction" if _quoted(instruction) else "")
    if reason:
        return Unreadable("\n".join(part for part in (instruction, input, output) if part), reason)
    return Task(instruction, normalize_empty(input), output)


def _quoted(text: str) -> bool:
    """True if a field is wrapped in quotation marks, or in a fence, which may be those of the reply."""
    if text.startswith("```") and text.endswith("```"):
        return True
    return text[:1] + text[-1:] in ('""', "''", "“”", "「」", "``") and len(text) > 2 and not set(text[1:-1]) & set("\"“”「」`")  # fmt: skip


def _unwrapped(text: str) -> str:
    """The text without tags around whole tasks: <task><instruction>…</instruction>…</task>."""
    counts = {len(tag.findall(text)) for tag in (_WRAPPED, _WRAPPER_ENDS, _INSTRUCTION)}
    return _WRAPPER_ENDS.sub("", _WRAPPED.sub("", text)) if len(counts) == 1 and counts != {0} else text


def _tagged(text: str) -> list[ParsedTask]:
    """Tasks in tags: <指令>…</指令><输入>…</输入><输出>…</输出>; empty if the reply has no such tags."""
    text = _unwrapped(text)
    tags = list(_TAGS.finditer(text))
    if not any(tag[1] for tag in tags):
        return []
    blocks: list[Block] = []
    for opening, closing in zip(tags[::2], tags[1::2], strict=False):
        if opening[1] or not closing[1] or opening[2].lower() != closing[2].lower():
            return [Unreadable(text, "tags that do not pair")]
        role: Role = WORDS[opening[2].lower()]
        if role == "instruction" or not blocks:
            blocks.append(Block())
        fields = blocks[-1].fields
        order = ("instruction", "input", "output", "label")
        if role in fields or any(order.index(known) > order.index(role) for known in fields):
            blocks[-1].reason = f"tag for the {role} inside a task"
        fields[role] = text[opening.end() : closing.start()].strip()
    if len(tags) % 2:
        blocks.append(Block({"instruction": text[tags[-1].end() :].strip()}, "open tag"))
    return [_task(block) for block in blocks]


def parse_question(text: str, label_in_prompt: bool = False) -> Task | Unreadable:
    """One task without output: 指令 and 输入, the format of the prompts for translation and evolution."""
    if label_in_prompt:
        text = _before_next_prompt(text)
    blocks = read_blocks(text, ("instruction", "input", "output"), label_in_prompt)
    if not blocks or not (block := blocks[0]).fields.get("instruction"):
        return Unreadable(text, "no instruction")
    reason = block.reason or ("more than one instruction" if len(blocks) > 1 and not label_in_prompt else "")
    if "output" in block.fields:
        reason = reason or "an output that was not requested"
    if reason:
        return Unreadable(text, reason)
    return Task(block.fields["instruction"], normalize_empty(block.fields.get("input", "")))


_NEXT_PROMPT = re.compile(r"[^\n：:]{0,4}指令(?:原文)?[：:]")


def _before_next_prompt(text: str) -> str:
    """The completion of a base model without the next example that it goes on to write after a blank line."""
    paragraphs = text.split("\n\n")
    for number, paragraph in enumerate(paragraphs[1:], 1):
        if _NEXT_PROMPT.match(paragraph):
            return "\n\n".join(paragraphs[:number])
    return text


def parse_instances(
    instruction: str, text: str, label_first: bool, label_in_prompt: bool = False
) -> list[ParsedTask]:
    """Instances of an instruction: pairs of 输入 and 输出 or, with `label_first`, of 标签 and 输入."""
    if label_in_prompt:
        text = _before_next_prompt(text)
    text, cut = _before_other_instruction(text, instruction)
    order: tuple[Role, ...] = ("output", "input") if label_first else ("input", "output")
    if not label_in_prompt:
        lines = map(read_line, text.split("\n"))
        roles = ["output" if line.role == "label" else line.role for line in lines if line.kind == "label" and line.role in ("label", "input", "output")]  # fmt: skip
        # The reply may have the other order, but only throughout.
        if len(roles) > 1 and roles[0] == order[1] and roles[-1] == order[0] and len(roles) % 2 == 0:
            order = order[::-1]
    blocks = read_blocks(text, order, label_in_prompt)
    if cut and blocks:
        blocks[-1].reason = blocks[-1].reason or "heading inside a field"
    items = [_instance(instruction, block, order) for block in blocks]
    return items or [Unreadable(text, "no instance in the reply")]


def _before_other_instruction(text: str, instruction: str) -> tuple[str, bool]:
    """The reply up to the label of another instruction, whose instances do not belong to this one; True if it was cut."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        read = read_line(line)
        if read.kind == "label" and read.word in STRONG and read.value.strip():
            if _bare(read.value) == _bare(instruction.split("\n")[0]):
                continue
            return "\n".join(lines[:number]), True
    return text, False


def _bare(text: str) -> str:
    return re.sub(r"\W", "", text)


def _instance(instruction: str, block: Block, order: tuple[Role, ...]) -> ParsedTask:
    input, output = block.fields.get("input", ""), block.fields.get("output", "")
    if not output:
        return Unreadable(input, "no output")
    if block.reason:
        return Unreadable("\n".join(block.fields.values()), block.reason)
    if order[0] == "output" and not input:
        # An explicit <无> is different: the instruction itself contains the text to classify.
        return Unreadable(output, "a label without input")
    return Task(instruction, normalize_empty(input), output)
