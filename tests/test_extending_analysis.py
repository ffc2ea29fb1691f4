"""What is said of the curves: gaps, their shrinking with each doubling, crossings, and predictions."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import scripts.experiments.extend_or_not  # noqa: F401 - puts the folder of the experiment on the path

# ruff: isort: split
from extending.analysis import (
    crossing,
    fit,
    gap,
    gap_interval,
    interval,
    other_sources,
    predict,
    repaid,
    same_sources,
    shrink_interval,
    value_at,
)
from extending.curve import Point
from extending.stored import load, longest, pairs, to_stored

from zhllama.io.files import to_json


def curve(bits: Mapping[float, float], characters: float = 10, other: float = 1.0) -> list[Point]:
    """Points by second; the two other sources have `other` bits more and less than the same sources."""
    return [
        Point(int(s), s, s, 0, int(s * characters), 0, 0, None, b, 2.0, {"a": b + other, "b": b - other})
        for s, b in bits.items()
    ]


OLD = curve({0: 6.0, 100: 5.0, 200: 4.8, 400: 4.6})
EXTENDED = curve({50: 9.0, 100: 7.0, 200: 5.8, 400: 4.5}, characters=20)


def test_gaps_at_equal_compute_and_at_equal_text() -> None:
    pair = (OLD, EXTENDED)
    assert gap(pair, 100, same_sources) == pytest.approx(2.0)
    assert gap(pair, 100, other_sources) == pytest.approx(2.0)
    # 4,000 characters: the extended one has read them after 200 s, the old one after 400 s
    assert gap(pair, 4000, same_sources, "characters") == pytest.approx(5.8 - 4.6)
    assert gap(pair, 20, same_sources) is None and gap(pair, 500, same_sources) is None
    assert gap(pair, 8000, same_sources, "characters") is None
    # a last step slightly before the round second
    assert gap((OLD, curve({0: 9.0, 396: 5.6})), 400, same_sources) == pytest.approx(1.0)
    between = value_at(OLD, 150, same_sources)
    assert between == pytest.approx(5.0 - 0.2 * math.log(160 / 110) / math.log(210 / 110))


def test_where_curves_cross() -> None:
    place = crossing((OLD, EXTENDED), same_sources)
    assert place is not None and 200 < place < 400
    assert gap((OLD, EXTENDED), place, same_sources) == pytest.approx(0, abs=0.01)
    assert crossing((OLD, EXTENDED), same_sources, "characters") is None
    assert crossing((OLD, curve({50: 5.0, 400: 4.0})), same_sources) == 50
    # ahead for a while only
    assert crossing((OLD, curve({0: 9.0, 100: 4.9, 400: 4.7})), same_sources) is None


def test_intervals_have_the_spread_of_runs_and_sources() -> None:
    same = interval([[1.0, 1.0], [1.0, 1.0]])
    assert (same.mean, same.low, same.high, same.runs) == (1.0, 1.0, 1.0, 2)
    one = interval([[0.0, 1.0, 2.0, 3.0]])
    # of four sources with replacement: the exact 2.5% quantile of the mean is 0.25 or 0.5
    assert one.mean == 1.5 and 0.25 <= one.low <= 0.5 and one.high == pytest.approx(3 - one.low, abs=0.26)
    runs = interval([[0.0] * 4, [3.0] * 4])
    assert (runs.low, runs.high) == (0.0, 3.0)
    assert interval([[0.0, 1.0, 2.0, 3.0]]) == one


def test_a_gap_that_shrinks_equally_has_no_spread() -> None:
    pair = (OLD, curve({100: 7.0, 200: 6.3, 400: 5.6}))
    found = shrink_interval([pair, pair], 100)
    assert found is not None and found.runs == 2
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    assert shrink_interval([pair], 300) is None
    at = gap_interval([pair, (OLD, curve({100: 7.2, 200: 6.5}))], 200)
    assert at is not None and (at.mean, at.low, at.high) == pytest.approx((1.6, 1.5, 1.7))
    assert gap_interval([pair, (OLD, curve({100: 7.2, 200: 6.5}))], 400).runs == 1  # type: ignore[union-attr]
    # sources that shrink differently
    apart = curve({100: 7.0, 200: 6.0, 400: 5.0})
    apart = [replace(p, other={"a": p.other["a"] + 0.001 * p.seconds, "b": p.other["b"]}) for p in apart]
    found = shrink_interval([(OLD, apart)], 100)
    assert found is not None and (found.low, found.mean, found.high) == pytest.approx((0.7, 0.75, 0.8))


def test_a_line() -> None:
    line = fit([0, 1, 2, 3], [4, 3, 2, 1])
    assert (line.intercept, line.slope, line.slope_error) == pytest.approx((4, -1, 0))
    line = fit([0, 1, 2, 3], [1, 0, 1, 0])
    assert line.slope == pytest.approx(-0.2) and line.slope_error == pytest.approx(math.sqrt(0.8 / 2 / 5))


def test_predictions() -> None:
    steady = predict({100: 2.0, 200: 1.5, 400: 1.0, 800: 0.5})
    assert (steady.about, steady.low, steady.high) == pytest.approx((1600, 1600, 1600))
    slower = predict({100: 2.0, 200: 1.0, 400: 0.5, 800: 0.25})
    assert slower.low == pytest.approx(800 * 2**0.25) and slower.high == pytest.approx(1600)
    assert slower.about is not None and slower.low < slower.about < 1600
    assert predict({100: 2.0, 200: 1.0, 400: 1.0}).high is None  # no longer shrinking: no end
    assert predict({100: 2.0, 200: 1.0, 400: 1.1, 800: 1.2}, last=3).about is None


def test_what_serving_repays() -> None:
    found = repaid((OLD, EXTENDED), 100, same_sources, cost=0.4)
    assert found is not None and found.bits == 5.0 and 200 < found.seconds < 400
    assert value_at(EXTENDED, found.seconds, same_sources) == pytest.approx(5.0)
    # training costs the difference more; each character served saves 0.6 of what it costs with the old vocabulary
    assert found.served is not None and 0.6 * 100 * found.served == pytest.approx(found.seconds - 100)
    assert repaid((OLD, curve({0: 9.0, 400: 7.0})), 100, same_sources, 0.4) is None
    untrained = repaid((OLD, EXTENDED), 0, same_sources, 0.4)
    assert untrained is not None and untrained.bits == 6.0 and untrained.served is None


def test_curves_are_stored_and_read_back(tmp_path: Path) -> None:
    made = {"old": OLD, "old-seed1": OLD, "20-mean": EXTENDED, "20-mean-seed1": OLD, "20-mean-seed2": OLD}
    path = tmp_path / "curves.json"
    path.write_text(to_json({"curves": {"half": to_stored(made)}}), encoding="utf-8")
    curves = load(path)["half"]
    assert list(curves["old"].points) == OLD and curves["20-mean"].added == 20 and curves["old"].added == 0
    assert pairs(curves, "20-mean") == [(OLD, EXTENDED), (OLD, OLD)]
    assert pairs(curves, "30-mean") == []


def test_stored_curves_that_a_folder_lacks_are_kept() -> None:
    stored = to_stored({"old": OLD, "20-mean": EXTENDED})
    again = to_stored({"old": OLD[:2], "20-mean": [replace(p, loss=1.0) for p in EXTENDED], "30-mean": OLD})
    assert longest(stored, again) == {
        "20-mean": again["20-mean"],
        "30-mean": again["30-mean"],
        "old": stored["old"],
    }
