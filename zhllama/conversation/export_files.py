"""Converts files of rows into another project's form: every row is written, or rejected with its reason."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zhllama.conversation.clean_files import RowCounts, Write
from zhllama.conversation.other_forms import (
    Record,
    Target,
    conversation_in,
    dataset_entry,
    has_call_ids,
    row_for,
)
from zhllama.conversation.read_comparisons import comparisons_of, is_ranked
from zhllama.conversation.read_conversations import (
    conversation_of,
    expand_instances,
    is_label,
    training_fault,
)
from zhllama.conversation.read_labelled import labelled_of
from zhllama.conversation.records import Comparison, Conversation, LabelledAnswer
from zhllama.conversation.row_fields import LABELS, MarkedRow, RowReading
from zhllama.conversation.row_files import RowFiles
from zhllama.errors import InputError
from zhllama.io.rows import MEND, NotJson, read_rows_or_faults

# The file of each kind of record, and its name in dataset_info.json.
FILES: dict[type[Record], tuple[str, str]] = {
    Conversation: ("conversations.jsonl", "zhllama"),
    Comparison: ("pairs.jsonl", "zhllama_pairs"),
    LabelledAnswer: ("labelled.jsonl", "zhllama_labelled"),
}


@dataclass
class ExportCounts(RowCounts):
    """The same with the records written by kind, whether they have tools, and how many lost the ids of their tool calls."""

    written: Counter[type[Record]] = field(default_factory=Counter)
    with_tools: Counter[type[Record]] = field(default_factory=Counter)
    without_ids: int = 0

    def count(self, record: Record, target: Target) -> None:
        """Count a record that was written."""
        self.written[type(record)] += 1
        self.with_tools[type(record)] += bool(conversation_in(record).tools)
        self.without_ids += target == "llama-factory" and has_call_ids(record)

    def figures(self) -> dict[str, Any]:
        written = {FILES[kind][0]: count for kind, count in self.written.items()}
        return super().figures() | {"written": written, "call_ids_left_out": self.without_ids}

    def dataset_info(self) -> dict[str, Any]:
        """LLaMA-Factory's description of the files that were written."""
        return {
            FILES[kind][1]: dataset_entry(FILES[kind][0], kind, tools=self.with_tools[kind] > 0)
            for kind in FILES
            if self.written[kind]
        }


def export_files(
    files: RowFiles,
    target: Target,
    field_map: Mapping[str, str],
    writers: Mapping[type[Record], Write],
    reject: Write,
    advance: Callable[[int], None],
) -> ExportCounts:
    """Convert rows of any format that training reads; a row is written as a conversation, pairs, or a labelled answer."""
    counts = ExportCounts()
    for path in files.files:
        reading = RowReading(field_map, counts.unused, files.forms.get(path))
        for number, row in read_rows_or_faults(path, advance):
            where = f"{path}:{number}"
            try:
                if isinstance(row, NotJson):
                    raise InputError(where, row.reason, MEND)
                records = records_of(row, where, reading)
                rows = [row_for(record, target) for record in records]
            except InputError as error:
                reason = "not for training" if isinstance(error, MarkedRow) else "bad row"
                reason = "not JSON" if isinstance(row, NotJson) else reason
                counts.reasons[reason] += 1
                plain = None if isinstance(row, NotJson) else row
                reject({"reason": reason, "detail": error.what, "where": where, "row": plain})
                continue
            counts.accepted += 1
            for record, converted in zip(records, rows, strict=True):
                counts.count(record, target)
                writers[type(record)](converted)
    return counts


def records_of(row: Any, where: str, reading: RowReading) -> list[Record]:
    """What a row of any format contains. Errors: InputError."""
    if isinstance(row, dict):
        fields = reading.fields(row, where)
        if any(is_label(fields.row.get(name)) for name in LABELS):
            return [*labelled_of(row, where, reading)]
        if is_ranked(fields):
            return [*comparisons_of(row, where, reading)]
    conversations = [conversation_of(one, where, reading) for one in expand_instances(row)]
    for reason in filter(None, map(training_fault, conversations)):
        raise InputError(where, reason, MEND)
    return [*conversations]


def described(folder: Path) -> dict[type[Record], Path]:
    """The file of each kind of record in a folder."""
    return {kind: folder / name for kind, (name, _) in FILES.items()}
