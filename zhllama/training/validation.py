"""Text kept aside, and how many bits a model in training spends on a character and on a byte of it."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zhllama.io.text import read_documents
from zhllama.resources import sample_files
from zhllama.training.document_tokenizer import DocumentTokenizer
from zhllama.training.packed_blocks import Example, examples
from zhllama.training.packing import TokenizedSample, best_fit, pack_samples

LIMIT = 64_000  # characters of a label that are measured


@dataclass(frozen=True)
class ValidationSet:
    """One label's documents, packed. Every token counts: each piece stands behind a token that only begins it."""

    label: str
    blocks: tuple[Example, ...]
    characters: int
    bytes: int

    @classmethod
    def of(cls, label: str, texts: Iterable[str], tokens: DocumentTokenizer, size: int) -> "ValidationSet":
        """Packs texts, up to LIMIT characters, into blocks of `size`."""
        chosen = list(_up_to(texts, LIMIT))
        packed = list(best_fit(_pieces(chosen, tokens, size), size, tokens.end))
        blocks = tuple(block for some in packed for block in examples(some))
        return cls(label, blocks, sum(map(len, chosen)), sum(len(text.encode()) for text in chosen))

    @classmethod
    def of_samples(
        cls, label: str, samples: Sequence[TokenizedSample], size: int, filler: int, alone: bool
    ) -> "ValidationSet":
        """Packs conversations: their answers count, and the end of each."""
        packed = pack_samples(samples, size, filler, alone=alone)
        blocks = tuple(block for some in packed for block in examples(some))
        return cls(label, blocks, sum(s.characters for s in samples), sum(s.bytes for s in samples))


@dataclass(frozen=True)
class BitsSpent:
    """Comparable across vocabularies, as no figure a token is."""

    per_character: float
    per_byte: float


def _up_to(texts: Iterable[str], characters: int) -> Iterator[str]:
    held = 0
    for text in texts:
        if held >= characters:
            return
        yield text[: characters - held]
        held += len(text)


def _pieces(texts: Sequence[str], tokens: DocumentTokenizer, size: int) -> Iterator[NDArray[np.int32]]:
    head = tokens.end if tokens.begin is None else tokens.begin
    ids, offsets = tokens.encoder.encode_batch(texts)
    for low, high in pairwise(offsets.tolist()):
        for at in range(low, high, size - 1):
            yield np.concatenate([[head], ids[at : min(at + size - 1, high)]]).astype(np.int32)


def sample_texts(label: str) -> list[str]:
    """The shipped sample in a language; empty for labels that it has none for."""
    return list(read_documents(sample_files(label)))


def measure_bits(model: Any, held: ValidationSet, micro_batch: int, device: torch.device) -> BitsSpent:
    """Bits of all its text under a model whose loss is ours; leaves the model in evaluation mode."""
    model.eval()
    nats = 0.0
    with torch.no_grad():
        for at in range(0, len(held.blocks), micro_batch):
            batch = collate(held.blocks[at : at + micro_batch])
            nats += float(model(**{k: v.to(device) for k, v in batch.items()}, num_items_in_batch=1).loss)
    bits = nats / math.log(2)
    return BitsSpent(bits / max(held.characters, 1), bits / max(held.bytes, 1))


def collate(rows: Sequence[Example]) -> dict[str, torch.Tensor]:
    """Examples of equal length as one batch of tensors, up to the last label of any: what stands behind teaches nothing."""
    labelled = np.stack([row["labels"] for row in rows]) >= 0
    length = int(np.max(labelled.any(0) * np.arange(1, labelled.shape[1] + 1)))
    return {
        name: torch.from_numpy(np.stack([row[name][: max(length, 1)] for row in rows])) for name in rows[0]
    }
