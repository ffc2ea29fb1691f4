"""Validation sets: text that is never trained on, packed, and the bits that a model spends per character and per byte."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
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

Stack = Callable[[Sequence[Example]], dict[str, torch.Tensor]]

LIMIT = 64_000  # characters of a label that are measured


@dataclass(frozen=True)
class ValidationSet:
    """One label's documents, packed. Every token counts: each part of a text follows a token that only starts it."""

    label: str
    blocks: tuple[Example, ...]
    characters: int
    bytes: int

    @classmethod
    def of(
        cls,
        label: str,
        texts: Iterable[str],
        tokenizer: DocumentTokenizer,
        size: int,
        one_per_block: bool = False,
    ) -> "ValidationSet":
        """Pack texts, up to LIMIT characters, into blocks of `size`."""
        chosen = list(_truncated(texts, LIMIT))
        parts = _parts(chosen, tokenizer, size)
        packed = best_fit(parts, size, tokenizer.end, one_per_block=one_per_block)
        blocks = tuple(block for window in packed for block in examples(window))
        return cls(label, blocks, sum(map(len, chosen)), sum(len(text.encode()) for text in chosen))

    @classmethod
    def of_samples(
        cls, label: str, samples: Sequence[TokenizedSample], size: int, filler: int, one_per_block: bool
    ) -> "ValidationSet":
        """Pack conversations, whose answers count, each with its end token."""
        packed = pack_samples(samples, size, filler, one_per_block=one_per_block)
        blocks = tuple(block for window in packed for block in examples(window))
        return cls(label, blocks, sum(s.characters for s in samples), sum(s.bytes for s in samples))


@dataclass(frozen=True)
class BitsSpent:
    """Unlike loss per token, comparable across vocabularies."""

    per_character: float
    per_byte: float


def _truncated(texts: Iterable[str], characters: int) -> Iterator[str]:
    count = 0
    for text in texts:
        if count >= characters:
            return
        yield text[: characters - count]
        count += len(text)


def _parts(texts: Sequence[str], tokenizer: DocumentTokenizer, size: int) -> Iterator[NDArray[np.int32]]:
    """Yield the ids of each text in parts of at most `size`, each after one token that starts it."""
    head = tokenizer.end if tokenizer.begin is None else tokenizer.begin
    ids, offsets = tokenizer.encoder.encode_batch(texts)
    for low, high in pairwise(offsets.tolist()):
        for at in range(low, high, size - 1):
            yield np.concatenate([[head], ids[at : min(at + size - 1, high)]]).astype(np.int32)


def sample_texts(label: str) -> list[str]:
    """Return the shipped sample in a language; empty for labels without one."""
    return list(read_documents(sample_files(label)))


def measure_bits(
    model: Any, validation: ValidationSet, micro_batch: int, device: torch.device, stack: Stack | None = None
) -> BitsSpent:
    """Measure the bits of a validation set by the model's own mean loss; leave the model in evaluation mode."""
    model.eval()
    nats = 0.0
    with torch.no_grad(), without_router_loss(model):
        for at in range(0, len(validation.blocks), micro_batch):
            batch = (stack or collate)(validation.blocks[at : at + micro_batch])
            if count := int((batch["labels"][:, 1:] >= 0).sum()):
                loss = model(**{k: v.to(device) for k, v in batch.items()}, use_cache=False).loss
                nats += count * float(loss)
    bits = nats / math.log(2)
    return BitsSpent(bits / max(validation.characters, 1), bits / max(validation.bytes, 1))


@contextmanager
def without_router_loss(model: Any) -> Iterator[None]:
    """Leave out the load-balancing loss that a mixture of experts may add to the loss of its tokens."""
    config = model.config.get_text_config()
    adds = getattr(config, "output_router_logits", False)
    if adds:
        config.output_router_logits = False
    try:
        yield
    finally:
        if adds:
            config.output_router_logits = adds


def collate(rows: Sequence[Example], whole: bool = False) -> dict[str, torch.Tensor]:
    """Stack examples of equal length into a batch, cut after the last label of any: later positions train nothing.

    With `whole` it is not cut, so that all batches have one size.
    """
    if whole:
        return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
    labeled = np.stack([row["labels"] for row in rows]) >= 0
    length = int(np.max(labeled.any(0) * np.arange(1, labeled.shape[1] + 1)))
    return {
        name: torch.from_numpy(np.stack([row[name][: max(length, 1)] for row in rows])) for name in rows[0]
    }
