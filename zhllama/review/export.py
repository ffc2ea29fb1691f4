"""Reviewed data: the rows that reviewers keep, with their edits and choices, and all others with the reason."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from zhllama.io.json import parse_row
from zhllama.review.agreement import agreements
from zhllama.review.decisions import Decision, JournalReader, as_json
from zhllama.review.placed import PlacedDecisions, verdicts
from zhllama.review.row_facts import fault_of
from zhllama.review.row_index import IndexedRow, RowIndex
from zhllama.review.row_parts import with_choice
from zhllama.review.session import edited_row

Undecided = Literal["keep", "leave-out"]
Write = Callable[[dict[str, Any]], object]
OWN = {"1": "win", "2": "loss", "tie": "tie"}


@dataclass
class ReviewCounts:
    """Rows by outcome; rows == kept + rejected."""

    kept: Counter[str] = field(default_factory=Counter)  # by kept, edited, chosen, not reviewed
    reasons: Counter[str] = field(default_factory=Counter)
    edited_differently: int = 0
    unreadable: list[str] = field(default_factory=list)  # kept rows that training would refuse

    def figures(self) -> dict[str, Any]:
        """The figures of the manifest."""
        kept, rejected = self.kept.total(), self.reasons.total()
        return {
            "rows": kept + rejected,
            "kept": kept,
            "rejected": rejected,
            "kept_rows": dict(self.kept.most_common()),
            "reasons": dict(self.reasons.most_common()),
            "edited_differently": self.edited_differently,
            "unreadable": len(self.unreadable),
        }


def placed_decisions(index: RowIndex, paths: Mapping[str, Path]) -> dict[str, PlacedDecisions]:
    """The decisions of each reviewer's journal on a complete index. Errors: InputError for a broken journal."""
    placed = {name: PlacedDecisions(JournalReader(path)) for name, path in paths.items()}
    for one in placed.values():
        one.refresh(index)
    return placed


def export_rows(
    index: RowIndex,
    placed: Mapping[str, PlacedDecisions],
    undecided: Undecided,
    keep: Write,
    reject: Write,
    record: Write,
    advance: Callable[[], object] = lambda: None,
) -> ReviewCounts:
    """Write every row of a complete index as kept or as rejected with its reason, and record the decisions on it.

    A row is kept where more reviewers keep it than drop it. Of edits by several reviewers the last one counts.
    """
    counts = ReviewCounts()
    for number in range(len(index)):
        advance()
        given = {name: one.by_row[number] for name, one in placed.items() if number in one.by_row}
        if not given:  # the facts of such a row are not needed
            _write_undecided(index, number, undecided, keep, reject, counts)
            continue
        row = index.read(number)
        verdict, reason = _outcome(row, [one.verdict for one in given.values()], undecided)
        record({"row": number, "where": row.where, "key": row.key, "kept": verdict is not None,
                "decisions": [{"reviewer": name, **as_json(one)} for name, one in given.items()]})  # fmt: skip
        if verdict is None:
            counts.reasons[reason] += 1
            reject({"reason": reason, "detail": _comments(given), "where": row.where, "row": row.facts.row})
            continue
        edits = sorted((one for one in given.values() if one.edit), key=lambda one: one.time)
        counts.edited_differently += len({str(sorted(one.edit.items())) for one in edits}) > 1
        counts.kept["edited" if edits else reason] += 1
        result = _reviewed(row, verdict, edits[-1].edit if edits else {})
        if row.facts.parts.kind not in ("verdict", "score") and fault_of(result, row.facts.parts, row.where):
            counts.unreadable.append(row.where)
        keep(result)
    return counts


def _write_undecided(
    index: RowIndex, number: int, undecided: Undecided, keep: Write, reject: Write, counts: ReviewCounts
) -> None:
    columns = index.columns()
    source = index.sources[int(columns["source"][number])]
    where = f"{source.path}:{int(columns['line'][number])}"
    stored = parse_row(index.stored(number), any_number=True)
    row = index.read(number) if source.group == "rejected" or not isinstance(stored, dict) or "broken" in stored else None  # fmt: skip
    if row is not None and row.broken:
        counts.reasons["bad row"] += 1
        reject({"reason": "bad row", "detail": row.broken, "where": where, "row": None})
    elif row is not None and source.group == "rejected":
        counts.reasons[row.facts.reason or "rejected"] += 1
        reject({"reason": row.facts.reason or "rejected", "detail": row.facts.detail, "where": where, "row": row.facts.row})  # fmt: skip
    elif undecided == "leave-out":
        counts.reasons["not reviewed"] += 1
        reject({"reason": "not reviewed", "detail": "", "where": where, "row": stored})
    else:
        counts.kept["not reviewed"] += 1
        keep(stored)


def _outcome(row: IndexedRow, given: Sequence[str | None], undecided: Undecided) -> tuple[str | None, str]:
    """The verdict with which a row is kept, or None, and the reason."""
    votes = Counter(verdict for verdict in given if verdict is not None)
    if row.broken:
        return None, "bad row"
    if not votes:  # edited or commented alone
        if row.group == "rejected":
            return None, row.facts.reason or "rejected"
        return ("keep", "not reviewed") if undecided == "keep" else (None, "not reviewed")
    (first, most), *others = votes.most_common()
    if others and others[0][1] == most:
        return None, "reviewers disagree"
    if first == "drop":
        return None, "dropped"
    if first == "tie" and row.facts.parts.kind == "pair":
        return None, "tie"
    return first, "kept" if first == "keep" else "chosen"


def _reviewed(row: IndexedRow, verdict: str, edit: Mapping[str, str]) -> Any:
    """The row as data: with its edits, and the better answer in its place."""
    facts = row.facts
    result = edited_row(facts.row, (*facts.parts.parts, *facts.parts.answers), edit)
    if facts.parts.kind == "verdict" and verdict in OWN:
        return {**result, "reviewed": OWN[verdict]}
    if facts.parts.kind == "pair" and verdict.isdigit():
        return with_choice(result, facts.parts.answers, int(verdict) - 1)
    return result


def _comments(given: Mapping[str, Decision]) -> str:
    return "; ".join(f"{name}: {one.comment}" for name, one in given.items() if one.comment)


def agreement_figures(placed: Mapping[str, PlacedDecisions]) -> dict[str, Any]:
    """What agreement.json contains: the decisions of each reviewer, and the agreement of every two."""
    given = verdicts(placed)
    return {
        "reviewers": {
            name: {"decided": len(rows), "verdicts": dict(Counter(rows.values())), "rows_not_found": placed[name].lost}
            for name, rows in given.items()
        },
        "agreement": [one.figures() for one in agreements(given)],
    }  # fmt: skip
