"""Plots curves as one SVG: panels over the same logarithmic seconds, light or dark like the reader's screen."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from extending.curve import Point
from extending.report import logarithm

WIDTH, LEFT, RIGHT, TOP, GAP = 640, 54, 24, 40, 50  # narrow, so that text stays readable on a telephone
COLUMNS, ROW = 3, 21  # of the legend below the panels
VALUES = ("zh_bits_per_character", "en_bits_per_byte")
TITLES = ("validation Chinese, bits per character", "validation English, bits per byte")
HEIGHTS = (330, 150)
SETTLED = 30  # seconds
TICKS = (0, 15, 30, 60, 120, 240, 480, 1000, 2000, 4000, 8000)
STYLE = """
svg{font:14px system-ui,sans-serif;--ink:#1c1b19;--soft:#6b6862;--line:#e3e0da;--card:#fffefb;--l:42%}
@media(prefers-color-scheme:dark){svg{--ink:#f1eee8;--soft:#a5a199;--line:#3a3833;--card:#1b1a18;--l:66%}}
rect{fill:var(--card)}text{fill:var(--soft)}.title{fill:var(--ink);font-weight:600}.grid{stroke:var(--line)}.zero{stroke:var(--ink)}
polyline{fill:none;stroke-width:2;stroke-linejoin:round}.old{stroke:var(--ink);stroke-width:3}.dashed{stroke-dasharray:6 4}.dotted{stroke-dasharray:2 3}
.thin{stroke-width:1}
"""


@dataclass(frozen=True)
class Series:
    """One line; `look` are its SVG attributes. Lines with one label share an entry of the legend, with the first one's look."""

    label: str
    places: Sequence[tuple[float, float]]  # seconds and value
    look: str


@dataclass(frozen=True)
class Panel:
    """Lines over one axis of values; with `zero`, a line marks the value 0."""

    title: str
    height: int
    series: Sequence[Series]
    zero: bool = False

    @property
    def range(self) -> tuple[float, float]:
        """Least and greatest value shown: right after row initialization some exceed all others by far, and are clipped."""
        values = [v for one in self.series for _, v in one.places]
        settled = [v for one in self.series for s, v in one.places if s >= SETTLED] or values
        low = min([*values, *([0.0] if self.zero else [])])
        high = min(max(values), max(settled) + (max(settled) - low) / 2)
        room = (high - low) * 0.06 or 0.1
        return low - room, high + room


def draw(panels: Sequence[Panel], title: str) -> str:
    """The SVG file."""
    last = max(s for panel in panels for one in panel.series for s, _ in one.places)
    legend: dict[str, str] = {}
    for one in (one for panel in panels for one in panel.series):
        legend.setdefault(one.label, one.look)
    base = TOP + sum(panel.height + GAP for panel in panels) - GAP + 20  # of the numbers below the last panel
    height = base + 16 + ROW * math.ceil(len(legend) / COLUMNS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style><rect width='{WIDTH}' height='{height}'/>"
        f'<text class="title" x="{LEFT}" y="20">{escape(title)}</text>'
    ]
    across = _scale(last, LEFT, WIDTH - RIGHT)
    top = TOP
    for number, panel in enumerate(panels):
        low, high = panel.range
        down = _linear(high, low, top + 8, top + panel.height)
        parts.append(
            f'<text x="{LEFT}" y="{top + 4}">{escape(panel.title)}</text>'
            f'<clipPath id="panel{number}"><rect x="{LEFT}" y="{top + 8}" width="{WIDTH - RIGHT - LEFT}" height="{panel.height - 8}"/></clipPath>'
        )
        for tick in _ticks(low, high):
            y = down(tick)
            kind = "zero" if panel.zero and tick == 0 else "grid"
            parts.append(
                f'<line class="{kind}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
                f'<text x="{LEFT - 8}" y="{y + 5:.1f}" text-anchor="end">{tick:g}</text>'
            )
        for one in panel.series:
            place = " ".join(f"{across(s):.1f},{down(v):.1f}" for s, v in one.places)
            parts.append(f'<polyline clip-path="url(#panel{number})" points="{place}" {one.look}/>')
        top += panel.height + GAP
    parts += [
        f'<text x="{across(t):.1f}" y="{base}" text-anchor="middle">{t:,}</text>' for t in TICKS if t <= last
    ]
    parts.append(f'<text x="{LEFT - 12}" y="{base}" text-anchor="end">CPU s</text>')
    for number, (label, look) in enumerate(legend.items()):
        x = LEFT + (WIDTH - LEFT) // COLUMNS * (number % COLUMNS)
        y = base + 24 + ROW * (number // COLUMNS)
        parts.append(
            f'<polyline points="{x},{y} {x + 26},{y}" {look}/>'
            f'<text x="{x + 32}" y="{y + 5}">{escape(label)}</text>'
        )
    return "".join(parts) + "</svg>\n"


def plot(curves: Mapping[str, tuple[int, Sequence[Point]]], title: str) -> str:
    """Chinese above English; `curves` maps a name to its number of added tokens and its points."""
    sizes = sorted({added for added, _ in curves.values() if added})
    ordered = sorted(curves.items(), key=lambda item: item[1][0])
    panels = [
        Panel(
            name,
            high,
            [
                Series(label, [(p.seconds, getattr(p, value)) for p in points], _look(label, added, sizes))
                for label, (added, points) in ordered
            ],
        )
        for value, name, high in zip(VALUES, TITLES, HEIGHTS, strict=True)
    ]
    return draw(panels, title)


def _look(label: str, added: int, sizes: Sequence[int]) -> str:
    """Color by added tokens, dashes by row initialization or training."""
    kind = (
        "dashed"
        if "distill" in label or "fitted" in label
        else "dotted"
        if label.count("-") > 1 or label.startswith("old-")
        else ""
    )
    if not added:
        return f'class="old {kind}"'
    hue = 215 + 145 * sizes.index(added) / max(1, len(sizes) - 1)
    return colored(hue, kind)


def colored(hue: float, kind: str = "") -> str:
    """The look of a line with a hue; `kind` are classes of STYLE."""
    return f'class="{kind}" style="stroke:hsl({hue:.0f} 65% var(--l))"'


def _linear(a: float, b: float, left: float, right: float):  # type: ignore[no-untyped-def]
    return lambda value: left + (value - a) / (b - a) * (right - left)


def _scale(last: float, left: float, right: float):  # type: ignore[no-untyped-def]
    """Logarithmic, as in the report."""
    line = _linear(logarithm(0), logarithm(last), left, right)
    return lambda seconds: line(logarithm(seconds))


def _ticks(low: float, high: float) -> list[float]:
    """About four round values."""
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10) if (high - low) / s <= 6)
    return [round(step * n, 3) for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
