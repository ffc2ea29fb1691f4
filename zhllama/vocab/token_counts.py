"""Token counts of a text, and how often each merge was used to produce them."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]
BATCH = 20_000  # texts tokenized in one call


def token_counts(
    encode: Callable[[list[str]], list[list[int]]],
    weighted_texts: Iterable[tuple[str, float]],
    size: int,
    advance: Callable[[int], None] = lambda texts: None,
) -> Counts:
    """How often each id below `size` occurs in weighted texts; shape [size]."""
    counts = np.zeros(size)
    iterator = iter(weighted_texts)
    while batch := list(islice(iterator, BATCH)):
        encoded = encode([text for text, _ in batch])
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        ids = np.fromiter((id for text_ids in encoded for id in text_ids), np.int64, int(lengths.sum()))
        weights = np.repeat(np.array([weight for _, weight in batch], np.float64), lengths)
        counts += np.bincount(ids, weights, minlength=size)
        advance(len(batch))
    return counts


def merge_uses(counts: Counts, parts: Sequence[Sequence[int]], first: int) -> Counts:
    """How often each merge was used in a text whose tokens were counted; shape [len(parts)].

    `parts[i]` are the ids that id `first + i` joins, all smaller. A merge was used once for each occurrence of its token
    in the text or inside a longer token. Each use of a merge of two parts saves one token.
    """
    uses = counts.copy()
    for id in range(first + len(parts) - 1, first - 1, -1):
        for part in parts[id - first]:
            uses[part] += uses[id]
    return uses[first : first + len(parts)]
