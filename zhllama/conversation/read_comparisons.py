"""Reads ranked answers in every common format, as pairs of a better and a worse one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from zhllama.conversation.read_conversations import (
    BadRow,
    Message,
    ShareGptTurn,
    Text,
    prompt_fault,
    read_each,
    row_id,
    turns_from_messages,
    turns_of,
)
from zhllama.conversation.records import Comparison, Conversation, Turn
from zhllama.errors import InputError
from zhllama.io.rows import MEND, checked
from zhllama.io.text import Advance


def read_comparisons(path: Path, advance: Advance | None = None) -> Iterator[Comparison | BadRow]:
    """Pairs of answers from ranked ones, every better one before every worse one of its row.

    Forms: `user_input` with `completion_a` (the better one) and `completion_b`, or with `responses_and_scores`
    (GPT-4-LLM's), gen-zh's comparisons.json, `ranked_outputs` best first, and `chosen` and `rejected` as texts or
    messages with an instruction, a prompt or a conversation. Errors: InputError for a file that cannot be read or has
    no rows.
    """
    return read_each(path, _comparisons, advance)


class _Scored(BaseModel):
    response: Text
    score: float


class _Pair(BaseModel):
    chosen: Text
    rejected: Text


class _Ranked(BaseModel):
    """GPT-4-LLM's two forms, and gen-zh's, whose `pairs` are those that both orders agreed on."""

    user_input: Text
    completion_a: Text | None = None
    completion_b: Text | None = None
    responses_and_scores: list[_Scored] | None = None
    pairs: list[_Pair] | None = None

    def ranked(self) -> list[tuple[str, str]]:
        if self.pairs is not None:
            return [(pair.chosen, pair.rejected) for pair in self.pairs]
        if self.responses_and_scores is not None:
            scored = self.responses_and_scores
            return [(a.response, b.response) for a in scored for b in scored if a.score > b.score]
        if self.completion_a is None or self.completion_b is None:
            raise InputError("", "has neither completion_a and completion_b nor responses_and_scores")
        return [(self.completion_a, self.completion_b)]


class _Outputs(BaseModel):
    ranked_outputs: list[Text]


class _Chosen(BaseModel):
    chosen: Text | ShareGptTurn | list[Message]
    rejected: Text | ShareGptTurn | list[Message]
    prompt: Text | None = None


def _comparisons(row: Any, where: str) -> list[Comparison]:
    if not isinstance(row, dict):
        raise InputError(where, "is not a JSON object", MEND)
    if "user_input" in row:
        ranked = checked(_Ranked, row, where)
        prompt, pairs = [Turn("user", ranked.user_input)], ranked.ranked()
    elif "ranked_outputs" in row:
        outputs = checked(_Outputs, row, where).ranked_outputs
        pairs = [(a, b) for place, a in enumerate(outputs) for b in outputs[place + 1 :]]
        prompt = _prompt(row, where)
    elif "chosen" in row:
        chosen = checked(_Chosen, row, where)
        prompt, pairs = _chosen(row, chosen, where)
    else:
        raise InputError(where, "has none of the fields user_input, ranked_outputs, chosen", MEND)
    pairs = [(better, worse) for better, worse in pairs if better != worse]
    question = Conversation(tuple(prompt), where, row_id(row))
    reason = prompt_fault(question)
    if reason is None and not pairs:
        reason = "has no answer that is better than another"
    if reason is None and not all(better and worse for better, worse in pairs):
        reason = "has an empty answer"
    if reason is not None:
        raise InputError(where, reason, MEND)
    return [Comparison(question, better, worse) for better, worse in pairs]


def _chosen(row: dict[str, Any], answers: _Chosen, where: str) -> tuple[list[Turn], list[tuple[str, str]]]:
    """The prompt and the pair, from texts or single turns, or from two conversations that differ in their last turn."""
    sides = (answers.chosen, answers.rejected)
    if isinstance(answers.chosen, list) and isinstance(answers.rejected, list):
        better, worse = turns_from_messages(answers.chosen), turns_from_messages(answers.rejected)
        if not better or not worse or {better[-1].role, worse[-1].role} != {"assistant"}:
            raise InputError(where, "chosen and rejected do not both end with an answer")
        if better[:-1] != worse[:-1]:
            raise InputError(where, "chosen and rejected differ before their last turn")
        prompt = better[:-1] or _prompt(row, where, answers.prompt)
        return prompt, [(better[-1].text, worse[-1].text)]
    texts = [side if isinstance(side, str) else side.value for side in sides if not isinstance(side, list)]
    if len(texts) != 2:
        raise InputError(where, "chosen and rejected are of different forms")
    return _prompt(row, where, answers.prompt), [(texts[0], texts[1])]


def _prompt(row: dict[str, Any], where: str, prompt: str | None = None) -> list[Turn]:
    if prompt is not None:
        return [Turn("user", prompt)]
    # The outputs are left out: they would be an answer, not part of the prompt.
    return turns_of({key: value for key, value in row.items() if key not in ("output", "target")}, where)
