"""Charts as inline SVG in the colors of the page: a sunburst and bars."""

import math
from collections import Counter
from collections.abc import Sequence
from html import escape

TAU = 2 * math.pi


def sunburst(pairs: Counter[tuple[str, str]], verbs: int = 20, nouns: int = 4) -> str:
    """Verbs in the inner ring, the commonest nouns of each in the outer, as Self-Instruct draws its diversity."""
    totals: Counter[str] = Counter()
    for (verb, _), count in pairs.items():
        totals[verb] += count
    shown = totals.most_common(verbs)
    whole = sum(count for _, count in shown)
    parts, at = [], 0.0
    for number, (verb, count) in enumerate(shown):
        hue, turn = number * 360 / max(1, len(shown)), count / whole * TAU
        parts.append(_slice(verb, count, at, at + turn, 70, 165, hue, 68))
        inner = Counter({noun: n for (v, noun), n in pairs.items() if v == verb and noun})
        start = at
        for noun, n in inner.most_common(nouns):
            end = start + n / whole * TAU
            parts.append(_slice(noun, n, start, end, 168, 268, hue, 80))
            start = end
        at += turn
    return f'<svg class="sunburst" viewBox="-280 -280 560 560" role="img" aria-label="verbs and nouns">{"".join(parts)}</svg>'


def _slice(
    label: str, count: int, start: float, end: float, inner: float, outer: float, hue: float, light: float
) -> str:
    end = min(end, start + TAU - 1e-4)  # a whole circle has no arc
    large = int(end - start > math.pi)

    def at(radius: float, angle: float) -> str:
        return f"{radius * math.sin(angle):.2f} {-radius * math.cos(angle):.2f}"

    path = (
        f"M{at(inner, start)}L{at(outer, start)}A{outer} {outer} 0 {large} 1 {at(outer, end)}"
        f"L{at(inner, end)}A{inner} {inner} 0 {large} 0 {at(inner, start)}Z"
    )
    middle, radius = (start + end) / 2, (inner + outer) / 2
    text = ""
    if (end - start) * radius > 11:
        degrees = math.degrees(middle) - 90
        turned = degrees + 180 if middle > math.pi else degrees
        x, y = at(radius, middle).split()
        text = f'<text transform="translate({x} {y}) rotate({turned:.1f})">{escape(label[:6])}</text>'
    return f'<g><path d="{path}" fill="hsl({hue:.0f} 55% {light}%)"/>{text}<title>{escape(label)} {count}</title></g>'


def bars(rows: Sequence[tuple[str, float]], unit: str = "") -> str:
    """Horizontal bars, one a row, with their figures."""
    most = max((value for _, value in rows), default=0) or 1
    lines = "".join(
        f'<tr><th scope="row">{escape(label)}</th><td class="bar"><i style="width:{value / most:.1%}"></i></td>'
        f"<td>{value:,.0f}{unit}</td></tr>"
        for label, value in rows
    )
    return f'<table class="bars">{lines}</table>' if rows else "<p>—</p>"
