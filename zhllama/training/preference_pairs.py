"""Ranked pairs as examples: a prompt with its better and its worse answer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zhllama.conversation.encode_conversation import ConversationEncoder
from zhllama.conversation.read_comparisons import read_comparisons
from zhllama.conversation.records import Comparison, Conversation
from zhllama.conversation.row_turns import answer_turn
from zhllama.errors import InputError
from zhllama.training.examples import ExampleForm, last_answer_ids


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


def encode_pair(encoder: ConversationEncoder, row: Comparison) -> TokenizedPair:
    """Encode both answers after the prompt. Errors: InputError for an answer that the template cannot write."""

    def ids(prompt: Conversation, answer: str) -> tuple[list[int], list[int]]:
        return last_answer_ids(encoder, replace(prompt, turns=(*prompt.turns, answer_turn(answer))))

    prompt, chosen = ids(row.prompt, row.chosen)
    other, rejected = ids(row.prompt, row.rejected)
    assert prompt == other
    return TokenizedPair(prompt, chosen, rejected)


def to_rows(pairs: Sequence[TokenizedPair], joined: bool) -> list[dict[str, Any]]:
    """Return rows for trl: prompt, chosen and rejected for DPO; `joined` for a reward model, each answer after its prompt."""
    if joined:
        return [{"chosen_ids": p.prompt + p.chosen, "rejected_ids": p.prompt + p.rejected} for p in pairs]
    return [{"prompt_ids": p.prompt, "chosen_ids": p.chosen, "rejected_ids": p.rejected} for p in pairs]


def _check(training: Sequence[TokenizedPair], file: Path, reason: str) -> None:
    if not training:
        raise InputError(
            file, f"leaves no pair to train on{reason}", "Give other pairs, or more `block_size`"
        )


PAIRS = ExampleForm(
    "pairs",
    read_comparisons,
    lambda row: row.prompt,
    encode_pair,
    _check,
    lambda pairs: to_rows(pairs, False),
)
JOINED_PAIRS = replace(PAIRS, rows=lambda pairs: to_rows(pairs, joined=True))
