"""The journal of a run: every response body, stored before it is parsed, and one record for each reply."""

import base64
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from zhllama.errors import InputError
from zhllama.io.json import parse_row
from zhllama.llm.append_file import AppendFile
from zhllama.llm.requests import Key, Reply, Request

SYNC_EVERY = 1.0  # seconds
BODIES = "raw_replies.jsonl"
_BODY_KEY = re.compile(rb'\{"round": ?(\d+), ?"index": ?(\d+),')


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
    """An append-only file of records, indexed by round and index, and beside it the file of all response bodies.

    Each line is a single `write` at the end of its file, so that SIGKILL loses none; fsync follows once a second and at
    the end, so that a power failure loses at most one second. An incomplete last line is removed when the journal is
    opened for writing. Errors: InputError for a broken line before the end, OutputError for a full disk.
    """

    def __init__(self, path: Path, write: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self._clock, self._last_sync, self._write = path, clock, clock(), write
        self._positions: dict[Key, tuple[int, int]] = {}  # key -> offset and length in bytes
        self._body_positions: dict[Key, list[tuple[int, int]]] = {}
        self._bodies: AppendFile | None = None
        try:
            self._file = AppendFile(path, write)
        except FileNotFoundError:
            raise InputError(path, "no such journal", "Give the folder of a gen-zh run") from None
        try:
            for key, position in _index(self._file, _record_key):
                self._positions.setdefault(key, position)
            if write and (bodies := path.with_name(BODIES)).exists():
                self._bodies = AppendFile(bodies)
                for key, position in _index(self._bodies, _body_key):
                    self._body_positions.setdefault(key, []).append(position)
                self._bodies.truncate()
            if write:
                self._file.truncate()
        except BaseException:
            self._close()
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
        return JournalRecord.model_validate_json(self._file.read(*self._positions[key]))

    def store(self, request: Request, body: bytes) -> None:
        """Store a response body before anything of it is judged. After this returns, it survives the process."""
        row: dict[str, Any] = {"round": request.round, "index": request.index, "print": request.fingerprint}
        try:
            row["body"] = body.decode("utf-8")
        except UnicodeDecodeError:
            row["base64"] = base64.b64encode(body).decode("ascii")
        line = (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8")
        self._bodies = self._bodies or AppendFile(self.path.with_name(BODIES))
        self._body_positions.setdefault(request.key, []).append((self._bodies.append(line), len(line)))
        self._sync_if_due()

    def bodies(self, request: Request) -> list[bytes]:
        """The stored response bodies of a request, in the order of arrival."""
        bodies = []
        for position in self._body_positions.get(request.key, ()):
            assert self._bodies is not None
            row = parse_row(self._bodies.read(*position))
            if row["print"] == request.fingerprint:
                bodies.append(row["body"].encode() if "body" in row else base64.b64decode(row["base64"]))
        return bodies

    def has_completions(self) -> bool:
        """True if a reply was received: a record, or a body that looks like a completion."""
        positions = [position for group in self._body_positions.values() for position in group]
        return bool(self._positions) or any(
            self._bodies is not None and b"choices" in self._bodies.read(*position) for position in positions
        )

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
        self._positions[request.key] = self._file.append(line), len(line)
        self._sync_if_due()
        return record

    def sync(self) -> None:
        """Flush all written records to the disk."""
        if self._bodies:
            self._bodies.sync()
        self._file.sync()
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
            self._close()

    def _sync_if_due(self) -> None:
        if self._clock() - self._last_sync >= SYNC_EVERY:
            self.sync()

    def _close(self) -> None:
        self._file.close()
        if self._bodies:
            self._bodies.close()


def _body_key(line: bytes) -> Key:
    """The key of a stored body. Errors: ValueError if the line does not begin with one."""
    if not (found := _BODY_KEY.match(line)) or not line.endswith(b'"}\n'):
        raise ValueError("broken line")
    return int(found[1]), int(found[2])


def _record_key(line: bytes) -> Key:
    return JournalRecord.model_validate_json(line).key


def _index(file: AppendFile, key_of: Callable[[bytes], Key]) -> Iterator[tuple[Key, tuple[int, int]]]:
    """Key, offset and length of each complete line; sets `file.end` behind the last one.

    Errors: InputError for a line that `key_of` refuses and that complete lines follow.
    """
    first_broken = 0
    with os.fdopen(os.dup(file.descriptor), "rb") as lines:
        lines.seek(0)
        for number, line in enumerate(lines, 1):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("incomplete line")
                key = key_of(line)
            except ValueError:  # pydantic's ValidationError is one
                first_broken = first_broken or number
                continue
            if first_broken:
                raise InputError(
                    f"{file.path}:{first_broken}",
                    "is broken, and complete records follow",
                    "Remove that line by hand, or start over with `force`",
                )
            yield key, (file.end, len(line))
            file.end += len(line)
