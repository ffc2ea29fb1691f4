"""Packed blocks on disk: written atomically as a folder, memory-mapped, and read as training examples."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from zhllama.errors import InputError
from zhllama.io.files import json_lines, not_written, read_utf8, seal, to_json, unsealed, write_whole
from zhllama.io.json import parse_json, read_object
from zhllama.training.options import Fit
from zhllama.training.packing import Packed

IDS, STARTS, USED, ANSWERS, META = "ids.bin", "starts.bin", "used.bin", "answers.bin", "blocks.json"
VALIDATION = "validation.jsonl"
REMEDY = "Remove the folder, and pack the text again"
FORMAT = 3  # increase when the files change: caches of an older format are then packed again
Example = dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class BlocksMeta:
    """Description of a folder of blocks; `tokens` counts used positions, `filled` is their share of all."""

    size: int
    blocks: int
    tokens: int
    documents: int
    characters: int
    bytes: int
    vocabulary: int
    fit: Fit
    tokenizer: str
    dtype: str
    answers: bool = False  # whether answers.bin says which positions to train on; else all of them

    @property
    def filled(self) -> float:
        return self.tokens / max(self.blocks * self.size, 1)


@dataclass(frozen=True)
class PackedBlocks:
    """An open folder of blocks; `blocks[i]` is an example: input_ids, position_ids that restart, labels."""

    folder: Path
    meta: BlocksMeta
    ids: NDArray[Any]
    starts: NDArray[np.int64]
    used: NDArray[np.int32]
    answers: NDArray[np.bool_] | None = None

    @classmethod
    def open(cls, folder: Path) -> "PackedBlocks":
        """Map a folder into memory; InputError if a file is missing, truncated or changed since it was written."""
        if changed := unsealed(folder):
            raise InputError(changed, "is not as it was packed", f"Remove {folder}, and pack the text again")
        meta = _meta(folder / META)
        try:
            shape = (meta.blocks, meta.size)
            ids = np.memmap(folder / IDS, meta.dtype, "r", shape=shape)
            starts = np.memmap(folder / STARTS, np.int64, "r")
            used = np.memmap(folder / USED, np.int32, "r", shape=(meta.blocks,))
            answers = np.memmap(folder / ANSWERS, np.bool_, "r", shape=shape) if meta.answers else None
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                folder, f"is not a folder of packed blocks ({error})", "Pack the text again"
            ) from error
        return cls(folder, meta, ids, starts, used, answers)

    def __len__(self) -> int:
        return self.meta.blocks

    def __getitem__(self, block: int) -> Example:
        low, high = np.searchsorted(self.starts, (block * self.meta.size, (block + 1) * self.meta.size))
        starts = self.starts[low:high] - block * self.meta.size
        answers = None if self.answers is None else self.answers[block]
        return example(self.ids[block].astype(np.int64), starts, int(self.used[block]), answers)

    def validation(self) -> list[Any]:
        """Return the documents of the validation split, which were not packed."""
        return self.extra(VALIDATION)

    def extra(self, name: str) -> list[Any]:
        """Return the JSON values, one per line, of a further file of this folder; empty if it does not exist."""
        path = self.folder / name
        lines = read_utf8(path).split("\n") if path.exists() else []
        return [parse_json(line, f"{path}:{n}", REMEDY) for n, line in enumerate(lines, 1) if line]


def _meta(path: Path) -> BlocksMeta:
    """Read the description of a folder, each field checked against its type."""
    try:
        meta = TypeAdapter(BlocksMeta).validate_json(to_json(read_object(path, REMEDY)), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        message = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise InputError(path, f"does not describe packed blocks ({message})", REMEDY) from None
    counts = (meta.size, meta.blocks, meta.tokens, meta.documents, meta.vocabulary)
    if min(counts) < 0 or meta.dtype not in ("uint16", "uint32"):
        raise InputError(path, "does not describe packed blocks", REMEDY)
    return meta


def example(
    ids: NDArray[np.int64], starts: NDArray[np.int64], used: int, answers: NDArray[np.bool_] | None = None
) -> Example:
    """Return one block as an example: positions restart at each document, whose first token has no label.

    In conversations only the `answers` have labels.
    """
    document_starts = np.zeros(len(ids), np.int64)
    document_starts[starts] = starts
    positions = np.arange(len(ids)) - np.maximum.accumulate(document_starts)
    labels = ids.copy()
    labels[starts] = -100
    labels[used:] = -100
    if answers is not None:
        labels[~answers] = -100
    return {"input_ids": ids, "position_ids": positions, "labels": labels}


def examples(packed: Packed) -> list[Example]:
    """Return packed blocks in memory as examples."""
    rows = []
    for block, ids in enumerate(packed.ids):
        starts = packed.starts[packed.starts[:, 0] == block, 1]
        answers = None if packed.answers is None else packed.answers[block]
        rows.append(example(ids.astype(np.int64), starts, int(packed.used[block]), answers))
    return rows


@dataclass(frozen=True)
class BlocksOrigin:
    """The text and settings that blocks were packed from; the cache key is their hash."""

    text: str  # hash of the files' content
    tokenizer: str  # hash
    size: int
    fit: Fit
    validation_split: bool

    def key(self) -> str:
        """Return the name of the cache folder, by content, not by file name."""
        return hashlib.sha256(json.dumps([FORMAT, *asdict(self).values()]).encode()).hexdigest()[:32]


@dataclass
class TextCounts:
    """Documents, characters and bytes, counted while documents are packed."""

    documents: int = 0
    characters: int = 0
    bytes: int = 0

    def __call__(self, text: str) -> None:
        self.documents += 1
        self.characters += len(text)
        self.bytes += len(text.encode())


def write_blocks(
    folder: Path,
    packed: Iterable[Packed],
    origin: BlocksOrigin,
    vocabulary: int,
    counts: TextCounts,
    extra: Mapping[str, Callable[[], list[Any]]],
) -> PackedBlocks:
    """Write blocks to a temporary folder and rename it; `counts` and `extra` are read when all is packed.

    `extra`: values for files of JSON lines, by name. Returns empty blocks, without a folder, if nothing was packed.
    Errors: OutputError for a full disk.
    """
    dtype = "uint16" if vocabulary <= 1 << 16 else "uint32"
    blocks = tokens = answered = 0
    part = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Not named by process id: other machines that share the cache may pack the same text under the same id.
        part = Path(mkdtemp(suffix=".part", prefix=f".{folder.name}.", dir=folder.parent))
        part.chmod(0o755)
        with (
            (part / IDS).open("wb") as ids,
            (part / STARTS).open("wb") as starts,
            (part / USED).open("wb") as used,
            (part / ANSWERS).open("wb") as answers,
        ):
            for window in _input_errors(packed):
                ids.write(window.ids.astype(dtype).tobytes())
                starts.write(((window.starts[:, 0] + blocks) * origin.size + window.starts[:, 1]).tobytes())
                used.write(window.used.tobytes())
                if window.answers is not None:
                    answers.write(window.answers.tobytes())
                    answered += int(window.answers.sum())
                blocks += len(window.ids)
                tokens += int(window.used.sum())
            for file in (ids, starts, used, answers):
                _sync(file)
        meta = BlocksMeta(origin.size, blocks, tokens, counts.documents, counts.characters, counts.bytes, vocabulary,
                    origin.fit, origin.tokenizer, dtype, answered > 0)  # fmt: skip
        if not answered:
            (part / ANSWERS).unlink()
        for name, values in extra.items():
            if lines := json_lines(values()):
                write_whole(part / name, lines)
        write_whole(part / META, to_json(asdict(meta)))
        seal(part)
        if blocks:
            _rename(part, folder)
    except OSError as error:
        raise not_written(folder, error) from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
    if not blocks:
        return PackedBlocks(
            folder, meta, np.empty((0, origin.size), dtype), np.empty(0, np.int64), np.empty(0, np.int32)
        )
    return PackedBlocks.open(folder)


def _input_errors(packed: Iterable[Packed]) -> Iterator[Packed]:
    """Turn an OSError of reading the texts into InputError, so that it is not taken for one of writing."""
    try:
        yield from packed
    except OSError as error:
        where = error.filename or "input"
        raise InputError(where, f"cannot be read ({error.strerror or error})", "Check the file") from error


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _rename(part: Path, folder: Path) -> None:
    try:
        part.rename(folder)
    except OSError:
        if not (folder / META).is_file():  # else another process has just packed the same
            raise
