"""Packing of documents into blocks of one length: concatenated and cut, by best fit, or one document per block."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from zhllama.training.options import Fit

TokenizedDocument = Sequence[int] | NDArray[np.int32]  # the ids of one text
WINDOW = 4_000_000  # tokens that are packed at a time


@dataclass(frozen=True)
class Packed:
    """Some blocks: ids [n, size]; starts of documents as rows (block, position); positions used in each block."""

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    used: NDArray[np.int32]
    answers: NDArray[np.bool_] | None = None  # for conversations: the positions to train on


@dataclass(frozen=True)
class TokenizedSample:
    """The ids of a conversation, which of them are answers, and the answers' characters and bytes."""

    ids: NDArray[np.int32]
    answers: NDArray[np.bool_]
    characters: int
    bytes: int


def pack(
    documents: Iterable[TokenizedDocument], size: int, fit: Fit, filler: int, window: int = WINDOW
) -> Iterator[Packed]:
    """Pack documents, each with its end of text, into blocks of `size`, in bounded memory, a window at a time."""
    if fit == "concatenate":
        return concatenate(documents, size, window)
    return best_fit(documents, size, filler, window, one_per_block=fit == "one-per-block")


def concatenate(documents: Iterable[TokenizedDocument], size: int, window: int = WINDOW) -> Iterator[Packed]:
    """Cut one stream of all documents every `size` tokens; drop the rest at the end, which is less than a block."""
    pending: list[NDArray[np.int32]] = []
    starts: list[int] = []
    count = 0
    for document in documents:
        starts.append(count)
        pending.append(np.asarray(document, np.int32))
        count += len(pending[-1])
        if count >= window:
            packed, pending, starts = _cut(np.concatenate(pending), starts, size)
            count = len(pending[0])
            if packed is not None:
                yield packed
    if pending:
        packed, _, _ = _cut(np.concatenate(pending), starts, size)
        if packed is not None:
            yield packed


def _cut(
    stream: NDArray[np.int32], document_starts: list[int], size: int
) -> tuple[Packed | None, list[NDArray[np.int32]], list[int]]:
    """Return the whole blocks of a stream, then its rest and the document starts in the rest."""
    blocks = len(stream) // size
    end = blocks * size
    starts_in_rest = [start - end for start in document_starts if start >= end]
    if not blocks:
        return None, [stream], starts_in_rest
    starts = np.array([start for start in document_starts if start < end], np.int64)
    # A document that continues into a block starts there again, since its earlier part is not visible.
    starts = np.unique(np.concatenate([starts, np.arange(blocks, dtype=np.int64) * size]))
    places = np.stack([starts // size, starts % size], 1)
    packed = Packed(stream[:end].reshape(blocks, size), places, np.full(blocks, size, np.int32))
    return packed, [stream[end:].copy()], starts_in_rest


def best_fit(
    documents: Iterable[TokenizedDocument],
    size: int,
    filler: int,
    window: int = WINDOW,
    *,
    one_per_block: bool = False,
) -> Iterator[Packed]:
    """Pack whole documents, longest first, each into the fullest block with room; documents above `size` are cut first.

    With `one_per_block` every document, or part of one, has a block of its own, in the order of the documents.
    """
    pending: list[NDArray[np.int32]] = []
    count = 0
    for document in documents:
        ids = np.asarray(document, np.int32)
        pending += [ids[at : at + size] for at in range(0, len(ids), size)]
        count += len(ids)
        if count >= window:
            yield _fill(pending, size, filler, one_per_block)
            pending, count = [], 0
    if pending:
        yield _fill(pending, size, filler, one_per_block)


def pack_samples(
    samples: Iterable[TokenizedSample],
    size: int,
    filler: int,
    *,
    one_per_block: bool = False,
    window: int = WINDOW,
) -> Iterator[Packed]:
    """Pack samples of at most `size` ids, each whole, by best fit or `one_per_block`."""
    pending: list[TokenizedSample] = []
    count = 0
    for sample in samples:
        pending.append(sample)
        count += len(sample.ids)
        if count >= window:
            yield _fill_samples(pending, size, filler, one_per_block)
            pending, count = [], 0
    if pending:
        yield _fill_samples(pending, size, filler, one_per_block)


def _fill_samples(samples: list[TokenizedSample], size: int, filler: int, one_per_block: bool) -> Packed:
    bins = _bins([len(sample.ids) for sample in samples], size, one_per_block)
    packed = _fill([sample.ids for sample in samples], size, filler, one_per_block)
    answers = np.zeros(packed.ids.shape, np.bool_)
    for block, members in enumerate(bins):
        mask = np.concatenate([samples[member].answers for member in members])
        answers[block, : len(mask)] = mask
    return replace(packed, answers=answers)


def _bins(lengths: list[int], size: int, one_per_block: bool) -> list[list[int]]:
    if one_per_block:
        return [[number] for number in range(len(lengths))]
    return best_fit_decreasing(lengths, size)


def _fill(parts: list[NDArray[np.int32]], size: int, filler: int, one_per_block: bool) -> Packed:
    bins = _bins([len(part) for part in parts], size, one_per_block)
    ids = np.full((len(bins), size), filler, np.int32)
    used = np.zeros(len(bins), np.int32)
    starts: list[tuple[int, int]] = []
    for block, members in enumerate(bins):
        for member in members:
            at, part = int(used[block]), parts[member]
            ids[block, at : at + len(part)] = part
            starts.append((block, at))
            used[block] = at + len(part)
        if used[block] < size:
            starts.append((block, int(used[block])))  # the filler is a document of its own
    return Packed(ids, np.array(starts, np.int64).reshape(-1, 2), used)


def best_fit_decreasing(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Return which items share a bin of `size`: longest first, each in the fullest bin with room; bins in creation order.

    Bins are indexed by their room, and the rooms in use are bits of one integer: the smallest sufficient room is its
    lowest bit at or above the length, so the cost per item does not depend on the number of bins.
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
        rest = room - length
        if rest:
            by_room[rest].append(chosen)
            rooms |= 1 << rest
    return bins
