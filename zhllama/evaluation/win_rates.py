"""Win rates and mean scores with confidence intervals, and how often the order of presentation decided."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Outcome = Literal["win", "tie", "loss"]  # of the left contestant
Z = 1.959963984540054  # 97.5 % quantile of the normal distribution
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A mean over questions with its 95 % confidence interval; all None without questions."""

    value: float | None
    low: float | None
    high: float | None
    questions: int

    def text(self, percent: bool = False) -> str:
        """The mean with its interval, e.g. `75.0% [61.2%, 85.1%]`; a dash without questions."""
        if self.value is None or self.low is None or self.high is None:
            return "—"
        number = "{:.1%}" if percent else "{:.3f}"
        return f"{number} [{number}, {number}]".format(self.value, self.low, self.high)

    def figures(self) -> dict[str, Any]:
        """As JSON, rounded."""
        return {name: _rounded(getattr(self, name)) for name in ("value", "low", "high")}


def wilson(points: float, questions: int) -> Interval:
    """Wilson's score interval of a win rate, where a tie counts half; with many ties it is conservative.

    Unlike a bootstrap, it is valid for few questions and for win rates near 100 %.
    """
    if not questions:
        return Interval(None, None, None, 0)
    p, n = points / questions, questions
    middle = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return Interval(p, max(0.0, middle - half), min(1.0, middle + half), n)


def bootstrap(values: Sequence[float], seed: int = 0) -> Interval:
    """The mean with a percentile bootstrap interval from 2,000 samples."""
    n = len(values)
    if not n:
        return Interval(None, None, None, 0)
    random, array = np.random.default_rng(seed), np.array(values, np.float64)
    means = sorted(float(array[random.integers(n, size=n)].mean()) for _ in range(RESAMPLES))
    tail = round(0.025 * RESAMPLES)
    return Interval(float(array.mean()), means[tail], means[-tail - 1], n)


@dataclass(frozen=True)
class VerdictTally:
    """Wins, ties and losses of the left contestant."""

    wins: int
    ties: int
    losses: int

    @classmethod
    def from_outcomes(cls, outcomes: Iterable[Outcome]) -> "VerdictTally":
        counts = Counter(outcomes)
        return cls(counts["win"], counts["tie"], counts["loss"])

    @property
    def judged(self) -> int:
        return self.wins + self.ties + self.losses

    @property
    def rate(self) -> Interval:
        """Win rate of the left contestant, where a tie counts half."""
        return wilson(self.wins + self.ties / 2, self.judged)

    def figures(self) -> dict[str, Any]:
        """As JSON."""
        counts = {"judged": self.judged, "wins": self.wins, "ties": self.ties, "losses": self.losses}
        return {**counts, "win_rate": self.rate.figures()}


@dataclass(frozen=True)
class Duel:
    """Two contestants compared on all questions: questions == judged + unreadable + missing.

    `disagreements` counts judged questions whose two orders of presentation gave different verdicts; `for_first` counts
    those where both orders preferred the answer shown first.
    """

    left: str
    right: str
    outcomes: Mapping[str, Outcome]  # by question
    categories: Mapping[str, str]  # by question
    unreadable: int = 0
    missing: Mapping[str, int] = field(default_factory=dict)  # reason -> questions
    disagreements: int = 0
    for_first: int = 0

    @property
    def tally(self) -> VerdictTally:
        return VerdictTally.from_outcomes(self.outcomes.values())

    @property
    def questions(self) -> int:
        return len(self.outcomes) + self.unreadable + sum(self.missing.values())

    def by_category(self) -> dict[str, VerdictTally]:
        """Tallies by category, the largest first; empty if no question has a category."""
        outcomes: dict[str, list[Outcome]] = {}
        for id, outcome in self.outcomes.items():
            outcomes.setdefault(self.categories.get(id, ""), []).append(outcome)
        if outcomes.keys() <= {""}:
            return {}
        return {name: VerdictTally.from_outcomes(outcomes[name]) for name in _largest_first(outcomes)}

    def figures(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "left": self.left,
            "right": self.right,
            "questions": self.questions,
            **self.tally.figures(),
            "unreadable": self.unreadable,
            "missing": sum(self.missing.values()),
            "missing_because": dict(self.missing),
            "order_disagreements": self.disagreements,
            "of_them_for_the_first_shown": self.for_first,
            "categories": {name: tally.figures() for name, tally in self.by_category().items()},
        }


@dataclass(frozen=True)
class ContestantScores:
    """The scores of one contestant's answers: questions == len(values) + unreadable + missing."""

    name: str
    values: Mapping[str, float]  # by question
    categories: Mapping[str, str]
    unreadable: int = 0
    missing: Mapping[str, int] = field(default_factory=dict)

    @property
    def questions(self) -> int:
        return len(self.values) + self.unreadable + sum(self.missing.values())

    @property
    def mean(self) -> Interval:
        return bootstrap(list(self.values.values()))

    def by_category(self) -> dict[str, Interval]:
        """Means by category, the largest first; empty if no question has a category."""
        values: dict[str, list[float]] = {}
        for id, value in self.values.items():
            values.setdefault(self.categories.get(id, ""), []).append(value)
        if values.keys() <= {""}:
            return {}
        return {name: bootstrap(values[name]) for name in _largest_first(values)}

    def figures(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "questions": self.questions,
            "judged": len(self.values),
            "unreadable": self.unreadable,
            "missing": sum(self.missing.values()),
            "missing_because": dict(self.missing),
            "mean": self.mean.figures(),
            "categories": {
                name: {"judged": mean.questions, "mean": mean.figures()}
                for name, mean in self.by_category().items()
            },
        }


def duel_from_scores(left: ContestantScores, right: ContestantScores) -> Duel:
    """Compare two contestants by their scores: the higher score wins; a question without both scores is missing."""
    scored = [id for id in left.values if id in right.values]
    outcomes: dict[str, Outcome] = {}
    for id in scored:
        a, b = left.values[id], right.values[id]
        outcomes[id] = "win" if a > b else "loss" if a < b else "tie"
    missing = left.questions - len(scored)
    return Duel(
        left.name,
        right.name,
        outcomes,
        left.categories,
        missing={"not scored for both": missing} if missing else {},
    )


def standings(duels: Sequence[Duel]) -> dict[str, float]:
    """Each contestant's win rate over all its duels, the best first.

    It has no confidence interval, because repeated comparisons on one question are not independent.
    """
    points: dict[str, float] = {}
    judged: dict[str, int] = {}
    for duel in duels:
        tally = duel.tally
        for name, wins in ((duel.left, tally.wins), (duel.right, tally.losses)):
            points[name] = points.get(name, 0.0) + wins + tally.ties / 2
            judged[name] = judged.get(name, 0) + tally.judged
    rates = {name: points[name] / judged[name] for name in points if judged[name]}
    return dict(sorted(rates.items(), key=lambda item: (-item[1], item[0])))


def _largest_first(groups: Mapping[str, Sequence[Any]]) -> list[str]:
    return sorted(groups, key=lambda name: (-len(groups[name]), name))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
