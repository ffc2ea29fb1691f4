"""An index of the rows under review: a snapshot of them in a temporary file, and what filters need in columns of numbers.

Rows are read once, by the readers of `zhllama/io`, in a thread: the first are shown while the rest is read. The snapshot
makes every row reachable by its offset, whatever the format of its file, and stays the same where that file changes.
"""

import json
import mmap
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from threading import Event, Lock
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from zhllama.errors import InputError, OutputError, ZhllamaError
from zhllama.io.files import remedy_of_writing
from zhllama.io.json import parse_row
from zhllama.io.rows import NotJson, read_rows_or_faults
from zhllama.review.row_facts import RowFacts, row_facts
from zhllama.review.row_parts import RowKind, RowParts
from zhllama.review.sources import Group, JudgedTexts, ReviewSource

FIRST, BATCH = 100, 2000  # rows of the first batch, which is soon shown, and of the others
FLAGS = 62  # distinct flags that can be filtered by
KINDS: tuple[RowKind, ...] = get_args(RowKind)
COLUMNS = {
    "offset": np.int64, "size": np.int32, "line": np.int64, "key": np.uint64, "characters": np.int32, "source": np.int16,
    "kind": np.int8, "reason": np.int32, "category": np.int32, "model": np.int32, "flags": np.int64,
}  # fmt: skip
Column = npt.NDArray[Any]


class IndexedRow(NamedTuple):
    """One row of the snapshot: where it comes from, its key, and its facts; `broken` is why it is not JSON."""

    number: int
    where: str
    group: Group
    key: str
    facts: RowFacts
    broken: str = ""


@dataclass
class Names:
    """Numbers for names, in the order of their first use; 0 is the empty name."""

    names: list[str] = field(default_factory=lambda: [""])
    _numbers: dict[str, int] = field(default_factory=lambda: {"": 0})

    def number(self, name: str) -> int:
        number = self._numbers.setdefault(name, len(self.names))
        if number == len(self.names):
            self.names.append(name)
        return number

    def find(self, name: str) -> int | None:
        return self._numbers.get(name)


class RowIndex:
    """The rows of some files. `build` fills it; all else may be called meanwhile by other threads."""

    def __init__(self, sources: Sequence[ReviewSource], judged: JudgedTexts | None = None) -> None:
        self.sources, self.judged = tuple(sources), judged
        self.reasons, self.categories, self.models, self.flags = Names(), Names(), Names(), Names()
        self.faults: list[ZhllamaError] = []  # of files that could not be read to their end
        self.done, self.has_rows = Event(), Event()  # the latter is set at the end too
        self._stop = Event()
        self._file = tempfile.TemporaryFile(prefix="zhllama-review-")  # noqa: SIM115 # closed by `close`
        self._lock = Lock()
        self._batches: list[dict[str, Column]] = [
            {name: np.empty(0, dtype) for name, dtype in COLUMNS.items()}
        ]
        self._count = self._end = 0

    def __len__(self) -> int:
        return self._count

    def close(self) -> None:
        """End `build`, and remove the snapshot."""
        self._stop.set()
        self.done.wait(10)
        self._file.close()

    def build(self) -> None:
        """Read all rows. What ends the reading of a file is added to `faults`; the rows before it stay."""
        try:
            for number, source in enumerate(self.sources):
                try:
                    self._read_source(number, source)
                except ZhllamaError as error:
                    self.faults.append(error)
        except OSError as error:
            folder = Path(tempfile.gettempdir())
            message = f"cannot take the snapshot of the rows ({error.strerror or error})"
            remedy = remedy_of_writing(
                error, "Set TMPDIR to a writable folder", "Set TMPDIR to a folder with room"
            )
            self.faults.append(OutputError(folder, message, remedy))
        finally:
            self.done.set()
            self.has_rows.set()

    def _read_source(self, number: int, source: ReviewSource) -> None:
        rows: list[tuple[Any, ...]] = []
        try:
            for line, stored in read_rows_or_faults(source.path):
                if self._stop.is_set():
                    return
                rows.append(self._index_row(number, source, line, stored))
                if len(rows) >= (BATCH if self._count else FIRST):
                    self._publish(rows)
        finally:
            self._publish(rows)

    def _index_row(self, number: int, source: ReviewSource, line: int, stored: Any) -> tuple[Any, ...]:
        broken = isinstance(stored, NotJson)
        content = _content(stored)
        self._file.write(content + b"\n")
        key = int.from_bytes(blake2b(content, digest_size=8).digest(), "big")
        if broken:
            facts = _broken(stored.reason)
        else:
            facts = row_facts(stored, source.group, f"{source.path}:{line}", self.judged)
        flags = sum(1 << n for n in {self._flag(flag) for flag in facts.flags} if n is not None)
        offset, self._end = self._end, self._end + len(content) + 1
        return (
            offset, len(content), line, key, facts.parts.characters, number, KINDS.index(facts.parts.kind),
            self.reasons.number(facts.reason), self.categories.number(facts.category), self.models.number(facts.model), flags,
        )  # fmt: skip

    def _flag(self, flag: str) -> int | None:
        number = self.flags.find(flag)
        if number is None and len(self.flags.names) <= FLAGS:
            number = self.flags.number(flag)
        return number

    def _publish(self, rows: list[tuple[Any, ...]]) -> None:
        if not rows:
            return
        self._file.flush()
        columns = zip(*rows, strict=True)
        batch = {
            name: np.array(values, dtype)
            for (name, dtype), values in zip(COLUMNS.items(), columns, strict=True)
        }
        with self._lock:
            self._batches.append(batch)
            self._count += len(rows)
        rows.clear()
        self.has_rows.set()

    def columns(self) -> dict[str, Column]:
        """The columns of all rows so far, each of `len(self)` numbers or more."""
        with self._lock:
            if len(self._batches) > 1:
                whole = {name: np.concatenate([batch[name] for batch in self._batches]) for name in COLUMNS}
                self._batches = [whole]
            return self._batches[0]

    def read(self, number: int) -> IndexedRow:
        """A row by its number. Errors: IndexError."""
        if not 0 <= number < self._count:
            raise IndexError(number)
        columns = self.columns()
        at = {
            name: int(columns[name][number]) for name in ("offset", "size", "line", "key", "source", "kind")
        }
        source = self.sources[at["source"]]
        where, key = f"{source.path}:{at['line']}", f"{at['key']:016x}"
        content = os.pread(self._file.fileno(), at["size"], at["offset"])
        stored = parse_row(content, any_number=True)
        if KINDS[at["kind"]] == "broken":
            return IndexedRow(number, where, source.group, key, _broken(stored["broken"]), stored["broken"])
        return IndexedRow(
            number, where, source.group, key, row_facts(stored, source.group, where, self.judged)
        )

    def stored(self, number: int) -> bytes:
        """The JSON of a row as it is in the snapshot."""
        columns = self.columns()
        return os.pread(self._file.fileno(), int(columns["size"][number]), int(columns["offset"][number]))

    def contents(self) -> mmap.mmap | None:
        """The whole snapshot, one row of JSON a line; None while it is empty."""
        size = self._size()
        return mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ) if size else None

    def _size(self) -> int:
        columns = self.columns()
        return int(columns["offset"][-1] + columns["size"][-1] + 1) if self._count else 0

    def require_rows(self) -> None:
        """Wait for the first rows. Errors: InputError where there are none."""
        self.has_rows.wait()
        if not self._count:
            self.refuse_faults()
            raise InputError(self.sources[0].path, "contains no rows", "Give JSON lines, or one JSON list")

    def refuse_faults(self) -> None:
        """Raise the first error that ended the reading of a file, if there is one."""
        if self.faults:
            raise self.faults[0]


def _content(stored: Any) -> bytes:
    """A row as one line of JSON; what JSON has no form for, such as a date of Parquet, as text."""
    value = {"broken": stored.reason} if isinstance(stored, NotJson) else stored
    text = json.dumps(value, ensure_ascii=False, default=str)
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return json.dumps(value, default=str).encode()


def _broken(reason: str) -> RowFacts:
    return RowFacts(None, RowParts("broken", ()), "", "", (), "", "", reason)
