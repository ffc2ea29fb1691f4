"""Every raw reply, stored before it is parsed: whatever was paid for is here, and all else follows from it."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel, ValidationError

from zhllama.errors import InputError, OutputError

Key = tuple[int, int]  # round, number within the round
SYNC_EVERY = 1.0  # seconds


@dataclass(frozen=True)
class Request:
    """One call: which it is, what is asked, and what the fold must know beside the reply (shots, ids, the task)."""

    round: int
    index: int
    kind: str
    prompt: str
    about: Mapping[str, Any]
    sampling: Mapping[str, Any]

    @property
    def key(self) -> Key:
        return self.round, self.index

    @property
    def print(self) -> str:
        """A fingerprint of all that is sent."""
        text = json.dumps([self.kind, self.prompt, dict(self.sampling)], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


class Reply(BaseModel, frozen=True):
    """What a server answered; `text` is None where it refused this one request, and `refusal` says why."""

    text: str | None
    finish: str | None = None
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    refusal: str = ""


class JournalRecord(BaseModel, frozen=True):
    """A request and its reply, as one line of the journal."""

    round: int
    index: int
    kind: str
    print: str
    about: dict[str, Any]
    reply: Reply

    @property
    def key(self) -> Key:
        return self.round, self.index


class Journal:
    """An append-only file of records, found again by round and index.

    Each record is one `write` at the end of the file, so that SIGKILL loses nothing written; fsync follows once a second and
    at the end, so that a power cut loses a second. A torn tail, from a write that was cut off, is taken away when the
    journal is opened to go on. Errors: InputError for a line that is broken in the middle, OutputError for a full disk.
    """

    def __init__(self, path: Path, write: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self._clock, self._synced, self._write = path, clock, clock(), write
        self._places: dict[Key, tuple[int, int]] = {}
        mode = os.O_RDWR | os.O_CREAT | os.O_APPEND if write else os.O_RDONLY
        try:
            self._file = os.open(path, mode, 0o666)
        except FileNotFoundError:
            raise InputError(path, "no such journal", "Name the folder of a gen-zh run") from None
        except OSError as error:
            raise OutputError(path, f"cannot be opened ({error.strerror})", "Check its rights") from error
        try:
            self._end = self._read()
            if write:
                os.ftruncate(self._file, self._end)
        except BaseException:
            os.close(self._file)
            raise

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: Key) -> bool:
        return key in self._places

    def __iter__(self) -> Iterator[JournalRecord]:
        """All records in the order of requests, which is not that of arrival."""
        for key in sorted(self._places):
            record = self.get(key)
            assert record is not None
            yield record

    def get(self, key: Key) -> JournalRecord | None:
        """The record of a request, None where it has no reply yet."""
        if key not in self._places:
            return None
        start, length = self._places[key]
        return JournalRecord.model_validate_json(os.pread(self._file, length, start))

    def append(self, request: Request, reply: Reply) -> JournalRecord:
        """Store a reply; when this returns, the record outlives this process."""
        assert request.key not in self._places, f"{request.key} answered twice"
        record = JournalRecord(
            round=request.round,
            index=request.index,
            kind=request.kind,
            print=request.print,
            about=dict(request.about),
            reply=reply,
        )
        line = (record.model_dump_json() + "\n").encode("utf-8")
        try:
            view = memoryview(line)
            while view:
                view = view[os.write(self._file, view) :]
            if self._clock() - self._synced >= SYNC_EVERY:
                self.sync()
        except OSError as error:
            os.ftruncate(self._file, self._end)
            raise OutputError(
                self.path, f"cannot be written ({error.strerror})", "Free some room, then --resume"
            ) from error
        self._places[request.key] = (self._end, len(line))
        self._end += len(line)
        return record

    def sync(self) -> None:
        """Bring all that was written to the disk itself."""
        os.fsync(self._file)
        self._synced = self._clock()

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
        """Note where each record stands; returns the end of the last whole one."""
        start, torn = 0, 0
        with os.fdopen(os.dup(self._file), "rb") as file:
            file.seek(0)
            for number, line in enumerate(file, 1):
                try:
                    if not line.endswith(b"\n"):
                        raise ValueError("cut off")
                    record = JournalRecord.model_validate_json(line)
                except (ValidationError, ValueError):
                    torn = torn or number
                    continue
                if torn:
                    raise InputError(
                        f"{self.path}:{torn}",
                        "is broken, and whole records follow",
                        "Take that line out by hand, or start over with --force",
                    )
                self._places.setdefault(record.key, (start, len(line)))
                start += len(line)
        return start
