"""The page on extending says what docs/data has: its tables, its figure, and the law of `advise --bits`."""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

import scripts.experiments.extending_page as page
from zhllama.efficiency.break_even import LAW

# ruff: isort: split
from extending.breakeven import LawPoint, law
from extending.curve import Point
from extending.stored import CURVES, EARLIER, Curve, load

DOCS = Path(__file__).parents[1] / "docs"


def points(bits: dict[float, float], rate: float = 100) -> list[Point]:
    return [
        Point(int(s), s, s, 0, int(s * rate), 0, 0, None, b, 2.0, {"a": b, "b": b}) for s, b in bits.items()
    ]


def curve(added: int, bits: dict[float, float]) -> Curve:
    return Curve(added, points(bits), {})


def test_the_law_has_measured_and_predicted_crossings() -> None:
    old = curve(0, {0: 6.0, 1200: 6.0})
    stored = Curve(2000, points({0: 8.0}), {100: 2.0, 200: 1.5, 400: 1.0}, characters_at_end=4000)
    reached = {"8-mean": 5000.0, "4-mean": 20_000.0, "9-fitted": 0.0}
    half = {name: replace(curve(8, {0: 8.0}), crossing_characters=one) for name, one in reached.items()}
    half["old"] = curve(0, {0: 7.9})
    earlier = {"small": {"old": curve(0, {0: 10.0}), "8-mean": curve(8, {0: 9.0})}, "half": half,
               "smollm2": {"old": old, "2000-mean": stored}}  # fmt: skip
    found = law({}, earlier)
    assert found[1:] == [
        LawPoint("half", 7.9, 5000, 1000, 20_000, True, 3),
        LawPoint("small", 10.0, 1000, 1000, 1000, True, 1),
    ]
    predicted = LawPoint(
        "smollm2", 6.0, pytest.approx(16_000), pytest.approx(16_000), pytest.approx(16_000), False, 1
    )
    assert found[0] == predicted
    # a longer curve of the new protocol that no longer shrinks: no end; a short one and a base that crosses
    still = curve(8000, {0: 9.0, 150: 8.0, 300: 7.0, 600: 6.8, 1200: 6.8})
    short = curve(8000, {0: 9.0, 150: 8.0, 300: 7.0})
    late = curve(8000, {500: 8.0, 600: 7.9, 1200: 7.0})  # two doublings alone
    crossed = {"old": curve(0, {0: 8.5, 60: 8.5}), "8-mean": curve(8, {0: 9.0, 60: 8.0})}
    new = {
        "smollm2": {"old": old, "8000-shared": still, "8000-mean": short, "8000-taught": late},
        "half": crossed,
    }
    found = law(new, earlier)
    assert (
        [one.bits for one in found] == [6.0, 7.9, 8.5, 10.0]
        and found[0].curves == 2
        and found[0].high is None
    )
    assert (
        found[2].measured
        and found[2].low == found[2].high
        and found[2].about == pytest.approx(1646, rel=0.01)
    )


def test_advise_has_the_law_of_the_stored_curves() -> None:
    found = law(load(CURVES), load(EARLIER))
    assert [round(one.bits, 2) for one in found] == [bits for bits, _ in LAW]
    for one, (_, even) in zip(found, LAW, strict=True):
        for measured, told in ((one.about, even.about), (one.low, even.low), (one.high, even.high)):
            assert (measured is None) == (told is None)
            assert measured is None or told == pytest.approx(measured, rel=0.051)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_has_the_tables_of_the_stored_curves(language: str) -> None:
    new = load(CURVES)
    text = (DOCS / ("extending.md" if language == "en" else "extending.zh.md")).read_text(encoding="utf-8")
    tables = [page.main_table(new["smollm2"], language)]
    tables += [page.crossing_table(new["half"], language)] if "half" in new else []
    for table in tables:
        rows = "\n".join(table)
        assert (rows.replace(" to ", "到") if language == "zh" else rows) in text


@pytest.mark.parametrize("language", ["en", "zh"])
def test_advise_shows_the_law(language: str) -> None:
    text = (DOCS / ("advise.md" if language == "en" else "advise.zh.md")).read_text(encoding="utf-8")
    rows = "\n".join(page.law_table(law(load(CURVES), load(EARLIER)), language))
    assert rows in text
    assert page.rounded(15_596) == "16,000" and page.rounded(3_278_491) == "3,300,000"


def test_the_page_has_the_figure_of_the_stored_curves() -> None:
    drawn = page.figure(load(CURVES), load(EARLIER))
    assert drawn == page.FIGURE.read_text(encoding="utf-8")
    ElementTree.fromstring(drawn)


def test_rows_of_the_tables() -> None:
    made = {"old": curve(0, {0: 6.0, 600: 6.0}), "old-seed1": curve(0, {0: 6.0, 600: 6.0}),
            "8000-shared-input-faster-untied": curve(8000, {0: 9.0, 300: 7.0, 600: 6.5}),
            "8000-shared-input-faster-untied-seed1": curve(8000, {0: 9.0, 300: 7.2, 600: 6.7}),
            "old-0.0002": curve(0, {0: 6.0, 300: 5.9})}  # fmt: skip
    rows = list(page.main_table(made, "en"))
    assert page.short("8000-shared-faster-untied") == "8000-shared-fast-head"
    assert page.short("2000-mean-faster") == "2000-mean"
    assert rows[2].startswith("| old | 2 | 6.00 | 6.00 |  |  |  |")
    assert rows[3].startswith("| 8000-shared | 2 |") and "| +0.60 (0.50 to 0.70) |" in rows[3]
    assert "| +1.10 (1.00 to 1.20) |" in rows[3]
    assert rows[4].startswith("| old-0.0002 | 1 |") and "| −0.10 (−0.10 to −0.10)* |" in rows[4]
    crossed = {**made, "8000-shared-input-faster-untied": curve(8000, {0: 9.0, 300: 7.0, 600: 5.5}),
               "8000-shared-input-faster-untied-seed1": curve(8000, {0: 9.0, 300: 7.0, 600: 5.5})}  # fmt: skip
    row = list(page.crossing_table(crossed, "en"))[2]
    assert row.startswith("| 8000-shared | 2 | 4") and row.endswith("| 0.50 (0.50 to 0.50) | 0.000 |")
    assert list(page.crossing_table(made, "en"))[2].startswith("| 8000-shared | 2 | – | – | – | -0.60")
