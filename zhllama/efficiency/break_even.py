"""After how much training text an extended vocabulary is as good as the old one: a law from the curves of docs/extending.md."""

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class BreakEven:
    """Characters of training text: the median and the range of the curves.

    `about` None: no base that reads Chinese this well was measured, and `low` is what the nearest one needs at least.
    `high` None: no end of the range is known.
    """

    about: float | None
    low: float
    high: float | None


# By bits per Chinese character of the base before training; scripts/experiments/extending_page.py prints them. Crossings that
# were measured, and for the first base, whose curves have not crossed, predictions from the rates at which their gaps shrink.
LAW = (
    (6.14, BreakEven(1.1e7, 3.3e6, 8.7e11)),
    (7.90, BreakEven(1.6e4, 1.0e3, 3.4e4)),
    (8.73, BreakEven(1.1e3, 1.0e3, 4.7e3)),
    (10.21, BreakEven(1.0e3, 1.0e3, 1.0e3)),
)


def break_even(bits: float) -> BreakEven:
    """The range for a base with these bits: log-linear between measured bases, above the last one the value of the last."""
    (first, nearest), (last, few) = LAW[0], LAW[-1]
    if bits < first:
        return BreakEven(None, nearest.low, None)
    if bits >= last:
        return few
    (left, more), (right, less) = next(pair for pair in pairwise(LAW) if pair[0][0] <= bits < pair[1][0])
    share = (bits - left) / (right - left)

    def between(a: float, b: float) -> float:
        return float(a ** (1 - share) * b**share)

    assert more.about is not None and less.about is not None
    open_end = more.high is None or less.high is None
    return BreakEven(
        between(more.about, less.about),
        between(more.low, less.low),
        None if open_end else between(more.high or 0, less.high or 0),
    )


def rounded(characters: float) -> str:
    """A number with two digits, more than the curves determine."""
    return f"{float(f'{characters:.2g}'):,.0f}"
