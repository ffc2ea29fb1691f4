"""The text of a run that is not packed beforehand, as the data set of torch that a Trainer iterates."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from zhllama.training.document_tokenizer import DocumentTokenizer
from zhllama.training.mixture import WeightedSource, stream
from zhllama.training.options import Fit
from zhllama.training.packed_blocks import Example


@dataclass(frozen=True)
class Stream(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    """`stream` as a data set, which restarts each time it is iterated."""

    sources: Sequence[WeightedSource]
    tokenizer: DocumentTokenizer
    size: int
    seed: int
    field: str
    fit: Fit = "concatenate"

    def __iter__(self) -> Iterator[Example]:
        return stream(self.sources, self.tokenizer, self.size, self.seed, field=self.field, fit=self.fit)
