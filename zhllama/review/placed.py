"""Finds the rows of decisions: by number and key, and by key alone where the data changed since the decision."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from zhllama.review.decisions import Decision, JournalReader
from zhllama.review.row_index import RowIndex

Key = tuple[int, str]  # number and key of a row at the time of the decision


@dataclass
class PlacedDecisions:
    """The latest decisions of one reviewer by the number of their rows; those that were taken back are left out.

    `lost` are decisions whose row is no longer in the data; they are known once the index is complete.
    """

    reader: JournalReader
    by_row: dict[int, Decision] = field(default_factory=dict)
    lost: int = 0
    _waiting: set[Key] = field(default_factory=set)
    _rows: dict[Key, int] = field(default_factory=dict)

    def refresh(self, index: RowIndex) -> None:
        """Read new decisions, and place those that wait for their row. Errors: InputError for a broken journal."""
        complete = index.done.is_set()  # before the columns: rows may be added between the two
        for decision in self.reader.refresh():
            key = (decision.row, decision.key)
            if key in self._rows:
                self._set(self._rows[key], decision)
            else:
                self._waiting.add(key)
        if not self._waiting:
            return
        keys = index.columns()["key"]
        for waiting in sorted(self._waiting):
            row, content = waiting
            if row < len(keys) and keys[row] == int(content, 16):
                self._place(waiting, row)
        if complete and self._waiting:
            self._place_moved(keys)
            self.lost = len(self._waiting)

    def _place(self, key: Key, row: int) -> None:
        self._waiting.discard(key)
        self._rows[key] = row
        self._set(row, self.reader.latest[key])

    def _set(self, row: int, decision: Decision) -> None:
        if decision.is_empty:
            self.by_row.pop(row, None)
        else:
            self.by_row[row] = decision

    def _place_moved(self, keys: "np.ndarray[tuple[int], np.dtype[np.uint64]]") -> None:
        """Place each decision at the nearest row of the same content that has none."""
        order = np.argsort(keys, kind="stable")
        ordered, used = keys[order], set(self._rows.values())
        for row, key in sorted(self._waiting):
            number = np.uint64(int(key, 16))
            begin, end = np.searchsorted(ordered, number, "left"), np.searchsorted(ordered, number, "right")
            free = [int(place) for place in order[begin:end] if int(place) not in used]
            if free:
                nearest = min(free, key=lambda place: abs(place - row))
                used.add(nearest)
                self._place((row, key), nearest)


def verdicts(placed: Mapping[str, PlacedDecisions]) -> dict[str, dict[int, str]]:
    """The verdicts of each reviewer by row."""
    return {
        name: {row: one.verdict for row, one in decisions.by_row.items() if one.verdict is not None}
        for name, decisions in placed.items()
    }
