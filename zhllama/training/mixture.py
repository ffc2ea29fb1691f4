"""The text of a run: weighted sources, packed once each, and mixed in a seeded order that any step can compute."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zhllama.errors import InputError, OptionError
from zhllama.io.files import sha256
from zhllama.io.text import Advance, find_files, read_documents
from zhllama.training.document_tokenizer import DocumentTokenizer
from zhllama.training.options import Fit
from zhllama.training.packed_blocks import (
    META,
    VALIDATION,
    BlocksOrigin,
    Example,
    PackedBlocks,
    TextCounts,
    examples,
    write_blocks,
)
from zhllama.training.packing import pack

SHUFFLE_BUFFER = 2048  # blocks of a stream to draw the next one from: 25 MB at 512 tokens
# Every hundredth document goes to the validation split, up to so many characters.
VALIDATION_EVERY, VALIDATION_CHARACTERS = 100, 64_000


@dataclass(frozen=True)
class WeightedSource:
    """Text files under one label; `weight` is its share of the blocks, relative to the other sources."""

    label: str
    files: tuple[Path, ...]
    weight: float = 1.0

    @classmethod
    def parse(cls, text: str, option: str = "text") -> "WeightedSource":
        """Parse `zh=PATH` or `zh=PATH:3`; PATH is a file, a folder or a glob. Errors: OptionError, InputError."""
        label, equals, rest = text.partition("=")
        if not equals or not label.strip() or not rest:
            raise OptionError(
                option, f"{text!r} is not LABEL=PATH[:WEIGHT]", f"Write e.g. `{option}` zh=corpus.txt"
            )
        path, weight = parse_weight(rest, option)
        return cls(label, tuple(find_files([path])), weight)

    def hash(self) -> str:
        """Return the hash of the content of all files, in their order."""
        return hashlib.sha256("".join(sha256(path) for path in self.files).encode()).hexdigest()


def parse_weight(text: str, option: str) -> tuple[str, float]:
    """Parse `PATH` or `PATH:3` into path and weight; OptionError for a weight that is not above zero."""
    path, colon, weight = text.rpartition(":")
    if not colon or not _is_number(weight):
        path, weight = text, "1"
    if not 0 < float(weight) < float("inf"):
        raise OptionError(option, f"the weight {weight} of {path} is not above zero", "Give 0.1, 1, 3 ...")
    return path, float(weight)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def cached_blocks(
    source: WeightedSource,
    tokenizer: DocumentTokenizer,
    size: int,
    cache: Path,
    *,
    fit: Fit = "concatenate",
    field: str = "text",
    advance: Advance | None = None,
) -> PackedBlocks:
    """Return the source packed for training, from the cache if possible, with a validation split.

    Errors: InputError if the text does not fill one block.
    """
    text = source.hash() if field == "text" else f"{source.hash()} {field}"
    origin = BlocksOrigin(text, tokenizer.hash, size, fit, validation_split=True)
    folder = cache / origin.key()
    if (folder / META).is_file():
        return PackedBlocks.open(folder)
    return pack_source(source, tokenizer, origin, folder, field=field, advance=advance)


def pack_source(
    source: WeightedSource,
    tokenizer: DocumentTokenizer,
    origin: BlocksOrigin,
    folder: Path,
    *,
    field: str,
    advance: Advance | None,
) -> PackedBlocks:
    """Encode and pack all documents of a source into `folder`; InputError if they do not fill one block."""
    counts, validation = TextCounts(), list[str]()
    texts = read_documents(source.files, field, advance)
    texts = _split_validation(texts, validation) if origin.validation_split else texts
    documents = tokenizer.documents(texts, counts)
    packed = pack(documents, origin.size, origin.fit, tokenizer.end)
    blocks = write_blocks(folder, packed, origin, tokenizer.size, counts, {VALIDATION: lambda: validation})
    if not len(blocks):
        raise _too_short(source, origin.size)
    return blocks


def _too_short(source: WeightedSource, size: int) -> InputError:
    name = source.files[0] if len(source.files) == 1 else f"{source.label} ({len(source.files)} files)"
    return InputError(
        name, f"does not fill one block of {size} tokens", "Give more text or a smaller `block_size`"
    )


def _split_validation(texts: Iterable[str], validation: list[str]) -> Iterator[str]:
    """Yield the training documents; append the others to `validation`."""
    characters = 0
    for number, text in enumerate(texts, 1):
        if number % VALIDATION_EVERY == 0 and characters < VALIDATION_CHARACTERS:
            validation.append(text)
            characters += len(text)
        else:
            yield text


class Mixture:
    """Training examples by index: `mixture[i]` is always the same block, so a resumed run needs no state of its data.

    Each index draws a source by weight; each source yields its blocks in an order that is shuffled again every epoch.
    """

    def __init__(
        self, blocks: Sequence[PackedBlocks], weights: Sequence[float], count: int, seed: int
    ) -> None:
        self.blocks, self.seed = blocks, seed
        shares = np.asarray(weights) / sum(weights)
        sources = np.random.default_rng([seed, 0]).choice(len(blocks), size=count, p=shares)
        self._source = sources.astype(np.int16)
        self._number = np.zeros(count, np.int64)  # of the example within its source
        for source in range(len(blocks)):
            chosen = self._source == source
            self._number[chosen] = np.arange(int(chosen.sum()))
        self._order = lru_cache(2 * len(blocks))(self._shuffled)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        source, number = int(self._source[index]), int(self._number[index])
        blocks = self.blocks[source]
        epoch, place = divmod(number, len(blocks))
        return blocks[int(self._order(source, epoch)[place])]

    def _shuffled(self, source: int, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, 1, source, epoch]).permutation(len(self.blocks[source]))


def stream(
    sources: Sequence[WeightedSource],
    tokenizer: DocumentTokenizer,
    size: int,
    seed: int,
    *,
    field: str = "text",
    fit: Fit = "concatenate",
    window: int = 200_000,
    buffer: int = SHUFFLE_BUFFER,
) -> Iterator[Example]:
    """Yield examples without end and without a cache, drawn by weight; the same ones for the same seed.

    Each epoch of a source shuffles its files and draws the next block from a buffer of `buffer` blocks. Memory holds
    these and `window` tokens per source. Errors: InputError if a source does not fill one block.
    """
    streams = [
        _endless(source, tokenizer, size, field, fit, window, buffer, (seed, 2, number))
        for number, source in enumerate(sources)
    ]
    shares = np.array([source.weight for source in sources])
    rng = np.random.default_rng([seed, 0])
    while True:
        for source in rng.choice(len(streams), size=1024, p=shares / shares.sum()):
            yield next(streams[source])


def _endless(
    source: WeightedSource,
    tokenizer: DocumentTokenizer,
    size: int,
    field: str,
    fit: Fit,
    window: int,
    buffer: int,
    seed: tuple[int, ...],
) -> Iterator[Example]:
    for epoch in itertools.count():
        rng = np.random.default_rng([*seed, epoch])
        files = [source.files[number] for number in rng.permutation(len(source.files))]
        packed = pack(tokenizer.documents(read_documents(files, field)), size, fit, tokenizer.end, window)
        empty = True
        for block in _shuffled(itertools.chain.from_iterable(map(examples, packed)), buffer, rng):
            empty = False
            yield block
        if empty:
            raise _too_short(source, size)


def _shuffled(blocks: Iterator[Example], size: int, rng: np.random.Generator) -> Iterator[Example]:
    """Yield all blocks, each drawn from a buffer of `size` blocks."""
    buffer = list(itertools.islice(blocks, size))
    for block in blocks:
        at = int(rng.integers(size))
        buffer[at], drawn = block, buffer[at]
        yield drawn
    yield from (buffer[at] for at in rng.permutation(len(buffer)))


def frequent_ids(blocks: Sequence[PackedBlocks], below: int, covered: float = 0.95) -> list[int]:
    """Return the most frequent ids below `below` that cover a share of all occurrences of such ids; ascending."""
    counts = np.zeros(below, np.int64)
    for source in blocks:
        for at in range(0, len(source), 4096):
            counts += np.bincount(source.ids[at : at + 4096].ravel(), minlength=below)[:below]
    order = np.argsort(-counts, kind="stable")
    cumulative = np.cumsum(counts[order])
    needed = int(np.searchsorted(cumulative, covered * cumulative[-1])) + 1
    return sorted(int(id) for id in order[:needed] if counts[id])
