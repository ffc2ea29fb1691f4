"""What is known of each row without a person: kind, length, flags, category, model, and whether training can read it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zhllama.conversation.read_comparisons import comparisons_of
from zhllama.conversation.read_conversations import conversation_of, expand_instances, training_fault
from zhllama.conversation.row_fields import RowReading
from zhllama.corpus.edits import masked_spans
from zhllama.errors import InputError
from zhllama.generation.filters import PERSONAL
from zhllama.generation.verbs_and_nouns import kind
from zhllama.review.row_parts import RowPart, RowParts, prompt_of, row_parts
from zhllama.review.sources import Group, JudgedTexts, unwrap

CATEGORIES = ("category", "categories", "task_type", "type", "topic", "domain", "subject")
MODELS = ("model", "model_name", "generator")
NAME = 80  # characters of a category, model, flag or reason, at most
UNREADABLE = "cannot be read"  # the flag of rows that training would refuse


@dataclass(frozen=True)
class RowFacts:
    """A row as the page shows and filters it; `fault` is why training would refuse the row, or empty."""

    row: Any
    parts: RowParts
    reason: str
    detail: str
    flags: tuple[str, ...]
    category: str
    model: str
    fault: str


def row_facts(stored: Any, group: Group, where: str, judged: JudgedTexts | None = None) -> RowFacts:
    """The facts of a stored row, e.g. a line of rejected.jsonl, which contains the reason beside the row."""
    row, reason, detail = unwrap(stored, group)
    parts = row_parts(row)
    if judged is not None and parts.kind in ("verdict", "score"):
        parts = _with_judged(row, parts, judged)
    fault = "" if parts.kind in ("verdict", "score") else fault_of(row, parts, where)
    return RowFacts(
        row, parts, reason[:NAME], detail, _flags(row, parts, fault),
        _first_name(row, CATEGORIES) or kind(prompt_of(parts)), _model(row), fault,
    )  # fmt: skip


def fault_of(row: Any, parts: RowParts, where: str) -> str:
    """Why training would refuse a row, by the readers of `sft`, `reward` and `dpo`; empty for a good one."""
    try:
        if parts.kind == "pair":
            comparisons_of(row, where, RowReading())
            return ""
        conversations = [conversation_of(one, where, RowReading()) for one in expand_instances(row)]
        return next(filter(None, map(training_fault, conversations)), "")
    except InputError as error:
        return error.what


def _with_judged(row: Mapping[str, Any], parts: RowParts, judged: JudgedTexts) -> RowParts:
    """A verdict with its question and answers; `—` stands for one that is not there, as in judge's report."""
    id = str(row.get("id", ""))
    question = RowPart("question", judged.questions.get(id, "—"))
    names = [str(row[name]) for name in ("left", "right")] if parts.kind == "verdict" else [str(row["of"])]
    texts = [judged.answers.get(name, {}).get(id, "—") for name in names]
    if parts.kind == "score":
        return RowParts("score", (question, RowPart(names[0], texts[0]), *parts.parts))
    answers = tuple(RowPart(name, text) for name, text in zip(names, texts, strict=True))
    return RowParts("verdict", (question, *parts.parts), answers, parts.own)


def _flags(row: Any, parts: RowParts, fault: str) -> tuple[str, ...]:
    given = row.get("flags") if isinstance(row, dict) else None
    flags = [flag[:NAME] for flag in given if isinstance(flag, str)] if isinstance(given, list) else []
    kinds = {PERSONAL[mask] for text in parts.texts for _, _, mask in masked_spans(text)}
    return tuple(dict.fromkeys([*flags, *sorted(kinds), *([UNREADABLE] if fault else [])]))


def _model(row: Any) -> str:
    origin = row.get("from") if isinstance(row, dict) else None
    return (_first_name(origin, MODELS) if isinstance(origin, dict) else "") or _first_name(row, MODELS)


def _first_name(row: Any, names: Sequence[str]) -> str:
    for name in names if isinstance(row, dict) else ():
        value = row.get(name)
        if isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, str) and value.strip():
            return " ".join(value.split())[:NAME]
    return ""
