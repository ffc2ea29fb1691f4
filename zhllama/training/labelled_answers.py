"""Answers labelled good or bad as ids: read, filtered by length, and split by prompt into training and validation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zhllama.conversation.encode_conversation import ConversationEncoder
from zhllama.conversation.read_conversations import BadRow, refuse_bad_rows
from zhllama.conversation.read_labelled import read_labelled
from zhllama.conversation.records import LabelledAnswer
from zhllama.conversation.row_fields import RowReading
from zhllama.conversation.row_forms import RowForm
from zhllama.errors import InputError, OptionError
from zhllama.io.text import Advance
from zhllama.training.preference_pairs import ExampleForm, last_answer_ids, prompt_text, validation_prompts


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


@dataclass(frozen=True)
class TokenizedAnswers:
    """Answers for training, for validation, and rejected ones with their reason; all answers read are in one of the three.

    A row without a labelled answer counts as one rejected answer.
    """

    training: list[TokenizedAnswer]
    validation: list[TokenizedAnswer]
    rejected: list[BadRow] = field(default_factory=list)
    unused_fields: list[dict[str, Any]] = field(default_factory=list)

    def figures(self) -> dict[str, int]:
        """Return the counts."""
        good = sum(answer.good for answer in self.training)
        counts = {
            "answers": len(self.training),
            "validation_answers": len(self.validation),
            "answers_left_out": len(self.rejected),
        }
        return {
            "answers_read": sum(counts.values()),
            **counts,
            "good": good,
            "bad": len(self.training) - good,
        }


def read_labelled_answers(
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
) -> TokenizedAnswers:
    """Read the labelled answers of some files that fit with their prompt into `length` ids; validation as in `read_pairs`.

    Errors: InputError for bad rows without `skip_bad`, and if no good or no bad answer is left to train on.
    """
    if not 0 <= validation_share < 1:
        raise OptionError(f"validation_share {validation_share}", "is not from 0 up to 1", "Give 0.1")
    reader = _AnswerReader(encoder, length, field_map or {}, forms or {})
    answers = [answer for path in files for answer in reader.read(path, advance)]
    extra = [answer for path in validation_files for _, answer in reader.read(path, advance)]
    if not skip_bad:
        refuse_bad_rows(reader.bad)
    chosen = (
        set() if validation_files else validation_prompts({key for key, _ in answers}, validation_share, seed)
    )
    training = [answer for key, answer in answers if key not in chosen]
    if len({answer.good for answer in training}) < 2:
        reason = f": {reader.rejected[0].where}: {reader.rejected[0].reason}" if reader.rejected else ""
        lacking = (
            "leaves no bad answer to train on"
            if any(answer.good for answer in training)
            else "leaves no good answer to train on"
        )
        raise InputError(
            files[0], lacking + reason, "Give answers of both kinds; good ones alone are for sft"
        )
    validation = [answer for key, answer in answers if key in chosen] + extra
    return TokenizedAnswers(training, validation, reader.rejected, reader.unused)


@dataclass
class _AnswerReader:
    """Reads files of labelled answers: `rejected` gets all rejected rows with their reason, `bad` those that are malformed."""

    encoder: ConversationEncoder
    length: int
    field_map: Mapping[str, str]
    forms: Mapping[Path, RowForm]
    bad: list[BadRow] = field(default_factory=list)
    rejected: list[BadRow] = field(default_factory=list)
    unused: list[dict[str, Any]] = field(default_factory=list)

    def read(self, path: Path, advance: Advance | None) -> list[tuple[str, TokenizedAnswer]]:
        """Return the answers of a file, each with its prompt as text."""
        answers = []
        reading = RowReading(self.field_map, form=self.forms.get(path))
        for row in read_labelled(path, advance, reading):
            answer = row if isinstance(row, BadRow) else self._encoded(row)
            if isinstance(answer, BadRow):
                self.rejected.append(answer)
            elif isinstance(row, LabelledAnswer):
                answers.append((prompt_text(row.conversation.turns[:-1]), answer))
            if isinstance(row, BadRow) and not row.marked:
                self.bad.append(row)
        self.unused += [
            {"file": str(path), "field": name, "rows": count} for name, count in reading.unused.most_common()
        ]
        return answers

    def _encoded(self, row: LabelledAnswer) -> TokenizedAnswer | BadRow:
        where = row.conversation.where
        try:
            answer = TokenizedAnswer(*last_answer_ids(self.encoder, row.conversation), row.good)
        except InputError as error:
            self.bad.append(BadRow(where, error.what))
            return self.bad[-1]
        if answer.longest > self.length:
            return BadRow(where, f"too long: {answer.longest:,} tokens, of {self.length:,}")
        return answer


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


LABELLED = ExampleForm("answers", read_labelled_answers, to_rows)
