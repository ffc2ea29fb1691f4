"""Hashes character n-grams, for repetition and near duplicates, because Chinese has no spaces."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Odd 64-bit multipliers, one for each position in the n-gram; drawn with a fixed seed, so hashes are reproducible.
_MULTIPLIERS = np.random.RandomState(1).randint(1, 1 << 62, size=64, dtype=np.uint64) * np.uint64(
    2
) + np.uint64(1)
_MIX = np.uint64(0xFF51AFD7ED558CCD)  # of MurmurHash3's finalizer


def codes(text: str) -> NDArray[np.uint32]:
    """The code points of a text."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def ngram_hashes(text: str, n: int) -> NDArray[np.uint64]:
    """A 64-bit hash of each n-gram in order, [max(0, len(text) - n + 1)]."""
    points = codes(text).astype(np.uint64)
    count = len(points) - n + 1
    if count < 1:
        return np.empty(0, dtype=np.uint64)
    hashes: NDArray[Any] = np.zeros(count, dtype=np.uint64)
    for position in range(n):
        hashes += points[position : position + count] * _MULTIPLIERS[position]
    hashes ^= hashes >> np.uint64(32)
    hashes *= _MIX
    hashes ^= hashes >> np.uint64(29)
    return hashes


def repeated_share(text: str, n: int) -> float:
    """The share of n-grams that occurred earlier in the text: 0 if all differ, near 1 for 哈哈哈哈哈…."""
    hashes = ngram_hashes(text, n)
    if not len(hashes):
        return 0.0
    hashes.sort()
    return float(np.count_nonzero(hashes[1:] == hashes[:-1])) / len(hashes)
