"""Plots the curves as one SVG: Chinese above English, logarithmic seconds, light or dark like the reader's screen."""

from collections.abc import Mapping, Sequence
from html import escape

from extending.curve import Point
from extending.report import logarithm

WIDTH, LEFT, RIGHT, TOP, GAP = 910, 64, 220, 34, 46
HEIGHTS = (330, 150)  # of the two panels
VALUES = ("zh_bits_per_character", "en_bits_per_byte")
TITLES = ("validation Chinese, bits per character", "validation English, bits per byte")
SETTLED = 30  # seconds
TICKS = (0, 15, 30, 60, 120, 240, 480, 1000, 2000, 4000, 8000)
STYLE = """
svg{font:12px system-ui,sans-serif;--ink:#1c1b19;--soft:#6b6862;--line:#e3e0da;--card:#fffefb;--l:42%}
@media(prefers-color-scheme:dark){svg{--ink:#f1eee8;--soft:#a5a199;--line:#3a3833;--card:#1b1a18;--l:66%}}
rect{fill:var(--card)}text{fill:var(--soft)}.title{fill:var(--ink);font-weight:600}.grid{stroke:var(--line)}
polyline{fill:none;stroke-width:2;stroke-linejoin:round}.old{stroke:var(--ink);stroke-width:3}.dashed{stroke-dasharray:6 4}.dotted{stroke-dasharray:2 3}
"""


def plot(curves: Mapping[str, tuple[int, Sequence[Point]]], title: str) -> str:
    """The SVG file; `curves` maps a name to its number of added tokens and its points."""
    last = max(points[-1].seconds for _, points in curves.values())
    sizes = sorted({added for added, _ in curves.values() if added})
    height = TOP + sum(HEIGHTS) + GAP * 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style><rect width='{WIDTH}' height='{height}'/>"
        f'<text class="title" x="{LEFT}" y="20">{escape(title)}</text>'
    ]
    across = _scale(last, LEFT, WIDTH - RIGHT)
    top = TOP
    for value, name, high in zip(VALUES, TITLES, HEIGHTS, strict=True):
        shown = {
            label: [(p.seconds, getattr(p, value)) for p in points] for label, (_, points) in curves.items()
        }
        # Right after row initialization some values exceed all others by far: the axis ends at trained values and clips them.
        values = [v for points in shown.values() for _, v in points]
        settled = [v for points in shown.values() for s, v in points if s >= SETTLED] or values
        low = min(values)
        top_value = min(max(values), max(settled) + (max(settled) - low) / 2)
        room = (top_value - low) * 0.06 or 0.1
        down = _linear(top_value + room, low - room, top + 8, top + high)
        parts.append(
            f'<text x="{LEFT}" y="{top + 4}">{escape(name)}</text>'
            f'<clipPath id="{value}"><rect x="{LEFT}" y="{top + 8}" width="{WIDTH - RIGHT - LEFT}" height="{high - 8}"/></clipPath>'
        )
        for tick in _ticks(low - room, top_value + room):
            y = down(tick)
            parts.append(
                f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
                f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
            )
        for label, points in shown.items():
            place = " ".join(f"{across(s):.1f},{down(v):.1f}" for s, v in points)
            look = _look(label, curves[label][0], sizes)
            parts.append(f'<polyline clip-path="url(#{value})" points="{place}" {look}/>')
        top += high + GAP
    base = top - GAP + 18
    parts += [
        f'<text x="{across(t):.1f}" y="{base}" text-anchor="middle">{t:,}</text>' for t in TICKS if t <= last
    ]
    parts.append(f'<text x="{WIDTH - RIGHT + 18}" y="{base}">CPU s</text>')
    for row, (label, (added, _)) in enumerate(sorted(curves.items(), key=lambda item: item[1][0])):
        y = TOP + 16 + 19 * row
        x = WIDTH - RIGHT + 14
        parts.append(
            f'<polyline points="{x},{y} {x + 26},{y}" {_look(label, added, sizes)}/>'
            f'<text x="{x + 32}" y="{y + 4}">{escape(label)}</text>'
        )
    return "".join(parts) + "</svg>\n"


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
    return [round(step * n, 3) for n in range(int(low / step) + 1, int(high / step) + 1)]
