"""The text of a run: sources with weights, packed once each, and drawn from in a seeded order that any step can find."""

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from zhllama.errors import InputError, OptionError
from zhllama.io.files import sha256
from zhllama.io.text import Advance, find_files, read_documents
from zhllama.training.document_tokenizer import DocumentTokenizer
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
from zhllama.training.packing import concatenate, pack

AHEAD = 2048  # blocks of a stream that are held to be drawn from: 25 MB at 512 tokens
KEPT_EVERY, KEPT_CHARACTERS = 100, 64_000  # one document of a hundred is kept aside, up to so many characters


@dataclass(frozen=True)
class WeightedSource:
    """Some text files under one label; `weight` is its share of the blocks drawn, beside the others'."""

    label: str
    files: tuple[Path, ...]
    weight: float = 1.0

    @classmethod
    def parse(cls, given: str, option: str = "text") -> "WeightedSource":
        """`zh=PATH` or `zh=PATH:3`; PATH a file, a folder or a glob. Errors: OptionError, InputError."""
        label, equals, rest = given.partition("=")
        if not equals or not label.strip() or not rest:
            raise OptionError(option, f"{given!r} is not LABEL=PATH[:WEIGHT]", "Write e.g. zh=corpus.txt")
        path, weight = weighted(rest, option)
        return cls(label, tuple(find_files([path])), weight)

    def hash(self) -> str:
        """Over the content of all files, in their order."""
        return hashlib.sha256("".join(sha256(path) for path in self.files).encode()).hexdigest()


def weighted(given: str, option: str) -> tuple[str, float]:
    """`PATH` or `PATH:3` as path and weight; OptionError for a weight that is not above zero."""
    path, colon, weight = given.rpartition(":")
    if not colon or not _is_number(weight):
        path, weight = given, "1"
    if not 0 < float(weight) < float("inf"):
        raise OptionError(option, f"the weight {weight} of {path} is not above zero", "Give 0.1, 1, 3 ...")
    return path, float(weight)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def default_cache() -> Path:
    """Where packed blocks lie: ZHLLAMA_CACHE, or `zhllama` in the user's cache folder."""
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("ZHLLAMA_CACHE") or Path(user) / "zhllama") / "blocks"


def cached_blocks(
    source: WeightedSource,
    tokens: DocumentTokenizer,
    size: int,
    cache: Path,
    *,
    field: str = "text",
    advance: Advance | None = None,
) -> PackedBlocks:
    """The source packed for training, from the cache or packed now; a part of its documents is kept aside.

    Errors: InputError where the text does not fill one block.
    """
    text = source.hash() if field == "text" else f"{source.hash()} {field}"
    origin = BlocksOrigin(text, tokens.hash, size, "concatenate", kept_aside=True)
    folder = cache / origin.key()
    if (folder / META).is_file():
        return PackedBlocks.open(folder)
    return pack_source(source, tokens, origin, folder, field=field, advance=advance)


def pack_source(
    source: WeightedSource,
    tokens: DocumentTokenizer,
    origin: BlocksOrigin,
    folder: Path,
    *,
    field: str,
    advance: Advance | None,
) -> PackedBlocks:
    """Encodes and packs all documents of a source into `folder`; InputError where they do not fill one block."""
    counts, aside = TextCounts(), list[str]()
    texts = read_documents(source.files, field, advance)
    texts = _keep_aside(texts, aside) if origin.kept_aside else texts
    documents = tokens.documents(texts, counts)
    packed = pack(documents, origin.size, origin.fit, tokens.end)
    blocks = write_blocks(folder, packed, origin, tokens.size, counts, {VALIDATION: lambda: aside})
    if not len(blocks):
        raise _too_short(source, origin.size)
    return blocks


def _too_short(source: WeightedSource, size: int) -> InputError:
    named = source.files[0] if len(source.files) == 1 else f"{source.label} ({len(source.files)} files)"
    return InputError(
        named, f"does not fill one block of {size} tokens", "Give more text or a smaller `block_size`"
    )


def _keep_aside(texts: Iterable[str], aside: list[str]) -> Iterator[str]:
    held = 0
    for number, text in enumerate(texts, 1):
        if number % KEPT_EVERY == 0 and held < KEPT_CHARACTERS:
            aside.append(text)
            held += len(text)
        else:
            yield text


class Mixture:
    """Training examples by number: `mixture[i]` is always the same block, so a resumed run needs no memory of its data.

    Each number draws a source by weight; a source gives its blocks in an order of its own, shuffled anew each time round.
    """

    def __init__(
        self, blocks: Sequence[PackedBlocks], weights: Sequence[float], count: int, seed: int
    ) -> None:
        self.blocks, self.seed = blocks, seed
        shares = np.asarray(weights) / sum(weights)
        drawn = np.random.default_rng([seed, 0]).choice(len(blocks), size=count, p=shares)
        self._source = drawn.astype(np.int16)
        self._turn = np.zeros(count, np.int64)
        for source in range(len(blocks)):
            chosen = self._source == source
            self._turn[chosen] = np.arange(int(chosen.sum()))
        self._order = lru_cache(2 * len(blocks))(self._shuffled)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, number: int) -> Example:
        source, turn = int(self._source[number]), int(self._turn[number])
        blocks = self.blocks[source]
        return blocks[int(self._order(source, turn // len(blocks))[turn % len(blocks)])]

    def _shuffled(self, source: int, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, 1, source, epoch]).permutation(len(self.blocks[source]))


def stream(
    sources: Sequence[WeightedSource],
    tokens: DocumentTokenizer,
    size: int,
    seed: int,
    *,
    field: str = "text",
    window: int = 200_000,
    ahead: int = AHEAD,
) -> Iterator[Example]:
    """Examples without end and without a cache, drawn by weight; the same ones for the same seed.

    Of each source the files come in an order of chance, another each time round, and the next block is one of `ahead`
    that are read ahead. Holds these and `window` tokens of each. Errors: InputError where a source does not fill one block.
    """
    flows = [
        _endless(source, tokens, size, field, window, ahead, (seed, 2, number))
        for number, source in enumerate(sources)
    ]
    shares = np.array([source.weight for source in sources])
    dice = np.random.default_rng([seed, 0])
    while True:
        for source in dice.choice(len(flows), size=1024, p=shares / shares.sum()):
            yield next(flows[source])


@dataclass(frozen=True)
class Stream(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    """The same as a data set, which begins anew each time it is gone through."""

    sources: Sequence[WeightedSource]
    tokens: DocumentTokenizer
    size: int
    seed: int
    field: str

    def __iter__(self) -> Iterator[Example]:
        return stream(self.sources, self.tokens, self.size, self.seed, field=self.field)


def _endless(
    source: WeightedSource,
    tokens: DocumentTokenizer,
    size: int,
    field: str,
    window: int,
    ahead: int,
    seed: tuple[int, ...],
) -> Iterator[Example]:
    for turn in itertools.count():
        dice = np.random.default_rng([*seed, turn])
        files = [source.files[number] for number in dice.permutation(len(source.files))]
        packed = concatenate(tokens.documents(read_documents(files, field)), size, window)
        empty = True
        for block in read_ahead(itertools.chain.from_iterable(map(examples, packed)), ahead, dice):
            empty = False
            yield block
        if empty:
            raise _too_short(source, size)


def read_ahead(blocks: Iterator[Example], count: int, dice: np.random.Generator) -> Iterator[Example]:
    """All blocks, each next one drawn from `count` that are held."""
    held = list(itertools.islice(blocks, count))
    for block in blocks:
        at = int(dice.integers(count))
        held[at], drawn = block, held[at]
        yield drawn
    yield from (held[at] for at in dice.permutation(len(held)))


def frequent_ids(blocks: Sequence[PackedBlocks], below: int, covered: float = 0.95) -> list[int]:
    """The ids under `below` that, most frequent first, make up `covered` of their occurrences in the text; ascending."""
    counts = np.zeros(below, np.int64)
    for some in blocks:
        for at in range(0, len(some), 4096):
            counts += np.bincount(some.ids[at : at + 4096].ravel(), minlength=below)[:below]
    order = np.argsort(-counts, kind="stable")
    reached = np.cumsum(counts[order])
    wanted = int(np.searchsorted(reached, covered * reached[-1])) + 1
    return sorted(int(id) for id in order[:wanted] if counts[id])
