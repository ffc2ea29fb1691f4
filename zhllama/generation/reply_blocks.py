"""Puts the lines of a reply together: recognizes the style that the reply uses, and cuts it into blocks of fields.

A block is valid only if its structure is that of the whole reply and nothing of that structure remains in its fields.
"""

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from zhllama.generation.reply_checks import (
    Block,
    differ,
    foreign_marks,
    is_complete,
    is_next_heading,
    isolated,
    label_name,
    last_paragraphs,
    nested,
    open_fence_reason,
)
from zhllama.generation.reply_grammar import TITLED, Line, read_line
from zhllama.generation.reply_remarks import is_remark, is_remark_about_tasks
from zhllama.generation.reply_style import PROMPTED, Style, find_style, with_headings, without_early_thoughts
from zhllama.generation.reply_words import STRONG, Role


def read_blocks(text: str, order: tuple[Role, ...], label_in_prompt: bool = False) -> list[Block]:
    """The blocks of a reply, in order; each begins with a label of the first role and ends before the next one.

    Of `order` = (instruction, input, output) the input may be missing; (output, input) are the fields of an instance.
    """
    if all(line.lstrip().startswith(">") for line in text.split("\n") if line.strip()):
        text = re.sub(r"^[ \t]{0,3}> ?", "", text, flags=re.MULTILINE)
    lines = [read_line(line) for line in text.split("\n")]
    if order[0] != "instruction":
        lines = [replace(line, role="output") if line.role == "label" else line for line in lines]
    if label_in_prompt:
        lines[0] = Line(PROMPTED, "label", role=order[0], value=lines[0].text)
    lines = without_early_thoughts(lines, order)
    style = find_style(lines, order)
    if style is None:
        return []
    lines = with_headings(lines, style)
    starts = [number for number, line in enumerate(lines) if style.has(line, order[0])]
    return _Reader(lines, style, starts).blocks()


class _Reader:
    """Cuts the lines of one reply into blocks and checks each of them."""

    def __init__(self, lines: list[Line], style: Style, starts: list[int]) -> None:
        self.lines, self.style, self.starts = lines, style, starts
        self.reasons = ["" for _ in starts]
        first = self._run(starts[0], -1, None, fences=9)
        self.first = [lines[number].form for number in first]
        self.fenced = any(lines[number].kind == "fence" for number in first)
        self.ends = [*starts[1:], len(lines)]
        self.numbers = [lines[start].number for start in starts]
        self._number_from(0, first)
        self.own: list[str] = []  # forms of the lines between two blocks
        self.fence_per_block = False

    def blocks(self) -> list[Block]:
        self._find_ends()
        blocks = [self._block(number) for number in range(len(self.starts))]
        self._check_indentation(blocks)
        self._check_numbers(blocks)
        self._check_incomplete(blocks)
        self._check_extra_labels(blocks)
        return blocks

    def _run(self, start: int, floor: int, allowed: set[str] | None, fences: int) -> list[int]:
        """The numbers of the structural lines directly before a label, without blank ones.

        Titles and attributes count only in the forms `allowed`, unless it is None; at most `fences` fences count.
        """
        run: list[int] = []
        for number in range(start - 1, floor, -1):
            line = self.lines[number]
            if line.kind == "blank":
                continue
            if line.kind == "fence":
                if fences == 0:
                    break
                fences -= 1
            elif line.kind in ("titled", "attribute"):
                if allowed is not None and line.form not in allowed:
                    break
            elif line.kind not in ("heading", "separator"):
                break
            run.append(number)
        return run[::-1]

    def _number_from(self, block: int, run: Sequence[int]) -> None:
        """The number of a block whose label has none: that of its heading."""
        if not self.numbers[block]:
            self.numbers[block] = next((n for place in reversed(run) if (n := self.lines[place].number)), "")

    def _find_ends(self) -> None:
        """Find where the last field of each block ends, by the lines that the blocks have between them."""
        allowed = set(self.first)
        fences = 2 if self.fenced else 0
        runs = [
            self._run(start, previous, allowed, fences)
            for previous, start in zip(self.starts, self.starts[1:], strict=False)
        ]
        signatures = [tuple(self.lines[number].form for number in run) for run in runs]
        counts = Counter(signatures)
        if counts:
            most = max(counts.values())
            own = min((s for s, count in counts.items() if count == most), key=lambda s: (len(s), s))
            self.own = self._confirmed(list(own), runs[0], most)
        self.fence_per_block = self.fenced and any(form in "`~" for form in self.own if form)
        if self.fenced and not self.fence_per_block:
            runs = [self._run(start, previous, allowed, 0) for previous, start in zip(self.starts, self.starts[1:], strict=False)]  # fmt: skip
            signatures = [tuple(self.lines[number].form for number in run) for run in runs]
        for number, (run, signature) in enumerate(zip(runs, signatures, strict=True)):
            self._number_from(number + 1, run)
            shared = 0
            while (
                shared < min(len(signature), len(self.own))
                and signature[-1 - shared] == self.own[-1 - shared]
            ):
                shared += 1
            if shared < len(signature):
                self.reasons[number] = "heading or separator inside output"
            if self.fence_per_block and shared < len(self.own):
                self.reasons[number] = "open fence"
            if shared:
                self.ends[number] = run[-shared]
        if self.fence_per_block and sum(form in ("`", "~") for form in self.own) != 2:
            self.reasons = ["open fence" for _ in self.reasons]
        self._find_last_end()

    def _confirmed(self, own: list[str], run: Sequence[int], count: int) -> list[str]:
        """The lines between two blocks as far as they are those of the reply, not the end of an output.

        A heading must also precede the first block; a separator that does not must be at the end of the reply or
        occur twice, unless nothing at all precedes the first block.
        """
        confirmed: list[str] = []
        trailing = next((line for line in reversed(self.lines) if line.kind != "blank"), None)
        prompted = self.lines[self.starts[0]].text == PROMPTED
        kinds = [self.lines[number].kind for number in run]
        same = [self.lines[number].form for number in run] == own
        for form, kind in reversed([*zip(own, kinds if same else ["heading" for _ in own], strict=True)]):
            separator = kind == "separator" or (not same and len(form) == 1 and not form.isalnum())
            ended = trailing is not None and trailing.kind == "separator" and trailing.form == form
            if not (
                form in self.first
                or prompted
                or form in ("`", "~")
                or (separator and (ended or count > 1 or not self.first))
            ):
                break
            confirmed.append(form)
        return confirmed[::-1]

    def _find_last_end(self) -> None:
        """Cut what follows the last block: a closing fence, separators of the reply, a remark about its tasks."""
        start, end = self.starts[-1], len(self.lines)
        if self.fenced:
            fences = [number for number in range(start, end) if self.lines[number].kind == "fence"]
            if len(fences) % 2:
                self.ends[-1] = fences[-1]
                if self.lines[fences[-1]].value:
                    self.reasons[-1] = "open fence"
                return
            if self.fence_per_block or (fences and not any(line.text.strip() for line in self.lines[fences[-1] + 1 :])):  # fmt: skip
                self.reasons[-1] = "open fence"
        for number in range(end - 1, start, -1):
            if self.lines[number].kind == "separator":
                after = "\n".join(line.text for line in self.lines[number + 1 : end]).strip()
                if after and is_remark_about_tasks(after):
                    end = number
                break
        own = {*self.own, *self.first}
        while end > start + 1:
            line = self.lines[end - 1]
            if not (line.kind == "blank" or (line.kind == "separator" and line.form in own)):
                break
            end -= 1
        self.ends[-1] = end

    def _block(self, number: int) -> Block:
        start, end, order = self.starts[number], self.ends[number], self.style.order
        block = Block(number=self.numbers[number], reason=self.reasons[number])
        places: dict[Role, list[int]] = {role: [] for role in order[1:]}
        for place in range(start + 1, end):
            for role in order[1:]:
                if self.style.has(self.lines[place], role):
                    places[role].append(place)
        cuts: list[tuple[Role, int]] = [(order[0], start)]
        last = places[order[-1]]
        middle = places[order[1]] if len(order) == 3 else []
        if len(last) > 1:
            block.reason = block.reason or f"label inside {order[-1]}"
        bound = last[0] if last else end
        before, after = [p for p in middle if p < bound], [p for p in middle if p > bound]
        # A second input without an output is text; any other repeated label may be the structure of the reply.
        if len(before) > 1 or len(after) > 1 or (after and not before):
            block.reason = block.reason or "label inside a field"
        cuts += [(order[1], place) for place in before[:1]]
        cuts += [(order[-1], place) for place in last[:1]]
        if before and last and differ(self.lines[before[0]].number, self.lines[last[0]].number):
            block.reason = block.reason or "labels with different numbers"
        for index, (role, place) in enumerate(cuts):
            stop = cuts[index + 1][1] if index + 1 < len(cuts) else end
            block.fields[role] = self._field(block, place, stop, role)
        self._check_fields(block, number, cuts, end)
        return block

    def _field(self, block: Block, place: int, stop: int, role: Role) -> str:
        label = self.lines[place]
        text = "\n".join([label.value, *(line.text for line in self.lines[place + 1 : stop])])
        stripped = text.strip()
        if label.bold_open:
            if stripped.endswith("**") and stripped.count("**") % 2:
                stripped = stripped[:-2].rstrip()
            else:
                block.reason = block.reason or "open bold"
        return stripped

    def _check_fields(self, block: Block, number: int, cuts: list[tuple[Role, int]], end: int) -> None:
        """Look for remains of the structure in the fields of a block."""
        own = {*self.own, *self.first}
        for index, (role, place) in enumerate(cuts):
            stop = cuts[index + 1][1] if index + 1 < len(cuts) else end
            body = self.lines[place + 1 : stop]
            reason = (
                self._structure_left(block, body, own)
                or open_fence_reason([read_line(self.lines[place].value.strip()), *body])
                or foreign_marks(block.fields[role])
            )
            if reason:
                block.reason = block.reason or f"{reason} inside {role}"
        if number == len(self.starts) - 1 and not block.reason and not self._outer_fence_closed(end):
            paragraphs = last_paragraphs(block.fields[cuts[-1][0]])
            if any(is_remark(text) for text in paragraphs):
                block.reason = f"closing remark inside {cuts[-1][0]}"

    def _outer_fence_closed(self, end: int) -> bool:
        return self.fenced and end < len(self.lines) and self.lines[end].kind == "fence"

    def _structure_left(self, block: Block, body: Sequence[Line], own: set[str]) -> str:
        if not self.own and not self.style.numbered[self.style.order[0]] and _contains_task(body):
            return "another task"
        loose = self._loose_label()
        for line in body:
            if loose is not None and line.kind != "label" and loose.match(line.text):
                return "heading"
            if line.kind == "heading" or (line.kind == "titled" and is_next_heading(line, block, own)):
                return "heading"
            if line.kind == "separator" and (line.form in own or line.form == "#"):
                return "separator"
            if line.role == "instruction":
                numbered = line.number.startswith("~")
                if line.word in STRONG or (
                    numbered and (not line.value.strip() or f"label {line.word}{TITLED}" in own)
                ):
                    return "heading"
        trailing = next((line for line in reversed(body) if line.kind != "blank"), None)
        if trailing is not None and trailing.kind == "separator":
            return "separator"
        return ""

    def _loose_label(self) -> re.Pattern[str] | None:
        """The own label of the instruction with any signs and up to eight characters around it."""
        word = self.style.words.get("instruction", "指令")
        if word not in STRONG:
            return None
        return re.compile(
            rf"[^\u4e00-\u9fffA-Za-z]{{0,16}}{re.escape(word)}[^\u4e00-\u9fff：:\n]{{0,8}}[:：]",
            re.IGNORECASE,
        )

    def _check_indentation(self, blocks: list[Block]) -> None:
        """Remove the indentation that belongs to the reply, where a field shows it; reject where that is unknown."""
        if not any(self.lines[start].indent or self._rest_indent(start, end) for start, end in zip(self.starts, self.ends, strict=True)) and not self._numbered_once():  # fmt: skip
            return
        indented: list[tuple[Block, Role, int, bool]] = []
        for block, start, end in zip(blocks, self.starts, self.ends, strict=True):
            for role, text in block.fields.items():
                place = self._place(role, start, end)
                stop = min([p for p in self._places(start, end) if p > place], default=end)
                body = [line.text for line in self.lines[place + 1 : stop] if line.text.strip()]
                if not body or not text:
                    continue
                widths = [len(line) - len(line.lstrip(" \t\u3000")) for line in body]
                starts_below = not self.lines[place].value.strip()
                if min(widths) > 0:
                    indented.append((block, role, widths[0] if starts_below else -1, starts_below))
        shown = {width for _, _, width, below in indented if below}
        for block, role, width, below in indented:
            known = width if below else (next(iter(shown)) if len(shown) == 1 else 0)
            lines = block.fields[role].split("\n")
            following = [line for line in lines[1:] if line.strip()]
            if known and all(line[:known].strip() == "" for line in following):
                block.fields[role] = "\n".join([lines[0], *(line[known:] for line in lines[1:])])
            elif following:
                block.reason = block.reason or f"indentation of {role} may belong to the reply"

    def _places(self, start: int, end: int) -> list[int]:
        return [start] + [p for p in range(start + 1, end) if any(self.style.has(self.lines[p], r) for r in self.style.order[1:])]  # fmt: skip

    def _place(self, role: Role, start: int, end: int) -> int:
        return next(p for p in self._places(start, end) if self.lines[p].role == role)

    def _rest_indent(self, start: int, end: int) -> bool:
        return any(self.lines[place].indent > 0 for place in self._places(start, end))

    def _numbered_once(self) -> bool:
        order = self.style.order
        return self.style.numbered[order[0]] == "n" and self.style.numbered[order[-1]] == ""

    def _check_numbers(self, blocks: list[Block]) -> None:
        """Reject blocks whose number interrupts those of the others: they are part of the text of the block before them."""
        numbers = [int(n) if (n := block.number.lstrip("~")).isdecimal() else None for block in blocks]
        for index, (number, following) in enumerate(itertools.pairwise(numbers)):
            if number is not None and following is not None and following > number + 1:
                body = self.lines[self.starts[index] + 1 : self.ends[index]]
                if any(line.number.lstrip("~") == str(number + 1) for line in body):
                    blocks[index].reason = blocks[index].reason or "heading of a missing task inside a field"
        for index in nested(numbers) | isolated(numbers):
            blocks[index].reason = blocks[index].reason or "the numbers of the reply are interrupted"

    def _check_incomplete(self, blocks: list[Block]) -> None:
        """Reject the block before an incomplete one, whose label may be part of that block's text.

        The last block is incomplete where a reply was cut off; then its heading or separator shows that it is a new one.
        """
        first, last = self.style.order[0], self.style.order[-1]
        for number in range(1, len(blocks)):
            block, previous = blocks[number], blocks[number - 1]
            if is_complete(previous, first, last) and is_complete(block, first, last):
                continue
            if not is_complete(previous, first, last):
                block.reason = block.reason or "an incomplete task precedes"
            if number == len(blocks) - 1 and self.own and self.ends[number - 1] < self.starts[number]:
                continue
            previous.reason = previous.reason or "an incomplete task follows"

    def _check_extra_labels(self, blocks: list[Block]) -> None:
        """Reject outputs that all contain a line of one label, such as 解释：, that is no field of a task."""
        last = self.style.order[-1]
        labels = [
            {name for line in block.fields.get(last, "").split("\n")[1:] if (name := label_name(line))}
            for block in blocks
        ]
        counts = Counter(name for names in labels for name in names)
        for name, count in counts.items():
            if count >= 3 and count * 5 >= len(blocks) * 4:
                for block, names in zip(blocks, labels, strict=True):
                    if name in names:
                        block.reason = block.reason or f"label {name} inside {last}"


def _contains_task(body: Sequence[Line]) -> bool:
    """True if an instruction and an output in other words follow each other, such as 问题：… 回答：…."""
    asked = False
    for line in body:
        if line.kind == "label" and line.colon and len(line.word) > 1:
            asked = asked or line.role == "instruction"
            if asked and line.role == "output":
                return True
    return False
