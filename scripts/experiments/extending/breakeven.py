"""The law of `zhllama advise --bits`: after how many training characters a larger vocabulary is as good as the old one, by base."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from extending.analysis import Prediction, characters_at, crossing, gap, other_sources, predict
from extending.stored import Curve, Curves, names, pairs

AT_ONCE = 1000.0  # characters of about one step, for curves that are ahead before their first one
LONG = 1200  # seconds of a curve from which a crossing is predicted
POINTS = 3  # doublings that a prediction needs
# From where warm-up and initialization are over, as far as curves go.
DOUBLINGS = (300, 600, 1200, 2400, 4800, 9000)


@dataclass(frozen=True)
class LawPoint:
    """One base: its Chinese bits per character before training, and the characters read when its curves cross, or would.

    `about` is the median over all curves, `low` and `high` the ends of all their ranges; `high` None: no end was seen.
    """

    base: str
    bits: float
    about: float
    low: float
    high: float | None
    measured: bool  # crossings that were reached, not predicted
    curves: int


def law(new: Curves, earlier: Curves) -> list[LawPoint]:
    """The points of both protocols, those with fewer bits first; the two measurements of SmolLM2 are one base."""
    found = []
    for name, curves in (("small", earlier["small"]), ("half", earlier["half"])):
        crossings = [c.crossing_characters for c in curves.values() if c.crossing_characters is not None]
        if name == "small":  # all are ahead in their first row already
            crossings = [0.0 for curve in curves.values() if curve.added]
        found.append(_measured(name, curves, crossings))
    if "half" in new:
        found.append(_measured("half, new", new["half"], list(_crossings(new["half"]))))
    predictions = [*_stored_predictions(earlier["smollm2"]), *_predictions(new.get("smollm2", {}))]
    highs = [one.high for one in predictions]
    found.append(
        LawPoint(
            base="smollm2",
            bits=earlier["smollm2"]["old"].points[0].zh_bits_per_character,
            about=median(one.about for one in predictions if one.about is not None),
            low=min(one.low for one in predictions),
            high=None if None in highs else max(high for high in highs if high is not None),
            measured=False,
            curves=len(predictions),
        )
    )
    return sorted(found, key=lambda point: point.bits)


def _measured(base: str, curves: Mapping[str, Curve], crossings: Sequence[float]) -> LawPoint:
    reached = [max(AT_ONCE, one) for one in crossings]
    bits = curves["old"].points[0].zh_bits_per_character
    return LawPoint(base, bits, median(reached), min(reached), max(reached), True, len(reached))


def _crossings(curves: Mapping[str, Curve]) -> Iterator[float]:
    for name in names(curves):
        for pair in pairs(curves, name):
            second = crossing(pair, other_sources)
            if second is not None and not name.startswith("old"):
                yield characters_at(pair[1], second)


def _stored_predictions(curves: Mapping[str, Curve]) -> Iterator[Prediction]:
    """From gaps by second, at the mean rate of reading."""
    for curve in curves.values():
        if curve.characters_at_end is not None:
            end = max(curve.behind)
            rate = curve.characters_at_end / end
            yield predict({second * rate: behind for second, behind in curve.behind.items()})


def _predictions(curves: Mapping[str, Curve]) -> Iterator[Prediction]:
    """From gaps on other sources at doublings of the seconds, for each run that is long enough."""
    for name in (n for n in names(curves) if not n.startswith("old")):
        for pair in pairs(curves, name):
            gaps = {s: gap(pair, s, other_sources) for s in DOUBLINGS}
            known = {characters_at(pair[1], s): behind for s, behind in gaps.items() if behind is not None}
            reached = max((s for s, behind in gaps.items() if behind is not None), default=0)
            if reached >= LONG and len(known) >= POINTS and min(known.values()) > 0:
                yield predict(known, last=POINTS)
