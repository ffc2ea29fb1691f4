"""Decisions of reviewers, each appended to the reviewer's journal and synced to the disk before it is confirmed."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zhllama.errors import InputError, OutputError
from zhllama.io.files import open_regular
from zhllama.io.json import parse_row, reason
from zhllama.llm.append_file import AppendFile
from zhllama.run_folder import Lock

JOURNAL = "decisions.jsonl"
REMEDY = "Remove that line by hand, or restore the journal"


@dataclass(frozen=True)
class Decision:
    """What a reviewer decided on a row: the verdict, edited texts by their path, and a comment.

    `row` is the row's number from 0 and `key` the hash of its content: a row that was moved is found by its key.
    A verdict is keep or drop, on answers the number of the better one from 1, or tie; None takes it back.
    """

    row: int
    key: str
    verdict: str | None = None
    edit: Mapping[str, str] = field(default_factory=dict)
    comment: str = ""
    time: str = ""  # UTC, ISO 8601

    @property
    def is_empty(self) -> bool:
        return self.verdict is None and not self.edit and not self.comment

    def line(self) -> bytes:
        """The decision as a line of the journal."""
        return (json.dumps(asdict(self), ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


class _DecisionRow(BaseModel):
    """One line of a journal."""

    model_config = ConfigDict(extra="ignore", strict=True)

    row: int = Field(ge=0)
    key: str = Field(pattern=r"^[0-9a-f]{16}$")
    verdict: str | None = Field(default=None, pattern=r"^(keep|drop|tie|[1-9][0-9]?)$")
    edit: dict[str, str] = {}
    comment: str = ""
    time: str = ""


class JournalReader:
    """Reads a journal, and later what was appended to it; an incomplete last line is left for the next time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.latest: dict[tuple[int, str], Decision] = {}
        self._end = self._lines = 0

    def refresh(self) -> list[Decision]:
        """The decisions that were added since the last call. Errors: InputError names the line that is broken."""
        if not self.path.exists() or self.path.stat().st_size <= self._end:
            return []  # another reviewer's may be removed while this review goes on
        with open_regular(self.path) as file:
            file.seek(self._end)
            content = file.read()
        complete = content[: content.rfind(b"\n") + 1]
        added = [
            _parse(line, f"{self.path}:{number}")
            for number, line in enumerate(complete.split(b"\n")[:-1], self._lines + 1)
        ]
        self._end, self._lines = self._end + len(complete), self._lines + len(added)
        for decision in added:
            self.latest[decision.row, decision.key] = decision
        return added


def _parse(line: bytes, where: str) -> Decision:
    try:
        return Decision(**_DecisionRow.model_validate(parse_row(line)).model_dump())
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "row"
        raise InputError(where, f"is not a decision ({name}: {first['msg'].lower()})", REMEDY) from None
    except ValueError as error:
        raise InputError(where, reason(error), REMEDY) from None


class OwnJournal:
    """The journal of the reviewer at work, in a folder that is locked against a second server for the same reviewer.

    Errors: OutputError where the reviewer has this data open already, or where the folder cannot be written.
    """

    def __init__(self, folder: Path, reviewer: str) -> None:
        self.path = folder / reviewer / JOURNAL
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(self.path.parent)
        except OutputError:
            what = f"the reviewer {reviewer!r} has this data open in another process"
            raise OutputError(folder, what, "Close that, or give another `reviewer`") from None
        except OSError as error:
            what = f"cannot be written ({error.strerror or error})"
            raise OutputError(folder, what, "Give a writable folder with `decisions`") from None
        try:
            self._file = AppendFile(self.path)
            self._file.end = _end_of_last_line(self._file.descriptor)
            self._file.truncate()  # a line that a power failure cut off was never confirmed
        except BaseException:
            self._lock.release(remove=True)
            raise

    def append(self, decision: Decision) -> None:
        """Store a decision. After this returns, it survives SIGKILL and a power failure. Errors: OutputError."""
        if not self._lock.is_valid():
            raise OutputError(self.path.parent, "was removed during the review", "Start the review again")
        self._file.append(decision.line())
        self._file.sync()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._lock.is_valid() and self.path.stat().st_size == 0:
            self.path.unlink()  # nothing was decided: no trace is left
        self._lock.release(remove=True)
        for place in (self.path.parent, self.path.parent.parent):
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()


def _end_of_last_line(descriptor: int) -> int:
    size = os.fstat(descriptor).st_size
    position = size
    while position > 0:
        start = max(0, position - (1 << 16))
        found = os.pread(descriptor, position - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0


def journals(folder: Path) -> dict[str, Path]:
    """The journals of all reviewers by name. Errors: InputError where `folder` is not a folder of journals."""
    if not folder.exists():
        return {}
    if not folder.is_dir():
        raise InputError(folder, "is not a folder of journals", "Give another with `decisions`")
    return {path.parent.name: path for path in sorted(folder.glob(f"*/{JOURNAL}"))}


def as_json(decision: Decision) -> dict[str, Any]:
    """A decision for the page and for decisions.jsonl, without the row."""
    return {
        "verdict": decision.verdict,
        "edit": dict(decision.edit),
        "comment": decision.comment,
        "time": decision.time,
    }
