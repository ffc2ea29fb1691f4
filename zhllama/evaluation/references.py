"""Answers beside reference answers: ROUGE-1, 2 and L over Chinese tokens, and exact match."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from zhllama.evaluation.questions import Answers, Question
from zhllama.evaluation.scores import Interval, bootstrap
from zhllama.generation.similarity import simplified, tokens

ROUGE = ("rouge1", "rouge2", "rougeL")
METRICS = (*ROUGE, "exact")


class ChineseTokens:
    """What `rouge_score` compares: a Han character, or a run of letters and digits. Its own tokenizer sees no Chinese."""

    def tokenize(self, text: str) -> list[str]:
        """Tokens of one text."""
        return tokens(text)


@dataclass(frozen=True)
class Agreement:
    """How near one contestant's answers come to the references, on the questions that have both."""

    name: str
    values: dict[str, list[float]]  # metric -> one value a question, from 0 to 1

    def means(self) -> dict[str, Interval]:
        """The mean of each metric."""
        return {metric: bootstrap(values) for metric, values in self.values.items()}

    def figures(self) -> dict[str, Any]:
        """As JSON."""
        means = self.means()
        return {"name": self.name, "questions": means["exact"].questions} | {
            metric: mean.figures() for metric, mean in means.items()
        }


def agreement(
    contestant: Answers, questions: Sequence[Question], watch: Callable[[], object] = lambda: None
) -> Agreement:
    """Compare one contestant's answers with the references; ROUGE is the F measure."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(ROUGE), tokenizer=ChineseTokens())
    values: dict[str, list[float]] = {metric: [] for metric in METRICS}
    for question in questions:
        answer = contestant.texts.get(question.id)
        if answer is not None and question.reference:
            for metric, score in scorer.score(question.reference, answer).items():
                values[metric].append(score.fmeasure)
            values["exact"].append(float(_plain(answer) == _plain(question.reference)))
        watch()
    return Agreement(contestant.name, values)


def _plain(text: str) -> str:
    """What exact match compares: width, case, script, white space and a last full stop do not count."""
    text = simplified(unicodedata.normalize("NFKC", text)).lower()
    text = re.sub(
        r"(?<![a-z0-9])\s+|\s+(?![a-z0-9])", "", text
    )  # 用 Python 写 is 用Python写, but 1 2 is not 12
    return re.sub(r"\s+", " ", text).rstrip("。.")
