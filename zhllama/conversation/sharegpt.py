"""Conversations written in ShareGPT's form, a line at a time, however many there are."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from zhllama.conversation.records import Conversation, Role

NAMES: dict[Role, str] = {"user": "human", "assistant": "gpt", "system": "system"}


def sharegpt_row(conversation: Conversation, **more: Any) -> dict[str, Any]:
    """A conversation in ShareGPT's form: its id where it has one, what else is to be said of it, and the turns."""
    named = {"id": conversation.id} if conversation.id else {}
    turns = [{"from": NAMES[turn.role], "value": turn.text} for turn in conversation.turns]
    return {**named, **more, "conversations": turns}


class JsonLines:
    """A file of JSON lines that is written as rows come, and stands under its name only once `close` was called."""

    def __init__(self, path: Path) -> None:
        self._path, self._part = path, path.with_name(f".{path.name}.part")
        self._file: IO[str] = self._part.open("w", encoding="utf-8")

    def write(self, row: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
        except UnicodeEncodeError:  # half a surrogate pair is no UTF-8, but JSON can name it
            self._file.write(json.dumps(row) + "\n")

    def close(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._part.replace(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)
