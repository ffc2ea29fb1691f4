"""Metrics against reference answers: ROUGE-1, ROUGE-2 and ROUGE-L over Chinese tokens, and exact match."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from zhllama.evaluation.questions import Answers, Question
from zhllama.evaluation.win_rates import Interval, bootstrap
from zhllama.generation.near_duplicates import simplified, tokens

ROUGE = ("rouge1", "rouge2", "rougeL")
METRICS = (*ROUGE, "exact")


class ChineseTokens:
    """The tokenizer for `rouge_score`, whose default tokenizer drops Chinese characters."""

    def tokenize(self, text: str) -> list[str]:
        """Han characters, and runs of letters and digits."""
        return tokens(text)


@dataclass(frozen=True)
class Agreement:
    """The metrics of one contestant, on the questions with both an answer and a reference."""

    name: str
    values: dict[str, list[float]]  # metric -> one value per question, from 0 to 1

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
            values["exact"].append(float(_normalize(answer) == _normalize(question.reference)))
        watch()
    return Agreement(contestant.name, values)


def _normalize(text: str) -> str:
    """The text for exact match: without differences of width, case, script, white space and final full stop."""
    text = simplified(unicodedata.normalize("NFKC", text)).lower()
    # 用 Python 写 equals 用Python写, but 1 2 does not equal 12.
    text = re.sub(r"(?<![a-z0-9])\s+|\s+(?![a-z0-9])", "", text)
    return re.sub(r"\s+", " ", text).rstrip("。.")
