"""Reads answers labelled good or bad, for KTO: rows with `kto_tag` or `label`, or ranked pairs."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from zhllama.conversation.read_comparisons import comparisons_of, is_ranked
from zhllama.conversation.read_conversations import (
    BadRow,
    is_label,
    read_each,
    training_fault,
    turns_and_tools,
)
from zhllama.conversation.records import Conversation, LabelledAnswer
from zhllama.conversation.row_fields import LABELS, SWITCHES, MarkedRow, RowReading
from zhllama.conversation.row_turns import answer_turn
from zhllama.errors import InputError
from zhllama.io.rows import MEND
from zhllama.io.text import Advance


def read_labelled(
    path: Path, advance: Advance | None = None, reading: RowReading | None = None
) -> Iterator[LabelledAnswer | BadRow]:
    """Answers from rows in any format of docs/sft.md with `kto_tag` or `label` as true or false, and from ranked pairs.

    The better answer of a pair is good, the worse one bad. Errors: InputError for a file that cannot be read or has no rows.
    """
    reading = reading or RowReading()
    return read_each(path, lambda row, where: labelled_of(row, where, reading), advance)


def labelled_of(row: Any, where: str, reading: RowReading) -> list[LabelledAnswer]:
    """The answer of a row, or both answers of a ranked pair. Errors: InputError as in `conversation_of`."""
    fields = reading.fields(row, where)
    names = [name for name in LABELS if is_label(fields.row.get(name))]
    if not names:
        if is_ranked(fields):
            return _of_pair(row, where, reading)
        raise InputError(where, f"has no {' or '.join(LABELS)} as true or false, and no ranked answers", MEND)
    good = {fields.switch(name) is None for name in names}
    if len(good) > 1:
        raise InputError(where, f"has {' and '.join(names)}, which differ", MEND)
    conversation = turns_and_tools(fields, where)
    if (off := fields.switch(*SWITCHES)) is not None:
        raise MarkedRow(where, f"is marked as not to be trained on ({off})")
    if (reason := training_fault(conversation)) is not None:
        raise InputError(where, reason, MEND)
    if not conversation.turns[-1].trained:
        raise MarkedRow(where, "has an answer that is marked as not to be trained on")
    fields.refuse_unsupported()
    reading.count(fields.unused())
    turns = tuple(replace(turn, trained=True) for turn in conversation.turns)
    return [LabelledAnswer(replace(conversation, turns=turns), good.pop())]


def _of_pair(row: Any, where: str, reading: RowReading) -> list[LabelledAnswer]:
    pairs = comparisons_of(row, where, reading)
    if len(pairs) > 1:
        raise InputError(where, f"ranks its answers in {len(pairs)} pairs, not as good or bad", MEND)
    (pair,) = pairs
    return [
        LabelledAnswer(_answered(pair.prompt, answer), good)
        for answer, good in ((pair.chosen, True), (pair.rejected, False))
    ]


def _answered(prompt: Conversation, answer: str) -> Conversation:
    return replace(prompt, turns=(*prompt.turns, answer_turn(answer)))
