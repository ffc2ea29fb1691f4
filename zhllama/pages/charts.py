"""Geometry of the charts of all pages; the macros in `templates/charts.html` draw it as inline SVG."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

Point = tuple[float, float]
TAU = 2 * math.pi
SIZE = 1000  # units of a line chart's box in both directions; the page stretches it
POINTS = 1000  # of a curve at most
COLORS = 10  # in the style sheet


@dataclass(frozen=True)
class Curve:
    """One line of a chart; `strong` draws it over the others, `faint` under them and without a legend."""

    label: str
    points: Sequence[Point]
    color: int
    strong: bool = False
    faint: bool = False

    @property
    def last(self) -> float:
        return self.points[-1][1]


@dataclass(frozen=True)
class Tick:
    """A value on an axis and its place in percent of the axis' length."""

    label: str
    percent: float


@dataclass(frozen=True)
class LineChart:
    """Curves in a box of SIZE by SIZE units; `mark` is the place of a vertical rule."""

    curves: Sequence[Curve]
    paths: Sequence[str]
    ends: Sequence[Point]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    mark: float | None = None

    @property
    def label_width(self) -> int:
        """Characters of the longest label of the vertical axis."""
        return max(len(tick.label) for tick in self.y_ticks)


def line_chart(curves: Sequence[Curve], mark: float | None = None, from_zero: bool = False) -> LineChart:
    """The chart of curves from x = 0 to their last point; the vertical axis begins at 0 only if `from_zero`."""
    points = [point for curve in curves for point in curve.points if math.isfinite(point[1])] or [(0.0, 0.0)]
    last = max(x for x, _ in points) or 1
    levels = round_values(0 if from_zero else min(y for _, y in points), max(y for _, y in points))
    low, high = levels[0], levels[-1]

    def place(x: float, y: float) -> Point:
        return SIZE * x / last, SIZE * (high - y) / (high - low)

    drawn = [[place(*point) for point in thinned(curve.points)] for curve in curves]
    steps = [value for value in round_values(0, max(last, 5)) if value <= last]  # whole numbers
    # A float has more digits than a label needs: 0.30000000000000004.
    digits = max(0, 2 - math.floor(math.log10(high - low)))
    return LineChart(
        curves=curves,
        paths=[" ".join(f"{x:.1f},{y:.1f}" for x, y in path) for path in drawn],
        ends=[path[-1] for path in drawn],
        x_ticks=[Tick(f"{value:,.0f}", 100 * value / last) for value in steps],
        y_ticks=[
            Tick(f"{round(value, digits):,.6g}", 100 * (high - value) / (high - low)) for value in levels
        ],
        mark=None if mark is None else place(mark, low)[0],
    )


def round_values(low: float, high: float, most: int = 5) -> list[float]:
    """Round values that enclose the range, in at most about `most` equal steps."""
    span = (high - low) or abs(high) or 1.0
    unit = 10 ** math.floor(math.log10(span / most))
    step = next(unit * factor for factor in (1, 2, 5, 10) if span / (unit * factor) <= most)
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    return [step * number for number in range(first, last + 1)]


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most about POINTS of the points, evenly chosen, always with the last; values that are not finite are left out."""
    finite = [point for point in points if math.isfinite(point[1])] or [(0.0, 0.0)]
    stride = max(1, len(finite) // POINTS)
    return [*finite[:-1:stride], finite[-1]]


def smoothed(points: Sequence[Point]) -> list[Point]:
    """Means over a centered window of about a twentieth of the points, which narrows towards both ends."""
    finite = [point for point in points if math.isfinite(point[1])]
    sums = list(accumulate((y for _, y in finite), initial=0.0))
    last, result = len(finite) - 1, []
    for at, (x, _) in enumerate(finite):
        half = min(at, last - at, len(finite) // 40)
        result.append((x, (sums[at + half + 1] - sums[at - half]) / (2 * half + 1)))
    return result


@dataclass(frozen=True)
class BarRow:
    """One horizontal bar; `percent` of the longest."""

    label: str
    value: float
    percent: float


def bar_rows(rows: Sequence[tuple[str, float]]) -> list[BarRow]:
    """Bars relative to the longest."""
    longest = max((value for _, value in rows), default=0) or 1
    return [BarRow(label, value, 100 * value / longest) for label, value in rows]


@dataclass(frozen=True)
class Slice:
    """A part of a ring: its SVG path, and where its label is drawn if there is room for one."""

    label: str
    count: int
    path: str
    hue: int
    lightness: int
    transform: str | None
    narrow: bool = False  # too narrow for the larger labels of a small screen


def sunburst(pairs: Counter[tuple[str, str]], verbs: int = 20, nouns: int = 4) -> list[Slice]:
    """The most frequent verbs in the inner ring and their most frequent nouns in the outer, as in Self-Instruct's figure."""
    totals: Counter[str] = Counter()
    for (verb, _), count in pairs.items():
        totals[verb] += count
    shown = totals.most_common(verbs)
    whole = sum(count for _, count in shown)
    slices, at = [], 0.0
    for number, (verb, count) in enumerate(shown):
        hue, turn = round(number * 360 / len(shown)), count / whole * TAU
        slices.append(_slice(verb, count, (at, at + turn), (70, 165), hue, 68))
        frequent = Counter({noun: n for (v, noun), n in pairs.items() if v == verb and noun}).most_common(
            nouns
        )
        edges = [at]
        for _, n in frequent:
            edges.append(edges[-1] + n / whole * TAU)
        slices += [
            _slice(noun, n, angles, (168, 268), hue, 80)
            for (noun, n), angles in zip(frequent, pairwise(edges), strict=True)
        ]
        at += turn
    return slices


def _slice(label: str, count: int, angles: Point, radii: tuple[int, int], hue: int, lightness: int) -> Slice:
    (start, end), (inner, outer) = angles, radii
    end = min(end, start + TAU - 1e-4)  # a whole circle has no arc
    large = int(end - start > math.pi)

    def at(radius: float, angle: float) -> str:
        return f"{radius * math.sin(angle):.2f} {-radius * math.cos(angle):.2f}"

    path = (
        f"M{at(inner, start)}L{at(outer, start)}A{outer} {outer} 0 {large} 1 {at(outer, end)}"
        f"L{at(inner, end)}A{inner} {inner} 0 {large} 0 {at(inner, start)}Z"
    )
    middle, radius = (start + end) / 2, (inner + outer) / 2
    transform = None
    if (end - start) * radius > 14:  # the height of a label
        degrees = math.degrees(middle) - 90
        turned = degrees + 180 if middle > math.pi else degrees
        transform = f"translate({at(radius, middle)}) rotate({turned:.1f})"
    return Slice(label, count, path, hue, lightness, transform, narrow=(end - start) * radius < 22)
