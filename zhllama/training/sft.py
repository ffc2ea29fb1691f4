"""Supervised fine-tuning on conversations: rows into samples, samples into blocks, and the model grown for the template."""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from zhllama.conversation.records import Conversation
from zhllama.conversation.row_fields import RowReading, unused_field
from zhllama.conversation.row_forms import RowForm
from zhllama.conversation.stored_conversations import from_json, to_json
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
UNUSED, SPLIT = "unused-fields.jsonl", "split.jsonl"
READER = "rows-3"  # changes with what the reader makes of a row, so that blocks packed before are not used
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
    field_map: Mapping[str, str] = field(default_factory=dict)
    forms: Mapping[Path, RowForm] = field(
        default_factory=dict
    )  # of the files that a dataset_info.json describes
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
        forms = [self.forms[path].identity() for path in source.files if path in self.forms]
        reading = f"{READER} {self.encoder.thoughts} {sorted(self.field_map.items())} {forms}"
        text = f"{source.hash()} {names} {template_hash} {template.stop} {one_per_block} {self.skip_bad} {reading}"
        origin = BlocksOrigin(text, tokenizer.hash, size, "best-fit", validation_split=not self.validation)
        folder = self.cache / origin.key()
        if (folder / META).is_file():
            return PackedBlocks.open(folder)
        counts, excluded = TextCounts(), _ExcludedRows()
        samples = self._samples(source.files, size, excluded, advance, origin.validation_split, counts)
        packed = pack_samples(samples, size, tokenizer.end, one_per_block=one_per_block)
        blocks = write_blocks(folder, packed, origin, tokenizer.size, counts, excluded.files)
        if not len(blocks):
            rejected = [*excluded.bad, *excluded.marked, *excluded.long]
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
            samples = _samples(conversation, encoded, size, excluded)
            if not samples:
                continue
            if split and number % VALIDATION_EVERY == 0 and validation_characters < VALIDATION_CHARACTERS:
                excluded.validation.append(to_json(conversation))
                validation_characters += sum(sample.characters for sample in samples)
                continue
            counts.documents += len(samples)
            counts.characters += sum(sample.characters for sample in samples)
            counts.bytes += sum(sample.bytes for sample in samples)
            yield from samples
        if not self.skip_bad:
            self._report_rejected(excluded.bad)
            refuse_bad_rows(excluded.bad)

    def _encoded(
        self, files: Iterable[Path], excluded: "_ExcludedRows", advance: Callable[[int], None]
    ) -> Iterator[tuple[Conversation, list[Encoded]]]:
        verified = 0
        for path in files:
            reading = RowReading(self.field_map, form=self.forms.get(path))
            for row in read_conversations(path, training_fault, advance, reading):
                if isinstance(row, BadRow):
                    (excluded.marked if row.marked else excluded.bad).append(row)
                    continue
                try:
                    encoded = self.encoder.samples(row)
                except InputError as error:
                    excluded.bad.append(BadRow(row.where, error.what))
                    continue
                if verified < VERIFIED:
                    self.encoder.prove(row)
                    verified += 1
                yield row, encoded
            excluded.unused += [
                {"file": str(path), "field": name, "rows": count}
                for name, count in reading.unused.most_common()
            ]

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
            self._report_rejected([*excluded.bad, *excluded.marked, *excluded.long])
            if not samples:
                raise InputError(self.validation[0], "leaves no answer to measure", "Give other `eval_data`")
        else:
            rows = [from_json(row) for packed in blocks for row in packed.validation()]
            samples = [
                sample for row in rows for sample in _samples(row, self.encoder.samples(row), size, excluded)
            ]
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
                f"{len(rejected):,} rows were left out ({REJECTED}), {shortened:,} cut at a turn to fit the maximum length"
            )
        unused = [row for packed in blocks for row in packed.extra(UNUSED)]
        separate = sum(row["samples"] for packed in blocks for row in packed.extra(SPLIT))
        for row in unused:
            self.note(unused_field(row["file"], row["field"], row["rows"]))
        if separate:
            self.note(
                f"the template renders earlier answers differently once later turns follow, so {separate:,} of them are "
                "trained in samples of their own"
            )
        return {
            "template": self.encoder.template.name,
            "samples": sum(packed.meta.documents for packed in blocks),
            "separate_samples": separate,
            "rejected": len(rejected),
            "shortened": shortened,
            "unused_fields": unused,
            "validation_samples": sum(len(packed.validation()) for packed in blocks),
        }


@dataclass
class _ExcludedRows:
    """Rows that are not trained on, with their reason, and the validation split; also shortened rows and unused fields.

    `marked` are valid rows that say themselves that they must not be trained on; `separate` counts samples per split row.
    """

    bad: list[BadRow] = field(default_factory=list)
    marked: list[BadRow] = field(default_factory=list)
    long: list[BadRow] = field(default_factory=list)
    shortened: list[Any] = field(default_factory=list)
    validation: list[Any] = field(default_factory=list)
    unused: list[Any] = field(default_factory=list)
    separate: list[Any] = field(default_factory=list)

    @property
    def files(self) -> dict[str, Callable[[], list[Any]]]:
        """The rows by the names of their files in the folder of packed blocks."""

        def rejected() -> list[Any]:
            return [
                {"where": row.where, "reason": row.reason} for row in (*self.bad, *self.marked, *self.long)
            ]

        return {
            VALIDATION: lambda: self.validation, REJECTED: rejected, SHORTENED: lambda: self.shortened,
            UNUSED: lambda: self.unused, SPLIT: lambda: self.separate,
        }  # fmt: skip


def _samples(
    conversation: Conversation, encoded: Sequence[Encoded], size: int, excluded: _ExcludedRows
) -> list[TokenizedSample]:
    """Return the samples of a conversation, each with as many of the turns as fit; none if no first answer does."""
    cuts = [one.cut(size) for one in encoded]
    fitting = [cut for cut in cuts if cut is not None]
    if not fitting:
        reason = f"too long: {encoded[0].ends[0]:,} tokens up to its first answer, of {size:,}"
        excluded.long.append(BadRow(conversation.where, reason))
        return []
    answers = [sum(len(one.ends) for one in some) for some in (fitting, encoded)]
    if answers[0] < answers[1] or any(
        len(c.ids) < len(e.ids) for c, e in zip(cuts, encoded, strict=True) if c
    ):
        excluded.shortened.append({"where": conversation.where, "answers": answers})
    if len(fitting) > 1:
        excluded.separate.append({"where": conversation.where, "samples": len(fitting) - 1})
    return [_tokenized(cut) for cut in fitting]


def _tokenized(encoded: Encoded) -> TokenizedSample:
    ids, answers = np.array(encoded.ids, np.int32), np.array(encoded.mask, np.bool_)
    texts = encoded.texts
    return TokenizedSample(ids, answers, sum(map(len, texts)), sum(len(text.encode()) for text in texts))
