"""report.html of a judging run: win rates and scores with their intervals, and examples with the judge's replies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from zhllama.evaluation.results import Results
from zhllama.evaluation.win_rates import standings
from zhllama.pages.charts import bar_rows
from zhllama.pages.render import render

EXAMPLES = 20


@dataclass(frozen=True)
class JudgedExample:
    """One verdict: the question, the answers it is about, its outcome or score, and what the judge replied."""

    question: str
    answers: Sequence[tuple[str, str]]  # contestant, text
    outcome: str  # a key of the page's texts, or a score
    replies: Sequence[tuple[str, str]]  # the order in which the answers were shown, reply


def judging_page(title: str, results: Results, spending: Mapping[str, Any] | None, seed: int) -> str:
    """The page; `spending` contains the judge's replies, tokens and cost."""
    rows = Random(seed).sample(list(results.rows), min(EXAMPLES, len(results.rows)))
    rates = standings(results.duels) if len(results.duels) > 1 else {}
    return render(
        "judging",
        title=title,
        results=results,
        spending=spending,
        standings=bar_rows([(name, 100 * rate) for name, rate in rates.items()]),
        examples=[_example(row, results) for row in rows],
    )


def _example(row: Mapping[str, Any], results: Results) -> JudgedExample:
    question = next(question for question in results.questions if question.id == row["id"])
    names = [row["of"]] if "of" in row else [row["left"], row["right"]]
    texts = {contestant.name: contestant.texts.get(question.id, "—") for contestant in results.contestants}
    if "of" in row:
        outcome, replies = str(row["score"]), [(row["of"], row["said"])]
    else:
        outcome = row["result"]
        replies = [(" → ".join(order["shown"]), order["said"]) for order in row["orders"]]
    return JudgedExample(question.text, [(name, texts[name]) for name in names], outcome, replies)
