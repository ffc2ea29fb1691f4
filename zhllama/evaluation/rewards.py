"""Answers scored by a reward model, and who has the higher reward."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from zhllama.conversation.records import Conversation, Turn
from zhllama.errors import InputError
from zhllama.evaluation.questions import Answers, Question
from zhllama.evaluation.scores import Duel, Marks, duel_of


class Scores(Protocol):
    """What scores the last answer of a conversation; InputError where it cannot."""

    def score(self, conversation: Conversation) -> float:
        """How good the answer is."""


def rewards(
    contestant: Answers,
    questions: Sequence[Question],
    model: Scores,
    watch: Callable[[], object] = lambda: None,
) -> Marks:
    """One contestant's rewards; an answer that is empty or that the template cannot write is missing, with its reason."""
    values: dict[str, float] = {}
    missing: Counter[str] = Counter()
    for question in questions:
        answer = contestant.texts.get(question.id)
        if not answer:
            missing["no answer"] += 1
        else:
            turns = (Turn("user", question.text), Turn("assistant", answer))
            try:
                values[question.id] = model.score(Conversation(turns, str(contestant.path), question.id))
            except InputError as error:
                missing[error.what] += 1
        watch()
    categories = {question.id: question.category for question in questions}
    return Marks(contestant.name, values, categories, missing=missing)


def reward_duels(marks: Sequence[Marks], pairs: Sequence[tuple[str, str]]) -> list[Duel]:
    """Contestants against each other, question by question."""
    by_name = {m.name: m for m in marks}
    return [duel_of(by_name[left], by_name[right]) for left, right in pairs] if marks else []
