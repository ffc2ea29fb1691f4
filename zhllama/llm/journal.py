"""The journal of a run: every raw reply, stored before it is parsed."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zhllama.errors import InputError, OutputError
from zhllama.llm.requests import Key, Reply, Request

SYNC_EVERY = 1.0  # seconds


class JournalRecord(BaseModel):
    """A request and its reply: one line of the journal."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    round: int
    index: int
    kind: str
    # The key on disk is `print`: journals of older versions have to stay readable.
    fingerprint: str = Field(validation_alias="print", serialization_alias="print")
    about: dict[str, Any]
    reply: Reply

    @property
    def key(self) -> Key:
        return self.round, self.index


class Journal:
    """An append-only file of records, indexed by round and index.

    Each record is a single `write` at the end of the file, so that SIGKILL loses no record; fsync follows once a second
    and at the end, so that a power failure loses at most one second. An incomplete last line is removed when the journal
    is opened for writing. Errors: InputError for a broken line before the end, OutputError for a full disk.
    """

    def __init__(self, path: Path, write: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self._clock, self._last_sync, self._write = path, clock, clock(), write
        self._positions: dict[Key, tuple[int, int]] = {}  # key -> offset and length in bytes
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND if write else os.O_RDONLY
        try:
            self._file = os.open(path, flags, 0o666)
        except FileNotFoundError:
            raise InputError(path, "no such journal", "Give the folder of a gen-zh run") from None
        except OSError as error:
            raise OutputError(
                path, f"cannot be opened ({error.strerror})", "Check its permissions"
            ) from error
        try:
            self._end = self._read()
            if write:
                os.ftruncate(self._file, self._end)
        except BaseException:
            os.close(self._file)
            raise

    def __len__(self) -> int:
        return len(self._positions)

    def __contains__(self, key: Key) -> bool:
        return key in self._positions

    def __iter__(self) -> Iterator[JournalRecord]:
        """All records in the order of the requests, not in the order of arrival."""
        for key in sorted(self._positions):
            record = self.get(key)
            assert record is not None
            yield record

    def get(self, key: Key) -> JournalRecord | None:
        """The record of a request; None if it has no reply yet."""
        if key not in self._positions:
            return None
        start, length = self._positions[key]
        return JournalRecord.model_validate_json(os.pread(self._file, length, start))

    def append(self, request: Request, reply: Reply) -> JournalRecord:
        """Store a reply. After this returns, the record survives the death of the process."""
        assert request.key not in self._positions, f"{request.key} has two replies"
        record = JournalRecord(
            round=request.round,
            index=request.index,
            kind=request.kind,
            fingerprint=request.fingerprint,
            about=dict(request.about),
            reply=reply,
        )
        line = (record.model_dump_json(by_alias=True) + "\n").encode("utf-8")
        try:
            remaining = memoryview(line)
            while remaining:
                remaining = remaining[os.write(self._file, remaining) :]
            if self._clock() - self._last_sync >= SYNC_EVERY:
                self.sync()
        except OSError as error:
            os.ftruncate(self._file, self._end)
            raise OutputError(
                self.path, f"cannot be written ({error.strerror})", "Free some disk space, then --resume"
            ) from error
        self._positions[request.key] = (self._end, len(line))
        self._end += len(line)
        return record

    def sync(self) -> None:
        """Flush all written records to the disk."""
        os.fsync(self._file)
        self._last_sync = self._clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._write:
                self.sync()
        finally:
            os.close(self._file)

    def _read(self) -> int:
        """Index all records; returns the offset behind the last complete one."""
        offset, first_broken = 0, 0
        with os.fdopen(os.dup(self._file), "rb") as file:
            file.seek(0)
            for number, line in enumerate(file, 1):
                try:
                    if not line.endswith(b"\n"):
                        raise ValueError("incomplete line")
                    record = JournalRecord.model_validate_json(line)
                except (ValidationError, ValueError):
                    first_broken = first_broken or number
                    continue
                if first_broken:
                    raise InputError(
                        f"{self.path}:{first_broken}",
                        "is broken, and complete records follow",
                        "Remove that line by hand, or start over with --force",
                    )
                self._positions.setdefault(record.key, (offset, len(line)))
                offset += len(line)
        return offset
