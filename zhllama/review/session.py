"""A review in progress: the rows, the decisions of all reviewers, and the answers to what the page asks."""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np

from zhllama.corpus.edits import masked_spans
from zhllama.errors import InputError
from zhllama.generation.filters import PERSONAL
from zhllama.review.agreement import agreements, disagreements
from zhllama.review.decisions import Decision, JournalReader, OwnJournal, as_json, journals
from zhllama.review.filters import Numbers, RowQuery, Status, select
from zhllama.review.nearness import Nearness
from zhllama.review.placed import PlacedDecisions, verdicts
from zhllama.review.row_facts import fault_of
from zhllama.review.row_index import KINDS, IndexedRow, RowIndex
from zhllama.review.row_parts import RowPart, other_fields, prompt_of, row_parts, text_at, with_texts

SELECTIONS = 8  # kept, so that scrolling does not select again
NAMES = 200  # names of a filter that the page lists, the most frequent ones
EXCERPT = 160  # characters of a row in the list
SHOWN = 100_000  # characters of a text that are sent unless the whole is asked for
JUDGE = "judge"
CHOICES = "123456789"


class ReviewSession:
    """All that the page asks for, as JSON values. Its methods may be called by several threads."""

    def __init__(self, index: RowIndex, folder: Path, reviewer: str, journal: OwnJournal) -> None:
        self.index, self.folder, self.reviewer, self._journal = index, folder, reviewer, journal
        self.nearness = Nearness(index)
        self._placed = {reviewer: PlacedDecisions(JournalReader(journal.path))}
        self._selections: dict[tuple[RowQuery, int], Numbers] = {}
        self._version = 0
        self._journal_faults: list[InputError] = []
        self._lock = RLock()

    def _refresh(self) -> None:
        """Read what all reviewers decided meanwhile."""
        for name, path in journals(self.folder).items():
            if name not in self._placed:
                self._placed[name] = PlacedDecisions(JournalReader(path))
        self._journal_faults = []
        for name, placed in self._placed.items():
            try:
                placed.refresh(self.index)
            except InputError as error:
                if name == self.reviewer:
                    raise
                self._journal_faults.append(error)  # another's journal stops nobody's review

    @property
    def _mine(self) -> Mapping[int, Decision]:
        return self._placed[self.reviewer].by_row

    def summary(self) -> dict[str, Any]:
        """Counts, the names that filters offer, progress, faults of the files, and agreement."""
        with self._lock:
            self._refresh()
            columns = self.index.columns()
            given = verdicts(self._placed)
            raters = {**given, **self._judges()}
            return {
                "reviewer": self.reviewer,
                "rows": len(columns["offset"]),
                "done": self.index.done.is_set(),
                "faults": [str(fault) for fault in (*self.index.faults, *self._journal_faults)],
                "files": [str(source.path) for source in self.index.sources],
                "groups": _counted(columns["source"], [source.group for source in self.index.sources]),
                "kinds": _counted(columns["kind"], KINDS),
                "reasons": _counted(columns["reason"], self.index.reasons.names),
                "categories": _counted(columns["category"], self.index.categories.names),
                "models": _counted(columns["model"], self.index.models.names),
                "flags": self._flags(),
                "nearness": self.nearness.done if self.nearness.started else None,
                "reviewers": [
                    {"name": name, "verdicts": dict(Counter(given[name].values())), "decided": len(given[name]),
                     "edited": sum(bool(d.edit) for d in one.by_row.values()),
                     "commented": sum(bool(d.comment) for d in one.by_row.values()), "lost": one.lost}
                    for name, one in self._placed.items()
                ],
                "agreement": [one.figures() for one in agreements(raters) if one.rows],
                "disagreed": len(disagreements(given)),
            }  # fmt: skip

    def _judges(self) -> dict[str, dict[int, str]]:
        """The judge's own verdicts, as those of another rater, on the rows that a reviewer decided."""
        columns = self.index.columns()
        rows = {row for one in self._placed.values() for row in one.by_row if row < len(columns["kind"])}
        judged = [row for row in rows if columns["kind"][row] == KINDS.index("verdict")]
        own = {row: self.index.read(row).facts.parts.own for row in judged}
        known = {row: verdict for row, verdict in own.items() if verdict is not None}
        return {JUDGE: known} if known else {}

    def _flags(self) -> dict[str, int]:
        flags = self.index.columns()["flags"]
        counts = {
            name: int(((flags >> number) & 1).sum())
            for number, name in enumerate(self.index.flags.names) if number
        }  # fmt: skip
        return _most_frequent(counts)

    def select(self, query: RowQuery, near_row: int | None) -> dict[str, Any]:
        """A new selection: its version and size, and the position of the first row from `near_row` on."""
        if query.needs_nearness:
            self.nearness.start()
        with self._lock:
            self._refresh()
            self._version += 1
            numbers = self._selected(query, self._version)
            position = None
            if near_row is not None:
                exact = np.flatnonzero(numbers == near_row)
                later = np.flatnonzero(numbers >= near_row)
                found = exact if len(exact) else later
                position = int(found[0]) if len(found) else max(0, len(numbers) - 1)
            return {"version": self._version, "total": len(numbers), "position": position}

    def _selected(self, query: RowQuery, version: int) -> Numbers:
        known = self._selections.get((query, version))
        if known is None:
            known = select(self.index, query, self._with_status, self.nearness.scores())
            while len(self._selections) >= SELECTIONS:
                self._selections.pop(next(iter(self._selections)))
            self._selections[query, version] = known
        return known

    def _with_status(self, status: Status) -> Iterable[int]:
        mine = self._mine
        if status == "undecided":
            decided = [row for row, decision in mine.items() if decision.verdict is not None]
            return np.setdiff1d(np.arange(len(self.index)), decided)
        if status == "disagreed":
            return disagreements(verdicts(self._placed))
        return [row for row, decision in mine.items() if _has_status(decision, status)]

    def rows(self, query: RowQuery, version: int, start: int, count: int) -> dict[str, Any]:
        """A page of a selection, as the list shows rows."""
        with self._lock:
            numbers = self._selected(query, version)[start : start + count]
            return {"start": start, "rows": [self._brief(int(number)) for number in numbers]}

    def next_undecided(self, query: RowQuery, version: int, position: int) -> dict[str, Any]:
        """The position of the first row from `position` on that the reviewer did not decide; None where all are."""
        with self._lock:
            numbers, mine = self._selected(query, version), self._mine
            for place in chain(range(position, len(numbers)), range(min(position, len(numbers)))):
                decision = mine.get(int(numbers[place]))
                if decision is None or decision.verdict is None:
                    return {"position": place}
            return {"position": None}

    def _brief(self, number: int) -> dict[str, Any]:
        row = self.index.read(number)
        facts, decision = row.facts, self._mine.get(number)
        parts = row_parts(self._edited(row, decision)) if decision and decision.edit else facts.parts
        asked = facts.fault if row.broken else prompt_of(parts)
        last = next(reversed((*parts.parts, *parts.answers)), None)
        answer = last.text if last and last.text != asked else ""
        return {
            "number": number, "where": _line(row), "group": row.group, "kind": facts.parts.kind,
            "text": " ".join(asked[: 4 * EXCERPT].split())[:EXCERPT],
            "answer": " ".join(answer[: 4 * EXCERPT].split())[:EXCERPT],
            "characters": facts.parts.characters, "flags": list(facts.flags), "reason": facts.reason,
            "verdict": decision.verdict if decision else None, "edited": bool(decision and decision.edit),
            "commented": bool(decision and decision.comment),
        }  # fmt: skip

    def row(self, number: int, whole: bool = False) -> dict[str, Any]:
        """One row with all its texts. Errors: IndexError."""
        with self._lock:
            self._refresh()
            row = self.index.read(number)
            facts, decision = row.facts, self._mine.get(number)
            edit = decision.edit if decision else {}
            near = self.nearness.nearest(number)
            edited = self._edited(row, decision)
            answers, decided = facts.parts.answers, bool(decision and decision.verdict)
            blind = facts.parts.kind == "verdict" and not decided  # names and the judge's reply would sway
            return {
                "number": number, "key": row.key, "where": row.where, "group": row.group, "kind": facts.parts.kind,
                "reason": facts.reason, "detail": facts.detail, "flags": list(facts.flags),
                "category": facts.category, "model": facts.model, "characters": facts.parts.characters,
                "fault": facts.fault if not edit or row.broken else fault_of(edited, facts.parts, row.where),
                "parts": [_part(part, edit, whole) for part in facts.parts.parts if not (blind and part.name == JUDGE)],
                "answers": [
                    {**_part(answers[n], edit, whole), "choice": str(n + 1), **({"name": "answer"} if blind else {})}
                    for n in _shown_order(row)
                ],
                "own": facts.parts.own if decided else None,
                "fields": {} if blind else other_fields(facts.row, facts.parts),
                "near": None if near is None else {"row": near[0], "score": round(near[1], 3)},
                "mine": as_json(decision) if decision else None,
                "others": self._others(number) if decided else [],
                "hidden": len(self._others(number)),
            }  # fmt: skip

    def _edited(self, row: IndexedRow, decision: Decision | None) -> Any:
        return edited_row(row.facts.row, (*row.facts.parts.parts, *row.facts.parts.answers), decision.edit if decision else {})  # fmt: skip

    def _others(self, number: int) -> list[dict[str, Any]]:
        others = {name: one.by_row.get(number) for name, one in self._placed.items() if name != self.reviewer}
        return [{"reviewer": name, **as_json(one)} for name, one in others.items() if one is not None]

    def decide(self, number: int, key: str, verdict: str | None, edit: Mapping[str, str], comment: str) -> dict[str, Any]:  # fmt: skip
        """Store a decision, and return the row with it.

        Errors: IndexError; InputError for a row of another content, a verdict that it cannot have, or an edit that does
        not fit; OutputError where the journal cannot be written.
        """
        with self._lock:
            row = self.index.read(number)
            if row.key != key:
                raise InputError(row.where, "is not the row that was shown", "Reload the page")
            facts = row.facts
            choices = [str(n + 1) for n in range(len(facts.parts.answers))]
            if verdict not in (None, "drop", *([*choices, "tie"] if choices else ["keep"])):
                raise InputError(row.where, f"has no verdict {verdict!r}", "Reload the page")
            editable = {path_text(part.path): part for part in (*facts.parts.parts, *facts.parts.answers) if part.path}  # fmt: skip
            if unknown := [path for path in edit if path not in editable]:
                raise InputError(row.where, f"has no text at {unknown[0][:80]!r}", "Reload the page")
            changes = {path: text for path, text in edit.items() if text != editable[path].text}
            time = datetime.now(UTC).isoformat(timespec="seconds")
            self._journal.append(Decision(number, key, verdict, changes, comment, time))
            return self.row(number)

    def close(self) -> None:
        """End what runs in the background."""
        self.nearness.close()
        self.index.close()


def edited_row(row: Any, parts: Iterable[RowPart], edit: Mapping[str, str]) -> Any:
    """The row with its edited texts."""
    paths = {path_text(part.path): part.path for part in parts if part.path is not None}
    texts = {path: text for name, text in edit.items() if (path := paths.get(name)) is not None}
    return with_texts(row, {path: text for path, text in texts.items() if text_at(row, path) is not None})


def path_text(path: Sequence[str | int] | None) -> str:
    """A path as text, e.g. conversations/0/value; a slash in a name is written ~1 and a tilde ~0, as in JSON Pointer."""
    return "/".join(str(step).replace("~", "~0").replace("/", "~1") for step in path or ())


def _has_status(decision: Decision, status: Status) -> bool:
    if status == "edited":
        return bool(decision.edit)
    if status == "commented":
        return bool(decision.comment)
    if status == "choice":
        return decision.verdict is not None and decision.verdict[0] in CHOICES
    return decision.verdict is not None if status == "decided" else decision.verdict == status


def _line(row: IndexedRow) -> str:
    return row.where.rpartition(":")[2]


def _part(part: RowPart, edit: Mapping[str, str], whole: bool) -> dict[str, Any]:
    path = path_text(part.path) if part.path else None
    text = edit.get(path, part.text) if path else part.text
    limit = len(text) if whole else SHOWN
    return {
        "name": part.name, "path": path if len(text) <= limit else None, "text": text[:limit], "characters": len(text),
        "hidden": max(0, len(text) - limit), "original": part.text if path in edit else None,
        "marks": _marks(text[:limit]),
    }  # fmt: skip


def _marks(text: str) -> list[tuple[int, int, str]]:
    """Personal data as begin and end in UTF-16 code units, which JavaScript counts, and its kind."""
    return [(_units(text[:a]), _units(text[:b]), PERSONAL[mask]) for a, b, mask in masked_spans(text)]


def _units(text: str) -> int:
    return len(text) + sum(character > "\uffff" for character in text)


def _shown_order(row: IndexedRow) -> list[int]:
    """The order in which answers are shown: a random one, the same for all reviewers, so that it reveals no rank."""
    order = list(range(len(row.facts.parts.answers)))
    random.Random(row.key).shuffle(order)
    return order


def _counted(column: Any, names: Sequence[str]) -> dict[str, int]:
    numbers, counts = np.unique(column, return_counts=True)
    found: Counter[str] = Counter()
    for number, count in zip(numbers, counts, strict=True):
        found[names[int(number)]] += int(count)
    return _most_frequent(found)


def _most_frequent(counts: Mapping[str, int]) -> dict[str, int]:
    ordered = sorted(((n, c) for n, c in counts.items() if n and c), key=lambda item: -item[1])
    return dict(ordered[:NAMES])
