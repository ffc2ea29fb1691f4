"""Writes the figure and the tables of docs/extending.md and docs/extending.zh.md from docs/data, and prints the break-even law.

python scripts/experiments/extending_page.py                        # print tables, crossings, predictions and the law
python scripts/experiments/extending_page.py --collect /tmp/extend  # first put the curves of a folder into docs/data
python scripts/experiments/extending_page.py --write                # write both pages and docs/images/extending.svg
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from extend_or_not import FIRST, _calibrated, timed  # noqa: E402 - after the path is set
from extending.analysis import (  # noqa: E402
    Interval,
    Pair,
    Value,
    crossing,
    english,
    gap,
    gap_interval,
    other_sources,
    repaid,
    same_sources,
    shrink_interval,
    source,
    value_at,
)
from extending.breakeven import LawPoint, law  # noqa: E402
from extending.plot import Panel, Series, colored, draw  # noqa: E402
from extending.stored import CURVES, EARLIER, Curve, Curves, between, load, longest, names, pairs, to_stored  # noqa: E402

from zhllama.io.files import to_json, write_whole  # noqa: E402

DOCS = HERE.parents[1] / "docs"
FIGURE = DOCS / "images" / "extending.svg"
ABOUT = (
    "Validation Chinese of the sources of the training text (zh_bits_per_character) and of four sources of which nothing was "
    "trained on (other). Seconds are steps times the calibrated seconds of a step, plus those of the row initialization, in "
    "seconds of the machine of extending-earlier.json."
)
SECONDS = (300, 600, 1200, 3600, 9000)
TEXT = (150_000, 1_000_000)  # characters read, for the comparison at equal text
# What a character costs in serving, relative to the old vocabulary: for 8,000 tokens written after 200 characters by llama.cpp
# (docs/serving.md), for 2,000 the tokens of the training text.
COST = {2000: 0.59, 8000: 1 / 2.43}
HUES = {
    "2000-mean": 215,
    "8000-shared-faster": 75,
    "8000-shared": 25,
    "8000-taught": 330,
    "18000-shared": 270,
    "8000-mean": 150,
}
TITLE = "SmolLM2-135M with its old vocabulary and with larger ones"


def short(name: str) -> str:
    """A curve's name without how its rows learn, where that follows from its initialization."""
    shorter = name.replace("-input-faster-untied", "").replace("-faster-untied", "-fast-head")
    return shorter.replace("-faster", "")


def collect(work: Path) -> None:
    """Put the finished curves of a folder into docs/data, beside those stored there that the folder has not or not as far."""
    stored = json.loads(CURVES.read_text(encoding="utf-8"))
    for base in FIRST:
        folders = sorted((work / base / "curves").glob("*/curve.jsonl"))
        points = {file.parent.name: timed(work / base, file.parent) for file in folders}
        found = {name: one for name, one in points.items() if len(one) > 1}
        if found:
            stored["curves"][base] = longest(stored["curves"].get(base, {}), to_stored(found))
            stored["seconds_per_step"][base] = {**stored["seconds_per_step"].get(base, {}), **_calibrated(work / base)}  # fmt: skip
    write_whole(CURVES, to_json({**stored, "about": ABOUT}))


def main_table(curves: Mapping[str, Curve], language: str) -> Iterator[str]:
    """Gaps on other sources with 95% intervals at equal compute and at equal text, and the change in English."""
    head = {
        "en": ["curve", "runs", *(f"{s:,} s" for s in SECONDS), *(f"{c:,} characters" for c in TEXT), "English"],
        "zh": ["曲线", "次数", *(f"{s:,} s" for s in SECONDS), *(f"{c:,}字" for c in TEXT), "英文"],
    }[language]  # fmt: skip
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    old = [(curve.points, curve.points) for name, curve in curves.items() if name.partition("-seed")[0] == "old"]  # fmt: skip
    cells = [_bits(old, place) for place in SECONDS] + [_bits(old, place, "characters") for place in TEXT]
    yield f"| old | {len(old)} | " + " | ".join(cells) + " | |"
    for name in names(curves):
        both = pairs(curves, name)
        cells = [_interval(gap_interval(both, place)) for place in SECONDS]
        cells += [_interval(gap_interval(both, place, "characters")) for place in TEXT]
        changes = [one for pair in both if (one := _last(pair)) is not None]
        cells.append(_signed(sum(changes) / len(changes), 3) if changes else "")
        yield f"| {short(name)} | {len(both)} | " + " | ".join(cells) + " |"


def _bits(old: list[Pair], place: float, axis: str = "seconds") -> str:
    values = [value_at(points, place, other_sources, axis) for points, _ in old]  # type: ignore[arg-type]
    found = [value for value in values if value is not None]
    return f"{sum(found) / len(found):.2f}" if found else ""


def _interval(found: Interval | None) -> str:
    if found is None:
        return ""
    alone = "*" if found.runs == 1 else ""
    return f"{_signed(found.mean, 2)} ({found.low:.2f} to {found.high:.2f}){alone}".replace("-", "−")


def _signed(value: float, digits: int) -> str:
    """With its sign, a typographic minus, and none for what rounds to 0."""
    rounded = round(value, digits)
    return f"{rounded:+.{digits}f}".replace("-", "−") if rounded else f"{0:.{digits}f}"


def _last(pair: Pair) -> float | None:
    """The change in English at the last common second."""
    return gap(pair, min(points[-1].seconds for points in pair), english)


def crossing_table(curves: Mapping[str, Curve], language: str) -> Iterator[str]:
    """Where the curves of the base that reads some Chinese cross, at equal compute and at equal text: mean and range of runs."""
    head = {
        "en": ["curve", "runs", "crosses at", "characters read by then", "at equal text", "lead at the end", "English"],
        "zh": ["曲线", "次数", "追平时刻", "此前读过的字符数", "读同样多文本时", "结束时领先", "英文"],
    }[language]  # fmt: skip
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for name in names(curves):
        both = pairs(curves, name)
        found = [crossing(pair, other_sources) for pair in both]
        text = [crossing(pair, other_sources, "characters") for pair in both]
        read = [None if s is None else _read(pair, s) for pair, s in zip(both, found, strict=True)]
        ends = [min(points[-1].seconds for points in pair) for pair in both]
        leads = [-(gap(pair, end, other_sources) or 0) for pair, end in zip(both, ends, strict=True)]
        changes = [one for pair in both if (one := _last(pair)) is not None]
        cells = [_range(found, " s"), _range(read), _range(text), _range(leads, digits=2), _signed(sum(changes) / len(changes), 3)]  # fmt: skip
        yield f"| {short(name)} | {len(both)} | " + " | ".join(cells) + " |"


def _read(pair: Pair, seconds: float) -> float | None:
    return value_at(pair[1], seconds, lambda point: float(point.characters))


def _range(values: list[float | None] | list[float], unit: str = "", digits: int = 0) -> str:
    """Mean and range, or a dash where a run has no value."""
    found = [value for value in values if value is not None]
    if not found or len(found) < len(values):
        return "–"
    mean = sum(found) / len(found)
    return f"{mean:,.{digits}f}{unit} ({min(found):,.{digits}f} to {max(found):,.{digits}f})"


BASES = {
    "en": {"smollm2": "SmolLM2-135M", "half": "10M parameters, half of 2.46M tokens Chinese", "small": "10M parameters, a tenth of 717,000 tokens Chinese",
           "half, new": "10M parameters, half of 1.23M tokens Chinese"},
    "zh": {"smollm2": "SmolLM2-135M", "half": "1,000万参数，246万个词元，一半是中文", "small": "1,000万参数，717,000个词元，十分之一是中文",
           "half, new": "1,000万参数，123万个词元，一半是中文"},
}  # fmt: skip


def law_table(points: Sequence[LawPoint], language: str) -> Iterator[str]:
    """The law of `advise --bits`, one row for each base."""
    head = {
        "en": ["base", "bits per character", "curves", "as good as before after about", "range, characters", ""],
        "zh": ["基座模型", "每个中文字符的比特数", "曲线数", "约多少个字符之后与原来一样好", "范围（字符数）", ""],
    }[language]  # fmt: skip
    kinds = {"en": ("predicted", "measured"), "zh": ("推算", "实测")}[language]
    to, more = {"en": (" to ", " or more"), "zh": ("到", "以上")}[language]
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for one in points:
        spread = (
            f"{rounded(one.low)}{more}" if one.high is None else f"{rounded(one.low)}{to}{rounded(one.high)}"
        )
        cells = [BASES[language][one.base], f"{one.bits:.2f}", f"{one.curves}", rounded(one.about), spread, kinds[one.measured]]  # fmt: skip
        yield "| " + " | ".join(cells) + " |"


def rounded(number: float) -> str:
    """Two digits, as `advise` rounds."""
    return f"{float(f'{number:.2g}'):,.0f}"


def figure(new: Curves, earlier: Curves) -> str:
    """Bits of SmolLM2 above, and the gap to the old vocabulary of both bases below, those of the earlier protocol dashed."""
    bits, gaps = [], []
    for name, curve in new["smollm2"].items():
        plain, _, seed = name.partition("-seed")
        if plain == "old" or _hue(plain) is not None:
            hue = _hue(plain)
            look = 'class="old"' if hue is None else colored(hue, "thin" if seed else "")
            look = look.replace('"old"', '"old thin"') if seed else look
            bits.append(Series(short(plain), [(p.seconds, other_sources(p)) for p in curve.points], look))
    for base, curves in new.items():
        for name in (n for n in names(curves) if _hue(n) is not None):
            for number, pair in enumerate(pairs(curves, name)):
                places = [p.seconds for p in pair[1] if gap(pair, p.seconds, other_sources) is not None]
                found = [(s, gap(pair, s, other_sources) or 0.0) for s in places]
                kind = "thin" * (number > 0) + " dotted" * (base == "half")
                label = short(name) + (", 10M" if base == "half" else "")
                gaps.append(Series(label, found, colored(_hue(name) or 0, kind)))
    for name in ("2000-mean-faster", "8000-mean-faster"):
        behind = sorted(earlier["smollm2"][name].behind.items())
        gaps.append(Series(f"{short(name)}, earlier", behind, colored(_hue(name) or 0, "dashed")))
    return draw(
        [
            Panel("SmolLM2-135M, other sources, bits per character", 270, bits),
            Panel("bits per character more than the old vocabulary", 290, gaps, zero=True),
        ],
        TITLE,
    )


def _hue(name: str) -> float | None:
    return next((hue for start, hue in HUES.items() if name.startswith(start)), None)


def show(new: Curves, earlier: Curves) -> None:
    """Print all that the page says."""
    for base, curves in new.items():
        print(f"\n{base}\n")
        print("\n".join(main_table(curves, "en") if base == "smollm2" else crossing_table(curves, "en")))
        for name in names(curves):
            both = pairs(curves, name)
            for begin in (75, 150, 300, 600, 1200, 2400, 4500):
                if found := shrink_interval(both, begin):
                    print(
                        f"{name}: from {begin} to {2 * begin} s it shrinks by {_interval(found)}, {found.runs} runs"
                    )
            for begin in (37_500, 75_000, 150_000, 300_000, 500_000):
                if found := shrink_interval(both, begin, "characters"):
                    print(
                        f"{name}: from {begin} to {2 * begin} characters by {_interval(found)}, {found.runs} runs"
                    )
            for pair in both:
                end = min(points[-1].seconds for points in pair)
                same, other = gap(pair, end, same_sources), gap(pair, end, other_sources)
                print(
                    f"{name}: at {end:.0f} s same sources {same}, other {other}, characters {pair[1][-1].characters:,}"
                )
                for second in (s for s in (1200, end) if s <= end):
                    each = {one: gap(pair, second, source(one)) for one in pair[0][0].other}
                    bits = [value_at(points, second, english) for points in pair]
                    print(f"   at {second:.0f} s by source {each}, English old and extended {bits}")
                if base == "smollm2" and curves[name].added in COST:
                    _show_repaid(pair, other_sources, COST[curves[name].added])
    print("\nat equal bits, earlier protocol")
    before = earlier["smollm2"]
    for name, added in (("2000-mean-faster", 2000), ("8000-mean-faster", 8000)):
        print(name)
        _show_repaid((before["old"].points, before[name].points), same_sources, COST[added])
    print("\nlaw")
    for point in law(new, earlier):
        print(point)


def _show_repaid(pair: Pair, value: Value, cost: float) -> None:
    for second in (0, 120, 300, 600, 1200, 2400):
        if found := repaid(pair, second, value, cost):
            print(
                f"   the old one after {second} s: {found}, {found.seconds / max(second, 1):.1f} times the compute, "
                f"repaid by {(found.seconds - second) / (1 - cost):,.0f} s of serving with the old one"
            )


def write(new: Curves, earlier: Curves) -> None:
    """Write the figure, and the tables between their marks."""
    write_whole(FIGURE, figure(new, earlier))
    for language, page in (("en", "advise.md"), ("zh", "advise.zh.md")):
        path = DOCS / page
        table = "\n".join(law_table(law(new, earlier), language))
        path.write_text(between(path.read_text(encoding="utf-8"), "law", table), encoding="utf-8")
    for language, page in (("en", "extending.md"), ("zh", "extending.zh.md")):
        path = DOCS / page
        text = path.read_text(encoding="utf-8")
        tables = {"gaps": main_table(new["smollm2"], language)}
        if "half" in new:
            tables["crossings"] = crossing_table(new["half"], language)
        for mark, lines in tables.items():
            table = "\n".join(lines)
            text = between(text, mark, table.replace(" to ", "到") if language == "zh" else table)
        path.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--collect", type=Path, metavar="WORK", help="a folder of extend_or_not.py")
    parser.add_argument("--write", action="store_true", help="write pages and figure")
    args = parser.parse_args()
    if args.collect:
        collect(args.collect)
    new, earlier = load(CURVES), load(EARLIER)
    if args.write:
        write(new, earlier)
    else:
        show(new, earlier)


if __name__ == "__main__":
    main()
