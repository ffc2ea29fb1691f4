"""Reading, editing and filtering as datatrove pipeline steps; rejects are written with their reason."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter

from zhllama.corpus.documents import HEAD, FilePiece, Reading, read_piece
from zhllama.corpus.edits import Edit
from zhllama.corpus.filters import Filter

EXAMPLES = 3  # changes of each edit that a task stores for the report
AROUND = 60  # characters shown of a change


class ReadPieces(PipelineStep):  # type: ignore[misc]
    """Reads the documents of one task; an unreadable one is marked, and the first filter rejects it."""

    type, name = "reader", "read"

    def __init__(self, shards: Sequence[Sequence[FilePiece]], reading: Reading) -> None:
        super().__init__()
        self.shards, self.reading = shards, reading

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for piece in self.shards[rank]:
            documents = read_piece(piece, self.reading)
            while True:
                with self.track_time():
                    read = next(documents, None)
                if read is None:
                    break
                document = Document(read.text, read.id, metadata={"source": str(piece.path)})
                if read.url is not None:
                    document.metadata["url"] = read.url
                if read.broken is not None:
                    document.metadata["broken"] = read.broken
                    document.text = read.text[:HEAD]
                self.stat_update("documents")
                self.stat_update("characters", value=len(document.text), unit="doc")
                if read.continues:
                    self.stat_update("splits")
                yield document


class ReadShard(JsonlReader):  # type: ignore[misc]
    """Reads the documents that the task of the same number wrote, which are none if it accepted none."""

    name = "read shard"

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), compression=None, add_file_path=False)

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        shard = f"{rank:05d}.jsonl"
        if self.data_folder.exists(shard):
            yield from self.read_files_shard([shard])


class EditBlock(PipelineStep):  # type: ignore[misc]
    """Applies a function to the text of each document, and writes a few changes to `examples`/NAME."""

    type = "edit"

    def __init__(self, name: str, edit: Edit, examples: Path) -> None:
        self.name = name
        super().__init__()
        self.edit, self.examples = edit, examples / name

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        shown: list[list[str]] = []
        for document in data:
            before = document.text
            with self.track_time():
                document.text = self.edit(before)
            self.stat_update("total")
            self.stat_update("characters", value=len(before), unit="doc")
            if document.text != before:
                self.stat_update("changed")
                if len(shown) < EXAMPLES:
                    shown.append(_change(before, document.text))
            yield document
        if shown:
            self.examples.mkdir(parents=True, exist_ok=True)
            (self.examples / f"{rank:05d}.json").write_text(json.dumps(shown), encoding="utf-8")


class FilterBlock(BaseFilter):  # type: ignore[misc]
    """Rejects documents by a function of their text, or of the metadata `field`, and writes them to `rejected`/NAME."""

    type = "filter"

    def __init__(
        self,
        name: str,
        reason: Filter | Callable[[str | None], str | None],
        rejected: Path,
        field: str | None = None,
    ) -> None:
        self.name = name
        super().__init__(rejects(rejected, name))
        self.reason, self.field = reason, field

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        self.stat_update("characters", value=len(doc.text), unit="doc")
        reason = self.reason(doc.text if self.field is None else doc.metadata.get(self.field))
        return True if reason is None else (False, reason)


class Lengths(PipelineStep):  # type: ignore[misc]
    """Counts the accepted documents by length."""

    type, name = "stats", "lengths"

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for document in data:
            self.stat_update(f"length {length_bin(len(document.text))}")
            self.stat_update("characters", value=len(document.text), unit="doc")
            yield document


def length_bin(length: int) -> int:
    """The lower bound of the bin of a length: 0, 10, 20, 50, 100, 200, 500 and so on."""
    if length < 10:
        return 0
    decade: int = 10 ** (len(str(length)) - 1)
    return decade * (5 if length >= 5 * decade else 2 if length >= 2 * decade else 1)


def writer(folder: Path) -> Any:
    """Writes one shard of JSON lines per task: id, source, url if there is one, text."""
    return JsonlWriter(str(folder), "${rank}.jsonl", compression=None, adapter=_accepted_row)


def rejects(folder: Path, step: str, reason: str | None = None) -> Any:
    """Writes rejects with their reason, which is `reason` for datatrove's own filters."""
    return JsonlWriter(
        str(folder / step), "${rank}.jsonl", compression=None, adapter=partial(_rejected_row, reason)
    )


def _accepted_row(writer: Any, document: Document) -> dict[str, Any]:
    fields = {key: document.metadata[key] for key in ("source", "url") if document.metadata.get(key)}
    return {"id": _writable(document.id), **fields, "text": _writable(document.text)}


def _rejected_row(reason: str | None, writer: Any, document: Document) -> dict[str, Any]:
    return {"reason": reason or document.metadata["filter_reason"], **_accepted_row(writer, document)}


def _writable(text: str) -> str:
    """Replace lone surrogates, which have no UTF-8; they come from Parquet and from HTML entities."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _change(before: str, after: str) -> list[str]:
    """Both texts around their first difference."""
    difference = next(
        (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b),
        min(len(before), len(after)),
    )
    begin = max(0, difference - AROUND // 3)
    return [_writable(text[begin : difference + AROUND]) for text in (before, after)]
