"""From verdicts to figures: who won how often, how sure that is, and how often the order of showing decided."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Outcome = Literal["win", "tie", "loss"]  # of the left contestant
Z = 1.959963984540054  # 97.5 % of the normal distribution lie below
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A mean over questions and the 95 % confidence interval around it; all None over no question."""

    value: float | None
    low: float | None
    high: float | None
    questions: int

    def figures(self) -> dict[str, Any]:
        """As JSON, rounded."""
        return {name: _rounded(getattr(self, name)) for name in ("value", "low", "high")}


def wilson(points: float, questions: int) -> Interval:
    """Wilson's score interval of a share, a tie counting half; many ties make it wider than need be, never narrower.

    Unlike a bootstrap it is honest about few questions and about 100 %.
    """
    if not questions:
        return Interval(None, None, None, 0)
    p, n = points / questions, questions
    middle = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return Interval(p, max(0.0, middle - half), min(1.0, middle + half), n)


def bootstrap(values: Sequence[float], seed: int = 0) -> Interval:
    """The mean, and the middle 95 % of the means of 2,000 samples drawn with replacement (percentile bootstrap)."""
    n = len(values)
    if not n:
        return Interval(None, None, None, 0)
    chance, held = np.random.default_rng(seed), np.array(values, np.float64)
    means = sorted(float(held[chance.integers(n, size=n)].mean()) for _ in range(RESAMPLES))
    at = round(0.025 * RESAMPLES)
    return Interval(float(held.mean()), means[at], means[-at - 1], n)


@dataclass(frozen=True)
class VerdictTally:
    """Outcomes of some questions between two contestants."""

    wins: int
    ties: int
    losses: int

    @classmethod
    def of(cls, outcomes: Iterable[Outcome]) -> "VerdictTally":
        held = list(outcomes)
        return cls(held.count("win"), held.count("tie"), held.count("loss"))

    @property
    def judged(self) -> int:
        return self.wins + self.ties + self.losses

    @property
    def rate(self) -> Interval:
        """The left one's win rate, a tie counting half."""
        return wilson(self.wins + self.ties / 2, self.judged)

    def figures(self) -> dict[str, Any]:
        """As JSON."""
        counts = {"judged": self.judged, "wins": self.wins, "ties": self.ties, "losses": self.losses}
        return {**counts, "win_rate": self.rate.figures()}


@dataclass(frozen=True)
class Duel:
    """Two contestants over all questions: questions == judged + unreadable + missing.

    `disagreements` are judged questions whose two orders gave different verdicts; `for_first` those of them where both
    orders preferred whoever was shown first.
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
        return VerdictTally.of(self.outcomes.values())

    @property
    def questions(self) -> int:
        return len(self.outcomes) + self.unreadable + sum(self.missing.values())

    def by_category(self) -> dict[str, VerdictTally]:
        """Tallies by category, the largest first; none where no question has one."""
        held: dict[str, list[Outcome]] = {}
        for id, outcome in self.outcomes.items():
            held.setdefault(self.categories.get(id, ""), []).append(outcome)
        if held.keys() <= {""}:
            return {}
        return {name: VerdictTally.of(held[name]) for name in sorted(held, key=lambda n: (-len(held[n]), n))}

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
class Marks:
    """What one contestant's answers scored: questions == len(values) + unreadable + missing."""

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
        """Means by category, the largest first; none where no question has one."""
        held: dict[str, list[float]] = {}
        for id, value in self.values.items():
            held.setdefault(self.categories.get(id, ""), []).append(value)
        if held.keys() <= {""}:
            return {}
        return {n: bootstrap(held[n]) for n in sorted(held, key=lambda n: (-len(held[n]), n))}

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


def duel_of(left: Marks, right: Marks) -> Duel:
    """Two contestants by what each scored: the higher score wins a question; what one of them lacks is missing."""
    both = [id for id in left.values if id in right.values]
    outcomes: dict[str, Outcome] = {}
    for id in both:
        a, b = left.values[id], right.values[id]
        outcomes[id] = "win" if a > b else "loss" if a < b else "tie"
    lacking = left.questions - len(both)
    return Duel(
        left.name,
        right.name,
        outcomes,
        left.categories,
        missing={"not scored for both": lacking} if lacking else {},
    )


def standings(duels: Sequence[Duel]) -> dict[str, float]:
    """Each contestant's win rate over all its duels, the best first.

    Without an interval: a question that meets several opponents is no several independent questions.
    """
    points: dict[str, float] = {}
    judged: dict[str, int] = {}
    for duel in duels:
        tally = duel.tally
        for name, won in ((duel.left, tally.wins), (duel.right, tally.losses)):
            points[name] = points.get(name, 0.0) + won + tally.ties / 2
            judged[name] = judged.get(name, 0) + tally.judged
    rates = {name: points[name] / judged[name] for name in points if judged[name]}
    return dict(sorted(rates.items(), key=lambda item: (-item[1], item[0])))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
