"""Supervised fine-tuning on conversations: rows into samples, samples into blocks, and the model grown for the template."""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zhllama.conversation.encode_conversation import ConversationEncoder, Encoded
from zhllama.conversation.read_conversations import (
    BadRow,
    read_conversations,
    refuse_bad_rows,
    training_fault,
)
from zhllama.conversation.records import Conversation, Turn
from zhllama.errors import InputError
from zhllama.io.files import json_lines
from zhllama.model.export import merge_chain
from zhllama.model.grow import Grown, grow
from zhllama.run import Run
from zhllama.training.document_tokenizer import DocumentTokenizer
from zhllama.training.mixture import VALIDATION_CHARACTERS, VALIDATION_EVERY, Mixture, WeightedSource
from zhllama.training.model_info import ModelInfo
from zhllama.training.options import TrainingOptions
from zhllama.training.packed_blocks import (
    META,
    VALIDATION,
    BlocksOrigin,
    PackedBlocks,
    TextCounts,
    write_blocks,
)
from zhllama.training.packing import TokenizedSample, pack_samples
from zhllama.training.validation import ValidationSet

REJECTED, SHORTENED, LABEL = "rejected.jsonl", "shortened.jsonl", "answers"
VERIFIED = 32  # conversations whose encoding turn by turn is compared with that of the whole text
SHOWN = 20  # rejected rows that are reported on the screen; --skip-bad writes all of them to a file


@dataclass(frozen=True)
class ChatTuningJob:
    """Conversations by source, conversations to validate on, and their encoder.

    Without `validation`, every hundredth row goes to the validation split.
    """

    sources: tuple[WeightedSource, ...]
    validation: tuple[Path, ...]
    encoder: ConversationEncoder
    cache: Path
    skip_bad: bool = False
    note: Callable[[str], None] = lambda text: None

    def blocks(
        self, tokenizer: DocumentTokenizer, size: int, one_per_block: bool, advance: Callable[[int], None]
    ) -> list[PackedBlocks]:
        """Return the samples of each source, packed; from the cache if the same rows were packed before.

        Errors: InputError for bad rows without `skip_bad`, and for a source without a usable sample.
        """
        return [self._packed(source, tokenizer, size, one_per_block, advance) for source in self.sources]

    def _packed(
        self,
        source: WeightedSource,
        tokenizer: DocumentTokenizer,
        size: int,
        one_per_block: bool,
        advance: Callable[[int], None],
    ) -> PackedBlocks:
        template = self.encoder.template
        template_hash = hashlib.sha256(template.jinja.encode()).hexdigest()
        names = " ".join(map(str, source.files))  # rejected rows are cached with the names of their files
        text = f"{source.hash()} {names} {template_hash} {template.stop} {one_per_block} {self.skip_bad}"
        origin = BlocksOrigin(text, tokenizer.hash, size, "best-fit", validation_split=not self.validation)
        folder = self.cache / origin.key()
        if (folder / META).is_file():
            return PackedBlocks.open(folder)
        counts, excluded = TextCounts(), _ExcludedRows()
        samples = self._samples(source.files, size, excluded, advance, origin.validation_split, counts)
        packed = pack_samples(samples, size, tokenizer.end, one_per_block=one_per_block)
        blocks = write_blocks(folder, packed, origin, tokenizer.size, counts, excluded.files)
        if not len(blocks):
            rejected = [*excluded.bad, *excluded.long]
            self._report_rejected(rejected)
            reason = f": {rejected[0].where}: {rejected[0].reason}" if rejected else ""
            raise InputError(source.files[0], f"leaves no sample to train on{reason}", "Give other data")
        return blocks

    def _samples(
        self, files: Iterable[Path], size: int, excluded: "_ExcludedRows", advance: Callable[[int], None], split: bool,
        counts: TextCounts,
    ) -> Iterator[TokenizedSample]:  # fmt: skip
        """Yield the samples to train on; add all other rows to `excluded`, rejected ones with their reason."""
        validation_characters = 0
        for number, (conversation, encoded) in enumerate(self._encoded(files, excluded, advance), 1):
            sample = _sample(conversation, encoded, size, excluded)
            if sample is None:
                continue
            if split and number % VALIDATION_EVERY == 0 and validation_characters < VALIDATION_CHARACTERS:
                excluded.validation.append(_to_json(conversation))
                validation_characters += sample.characters
                continue
            counts.documents += 1
            counts.characters += sample.characters
            counts.bytes += sample.bytes
            yield sample
        if not self.skip_bad:
            self._report_rejected(excluded.bad)
            refuse_bad_rows(excluded.bad)

    def _encoded(
        self, files: Iterable[Path], excluded: "_ExcludedRows", advance: Callable[[int], None]
    ) -> Iterator[tuple[Conversation, Encoded]]:
        verified = 0
        for path in files:
            for row in read_conversations(path, training_fault, advance):
                if isinstance(row, BadRow):
                    excluded.bad.append(row)
                    continue
                try:
                    encoded = self.encoder.encode(row)
                except InputError as error:
                    excluded.bad.append(BadRow(row.where, error.what))
                    continue
                if verified < VERIFIED:
                    self.encoder.prove(row)
                    verified += 1
                yield row, encoded

    def _report_rejected(self, rows: Sequence[BadRow]) -> None:
        for row in rows[:SHOWN]:
            self.note(f"{row.where}: {row.reason}")
        if len(rows) > SHOWN:
            self.note(f"and {len(rows) - SHOWN:,} more bad rows")

    def examples(
        self,
        tokenizer: DocumentTokenizer,
        options: TrainingOptions,
        blocks: Sequence[PackedBlocks],
        count: int,
        one_per_block: bool,
    ) -> Mixture:
        """Return `count` blocks drawn by the weights of their sources."""
        return Mixture(blocks, [source.weight for source in self.sources], count, options.seed)

    def validation_sets(
        self, tokenizer: DocumentTokenizer, size: int, blocks: Sequence[PackedBlocks], one_per_block: bool
    ) -> list[ValidationSet]:
        """Return one set of answers: those of the given files, else of the validation split."""
        excluded = _ExcludedRows()
        if self.validation:
            samples = list(
                self._samples(self.validation, size, excluded, lambda count: None, False, TextCounts())
            )
            self._report_rejected([*excluded.bad, *excluded.long])
            if not samples:
                raise InputError(self.validation[0], "leaves no answer to measure", "Give other `eval_data`")
        else:
            rows = [_from_json(row) for packed in blocks for row in packed.validation()]
            tokenized = [_sample(row, self.encoder.encode(row), size, excluded) for row in rows]
            samples = [sample for sample in tokenized if sample is not None]
        if not samples:
            return []
        return [ValidationSet.of_samples(LABEL, samples, size, tokenizer.end, one_per_block)]

    def grow(self, info: ModelInfo, folder: Path, seed: int) -> Grown:
        """Write the model with rows for the template's tokens to `folder`; earlier runs are merged into the base first."""
        if not info.chain.runs:
            return grow(info.chain.base, info.tokenizer.folder, folder, seed=seed)
        merged = folder.with_name(f".{folder.name}.folded")
        shutil.rmtree(merged, ignore_errors=True)
        try:
            merge_chain(info.chain, merged)
            return grow(merged, info.tokenizer.folder, folder, seed=seed)
        finally:
            shutil.rmtree(merged, ignore_errors=True)

    def report(self, run: Run, blocks: Sequence[PackedBlocks]) -> dict[str, Any]:
        """Write the rejected rows, and return the counts of samples."""
        rejected = [row for packed in blocks for row in packed.extra(REJECTED)]
        if rejected:
            run.write(REJECTED, json_lines(rejected))
        shortened = sum(len(packed.extra(SHORTENED)) for packed in blocks)
        if rejected or shortened:
            self.note(
                f"{len(rejected):,} rows were left out ({REJECTED}), {shortened:,} cut at a turn to fit --max-length"
            )
        return {
            "samples": sum(packed.meta.documents for packed in blocks),
            "rejected": len(rejected),
            "shortened": shortened,
            "validation_samples": sum(len(packed.validation()) for packed in blocks),
        }


@dataclass
class _ExcludedRows:
    """Rows that are not trained on: bad or too long ones with their reason, and the validation split; also shortened rows."""

    bad: list[BadRow] = field(default_factory=list)
    long: list[BadRow] = field(default_factory=list)
    shortened: list[Any] = field(default_factory=list)
    validation: list[Any] = field(default_factory=list)

    @property
    def files(self) -> dict[str, Callable[[], list[Any]]]:
        """The rows by the names of their files in the folder of packed blocks."""

        def rejected() -> list[Any]:
            return [{"where": row.where, "reason": row.reason} for row in (*self.bad, *self.long)]

        return {VALIDATION: lambda: self.validation, REJECTED: rejected, SHORTENED: lambda: self.shortened}


def _sample(
    conversation: Conversation, encoded: Encoded, size: int, excluded: _ExcludedRows
) -> TokenizedSample | None:
    """Return as many of the turns as fit; None if not even the first answer does."""
    cut = encoded.cut(size)
    if cut is None:
        reason = f"too long: {encoded.ends[0]:,} tokens up to its first answer, of {size:,}"
        excluded.long.append(BadRow(conversation.where, reason))
        return None
    if cut is not encoded:
        excluded.shortened.append(
            {"where": conversation.where, "answers": [len(cut.ends), len(encoded.ends)]}
        )
    texts = [turn.text for turn in conversation.turns if turn.role == "assistant"][: len(cut.ends)]
    ids, answers = np.array(cut.ids, np.int32), np.array(cut.mask, np.bool_)
    return TokenizedSample(ids, answers, sum(map(len, texts)), sum(len(text.encode()) for text in texts))


def _to_json(conversation: Conversation) -> dict[str, Any]:
    return {"where": conversation.where, "turns": [[turn.role, turn.text] for turn in conversation.turns]}


def _from_json(row: dict[str, Any]) -> Conversation:
    return Conversation(tuple(Turn(role, text) for role, text in row["turns"]), row["where"])
