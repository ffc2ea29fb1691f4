"""Checks of a block of a reply: what may be structure of the reply that remains in a field."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from zhllama.generation.reply_grammar import TITLED, Line
from zhllama.generation.reply_remarks import SPECIAL_TOKEN, THOUGHT_TAG
from zhllama.generation.reply_words import Role


@dataclass
class Block:
    """The fields of one task, or the reason why they cannot be read."""

    fields: dict[Role, str] = field(default_factory=dict)
    reason: str = ""
    number: str = ""


def nested(numbers: Sequence[int | None]) -> set[int]:
    """Positions in a sequence of numbers that is interrupted and continued: 4 5 1 2 6 gives those of 5, 1 and 2."""
    result: set[int] = set()
    later: dict[int, int] = {}
    for position, number in enumerate(numbers):
        if number is not None:
            later[number] = position
    for position in range(len(numbers) - 1):
        number, following = numbers[position], numbers[position + 1]
        if number is None or following == number + 1:
            continue
        end = later.get(number + 1, -1)
        if end > position + 1:
            result.update(range(position, end))
    return result


def isolated(numbers: Sequence[int | None]) -> set[int]:
    """Positions whose number continues neither of its neighbors, in a sequence that is otherwise continuous."""
    linked = [a is not None and b == a + 1 for a, b in itertools.pairwise(numbers)]
    if len(numbers) < 3 or sum(linked) * 2 < len(linked):
        return set()
    before, after = [False, *linked], [*linked, False]
    return {
        place
        for place, number in enumerate(numbers)
        if number is not None and not before[place] and not after[place]
    }


def is_complete(block: Block, first: Role, last: Role) -> bool:
    return last in block.fields and (bool(block.fields[first]) or first == "input")


def follows(first: str, second: str) -> bool:
    first, second = first.lstrip("~"), second.lstrip("~")
    return first.isdecimal() and second.isdecimal() and int(second) == int(first) + 1


def differ(first: str, second: str) -> bool:
    return bool(first and second) and first != second


def is_next_heading(line: Line, block: Block, own: set[str]) -> bool:
    """True if a line such as 6. 写作 may be the heading of the next block, not an item of a list."""
    with_titles, without = line.form in own, line.form.removesuffix(TITLED) in own
    number = block.number.lstrip("~")
    if not (line.number.isdecimal() and number.isdecimal()):
        return with_titles
    return (with_titles and int(line.number) > int(number)) or (without and follows(number, line.number))


def open_fence_reason(lines: Sequence[Line]) -> str:
    """A reason if code fences do not pair; the value on the line of a label counts, too."""
    open_fence: Line | None = None
    for line in lines:
        if line.kind != "fence":
            if line.text.count("```") % 2:  # 代码：```python
                open_fence = Line(line.text, "fence", "`", indent=3) if open_fence is None else None
            continue
        if open_fence is None:
            open_fence = line
        elif line.form == open_fence.form and line.indent >= open_fence.indent and not line.value:
            open_fence = None
        elif line.value and line.form == open_fence.form:
            return "open fence"
    return "open fence" if open_fence is not None else ""


def foreign_marks(text: str) -> str:
    """A reason if a field contains what no text of a task contains: a thought, a special token, a broken character."""
    if THOUGHT_TAG.search(text):
        return "thought"
    if SPECIAL_TOKEN.search(text):
        return "special token"
    return "half a surrogate pair" if any("\ud800" <= character <= "\udfff" for character in text) else ""


def last_paragraphs(text: str) -> list[str]:
    """The last paragraph and the last line of a text, where they are not all of it."""
    lines = text.split("\n")
    if len(lines) == 1:
        return []
    paragraph = text.rsplit("\n\n", 1)[1] if "\n\n" in text else ""
    return [part for part in (paragraph, lines[-1]) if part.strip()]


def label_name(line: str) -> str:
    name, colon, _ = line.strip().lstrip("-*#【[ ").replace(":", "：").partition("：")
    name = name.rstrip("*】] ")
    return name if colon and 2 <= len(name) <= 6 and name.isalpha() else ""
