"""Computes figures from counts; docs/metrics.md has the definitions and their sources."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from zhllama.characters import Charset, charset, han
from zhllama.efficiency.count import Counts, TextTally
from zhllama.vocab.any_tokenizer import AnyTokenizer

CONTEXT = 2048  # tokens
ALPHA = 2.5  # of the Rényi efficiency (Zouhar et al., arXiv:2306.16842)

Length = Literal["part", "1", "2", "3", "4", "5-8", "9+"]
LENGTHS: Mapping[Length, tuple[int, int]] = {
    "part": (-1, -1),
    "1": (1, 1),
    "2": (2, 2),
    "3": (3, 3),
    "4": (4, 4),
    "5-8": (5, 8),
    "9+": (9, 1 << 30),
}


@dataclass(frozen=True)
class MeasuredVocabulary:
    """A tokenizer under the name it has in the report."""

    label: str
    source: str
    tokenizer: AnyTokenizer
    folder: Path | None = None  # of the tokenizer's file

    @property
    def size(self) -> int:
        """Number of ids."""
        return self.tokenizer.size

    @cached_property
    def surfaces(self) -> list[bytes]:
        """The bytes of each id; empty for special ones."""
        return [self.tokenizer.surface(id) for id in range(self.size)]

    @cached_property
    def lengths(self) -> Counts:
        """Characters of each id: -1 if it is part of a character, 0 if it is special."""
        return np.array([_characters(surface) for surface in self.surfaces], np.int64)

    @cached_property
    def single(self) -> frozenset[str]:
        """The characters that have a token of their own."""
        return frozenset(self.surfaces[id].decode() for id in np.flatnonzero(self.lengths == 1))

    def covered(self, name: Charset) -> tuple[int, int]:
        """The number of characters in a character set with a token of their own, and the size of the set."""
        return sum(c in self.single for c in charset(name)), len(charset(name))

    def extends(self, other: "MeasuredVocabulary") -> bool:
        """Whether this is `other` with more ids after its last one."""
        return self.size > other.size and self.surfaces[: other.size] == other.surfaces


def _characters(surface: bytes) -> int:
    try:
        return len(surface.decode())
    except UnicodeDecodeError:
        return -1


@dataclass(frozen=True)
class ModelCost:
    """A LLaMA of this width and depth, to compute the cost of a vocabulary relative to the rest of the model."""

    hidden: int = 4096
    layers: int = 32

    @property
    def body(self) -> int:
        """Parameters without embeddings: attention 4h², gated feed-forward 3hf with f = 8h/3 rounded up to 256."""
        inner = -(-8 * self.hidden // 3 // 256) * 256
        return self.layers * (4 * self.hidden**2 + 3 * self.hidden * inner)

    def training(self, tokens: float, size: int) -> float:
        """FLOPs of training on this number of tokens in blocks of CONTEXT (Chowdhery et al., arXiv:2204.02311, appendix B)."""
        return tokens * (6 * (self.body + size * self.hidden) + 12 * self.layers * self.hidden * CONTEXT)

    def serving(self, tokens: float, size: int) -> float:
        """Values read from memory to generate this number of tokens: for each the weights, and the KV cache so far."""
        cache = 2 * self.layers * self.hidden
        return tokens * (self.body + size * self.hidden) + cache * tokens**2 / 2


@dataclass(frozen=True)
class Figures:
    """One tokenizer on one text; shares are between 0 and 1, ratios are against the first tokenizer."""

    tokens: int
    characters_per_token: float
    bytes_per_token: float
    words_per_token: float
    tokens_against_base: float
    byte_share: float
    used: int
    used_share: float
    entropy: float
    renyi_efficiency: float
    single_coverage: float | None
    context_characters: int
    training_cost: float
    serving_cost: float
    lengths: Mapping[Length, float]


def figures(vocabularies: Sequence[MeasuredVocabulary], tally: TextTally, shape: ModelCost) -> list[Figures]:
    """The figures of each tokenizer on one text that has tokens under all of them."""
    totals = [max(1, int(counts.sum())) for counts in tally.tokens]
    characters = tally.characters
    base, first = vocabularies[0], totals[0]
    document = CONTEXT * characters / first  # characters that the first tokenizer packs into a context
    words = tally.words * characters / max(1, tally.worded)
    result = []
    for vocabulary, counts, total in zip(vocabularies, tally.tokens, totals, strict=True):
        p = counts[counts > 0] / total
        renyi = float(np.log2((p**ALPHA).sum()) / (1 - ALPHA)) + 0.0
        needed = document * total / characters
        result.append(
            Figures(
                tokens=total,
                characters_per_token=characters / total,
                bytes_per_token=tally.bytes / total,
                words_per_token=words / total,
                tokens_against_base=total / first,
                byte_share=float(counts[vocabulary.lengths == -1].sum()) / total,
                used=len(p),
                used_share=len(p) / vocabulary.size,
                entropy=float(-(p * np.log2(p)).sum()) + 0.0,
                renyi_efficiency=renyi / float(np.log2(vocabulary.size)),
                single_coverage=_single_coverage(vocabulary, tally),
                context_characters=int(CONTEXT * characters / total),
                training_cost=shape.training(total, vocabulary.size) / shape.training(first, base.size),
                serving_cost=shape.serving(needed, vocabulary.size) / shape.serving(CONTEXT, base.size),
                lengths=_lengths(vocabulary, counts, total),
            )
        )
    return result


def _single_coverage(vocabulary: MeasuredVocabulary, tally: TextTally) -> float | None:
    """Share of the Han characters of a text, weighted by count, that have a token of their own."""
    seen = {chr(code): count for code, count in tally.codes.items() if han.match(chr(code))}
    whole = sum(seen.values())
    return sum(n for c, n in seen.items() if c in vocabulary.single) / whole if whole else None


def _lengths(vocabulary: MeasuredVocabulary, counts: Counts, total: int) -> dict[Length, float]:
    lengths = vocabulary.lengths
    return {
        name: float(counts[(lengths >= low) & (lengths <= high)].sum()) / total
        for name, (low, high) in LENGTHS.items()
    }
