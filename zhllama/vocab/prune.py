"""Leaf-based pruning (arXiv:2512.03989): remove the rarest pieces that no other piece is built from.

Since a removed piece is part of no other, every text whose tokenization does not contain it is tokenized as before.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from zhllama.errors import InputError, OptionError
from zhllama.vocab.token_counts import token_counts
from zhllama.vocab.vocabulary import Merge, V, Vocabulary

Triple = tuple[int, int, int]  # left, right, joined


def pruned(merge: Merge[V], lines: Iterable[str], size: int) -> Merge[V]:
    """The merge reduced to `size` ids: its rarest leaves on `lines` are removed, whether of the base or added.

    The lines must represent everything that the model will write: pieces that are rare in them are removed, in English too.
    Errors: OptionError where `size` is too large, InputError where too few pieces can be removed.
    """
    vocabulary, base = merge.vocabulary, merge.base
    count = vocabulary.size
    if size > count:
        raise OptionError("size", f"{size:,} is more than the {count:,} there are", "Lower it")
    counts = token_counts(vocabulary.encode, ((line, 1.0) for line in lines), count)
    removed = leaves(dict(enumerate(counts)), _triples(vocabulary), vocabulary.removable, count - size)
    if len(removed) < count - size:
        raise InputError(
            "the vocabulary",
            f"cannot be pruned to {size:,}: only {len(removed):,} of its {count:,} pieces can be removed",
            "Raise `size`",
        )
    added = tuple(piece for id, piece in enumerate(merge.added, base.size) if id not in removed)
    return replace(merge, added=added, removed=tuple(sorted(id for id in removed if id < base.size)))


def leaves(
    counts: Mapping[int, float], merges: Sequence[Triple], removable: set[int], count: int
) -> set[int]:
    """The `count` ids to remove, rarest first and the later id first among equals; fewer where there are no more.

    `merges` are all merges as ids. The count of a removed piece is added to the counts of its parts.
    """
    frequency, uses = dict(counts), defaultdict[int, int](int)
    ways = defaultdict[int, list[tuple[int, int]]](list)
    for left, right, whole in merges:
        ways[whole].append((left, right))
        uses[left] += 1
        uses[right] += 1
    heap = [(frequency[id], -id) for id in removable if not uses[id]]
    heapq.heapify(heap)
    removed: set[int] = set()
    while heap and len(removed) < count:
        id = -heapq.heappop(heap)[1]
        removed.add(id)
        for part in ways[id][0] if ways[id] else ():
            frequency[part] += frequency[id]
        for part in (part for way in ways[id] for part in way):
            uses[part] -= 1
            if not uses[part] and part in removable:
                heapq.heappush(heap, (frequency[part], -part))
    return removed


def _triples(vocabulary: Vocabulary) -> list[Triple]:
    ids = vocabulary.ids
    return [(ids[left], ids[right], ids[left + right]) for left, right in vocabulary.merges]
