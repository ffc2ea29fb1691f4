"""How often tokens stand in a text, and how often each merge was used to make them."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]
BATCH = 20_000  # texts cut in one call


def token_counts(
    encode: Callable[[list[str]], list[list[int]]],
    weighed: Iterable[tuple[str, float]],
    size: int,
    advance: Callable[[int], None] = lambda texts: None,
) -> Counts:
    """How often each id below `size` stands in texts that count as often as their weight says; shape [size]."""
    counts = np.zeros(size)
    iterator = iter(weighed)
    while batch := list(islice(iterator, BATCH)):
        cuts = encode([text for text, _ in batch])
        lengths = np.fromiter(map(len, cuts), np.int64, len(cuts))
        ids = np.fromiter((id for cut in cuts for id in cut), np.int64, int(lengths.sum()))
        weights = np.repeat(np.array([weight for _, weight in batch], np.float64), lengths)
        counts += np.bincount(ids, weights, minlength=size)
        advance(len(batch))
    return counts


def merge_uses(counts: Counts, parts: Sequence[Sequence[int]], first: int) -> Counts:
    """How often each merge was used in a text whose tokens were counted; shape [len(parts)].

    `parts[i]` are the ids that id `first + i` joins, all smaller. A merge was used as often as its token stands in the
    text, or in tokens made of it. Each use of one that joins two is one token less.
    """
    uses = counts.copy()
    for id in range(first + len(parts) - 1, first - 1, -1):
        for part in parts[id - first]:
            uses[part] += uses[id]
    return uses[first : first + len(parts)]
