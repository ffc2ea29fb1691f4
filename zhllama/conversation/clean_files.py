"""Cleans and splits files of conversations: every row is written, as accepted or as rejected with its reason."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from zhllama.conversation.clean import ConversationCleaner, Rejected
from zhllama.conversation.read_conversations import BadRow, order_fault, read_conversations
from zhllama.conversation.row_fields import RowReading
from zhllama.conversation.row_files import RowFiles
from zhllama.conversation.sharegpt import sharegpt_row
from zhllama.conversation.split import Length, split
from zhllama.io.rows import NotJson, read_rows_or_faults

Write = Callable[[dict[str, Any]], object]
Advance = Callable[[float], None]


@dataclass
class RowCounts:
    """Accepted and rejected rows; rows == accepted + rejected."""

    accepted: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)  # fields without a use

    def figures(self) -> dict[str, Any]:
        rejected = self.reasons.total()
        return {
            "rows": self.accepted + rejected,
            "kept": self.accepted,
            "rejected": rejected,
            "reasons": dict(self.reasons.most_common()),
            "unused_fields": dict(self.unused.most_common()),
        }


@dataclass
class SplitCounts(RowCounts):
    """The same with the parts written, the conversations that have several, and the pairs that were cut."""

    parts: int = 0
    long: int = 0
    cut: int = 0

    def figures(self) -> dict[str, Any]:
        return super().figures() | {"parts": self.parts, "long": self.long, "cut": self.cut}


def clean_files(
    files: RowFiles, cleaner: ConversationCleaner, accept: Write, reject: Write, advance: Advance
) -> RowCounts:
    """Clean the conversations of some files; `advance` receives the bytes read."""
    counts = RowCounts()
    for path in files.files:
        cleaner.reading = RowReading(unused=counts.unused, form=files.forms.get(path))
        for number, row in read_rows_or_faults(path, advance):
            where = f"{path}:{number}"
            result = cleaner(row, where)
            if isinstance(result, Rejected):
                counts.reasons[result.reason] += 1
                plain = None if isinstance(row, NotJson) else row
                reject({"reason": result.reason, "detail": result.detail, "where": where, "row": plain})
            else:
                counts.accepted += 1
                accept(sharegpt_row(result))
    return counts


def split_files(
    files: RowFiles, length: Length, max_length: int, accept: Write, reject: Write, advance: Advance
) -> SplitCounts:
    """Split the conversations of some files into parts of at most `max_length` by `length`."""
    counts = SplitCounts()
    for path in files.files:
        reading = RowReading(unused=counts.unused, form=files.forms.get(path))
        for conversation in read_conversations(path, lambda read: order_fault(read.turns), advance, reading):
            if isinstance(conversation, BadRow):
                counts.reasons["bad row"] += 1
                reject({"reason": conversation.reason, "where": conversation.where})
                continue
            parts = split(conversation, length, max_length)
            if parts is None:
                reason = "system prompt too long"
                counts.reasons[reason] += 1
                reject({"reason": reason, "where": conversation.where, **sharegpt_row(conversation)})
                continue
            counts.accepted += 1
            counts.parts += len(parts)
            counts.long += len(parts) > 1
            for part in parts:
                counts.cut += part.cut
                extra = {"part": part.number, "parts": part.of} | ({"cut": True} if part.cut else {})
                accept(sharegpt_row(part.conversation, **extra))
    return counts
