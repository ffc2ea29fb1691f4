"""Scores answers with a reward model and compares contestants by their rewards."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from zhllama.conversation.records import Conversation, Turn
from zhllama.errors import InputError
from zhllama.evaluation.questions import Answers, Question
from zhllama.evaluation.win_rates import ContestantScores, Duel, duel_from_scores


class AnswerScorer(Protocol):
    """Scores the last answer of a conversation, such as a reward model. Errors: InputError."""

    def score(self, conversation: Conversation) -> float:
        """The reward of the answer; higher is better."""


def rewards(
    contestant: Answers,
    questions: Sequence[Question],
    model: AnswerScorer,
    watch: Callable[[], object] = lambda: None,
) -> ContestantScores:
    """The rewards of one contestant; an empty answer, or one that the template cannot render, counts as missing."""
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
    return ContestantScores(contestant.name, values, categories, missing=missing)


def reward_duels(scores: Sequence[ContestantScores], pairs: Sequence[tuple[str, str]]) -> list[Duel]:
    """Compare pairs of contestants, question by question."""
    by_name = {contestant.name: contestant for contestant in scores}
    return [duel_from_scores(by_name[left], by_name[right]) for left, right in pairs] if scores else []
