"""The HTML page of a training run: its figures and curves, self-contained, light and dark."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

Point = tuple[float, float]
WIDTH, HEIGHT, LEFT, BOTTOM = 720, 240, 56, 28

STYLE = """
:root { --ground: #fff; --ink: #1c1e21; --faint: #6b7280; --line: #e3e5e8; --a: #2563eb; --b: #c2410c; --c: #15803d; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #16181b; --ink: #e6e8ea; --faint: #9aa1a9; --line: #2c3036; --a: #7aa7ff; --b: #ff9d66; --c: #6fcf8f; }
}
body { background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, "Noto Sans CJK SC", sans-serif;
  max-width: 760px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
svg { width: 100%; height: auto; } svg text { fill: var(--faint); font-size: 12px; }
.grid { stroke: var(--line); } .curve { fill: none; stroke-width: 2; }
table { border-collapse: collapse; width: 100%; } td, th { padding: .25rem .6rem; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr { border-bottom: 1px solid var(--line); }
"""
COLOURS = ("var(--a)", "var(--b)", "var(--c)")


def draw_page(name: str, figures: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> str:
    """The page of a run from its figures and its log."""
    losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    kept = sorted({k for line in lines for k in line if "_bits_per_" in k or k.endswith("_aside")})
    measured = {k: [(line["step"], line[k]) for line in lines if k in line] for k in kept}
    body = [f"<h1>{escape(name)}</h1>", _summary(figures)]
    if losses:
        told = "Loss (nats a pair)" if "pairs" in figures else "Loss (nats a token)"
        body.append(_section(told, {"training": losses}))
    for unit, told in (
        ("character", "Bits a character, text kept aside"),
        ("byte", "Bits a byte, text kept aside"),
    ):
        curves = {k.split("_bits_")[0]: v for k, v in measured.items() if k.endswith(unit)}
        if curves:
            body.append(_section(told, curves))
    for key, curve in measured.items():
        if key.endswith("_aside"):
            label = key.removesuffix("_aside")
            body.append(_section(f"{label.capitalize()}, pairs kept aside", {label: curve}))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(name)}</title>\n'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f"<body>\n{chr(10).join(body)}\n</body></html>\n"
    )


def _summary(figures: Mapping[str, Any]) -> str:
    known = (
        (
            "Parameters that learn",
            f"{figures['trained']:,} of {figures['parameters']:,} ({figures['trained_percent']} %)",
        ),
        ("Steps, tokens", f"{figures['steps']:,}, {figures['tokens']:,}"),
        ("Last loss", f"{figures['loss']:.4f}" if "loss" in figures else "none"),
        (
            "Tokens a second",
            f"{figures['tokens_per_second']:,}" if "tokens_per_second" in figures else "none",
        ),
    )
    rows = [f"<tr><td>{told}</td><td>{value}</td></tr>" for told, value in known]
    for key, value in figures.items():
        if isinstance(value, Mapping) and "before" in value:
            label, found, unit = key.partition("_bits_per_")
            told = f"{label}, bits a {unit}" if found else f"{key.removesuffix('_aside')}, pairs kept aside"
            went = f"{value['before']:.4f} → {value['after']:.4f}"
            rows.append(f"<tr><td>{escape(told)}</td><td>{went}</td></tr>")
    return f"<table>{''.join(rows)}</table>"


def _section(title: str, curves: Mapping[str, Sequence[Point]]) -> str:
    points = [point for curve in curves.values() for point in curve]
    last = max(x for x, _ in points) or 1
    ticks = _ticks(min(y for _, y in points), max(y for _, y in points))
    low, high = ticks[0], ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - 12) * x / last
        return across, 8 + (HEIGHT - BOTTOM - 8) * (high - y) / (high - low)

    drawn = [f"<h2>{escape(title)}</h2>", f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">']
    for tick in ticks:
        x, y = place(0, tick)
        drawn.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 12}" y1="{y:.1f}" y2="{y:.1f}"/>')
        drawn.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.6g}</text>')
    for step in (0, last):
        drawn.append(
            f'<text x="{place(step, low)[0]:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{step:,.0f}</text>'
        )
    for number, (label, curve) in enumerate(sorted(curves.items())):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in _thinned(curve)))
        drawn.append(f'<polyline class="curve" style="stroke:{colour}" points="{path}"/>')
        x, y = place(*curve[-1])
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" style="fill:{colour}"/>')
        told = f"{escape(label)} {curve[-1][1]:.4f}"
        drawn.append(
            f'<text x="{WIDTH - 16}" y="{20 + 16 * number}" text-anchor="end" style="fill:{colour}">{told}</text>'
        )
    return "\n".join([*drawn, "</svg>"])


def _ticks(low: float, high: float) -> list[float]:
    """Round values that enclose the range, four to eight of them."""
    span = (high - low) or abs(high) or 1.0
    unit = 10 ** math.floor(math.log10(span / 4))
    step = next(unit * m for m in (1, 2, 5, 10) if span / (unit * m) <= 6)
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    return [step * number for number in range(first, last + 1)]


def _thinned(curve: Sequence[Point], most: int = 1000) -> list[Point]:
    """At most about `most` points, evenly chosen, the last among them."""
    stride = max(1, len(curve) // most)
    return [*curve[:-1:stride], curve[-1]]
