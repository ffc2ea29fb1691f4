"""Tuning on conversations: rows of files into samples, samples into blocks, and how a model is made ready for them."""

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
from zhllama.training.mixture import KEPT_CHARACTERS, KEPT_EVERY, Mixture, WeightedSource
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
PROVED = 32  # conversations whose pieces are held against the whole text before a run
TOLD = 20  # bad rows that are told on the screen; all of them where --skip-bad writes a file


@dataclass(frozen=True)
class ChatTuningJob:
    """Conversations by source, those to measure on, and how they become ids: a Lesson of pretrain.py.

    `heldout`: files to measure on; without, one row of a hundred is kept aside. `alone`: the model cannot keep the samples
    of a block apart, so each gets a block of its own.
    """

    sources: tuple[WeightedSource, ...]
    heldout: tuple[Path, ...]
    encoder: ConversationEncoder
    cache: Path
    skip_bad: bool = False
    alone: bool = False
    note: Callable[[str], None] = lambda text: None

    def blocks(self, tokens: DocumentTokenizer, size: int, read: Callable[[int], None]) -> list[PackedBlocks]:
        """The samples of each source, packed; from the cache where the same rows were packed before.

        Errors: InputError for bad rows where they are not to be skipped, and for a source that no sample is left of.
        """
        return [self._packed(source, tokens, size, read) for source in self.sources]

    def _packed(
        self, source: WeightedSource, tokens: DocumentTokenizer, size: int, read: Callable[[int], None]
    ) -> PackedBlocks:
        template = hashlib.sha256(self.encoder.template.jinja.encode()).hexdigest()
        names = " ".join(map(str, source.files))  # what is left out is told by its file
        how = f"{source.hash()} {names} {template} {self.encoder.template.stop} {self.alone} {self.skip_bad}"
        origin = BlocksOrigin(how, tokens.hash, size, "best-fit", kept_aside=not self.heldout)
        folder = self.cache / origin.key()
        if (folder / META).is_file():
            return PackedBlocks.open(folder)
        counts, shelf = TextCounts(), _Shelf()
        samples = self._samples(source.files, size, shelf, read, origin.kept_aside, counts)
        packed = pack_samples(samples, size, tokens.end, alone=self.alone)
        blocks = write_blocks(folder, packed, origin, tokens.size, counts, shelf.files)
        if not len(blocks):
            left = [*shelf.bad, *shelf.long]
            self._tell(left)
            told = f": {left[0].where}: {left[0].reason}" if left else ""
            raise InputError(source.files[0], f"leaves no sample to learn from{told}", "Give other data")
        return blocks

    def _samples(
        self, files: Iterable[Path], size: int, shelf: "_Shelf", read: Callable[[int], None], aside: bool, counts: TextCounts
    ) -> Iterator[TokenizedSample]:  # fmt: skip
        """Samples that are learnt from; the others go to the shelf, each with its reason."""
        held = 0
        for number, (conversation, encoded) in enumerate(self._encoded(files, shelf, read), 1):
            sample = _sample(conversation, encoded, size, shelf)
            if sample is None:
                continue
            if aside and number % KEPT_EVERY == 0 and held < KEPT_CHARACTERS:
                shelf.aside.append(_as_json(conversation))
                held += sample.characters
                continue
            counts.documents += 1
            counts.characters += sample.characters
            counts.bytes += sample.bytes
            yield sample
        if not self.skip_bad:
            self._tell(shelf.bad)
            refuse_bad_rows(shelf.bad)

    def _encoded(
        self, files: Iterable[Path], shelf: "_Shelf", read: Callable[[int], None]
    ) -> Iterator[tuple[Conversation, Encoded]]:
        proved = 0
        for path in files:
            for row in read_conversations(path, training_fault, read):
                if isinstance(row, BadRow):
                    shelf.bad.append(row)
                    continue
                try:
                    encoded = self.encoder.encode(row)
                except InputError as error:
                    shelf.bad.append(BadRow(row.where, error.what))
                    continue
                if proved < PROVED:
                    self.encoder.prove(row)
                    proved += 1
                yield row, encoded

    def _tell(self, bad: Sequence[BadRow]) -> None:
        for row in bad[:TOLD]:
            self.note(f"{row.where}: {row.reason}")
        if len(bad) > TOLD:
            self.note(f"and {len(bad) - TOLD:,} more bad rows")

    def examples(
        self, tokens: DocumentTokenizer, options: TrainingOptions, blocks: Sequence[PackedBlocks], count: int
    ) -> Mixture:
        """Blocks drawn by the weights of their sources."""
        return Mixture(blocks, [source.weight for source in self.sources], count, options.seed)

    def held_out(
        self, tokens: DocumentTokenizer, size: int, blocks: Sequence[PackedBlocks]
    ) -> list[ValidationSet]:
        """The answers that are measured: those of the given files, else of the rows kept aside."""
        shelf = _Shelf()
        if self.heldout:
            samples = list(self._samples(self.heldout, size, shelf, lambda count: None, False, TextCounts()))
            self._tell([*shelf.bad, *shelf.long])
            if not samples:
                raise InputError(self.heldout[0], "leaves no answer to measure", "Give other --eval-data")
        else:
            aside = [_conversation(given) for some in blocks for given in some.aside()]
            found = [_sample(row, self.encoder.encode(row), size, shelf) for row in aside]
            samples = [sample for sample in found if sample is not None]
        return [ValidationSet.of_samples(LABEL, samples, size, tokens.end, self.alone)] if samples else []

    def grow(self, ground: ModelInfo, folder: Path, seed: int) -> Grown:
        """The model with rows for what its tokenizer got; of a run, what it trained is folded in first."""
        if not ground.chain.runs:
            return grow(ground.chain.base, ground.tokens.folder, folder, seed=seed)
        folded = folder.with_name(f".{folder.name}.folded")
        shutil.rmtree(folded, ignore_errors=True)
        try:
            merge_chain(ground.chain, folded)
            return grow(folded, ground.tokens.folder, folder, seed=seed)
        finally:
            shutil.rmtree(folded, ignore_errors=True)

    def report(self, run: Run, blocks: Sequence[PackedBlocks]) -> dict[str, Any]:
        """Write the rows that were left out, and count what was learnt from."""
        rejected = [row for some in blocks for row in some.beside(REJECTED)]
        if rejected:
            run.write(REJECTED, json_lines(rejected))
        shortened = sum(len(some.beside(SHORTENED)) for some in blocks)
        if rejected or shortened:
            self.note(
                f"{len(rejected):,} rows were left out ({REJECTED}), {shortened:,} cut at a turn to fit --max-length"
            )
        return {
            "samples": sum(some.meta.documents for some in blocks),
            "rejected": len(rejected),
            "shortened": shortened,
            "kept_aside": sum(len(some.aside()) for some in blocks),
        }


@dataclass
class _Shelf:
    """What becomes of rows that are not learnt from as they are."""

    bad: list[BadRow] = field(default_factory=list)
    long: list[BadRow] = field(default_factory=list)
    shortened: list[Any] = field(default_factory=list)
    aside: list[Any] = field(default_factory=list)

    @property
    def files(self) -> dict[str, Callable[[], list[Any]]]:
        """By the names under which they lie beside the blocks."""

        def rejected() -> list[Any]:
            return [{"where": row.where, "reason": row.reason} for row in (*self.bad, *self.long)]

        return {VALIDATION: lambda: self.aside, REJECTED: rejected, SHORTENED: lambda: self.shortened}


def _sample(conversation: Conversation, encoded: Encoded, size: int, shelf: _Shelf) -> TokenizedSample | None:
    """As many of its turns as fit; None where not even the first answer does."""
    cut = encoded.cut(size)
    if cut is None:
        told = f"too long: {encoded.ends[0]:,} tokens up to its first answer, of {size:,}"
        shelf.long.append(BadRow(conversation.where, told))
        return None
    if cut is not encoded:
        shelf.shortened.append({"where": conversation.where, "answers": [len(cut.ends), len(encoded.ends)]})
    said = [turn.text for turn in conversation.turns if turn.role == "assistant"][: len(cut.ends)]
    ids, answers = np.array(cut.ids, np.int32), np.array(cut.mask, np.bool_)
    return TokenizedSample(ids, answers, sum(map(len, said)), sum(len(text.encode()) for text in said))


def _as_json(conversation: Conversation) -> dict[str, Any]:
    return {"where": conversation.where, "turns": [[turn.role, turn.text] for turn in conversation.turns]}


def _conversation(given: dict[str, Any]) -> Conversation:
    return Conversation(tuple(Turn(role, text) for role, text in given["turns"]), given["where"])
