"""Packed blocks on disk: written once as a whole folder, memory-mapped, and given as what a model is trained on."""

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

from zhllama.errors import InputError, OutputError
from zhllama.io.files import json_lines, read_utf8, seal, to_json, unsealed, write_whole
from zhllama.io.json import parse_json, read_object
from zhllama.training.options import Fit
from zhllama.training.packing import Packed

IDS, STARTS, USED, ANSWERS, META = "ids.bin", "starts.bin", "used.bin", "answers.bin", "blocks.json"
VALIDATION = "aside.jsonl"
PACK_AGAIN = "Remove the folder, and pack the text again"
FORMAT = 2  # a change of what is written here makes every older cache stale
Example = dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class BlocksMeta:
    """What a folder of blocks holds; `tokens` are positions in use, `filled` their share of all."""

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
    answers: bool = False  # whether only some positions are to be learnt, and answers.bin says which

    @property
    def filled(self) -> float:
        return self.tokens / max(self.blocks * self.size, 1)


@dataclass(frozen=True)
class PackedBlocks:
    """A folder of blocks, open. `blocks[i]` is an example: input_ids, position_ids that restart, labels."""

    folder: Path
    meta: BlocksMeta
    ids: NDArray[Any]
    starts: NDArray[np.int64]
    used: NDArray[np.int32]
    answers: NDArray[np.bool_] | None = None

    @classmethod
    def open(cls, folder: Path) -> "PackedBlocks":
        """Maps a folder into memory; InputError where a file is missing, cut off or other than it was written."""
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

    def aside(self) -> list[Any]:
        """The documents kept aside while packing."""
        return self.beside(VALIDATION)

    def beside(self, name: str) -> list[Any]:
        """What was written beside the blocks under a name, a JSON value a line."""
        path = self.folder / name
        lines = read_utf8(path).split("\n") if path.exists() else []
        return [parse_json(line, f"{path}:{n}", PACK_AGAIN) for n, line in enumerate(lines, 1) if line]


def _meta(path: Path) -> BlocksMeta:
    """What a folder says of its blocks, each field held to its type."""
    try:
        meta = TypeAdapter(BlocksMeta).validate_json(to_json(read_object(path, PACK_AGAIN)), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        told = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise InputError(path, f"does not describe packed blocks ({told})", PACK_AGAIN) from None
    counts = (meta.size, meta.blocks, meta.tokens, meta.documents, meta.vocabulary)
    if min(counts) < 0 or meta.dtype not in ("uint16", "uint32"):
        raise InputError(path, "does not describe packed blocks", PACK_AGAIN)
    return meta


def example(
    ids: NDArray[np.int64], starts: NDArray[np.int64], used: int, answers: NDArray[np.bool_] | None = None
) -> Example:
    """One block for the model: positions restart where documents start, whose first token nothing before may predict.

    Of conversations only the `answers` are to be predicted.
    """
    begins = np.zeros(len(ids), np.int64)
    begins[starts] = starts
    positions = np.arange(len(ids)) - np.maximum.accumulate(begins)
    labels = ids.copy()
    labels[starts] = -100
    labels[used:] = -100
    if answers is not None:
        labels[~answers] = -100
    return {"input_ids": ids, "position_ids": positions, "labels": labels}


def examples(packed: Packed) -> list[Example]:
    """The blocks of one window in memory, as examples."""
    made = []
    for block, ids in enumerate(packed.ids):
        starts = packed.starts[packed.starts[:, 0] == block, 1]
        answers = None if packed.answers is None else packed.answers[block]
        made.append(example(ids.astype(np.int64), starts, int(packed.used[block]), answers))
    return made


@dataclass(frozen=True)
class BlocksOrigin:
    """Whose text was packed with what: all that the cache key is made of."""

    text: str  # hash over the files' content
    tokenizer: str  # hash
    size: int
    fit: Fit
    kept_aside: bool

    def key(self) -> str:
        """Name of the cache folder: by content, never by file name."""
        return hashlib.sha256(json.dumps([FORMAT, *asdict(self).values()]).encode()).hexdigest()[:32]


@dataclass
class TextCounts:
    """Filled while documents stream by."""

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
    beside: Mapping[str, Callable[[], list[Any]]],
) -> PackedBlocks:
    """Writes blocks beside and renames the folder into place; `counts` and `beside` are read when all is packed.

    `beside`: values for files of JSON lines, by name. Errors: OutputError for a full disk; InputError, naming nothing, is
    the caller's where no block came out.
    """
    dtype = "uint16" if vocabulary <= 1 << 16 else "uint32"
    blocks = tokens = answered = 0
    part = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # The cache may be shared with other machines, where the same process id may be at work on the same text.
        part = Path(mkdtemp(suffix=".part", prefix=f".{folder.name}.", dir=folder.parent))
        part.chmod(0o755)
        with (
            (part / IDS).open("wb") as ids,
            (part / STARTS).open("wb") as starts,
            (part / USED).open("wb") as used,
            (part / ANSWERS).open("wb") as answers,
        ):
            for some in _reading(packed):
                ids.write(some.ids.astype(dtype).tobytes())
                starts.write(((some.starts[:, 0] + blocks) * origin.size + some.starts[:, 1]).tobytes())
                used.write(some.used.tobytes())
                if some.answers is not None:
                    answers.write(some.answers.tobytes())
                    answered += int(some.answers.sum())
                blocks += len(some.ids)
                tokens += int(some.used.sum())
            for file in (ids, starts, used, answers):
                _settle(file)
        meta = BlocksMeta(origin.size, blocks, tokens, counts.documents, counts.characters, counts.bytes, vocabulary,
                    origin.fit, origin.tokenizer, dtype, answered > 0)  # fmt: skip
        if not answered:
            (part / ANSWERS).unlink()
        for name, values in beside.items():
            if lines := json_lines(values()):
                write_whole(part / name, lines)
        write_whole(part / META, to_json(asdict(meta)))
        seal(part)
        if blocks:
            _rename(part, folder)
    except OSError as error:
        raise OutputError(
            folder, f"cannot be written ({error.strerror or error})", "Free some room"
        ) from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
    if not blocks:
        return PackedBlocks(
            folder, meta, np.empty((0, origin.size), dtype), np.empty(0, np.int64), np.empty(0, np.int32)
        )
    return PackedBlocks.open(folder)


def _reading(packed: Iterable[Packed]) -> Iterator[Packed]:
    """What is to be written; an error of the disk that the texts lie on is not one of the disk written to."""
    try:
        yield from packed
    except OSError as error:
        where = error.filename or "input"
        raise InputError(where, f"cannot be read ({error.strerror or error})", "Check the file") from error


def _settle(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _rename(part: Path, folder: Path) -> None:
    try:
        part.rename(folder)
    except OSError:
        if not (folder / META).is_file():  # otherwise another process has just packed the same
            raise
