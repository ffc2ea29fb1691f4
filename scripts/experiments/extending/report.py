"""Compares curves: where the extended one crosses the old one, and how often new rows had occurred, as a table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from extending.curve import Point

NEAR = 1.03


@dataclass(frozen=True)
class Crossing:
    """Where the curve of an extended vocabulary falls below that of the old one at equal CPU seconds."""

    seconds: float
    characters: float  # of training text by then
    per_row: float  # mean occurrences of a new row by then


@dataclass(frozen=True)
class Verdict:
    """One curve against that of the old vocabulary; `ahead`: bits per character saved at the last common second."""

    name: str
    added: int
    crossing: Crossing | None
    seconds: float
    ahead: float
    english: float  # bits per byte at that second, minus those of the old vocabulary
    per_row: float  # at that second
    speed: (
        float | None
    )  # seconds of the old vocabulary for the same bits, over these; None if it did not reach them


def at(points: Sequence[Point], seconds: float, value: str) -> float:
    """A value interpolated between points: bits in the logarithm of the seconds, counts linearly."""
    scale = logarithm if "bits" in value else float
    for before, after in pairwise(points):
        if before.seconds <= seconds <= after.seconds:
            share = (scale(seconds) - scale(before.seconds)) / (scale(after.seconds) - scale(before.seconds))
            return float((1 - share) * getattr(before, value) + share * getattr(after, value))
    raise ValueError(f"{seconds} s lie outside the curve")


def logarithm(seconds: float) -> float:
    """The position of a second on the logarithmic axis, which begins 10 s before the first step."""
    return math.log(10 + seconds)


def compare(name: str, added: int, old: Sequence[Point], extended: Sequence[Point]) -> Verdict:
    """Compare a curve with that of the old vocabulary over their common seconds."""
    end = min(old[-1].seconds, extended[-1].seconds)
    ahead = _ahead(old, extended, end)
    return Verdict(
        name=name,
        added=added,
        crossing=_crossing(added, old, extended, end),
        seconds=end,
        ahead=ahead,
        english=at(extended, end, "en_bits_per_byte") - at(old, end, "en_bits_per_byte"),
        per_row=at(extended, end, "new_tokens") / added,
        speed=_speed(old, at(extended, end, "zh_bits_per_character"), end),
    )


def _ahead(old: Sequence[Point], extended: Sequence[Point], seconds: float) -> float:
    return at(old, seconds, "zh_bits_per_character") - at(extended, seconds, "zh_bits_per_character")


def _crossing(added: int, old: Sequence[Point], extended: Sequence[Point], end: float) -> Crossing | None:
    """The second from which on the extended one stays ahead, on a grid of 400 logarithmic steps."""
    begin = extended[0].seconds
    if _ahead(old, extended, end) <= 0:
        return None
    low, high, steps = logarithm(begin), logarithm(end), 400
    grid = [math.exp(low + (high - low) * i / steps) - 10 for i in range(steps + 1)]
    grid = [min(max(second, begin), end) for second in grid]
    behind = [second for second in grid if _ahead(old, extended, second) < 0]
    second = behind[-1] if behind else begin
    return Crossing(second, at(extended, second, "characters"), at(extended, second, "new_tokens") / added)


def _speed(old: Sequence[Point], bits: float, seconds: float) -> float | None:
    for before, after in pairwise(old):
        if before.zh_bits_per_character >= bits >= after.zh_bits_per_character:
            share = (before.zh_bits_per_character - bits) / max(
                before.zh_bits_per_character - after.zh_bits_per_character, 1e-9
            )
            return (before.seconds + share * (after.seconds - before.seconds)) / seconds
    return None


def table(curves: Mapping[str, tuple[int, Sequence[Point]]]) -> str:
    """Markdown: bits of all curves at common seconds, then each against the old vocabulary, the curve "old"."""
    old = curves["old"][1]
    shown = [
        s
        for s in (0, 60, 120, 240, 480, 600, 1200, 2400, 3600)
        if s <= NEAR * max(p[-1].seconds for _, p in curves.values())
    ]
    lines = [
        "| curve | " + " | ".join(f"{s:g} s" for s in shown) + " |",
        "|---|" + "---|" * len(shown),
    ]
    for name, (_, points) in curves.items():
        cells = [_cell(points, s) for s in shown]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| curve | seconds | ahead, bits/character | English, bits/byte | crosses at | characters read by then | occurrences of a new row by then |"
        " at the end | old needs |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, (added, points) in curves.items():
        if added:
            v = compare(name, added, old, points)
            c = v.crossing
            crossed = (
                ("never", "", "")
                if c is None
                else (f"{c.seconds:.0f} s", f"{c.characters:,.0f}", f"{c.per_row:.1f}")
            )
            slower = "" if v.speed is None else f"{v.speed:.2f}x"
            lines.append(
                f"| {name} | {v.seconds:.0f} | {v.ahead:+.3f} | {v.english:+.4f} | " + " | ".join(crossed)
                + f" | {v.per_row:.1f} | {slower} |"
            )  # fmt: skip
    return "\n".join(lines)


def _cell(points: Sequence[Point], seconds: float) -> str:
    """Chinese and English bits; whole steps may end slightly before or after a round second."""
    begin, end = points[0].seconds, points[-1].seconds
    if seconds == 0:
        seconds = begin
    elif seconds < begin or seconds > end * NEAR:
        return ""
    second = min(seconds, end)
    return f"{at(points, second, 'zh_bits_per_character'):.3f} / {at(points, second, 'en_bits_per_byte'):.3f}"
