"""Ranked pairs as ids: read, filtered by length, and split by prompt into training and validation."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from zhllama.conversation.encode_conversation import ConversationEncoder
from zhllama.conversation.read_comparisons import read_comparisons
from zhllama.conversation.read_conversations import BadRow, refuse_bad_rows
from zhllama.conversation.records import Comparison, Conversation, Turn
from zhllama.conversation.row_fields import RowReading
from zhllama.conversation.row_forms import RowForm
from zhllama.conversation.row_turns import answer_turn
from zhllama.errors import InputError, OptionError
from zhllama.io.text import Advance

MAX_VALIDATION_PROMPTS = 200  # the pairs of these prompts are measured before and after training


@dataclass(frozen=True)
class TokenizedPair:
    """The ids of a prompt, and of its better and its worse answer, each with its end token."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]

    @property
    def tokens(self) -> int:
        """The ids that training reads."""
        return 2 * len(self.prompt) + len(self.chosen) + len(self.rejected)

    @property
    def longest(self) -> int:
        """The ids of the longer sequence."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


class ReadExamples(Protocol):
    """Examples for training and validation, rows that were left out with their reason, and fields without a use."""

    @property
    def training(self) -> list[Any]: ...
    @property
    def validation(self) -> list[Any]: ...
    @property
    def rejected(self) -> list[BadRow]: ...
    @property
    def unused_fields(self) -> list[dict[str, Any]]: ...
    def figures(self) -> dict[str, int]: ...


@dataclass(frozen=True)
class ExampleForm:
    """What a trainer learns from: its name in figures, how files of it are read, and its rows for trl."""

    noun: Literal["pairs", "answers"]
    read: Callable[..., ReadExamples]
    rows: Callable[[Sequence[Any]], list[dict[str, Any]]]


@dataclass(frozen=True)
class TokenizedPairs:
    """Pairs for training, for validation, and rejected ones with their reason; all pairs read are in one of the three.

    A row that is no ranking at all counts as one rejected pair.
    """

    training: list[TokenizedPair]
    validation: list[TokenizedPair]
    rejected: list[BadRow] = field(default_factory=list)
    unused_fields: list[dict[str, Any]] = field(default_factory=list)

    def figures(self) -> dict[str, int]:
        """Return the counts."""
        counts = {
            "pairs": len(self.training),
            "validation_pairs": len(self.validation),
            "pairs_left_out": len(self.rejected),
        }
        return {"pairs_read": sum(counts.values()), **counts}


def read_pairs(
    files: Sequence[Path],
    encoder: ConversationEncoder,
    length: int,
    *,
    validation_share: float = 0.1,
    validation_files: Sequence[Path] = (),
    seed: int = 0,
    skip_bad: bool = False,
    field_map: Mapping[str, str] | None = None,
    forms: Mapping[Path, RowForm] | None = None,
    advance: Advance | None = None,
) -> TokenizedPairs:
    """Read the pairs of some files whose prompt and answers fit into `length` ids.

    Validation: the pairs of `validation_files`, else those of a share of the prompts, 200 at most, chosen by the seed and
    the prompt's text alone, whatever else the files contain. Errors: InputError for bad rows without `skip_bad`, and if
    no pair is left to train on.
    """
    if not 0 <= validation_share < 1:
        raise OptionError(f"validation_share {validation_share}", "is not from 0 up to 1", "Give 0.1")
    reader = _PairReader(encoder, length, field_map or {}, forms or {})
    pairs = [pair for path in files for pair in reader.read(path, advance)]
    extra = [pair for path in validation_files for _, pair in reader.read(path, advance)]
    if not skip_bad:
        refuse_bad_rows(reader.bad)
    chosen = (
        set() if validation_files else validation_prompts({key for key, _ in pairs}, validation_share, seed)
    )
    training = [pair for key, pair in pairs if key not in chosen]
    if not training:
        reason = f": {reader.rejected[0].where}: {reader.rejected[0].reason}" if reader.rejected else ""
        raise InputError(
            files[0], f"leaves no pair to train on{reason}", "Give other pairs, or more `block_size`"
        )
    validation = [pair for key, pair in pairs if key in chosen] + extra
    return TokenizedPairs(training, validation, reader.rejected, reader.unused)


def validation_prompts(prompts: set[str], share: float, seed: int) -> set[str]:
    """The prompts of the validation split, a share of all, chosen by the seed and their text alone."""

    def rank(prompt: str) -> str:
        return hashlib.sha256(f"{seed}/{prompt}".encode("utf-8", "replace")).hexdigest()

    count = min(MAX_VALIDATION_PROMPTS, round(share * len(prompts)))
    return set(sorted(prompts, key=rank)[:count])


@dataclass
class _PairReader:
    """Reads files of pairs: `rejected` gets all rejected rows with their reason, `bad` those that are malformed."""

    encoder: ConversationEncoder
    length: int
    field_map: Mapping[str, str]
    forms: Mapping[Path, RowForm]
    bad: list[BadRow] = field(default_factory=list)
    rejected: list[BadRow] = field(default_factory=list)
    unused: list[dict[str, Any]] = field(default_factory=list)

    def read(self, path: Path, advance: Advance | None) -> list[tuple[str, TokenizedPair]]:
        """Return the pairs of a file, each with its prompt as text."""
        pairs = []
        reading = RowReading(self.field_map, form=self.forms.get(path))
        for row in read_comparisons(path, advance, reading):
            pair = row if isinstance(row, BadRow) else self._encoded(row)
            if isinstance(pair, BadRow):
                self.rejected.append(pair)
            elif isinstance(row, Comparison):
                pairs.append((prompt_text(row.prompt.turns), pair))
            if isinstance(row, BadRow) and not row.marked:
                self.bad.append(row)
        self.unused += [
            {"file": str(path), "field": name, "rows": count} for name, count in reading.unused.most_common()
        ]
        return pairs

    def _encoded(self, row: Comparison) -> TokenizedPair | BadRow:
        where = row.prompt.where
        try:
            prompt, chosen = self._ids(row.prompt, row.chosen)
            other, rejected = self._ids(row.prompt, row.rejected)
        except InputError as error:
            self.bad.append(BadRow(where, error.what))
            return self.bad[-1]
        assert prompt == other
        pair = TokenizedPair(prompt, chosen, rejected)
        if pair.longest > self.length:
            return BadRow(where, f"too long: {pair.longest:,} tokens, of {self.length:,}")
        return pair

    def _ids(self, prompt: Conversation, answer: str) -> tuple[list[int], list[int]]:
        return last_answer_ids(self.encoder, replace(prompt, turns=(*prompt.turns, answer_turn(answer))))


def prompt_text(turns: Sequence[Turn]) -> str:
    """The text by which a prompt is known."""
    return "\n".join(f"{turn.role}: {turn.text}" for turn in turns)


def last_answer_ids(encoder: ConversationEncoder, conversation: Conversation) -> tuple[list[int], list[int]]:
    """The ids before the last answer, and those of the answer with its end token, without what follows it."""
    encoded = encoder.encode(conversation)
    start, end = encoded.starts[-1], encoded.ends[-1]
    return encoded.ids[:start], encoded.ids[start:end]


def to_rows(pairs: Sequence[TokenizedPair], joined: bool) -> list[dict[str, Any]]:
    """Return rows for trl: prompt, chosen and rejected for DPO; `joined` for a reward model, each answer after its prompt."""
    if joined:
        return [{"chosen_ids": p.prompt + p.chosen, "rejected_ids": p.prompt + p.rejected} for p in pairs]
    return [{"prompt_ids": p.prompt, "chosen_ids": p.chosen, "rejected_ids": p.rejected} for p in pairs]


PAIRS = ExampleForm("pairs", read_pairs, lambda pairs: to_rows(pairs, joined=False))
JOINED_PAIRS = ExampleForm("pairs", read_pairs, lambda pairs: to_rows(pairs, joined=True))
