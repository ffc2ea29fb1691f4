"""The pre-training job: packed or streamed text, validation sets, and growth of the model for a larger tokenizer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhllama.io.text import read_documents
from zhllama.model.grow import Grown, grow
from zhllama.run import Run
from zhllama.training.document_tokenizer import DocumentTokenizer
from zhllama.training.mixture import Mixture, WeightedSource, cached_blocks
from zhllama.training.model_info import ModelInfo
from zhllama.training.options import Fit, TrainingOptions
from zhllama.training.packed_blocks import PackedBlocks
from zhllama.training.text_stream import Stream
from zhllama.training.validation import ValidationSet, sample_texts


@dataclass(frozen=True)
class PretrainingJob:
    """A model, its training text by label, text to validate on, and the cache folder of packed blocks.

    Without `validation`, packing splits off a part of each source. `field` is the text's field in rows of JSON or Parquet.
    """

    model: str
    tokenizer: Path | None
    sources: tuple[WeightedSource, ...]
    validation: tuple[WeightedSource, ...]
    cache: Path
    streamed: bool = False
    field: str = "text"

    def blocks(
        self, tokenizer: DocumentTokenizer, size: int, one_per_block: bool, advance: Callable[[int], None]
    ) -> list[PackedBlocks]:
        """Return the text of each source, packed; none if it is streamed."""
        if self.streamed:
            return []
        return [
            cached_blocks(
                source,
                tokenizer,
                size,
                self.cache,
                fit=_fit(one_per_block),
                field=self.field,
                advance=advance,
            )
            for source in self.sources
        ]

    def examples(
        self,
        tokenizer: DocumentTokenizer,
        options: TrainingOptions,
        blocks: Sequence[PackedBlocks],
        count: int,
        one_per_block: bool,
    ) -> Any:
        """Return the data set: `count` blocks drawn by weight, or an endless stream."""
        if self.streamed:
            return Stream(
                self.sources, tokenizer, options.block_size, options.seed, self.field, _fit(one_per_block)
            )
        return Mixture(blocks, [source.weight for source in self.sources], count, options.seed)

    def validation_sets(
        self, tokenizer: DocumentTokenizer, size: int, blocks: Sequence[PackedBlocks], one_per_block: bool
    ) -> list[ValidationSet]:
        """Return the given text by label; else the validation splits, with the shipped samples if zh or en has none."""
        texts: dict[str, list[str]] = {}
        if self.validation:
            for source in self.validation:
                texts.setdefault(source.label, []).extend(read_documents(source.files, self.field))
        else:
            for source, packed in zip(self.sources, blocks, strict=False):
                texts.setdefault(source.label, []).extend(packed.validation())
            for label in ("zh", "en"):
                if not texts.get(label):
                    texts[label] = sample_texts(label)
        return [
            ValidationSet.of(label, documents, tokenizer, size, one_per_block)
            for label, documents in texts.items()
            if documents
        ]

    def grow(self, info: ModelInfo, folder: Path, seed: int) -> Grown:
        """Write the base model with rows for the larger vocabulary to `folder`."""
        return grow(info.chain.base, info.tokenizer.folder, folder, seed=seed)

    def report(self, run: Run, blocks: Sequence[PackedBlocks]) -> dict[str, Any]:
        """Return no figures: pre-training rejects no text."""
        return {}


def _fit(one_per_block: bool) -> Fit:
    return "one-per-block" if one_per_block else "concatenate"
