"""What the curves say: gaps at equal compute, text and total cost, how they shrink with each doubling, and where they cross.

A gap is the bits per character of the extended vocabulary minus those of the old one: positive while it is behind.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from extending.curve import Point
from extending.report import logarithm

Axis = Literal["seconds", "characters"]
Value = Callable[[Point], float]
Pair = tuple[
    Sequence[Point], Sequence[Point]
]  # the old and an extended vocabulary with one order of the text
NEAR = 1.03  # whole steps may end slightly before or after a round second
DRAWS = 10_000
DOUBLING = 1.8  # what counts as about a doubling


@dataclass(frozen=True)
class Interval:
    """A mean with the ends of its interval, and the number of training runs behind it."""

    mean: float
    low: float
    high: float
    runs: int


@dataclass(frozen=True)
class Line:
    """A least-squares line, with the standard error of its slope."""

    intercept: float
    slope: float
    slope_error: float


def same_sources(point: Point) -> float:
    """Bits per character of documents from the sources of the training text."""
    return point.zh_bits_per_character


def other_sources(point: Point) -> float:
    """Bits per character of sources of which nothing was trained on."""
    assert point.other_bits_per_character is not None
    return point.other_bits_per_character


def english(point: Point) -> float:
    """Bits per byte of English."""
    return point.en_bits_per_byte


def source(name: str) -> Value:
    """Bits per character of one of the other sources."""
    return lambda point: point.other[name]


def characters_at(points: Sequence[Point], seconds: float) -> float:
    """Characters of training text read by a second."""
    return float(np.interp(seconds, [p.seconds for p in points], [p.characters for p in points]))


def value_at(points: Sequence[Point], place: float, value: Value, axis: Axis = "seconds") -> float | None:
    """A value interpolated in the logarithm of the axis; None outside of the curve."""
    begin, end = getattr(points[0], axis), getattr(points[-1], axis)
    if not begin <= place <= end * NEAR:
        return None
    position = logarithm if axis == "seconds" else math.log1p
    places = [position(getattr(p, axis)) for p in points]
    return float(np.interp(position(min(place, end)), places, [value(p) for p in points]))


def gap(pair: Pair, place: float, value: Value, axis: Axis = "seconds") -> float | None:
    """The gap at equal seconds or at equal characters read; None where one of the two curves has no value."""
    old, extended = (value_at(points, place, value, axis) for points in pair)
    return None if old is None or extended is None else extended - old


def crossing(pair: Pair, value: Value, axis: Axis = "seconds") -> float | None:
    """The place from which on the extended vocabulary stays ahead; None if it is behind at the end."""
    begin = max(getattr(points[0], axis) for points in pair)
    end = min(getattr(points[-1], axis) for points in pair)
    low, high = math.log(10 + begin), math.log(10 + end)
    places = [math.exp(low + (high - low) * i / 1000) - 10 for i in range(1001)]
    places = [min(max(place, begin), end) for place in places]
    gaps = [gap(pair, place, value, axis) for place in places]
    if gaps[-1] is None or gaps[-1] >= 0:
        return None
    behind = [place for place, one in zip(places, gaps, strict=True) if one is not None and one >= 0]
    return behind[-1] if behind else begin


def interval(samples: Sequence[Sequence[float]], seed: int = 0) -> Interval:
    """Mean of samples[run][source] with its 95% interval, by resampling runs and sources with replacement.

    With one run the interval has the spread over sources alone; few runs make it too narrow rather than too wide.
    """
    values = np.array(samples, np.float64)
    random = np.random.default_rng(seed)
    runs = random.integers(0, values.shape[0], (DRAWS, values.shape[0]))
    sources = random.integers(0, values.shape[1], (DRAWS, values.shape[1]))
    means = values[runs[:, :, None], sources[:, None, :]].mean((1, 2))
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high), len(values))


def gap_interval(pairs: Sequence[Pair], place: float, axis: Axis = "seconds") -> Interval | None:
    """The gap on the other sources over all pairs that reach a place; None if none does."""
    samples = [_by_source(pair, lambda value, pair=pair: gap(pair, place, value, axis)) for pair in pairs]
    reached = [sample for sample in samples if sample]
    return interval(reached) if reached else None


def shrink_interval(pairs: Sequence[Pair], begin: float, axis: Axis = "seconds") -> Interval | None:
    """By how much the gap on the other sources shrinks from `begin` to twice that place."""

    def shrink(pair: Pair, value: Value) -> float | None:
        before, after = gap(pair, begin, value, axis), gap(pair, 2 * begin, value, axis)
        return None if before is None or after is None else before - after

    samples = [_by_source(pair, lambda value, pair=pair: shrink(pair, value)) for pair in pairs]
    reached = [sample for sample in samples if sample]
    return interval(reached) if reached else None


def _by_source(pair: Pair, measure: Callable[[Value], float | None]) -> list[float]:
    """One measure for each of the other sources; empty if one is missing."""
    found = [measure(source(name)) for name in pair[0][0].other]
    return [one for one in found if one is not None] if None not in found else []


def fit(xs: Sequence[float], ys: Sequence[float]) -> Line:
    """The line through at least three points."""
    x, y = np.array(xs, np.float64), np.array(ys, np.float64)
    centered = x - x.mean()
    slope = float(centered @ y / (centered @ centered))
    intercept = float(y.mean() - slope * x.mean())
    residuals = y - intercept - slope * x
    error = math.sqrt(float(residuals @ residuals) / (len(x) - 2) / float(centered @ centered))
    return Line(intercept, slope, error)


@dataclass(frozen=True)
class Prediction:
    """Where a gap would close at its mean rate over the last points, and at those of its fastest and its slowest doubling.

    The two ends are no confidence interval: they say what follows if the gap keeps on shrinking as fast as it did at best,
    and as slowly as it did at worst. `high` None: in its slowest doubling the gap did not shrink.
    """

    about: float | None
    low: float
    high: float | None


def predict(gaps: Mapping[float, float], last: int = 5) -> Prediction:
    """Predict the place at which the gap closes from gaps by place, of which the last is positive."""
    places = sorted(gaps)
    end = places[-1]
    line = fit([math.log2(p) for p in places[-last:]], [gaps[p] for p in places[-last:]])
    rates = [
        -line.slope
    ]  # bits per doubling, here and over the shortest stretch of about a doubling from each place
    for begin in places:
        after = next((p for p in places if p >= DOUBLING * begin), None)
        if after is not None:
            rates.append((gaps[begin] - gaps[after]) / math.log2(after / begin))
    fast, slow = max(rates), min(rates)
    return Prediction(
        about=end * 2 ** (gaps[end] / -line.slope) if line.slope < 0 else None,
        low=end * 2 ** (gaps[end] / fast),
        high=end * 2 ** (gaps[end] / slow) if slow > 0 else None,
    )


@dataclass(frozen=True)
class Repaid:
    """Where an extended model has the bits that the old one had earlier, and how much serving repays the difference."""

    bits: float
    old_seconds: float
    seconds: float
    served: (
        float | None
    )  # serving with the old vocabulary until total costs are equal, in units of its training


def repaid(pair: Pair, old_seconds: float, value: Value, cost: float) -> Repaid | None:
    """Compare at equal bits instead of equal compute: `cost` is what a character costs in serving, relative to the old one.

    None if the extended vocabulary has not reached the bits that the old one has at `old_seconds`.
    """
    old, extended = pair
    bits = value_at(old, old_seconds, value)
    if bits is None:
        return None
    for before, after in pairwise(extended):
        if value(before) > bits >= value(after):
            share = (value(before) - bits) / (value(before) - value(after))
            low, high = logarithm(before.seconds), logarithm(after.seconds)
            seconds = math.exp(low + share * (high - low)) - 10
            served = (seconds / old_seconds - 1) / (1 - cost) if old_seconds else None
            return Repaid(bits, old_seconds, seconds, served)
    return None
