"""Answers labelled good or bad as examples: a prompt, an answer, and its label."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zhllama.conversation.encode_conversation import ConversationEncoder
from zhllama.conversation.read_labelled import read_labelled
from zhllama.conversation.records import Conversation, LabelledAnswer
from zhllama.errors import InputError
from zhllama.training.examples import ExampleForm, last_answer_ids


@dataclass(frozen=True)
class TokenizedAnswer:
    """The ids of a prompt and of an answer to it with its end token, and whether the answer is good."""

    prompt: list[int]
    answer: list[int]
    good: bool

    @property
    def tokens(self) -> int:
        """The ids that training reads."""
        return len(self.prompt) + len(self.answer)

    longest = tokens


def encode_answer(encoder: ConversationEncoder, row: LabelledAnswer) -> TokenizedAnswer:
    """Encode an answer after its prompt. Errors: InputError for an answer that the template cannot write."""
    return TokenizedAnswer(*last_answer_ids(encoder, row.conversation), row.good)


def to_rows(answers: Sequence[TokenizedAnswer]) -> list[dict[str, Any]]:
    """Return rows for trl: prompt, answer and label, and the answer to another prompt, by which the loss estimates how far
    the model has moved (the KL term).

    trl takes the other answer from the same batch; here it is the next one in the file that has another prompt.
    """
    return [
        {
            "prompt_ids": one.prompt,
            "completion_ids": one.answer,
            "KL_completion_ids": other.answer,
            "label": one.good,
        }
        for one, other in zip(answers, _others(answers), strict=True)
    ]


def _others(answers: Sequence[TokenizedAnswer]) -> list[TokenizedAnswer]:
    """For each answer the next one with another prompt, or the next one where all prompts are equal."""
    count = len(answers)
    others: list[TokenizedAnswer] = []
    after = 0  # index behind the run of equal prompts around the current answer
    for number, one in enumerate(answers):
        if after <= number:
            after = number + 1
        while after < number + count and answers[after % count].prompt == one.prompt:
            after += 1
        others.append(answers[(after if after < number + count else number + 1) % count])
    return others


def _prompt(row: LabelledAnswer) -> Conversation:
    return replace(row.conversation, turns=row.conversation.turns[:-1])


def _check(training: Sequence[TokenizedAnswer], file: Path, reason: str) -> None:
    if len({answer.good for answer in training}) < 2:
        lacking = (
            "leaves no bad answer to train on"
            if any(answer.good for answer in training)
            else "leaves no good answer to train on"
        )
        raise InputError(file, lacking + reason, "Give answers of both kinds; good ones alone are for sft")


def _figures(training: Sequence[TokenizedAnswer]) -> dict[str, int]:
    good = sum(answer.good for answer in training)
    return {"good": good, "bad": len(training) - good}


LABELLED = ExampleForm("answers", read_labelled, _prompt, encode_answer, _check, to_rows, _figures)
