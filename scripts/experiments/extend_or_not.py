"""Trains a base with its old and with extended vocabularies, and compares validation bits at equal CPU seconds.

    python scripts/experiments/extend_or_not.py --work /tmp/extend --base small --seconds 600
    python scripts/experiments/extend_or_not.py --work /tmp/extend --base smollm2 --seconds 3600
    python scripts/experiments/extend_or_not.py --work /tmp/extend-gpu --base smollm2 --rate 1e-4 --seconds 600 --device cuda
    python scripts/experiments/extend_or_not.py --work /tmp/extend --show      # table and plot of finished curves

All curves share base, text order, optimizer and tokens per step; the learning rates of the old and of the extended vocabularies
are the best of a short sweep. Each curve is a folder WORK/BASE/curves/NAME with a checkpoint and curve.jsonl; the same command
resumes an interrupted or shorter run. With --seed the same passages come in another order. Seconds are steps times the CPU seconds per step, which are calibrated for each vocabulary
size in alternation with the old one, because other work on the machine would slow down single curves.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import torch  # noqa: E402 - after the path is set
from extending.curve import Point, batches, clock, read_points, train  # noqa: E402
from extending.plot import plot  # noqa: E402
from extending.report import table  # noqa: E402
from extending.texts import Texts, draw  # noqa: E402
from extending.variants import Base, Variant, open_base, texts_of  # noqa: E402

from zhllama.io.files import to_json, write_whole  # noqa: E402
from zhllama.training.document_tokenizer import DocumentTokenizer  # noqa: E402

MARKS = (15, 30, 60, 120, 240, 360, 480, 600, 900, 1200)  # then every ten minutes
# SmolLM2 at doublings, because a measurement costs six steps; the base that reads some Chinese where its curves cross.
EARLY = {"smollm2": (150, 300, 600, 1200), "half": (5, 10, *MARKS)}
RATES = {"small": (7e-4, 2e-3), "half": (2e-4, 7e-4), "smollm2": (1e-4, 4e-4)}
SWEPT = {"small": 8000, "half": 8000, "smollm2": 2000}  # the size whose best rate all extended curves use
UNIT = "unit"  # seconds of the x axis in a second of this machine, which row initializations are measured in
SWEEP = 60  # CPU seconds after which the rates are compared; the best run becomes the curve
SMALL = [Variant(0), *(Variant(n, init) for init in ("mean", "fitted") for n in (8000, 1000, 18_000, 4000)),
         *(Variant(n, "shared") for n in (8000, 1000, 18_000)), Variant(8000, "taught"),
         Variant(8000, "distill"), Variant(8000, learn="faster"), Variant(8000, "fitted", "faster"), Variant(8000, learn="rows")]  # fmt: skip
FIRST = {
    "small": SMALL,
    "half": SMALL,
    "smollm2": [Variant(0), Variant(2000), Variant(2000, learn="faster"), Variant(2000, "fitted", "faster", untied=True),
                Variant(8000, learn="faster"), Variant(8000, "fitted", "faster", untied=True), Variant(2000, "distill", "faster", untied=True),
                Variant(8000, learn="faster", rate=3e-4), Variant(18_000, learn="faster"), Variant(8000), Variant(0, untied=True),
                *(Variant(n, "shared", "input-faster", untied=True) for n in (8000, 2000, 18_000)), *(Variant(n, "shared", "faster", untied=True) for n in (2000, 8000)),
                *(Variant(0, rate=rate) for rate in (5e-5, 2e-4)), *(Variant(0, learn="lora", rate=rate) for rate in (1e-3, 3e-4)),
                *(Variant(n, "taught", "input-faster", untied=True) for n in (8000, 2000))],
}  # fmt: skip


def calibrate(base: Base, variants: list[Variant], texts: Texts, rounds: int = 4) -> dict[str, float]:
    """CPU seconds per step by shape: the median ratio to the old vocabulary, measured in alternation, times its median.

    Earlier calibrations are reused; a new shape is measured together with the old vocabulary. A seconds.json with "0-all" from
    another machine makes all seconds those of that machine.
    """
    path = base.folder / "seconds.json"
    calibrated = _calibrated(base.folder)
    missing = list(
        {v.shape: v for v in variants if v.shape not in calibrated and v.shape != "0-all"}.values()
    )
    if not missing and calibrated:
        return calibrated
    shapes = {"0-all": Variant(0), **{v.shape: v for v in missing}}
    models = {shape: base.start(v, texts, 1e-9) for shape, v in shapes.items()}
    text = {
        shape: batches(
            texts.zh, texts.en, DocumentTokenizer.open(base.tokenizer(v.added, texts)), base.settings
        )
        for shape, v in shapes.items()
    }
    durations: dict[str, list[float]] = {shape: [] for shape in shapes}
    for number in range(rounds + 1):
        for shape, trained in models.items():
            blocks = next(text[shape]).blocks
            start = clock(base.device)
            trained.step(number, blocks)
            if number:  # the first warms up
                durations[shape].append(clock(base.device) - start)
    calibrated.setdefault("0-all", median(durations["0-all"]))
    calibrated.setdefault(UNIT, calibrated["0-all"] / median(durations["0-all"]))
    for shape in (v.shape for v in missing):
        ratio = median(a / b for a, b in zip(durations[shape], durations["0-all"], strict=True))
        calibrated[shape] = calibrated["0-all"] * ratio
    write_whole(path, to_json(calibrated))
    print("CPU seconds a step", {k: round(v, 3) for k, v in calibrated.items()}, flush=True)
    return calibrated


def _calibrated(folder: Path) -> dict[str, float]:
    path = folder / "seconds.json"
    calibrated: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return calibrated


def draw_curve(
    base: Base, variant: Variant, texts: Texts, rate: float, step_seconds: float, until: float, under: str
) -> list[Point]:
    """One curve up to `until` seconds, including those of its row initialization."""
    _, init_seconds = base.grown(variant, texts)
    init_seconds *= _calibrated(base.folder).get(UNIT, 1)
    seconds = [m for m in marks(until, EARLY.get(base.name, MARKS)) if m > init_seconds]
    steps = {round((m - init_seconds) / step_seconds): float(m) for m in seconds}
    first = read_points(base.folder / under / replace(variant, seed=0).name)[:1] if variant.seed else []
    return train(
        base.folder / under / variant.name,
        lambda: base.start(variant, texts, rate),
        DocumentTokenizer.open(base.tokenizer(variant.added, texts)),
        DocumentTokenizer.open(base.folder / "base").size,
        texts.reordered(variant.seed).zh,
        texts.reordered(variant.seed),
        [(0, init_seconds), *((step, m) for step, m in steps.items() if step)],
        first[0] if first else None,
    )


def marks(until: float, early: Sequence[float] = MARKS) -> list[float]:
    """The seconds at which curves are measured."""
    later = range(1800, int(until) + 1, 600)
    return sorted({m for m in (*early, *later) if m < until} | {until})


def best_rate(base: Base, added: int, texts: Texts, seconds: dict[str, float]) -> float:
    """The rate with the fewest Chinese bits after SWEEP seconds; its run becomes the start of the curve."""
    ends = {}
    for rate in RATES[base.name]:
        variant = Variant(added, rate=rate)
        points = draw_curve(base, variant, texts, rate, seconds[variant.shape], SWEEP, "sweep")
        ends[rate] = next(p for p in points if p.seconds == SWEEP).zh_bits_per_character
    best = min(ends, key=lambda rate: ends[rate])
    curve = base.folder / "curves" / Variant(added).name
    if not curve.exists():
        part = curve.with_name(f".{curve.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(base.folder / "sweep" / Variant(added, rate=best).name, part)
        part.rename(curve)
    return best


def timed(folder: Path, curve: Path) -> list[Point]:
    """A curve's points with current calibration: steps times seconds per step, plus the seconds of the row initialization."""
    points = read_points(curve)
    calibrated = _calibrated(folder)
    plain = curve.name.partition("-seed")[0]
    variant = next((v for v in FIRST[folder.name] if v.name == plain), None)
    if variant is None or variant.shape not in calibrated or not points:
        return points
    grown = folder / variant.folder / "seconds.json"
    init_seconds = json.loads(grown.read_text(encoding="utf-8")) if grown.is_file() else 0.0
    init_seconds *= calibrated.get(UNIT, 1)
    return [replace(p, seconds=init_seconds + p.step * calibrated[variant.shape]) for p in points]


def show(folder: Path) -> None:
    """Print the table of the curves in a base's folder, and write curves.svg and curves.json there."""
    order = [v.name for v in FIRST[folder.name]]
    measured = {
        f.parent.name: timed(folder, f.parent) for f in sorted((folder / "curves").glob("*/curve.jsonl"))
    }
    names = sorted(measured, key=lambda name: order.index(name) if name in order else len(order))
    curves = {
        name: (0 if name.startswith("old") else int(name.split("-")[0]), measured[name])
        for name in names
        if len(measured[name]) > 1
    }
    if "old" not in curves:
        print("The curve of the old vocabulary, the reference for all others, has not begun")
        return
    print(table(curves))
    titles = {
        "small": "A small base, LLaMA's vocabulary and more",
        "half": "A small base, half of whose text was Chinese, LLaMA's vocabulary and more",
        "smollm2": "SmolLM2-135M, its vocabulary and more",
    }
    write_whole(folder / "curves.svg", plot(curves, titles.get(folder.name, folder.name)))
    values = {n: {"added": a, "points": [asdict(p) for p in points]} for n, (a, points) in curves.items()}
    write_whole(folder / "curves.json", to_json(values))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared" / "data")
    parser.add_argument("--base", choices=tuple(FIRST), default="small")
    parser.add_argument("--seconds", type=float, default=600, help="CPU seconds of each curve")
    parser.add_argument("--only", action="append", default=[], help="names of curves, e.g. old, 2000-mean")
    parser.add_argument(
        "--seed", type=int, default=0, help="order of the training text; vocabularies and validation stay"
    )
    parser.add_argument("--rate", type=float, help="one learning rate for all curves, and no sweep")
    parser.add_argument(
        "--threads", type=int, default=1, help="more finish sooner; the reported seconds are those of one"
    )
    parser.add_argument(
        "--device", default="cpu", help="e.g. cuda; a folder --work holds curves of one device"
    )
    parser.add_argument("--base-steps", type=int, help="training steps of a base that is trained here")
    parser.add_argument("--only-base", action="store_true", help="train the base and stop")
    parser.add_argument(
        "--show", action="store_true", help="print and plot finished curves, without training"
    )
    args = parser.parse_args()
    if args.show:
        show(args.work / args.base)
        return
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    texts = texts_of(args.base, draw(args.data, args.work / "texts.json"))
    base = open_base(args.base, args.work, args.data, texts, args.base_steps)
    base = replace(base, device=torch.device(args.device))
    if args.only_base:
        return
    variants = [replace(v, seed=args.seed) for v in FIRST[base.name] if not args.only or v.name in args.only]
    swept = [] if args.rate else [Variant(SWEPT[base.name])]
    seconds = calibrate(base, [*variants, *swept], texts, 3 if base.name == "smollm2" else 4)
    rates = {added: args.rate or best_rate(base, added, texts, seconds) for added in (0, SWEPT[base.name])}
    print("rates", rates, flush=True)
    for variant in variants:
        rate = variant.rate or rates[SWEPT[base.name] if variant.added else 0]
        print("begin", variant.name, flush=True)
        draw_curve(base, variant, texts, rate, seconds[variant.shape], args.seconds, "curves")
    show(base.folder)


if __name__ == "__main__":
    main()
