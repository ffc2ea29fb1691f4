"""Documents into blocks of one length: concatenated and cut, or each whole document where it fits best."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from zhllama.training.options import Fit

TokenizedDocument = Sequence[int] | NDArray[np.int32]  # the ids of one text
WINDOW = 4_000_000  # tokens that best-fit holds in memory while it looks for the best places


@dataclass(frozen=True)
class Packed:
    """Some blocks: ids [n, size]; where documents begin, as (block, position) rows; positions used of each block."""

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    used: NDArray[np.int32]
    answers: NDArray[np.bool_] | None = None  # of conversations: the positions that are to be learnt


@dataclass(frozen=True)
class TokenizedSample:
    """The ids of a conversation, and which of them are answers, of so many characters and bytes."""

    ids: NDArray[np.int32]
    answers: NDArray[np.bool_]
    characters: int
    bytes: int


def pack(documents: Iterable[TokenizedDocument], size: int, fit: Fit, filler: int) -> Iterator[Packed]:
    """Packs documents (their end-of-text included) into blocks of `size`, in bounded memory, a window at a time."""
    return concatenate(documents, size) if fit == "concatenate" else best_fit(documents, size, filler)


def concatenate(documents: Iterable[TokenizedDocument], size: int, window: int = WINDOW) -> Iterator[Packed]:
    """One stream cut every `size` tokens; what is left over at the very end, less than a block, is dropped."""
    held: list[NDArray[np.int32]] = []
    begins: list[int] = []
    count = 0
    for document in documents:
        begins.append(count)
        held.append(np.asarray(document, np.int32))
        count += len(held[-1])
        if count >= window:
            packed, held, begins = _cut(np.concatenate(held), begins, size)
            count = len(held[0])
            if packed is not None:
                yield packed
    if held:
        packed, _, _ = _cut(np.concatenate(held), begins, size)
        if packed is not None:
            yield packed


def _cut(
    stream: NDArray[np.int32], begins: list[int], size: int
) -> tuple[Packed | None, list[NDArray[np.int32]], list[int]]:
    """Whole blocks of a stream, then the rest of it and the beginnings that lie in the rest."""
    blocks = len(stream) // size
    end = blocks * size
    rest = [b - end for b in begins if b >= end]
    if not blocks:
        return None, [stream], rest
    starts = np.array([b for b in begins if b < end], np.int64)
    # A document that runs on into a block starts there anew: its earlier part is out of sight.
    starts = np.unique(np.concatenate([starts, np.arange(blocks, dtype=np.int64) * size]))
    where = np.stack([starts // size, starts % size], 1)
    packed = Packed(stream[:end].reshape(blocks, size), where, np.full(blocks, size, np.int32))
    return packed, [stream[end:].copy()], rest


def best_fit(
    documents: Iterable[TokenizedDocument], size: int, filler: int, window: int = WINDOW
) -> Iterator[Packed]:
    """Whole documents, the longest first, each into the fullest block that still takes it; longer ones are cut first."""
    held: list[NDArray[np.int32]] = []
    count = 0
    for document in documents:
        whole = np.asarray(document, np.int32)
        held += [whole[at : at + size] for at in range(0, len(whole), size)]
        count += len(whole)
        if count >= window:
            yield _filled(held, size, filler)
            held, count = [], 0
    if held:
        yield _filled(held, size, filler)


def pack_samples(
    samples: Iterable[TokenizedSample], size: int, filler: int, *, alone: bool = False, window: int = WINDOW
) -> Iterator[Packed]:
    """Samples of at most `size` ids, each whole in the block where it fits best, or `alone` in one of its own."""
    held: list[TokenizedSample] = []
    count = 0
    for sample in samples:
        held.append(sample)
        count += len(sample.ids)
        if count >= window:
            yield _filled_with(held, size, filler, alone)
            held, count = [], 0
    if held:
        yield _filled_with(held, size, filler, alone)


def _filled_with(samples: list[TokenizedSample], size: int, filler: int, alone: bool) -> Packed:
    bins = (
        [[n] for n in range(len(samples))]
        if alone
        else best_fit_decreasing([len(s.ids) for s in samples], size)
    )
    packed = _filled([sample.ids for sample in samples], size, filler, bins)
    answers = np.zeros(packed.ids.shape, np.bool_)
    for block, members in enumerate(bins):
        told = np.concatenate([samples[member].answers for member in members])
        answers[block, : len(told)] = told
    return replace(packed, answers=answers)


def _filled(
    pieces: list[NDArray[np.int32]], size: int, filler: int, bins: list[list[int]] | None = None
) -> Packed:
    bins = best_fit_decreasing([len(piece) for piece in pieces], size) if bins is None else bins
    ids = np.full((len(bins), size), filler, np.int32)
    used = np.zeros(len(bins), np.int32)
    starts: list[tuple[int, int]] = []
    for block, members in enumerate(bins):
        for member in members:
            at, piece = int(used[block]), pieces[member]
            ids[block, at : at + len(piece)] = piece
            starts.append((block, at))
            used[block] = at + len(piece)
        if used[block] < size:
            starts.append((block, int(used[block])))  # the filler sees no document, and no document sees it
    return Packed(ids, np.array(starts, np.int64).reshape(-1, 2), used)


def best_fit_decreasing(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Which items share a bin of `size`, longest first, each in the fullest bin that takes it; bins in order of opening.

    Bins are kept by the room left in them and the occupied rooms as bits of one number: the smallest sufficient room is
    its lowest bit at or above the length, so an item costs the same whatever the number of bins.
    """
    by_room: list[list[int]] = [[] for _ in range(size + 1)]
    rooms = 0
    bins: list[list[int]] = []
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[item]
        assert 0 < length <= size, (length, size)
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            chosen = by_room[room].pop()
            if not by_room[room]:
                rooms &= ~(1 << room)
        else:
            room, chosen = size, len(bins)
            bins.append([])
        bins[chosen].append(item)
        left = room - length
        if left:
            by_room[left].append(chosen)
            rooms |= 1 << left
    return bins
