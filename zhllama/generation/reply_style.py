"""Recognizes the style of a reply: the words, numbers and punctuation of its labels, and which lines are headings."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from zhllama.generation.reply_grammar import TITLED, Kind, Line, read_line
from zhllama.generation.reply_remarks import THOUGHT_TAG
from zhllama.generation.reply_words import HEADING_WORDS, USUAL, Role

PROMPTED = "\x00"  # stands for the first label, which the prompt of a completion ends with


@dataclass(frozen=True)
class Style:
    """How a reply writes its labels: the word of the first and the last field, whether they are numbered and end in a colon."""

    order: tuple[Role, ...]
    words: dict[Role, str]
    numbered: dict[Role, str]  # "" not, "n" before the label, "~" after it
    colon: dict[Role, bool]
    forms: dict[Role, str]

    def has(self, line: Line, role: Role) -> bool:
        """True if the line is the label of a field in this style."""
        if line.kind != "label" or line.role != role:
            return False
        if line.text == PROMPTED:
            return True
        word = self.words.get(role)
        return (
            (word is None or line.word == word)
            and numbering(line) == self.numbered[role]
            and line.colon == self.colon[role]
            and line.form == self.forms[role]
        )


def numbering(line: Line) -> str:
    return "~" if line.number.startswith("~") else "n" if line.number else ""


def find_style(lines: Sequence[Line], order: tuple[Role, ...]) -> Style | None:
    """The style of the first label of the first role that another label does not follow at once, and of its last field."""
    labels = [
        (number, line) for number, line in enumerate(lines) if line.kind == "label" and line.role in order
    ]
    first: Line | None = None
    position = 0
    for position, (_, line) in enumerate(labels):
        if line.role != order[0]:
            continue
        following = labels[position + 1][1] if position + 1 < len(labels) else None
        if following is not None and following.role == order[0] and _adjacent(lines, labels, position):
            counts = Counter(other.word for _, other in labels)
            # The last heading of a reply that was cut off has no label after it.
            headings = counts[line.word] - (0 if line.value.strip() else 1)
            if counts[following.word] * 5 >= headings * 4:
                continue
        first = line
        break
    if first is None:
        return None
    counts = Counter(line.word for _, line in labels if line.role == order[0])
    usual, count = counts.most_common(1)[0]
    if first.text != PROMPTED and counts[first.word] * 3 <= count:
        position = next(place for place, (_, line) in enumerate(labels) if line.word == usual)
        first = labels[position][1]
    rest = [line for _, line in labels[position + 1 :]]
    last = _most_frequent(first, rest, order)
    other = last or next((line for line in rest if line.role != order[0]), first)
    if first.text == PROMPTED:
        # The style of the first label shows only in the next block.
        again = next((line for line in rest if line.role == order[0] and line.colon), None)
        first = again or replace(first, colon=other.colon, number=other.number, form=other.form)
    words = {order[0]: first.word}
    if last is not None:
        words[order[-1]] = last.word
    if first.word == "":
        del words[order[0]]
    return Style(
        order,
        words,
        {role: numbering(first if role == order[0] else other) for role in order},
        {role: (first if role == order[0] else other).colon for role in order},
        {role: (first if role == order[0] else other).form for role in order},
    )


def _most_frequent(first: Line, rest: Sequence[Line], order: tuple[Role, ...]) -> Line | None:
    """The label of the last field in the form that the most blocks have; of equal ones, that which is most like the first."""
    blocks: dict[
        tuple[str, str, bool, str], tuple[int, int]
    ] = {}  # form -> number of blocks, the last of them
    example: dict[tuple[str, str, bool, str], Line] = {}
    block = 0
    for line in rest:
        if line.role == order[0] and line.word == first.word and numbering(line) == numbering(first):
            block += 1
        elif line.role == order[-1]:
            key = (line.word, numbering(line), line.colon, line.form)
            count, previous = blocks.get(key, (0, -1))
            blocks[key] = (count + (previous != block), block)
            example.setdefault(key, line)
    if not blocks:
        return None
    best = max(
        blocks,
        key=lambda key: (blocks[key][0], _same_number(first, example[key]), key[3] == first.form, key[2] == first.colon, key[0] in USUAL, len(key[0])),
    )  # fmt: skip
    return example[best]


def _same_number(first: Line, line: Line) -> int:
    """How well the number of a label fits that of the first label of its block: 2. 输出：屏幕 in block 4 is an item of a list."""
    if numbering(first) == numbering(line):
        return 2 if first.number == line.number else 0
    return 1 if not line.number else 0


def _adjacent(lines: Sequence[Line], labels: Sequence[tuple[int, Line]], position: int) -> bool:
    """True if a label is directly followed by the next one, so that it is a heading such as 任务5：."""
    (start, label), (end, following) = labels[position], labels[position + 1]
    if label.word == following.word or label.word not in HEADING_WORDS:
        return False
    if label.value.strip() and not label.number.startswith("~"):
        return False
    return all(line.kind in ("blank", "attribute", "fence", "separator") for line in lines[start + 1 : end])


def with_headings(lines: list[Line], style: Style) -> list[Line]:
    """The lines with 任务5： before 指令： as a heading, and with labels of other roles as attributes."""
    result = list(lines)
    following: Line | None = None  # next line that is neither blank nor an attribute
    for number in range(len(lines) - 1, -1, -1):
        line = lines[number]
        if line.kind == "label" and line.role not in style.order and line.value.strip():
            result[number] = replace(line, kind="attribute", form=line.word)
            continue
        if (
            line.kind == "label"
            and line.role == style.order[0]
            and line.word in HEADING_WORDS
            and not style.has(line, style.order[0])
            and following is not None
            and style.has(following, style.order[0])
            and line.text != PROMPTED
        ):
            kind: Kind = "titled" if line.value.strip() else "heading"
            form = f"label {line.word}{TITLED if kind == 'titled' else ''}"
            result[number] = replace(line, kind=kind, form=form)
        if line.kind not in ("blank", "attribute", "fence", "separator"):
            following = result[number]
    return result


def without_early_thoughts(lines: list[Line], order: tuple[Role, ...]) -> list[Line]:
    """The lines without the thoughts that begin before the first label; no lines if such a thought never ends."""
    result: list[Line] = []
    open_tag = False
    for number, line in enumerate(lines):
        if not open_tag and line.kind == "label" and line.role == order[0]:
            return result + lines[number:]
        tags = list(THOUGHT_TAG.finditer(line.text))
        if not tags:
            result += [] if open_tag else [line]
            continue
        open_tag = not (tags[-1]["end"] or tags[-1]["end2"])
        rest = read_line("" if open_tag else line.text[tags[-1].end() :])
        if rest.kind == "label" and rest.role == order[0]:
            return [*result, rest, *lines[number + 1 :]]
        result.append(rest)
    return [] if open_tag else result
