"""Leaf-based pruning (arXiv:2512.03989): the rarest pieces go that nothing is built from, until a vocabulary fits.

Since a piece that goes is part of no other, every text whose cut does not hold it is cut as before.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import compress

from zhllama.errors import InputError, OptionError
from zhllama.vocab.byte_merge import ByteMerge
from zhllama.vocab.bytelevel import ByteLevel
from zhllama.vocab.huggingface import merges
from zhllama.vocab.kinds import Vocabulary, size_of
from zhllama.vocab.merge import PAD, Merge
from zhllama.vocab.usage import token_counts

Triple = tuple[int, int, int]  # left, right, and what they make


def pruned(merge: Merge | ByteMerge, lines: Iterable[str], size: int) -> Merge | ByteMerge:
    """The merge with `size` ids, its rarest leaves on `lines` gone, whether of the base or added.

    The lines must stand for all that the model is still to write: what is rare in them goes, English too.
    Errors: OptionError where `size` is too large, InputError where too few pieces may go.
    """
    model = merge.model
    count = size_of(model)
    if size > count:
        raise OptionError("--size", f"{size:,} is more than the {count:,} there are", "Ask for fewer")
    encode = model.encode if isinstance(model, ByteLevel) else model.processor.encode
    counts = token_counts(encode, ((line, 1.0) for line in lines), count)
    gone = leaves(dict(enumerate(counts)), _triples(model), _movable(model), count - size)
    if len(gone) < count - size:
        raise InputError(
            "the vocabulary",
            f"cannot be pruned to {size:,}: only {len(gone):,} of its {count:,} pieces may go",
            "Raise --size",
        )
    base = size_of(merge.base)
    dropped = tuple(sorted(id for id in gone if id < base))
    stays = [id not in gone for id in range(base, count)]
    if isinstance(merge, ByteMerge):
        return replace(merge, added=tuple(compress(merge.added, stays)), dropped=dropped)
    return replace(merge, added=tuple(compress(merge.added, stays)), dropped=dropped)


def leaves(counts: Mapping[int, float], made: Sequence[Triple], movable: set[int], count: int) -> set[int]:
    """The `count` ids that go, rarest first and of equals the later one; fewer where there are no more.

    What a piece that goes was counted is counted for its parts from then on.
    """
    frequency, uses = dict(counts), defaultdict[int, int](int)
    ways = defaultdict[int, list[tuple[int, int]]](list)
    for left, right, whole in made:
        ways[whole].append((left, right))
        uses[left] += 1
        uses[right] += 1
    heap = [(frequency[id], -id) for id in movable if not uses[id]]
    heapq.heapify(heap)
    gone: set[int] = set()
    while heap and len(gone) < count:
        id = -heapq.heappop(heap)[1]
        gone.add(id)
        for part in ways[id][0] if ways[id] else ():
            frequency[part] += frequency[id]
        for part in (part for way in ways[id] for part in way):
            uses[part] -= 1
            if not uses[part] and part in movable:
                heapq.heappush(heap, (frequency[part], -part))
    return gone


def _triples(model: Vocabulary) -> list[Triple]:
    found, ids = (model.merges if isinstance(model, ByteLevel) else merges(model)), model.ids
    return [(ids[left], ids[right], ids[left + right]) for left, right in found]


def _movable(model: Vocabulary) -> set[int]:
    """What may go: neither bytes nor special pieces, and no single character where bytes cannot stand in for it."""
    if isinstance(model, ByteLevel):
        return {id for text, id in model.ids.items() if len(text) > 1}
    shortest = 1 if model.byte_ids else 2
    return {
        id
        for id, piece in enumerate(model.pieces)
        if piece.kind == "normal" and len(piece.text) >= shortest and piece.text != PAD
    }
