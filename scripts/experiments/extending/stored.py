"""Reads and writes the curves in docs/data, and tables of pages."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from extending.analysis import Pair
from extending.curve import Point

DATA = Path(__file__).parents[3] / "docs" / "data"
CURVES, EARLIER = DATA / "extending.json", DATA / "extending-earlier.json"
SEED = "-seed"
UNKNOWN: dict[str, Any] = {f.name: 0 for f in fields(Point) if f.name != "other"}


@dataclass(frozen=True)
class Curve:
    """One training run. `behind`: gaps by second that were stored beside or instead of points."""

    added: int
    points: Sequence[Point]
    behind: Mapping[float, float]
    crossing_characters: float | None = None  # read by the crossing, where only that was stored
    characters_at_end: float | None = None


Curves = Mapping[str, Mapping[str, Curve]]  # by base and name


def load(path: Path) -> Curves:
    """All curves of a file; what was not stored of a point is 0."""
    stored = json.loads(path.read_text(encoding="utf-8"))["curves"]
    return {base: {name: _curve(one) for name, one in curves.items()} for base, curves in stored.items()}


def _curve(one: dict[str, Any]) -> Curve:
    crossing = one.get("crossing")
    return Curve(
        added=one["added"],
        points=[Point(**{**UNKNOWN, **point}) for point in one["points"]],
        behind={float(second): gap for second, gap in one.get("behind", {}).items()},
        crossing_characters=None if crossing is None else crossing["characters"],
        characters_at_end=one.get("characters_at_end"),
    )


def to_stored(curves: Mapping[str, Sequence[Point]]) -> dict[str, Any]:
    """What docs/data holds of the points of a base's curves by name."""
    return {
        name: {"added": added(name), "points": [asdict(p) for p in points]} for name, points in curves.items()
    }


def longest(stored: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Both by name; a curve that both have is taken from where it has more steps, the newer one if equal."""
    shorter = {n for n in found if n in stored and _steps(found[n]) < _steps(stored[n])}
    return dict(sorted({**stored, **{n: one for n, one in found.items() if n not in shorter}}.items()))


def _steps(curve: Mapping[str, Any]) -> int:
    return int(curve["points"][-1]["step"])


def added(name: str) -> int:
    """The number of added tokens in a curve's name."""
    return 0 if name.startswith("old") else int(name.split("-")[0])


def names(curves: Mapping[str, Curve]) -> list[str]:
    """The curves against the old vocabulary, whatever their seed: larger vocabularies by size, then old ones at other rates."""
    plain = {name.partition(SEED)[0] for name in curves} - {"old"}
    return sorted(plain, key=lambda name: (name.startswith("old"), curves[name].added, name))


def pairs(curves: Mapping[str, Curve], name: str, old: str = "old") -> list[Pair]:
    """A curve with that of the old vocabulary for each order of the text in which both were trained."""
    found = []
    for other in curves:
        plain, _, seed = other.partition(SEED)
        reference = f"{old}{SEED}{seed}" if seed else old
        if plain == name and reference in curves:
            found.append((curves[reference].points, curves[other].points))
    return found


def between(text: str, mark: str, table: str) -> str:
    """A page with `table` between `<!-- mark -->` and `<!-- end of mark -->`; ValueError where it lacks one."""
    begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    head, _, rest = text.partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        raise ValueError(f"no {begin} and {end}")
    return f"{head}{begin}\n\n{table}\n\n{end}{tail}"
