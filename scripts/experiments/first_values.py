"""Measures what each initialization of new rows costs before any training: in the LM head alone, in the input alone, and in both.

    python scripts/experiments/first_values.py --work /tmp/extend --base half --added 8000 --seeds 3
    python scripts/experiments/first_values.py --work /tmp/extend --base half --show     # the table of what was measured
    python scripts/experiments/first_values.py --work /tmp/extend --write     # all of WORK to docs/data and docs/first-values.md
    python scripts/experiments/first_values.py --write                        # the tables again from docs/data

Each initialization is that of `zhllama grow`, with an untied head, and is measured on passages of validation text:

- Head alone: hidden states of the base with its old tokens predict the next new token with the grown head.
- Input alone: hidden states of the grown model, where a new token ends, predict the next old token with the head of the base.
- Both: the grown model predicts new tokens from new tokens.

WORK is that of extend_or_not.py. Results go to WORK/BASE/first_values.json one by one, and the same command goes on where it
stopped. A seed chooses the text that the initialization reads; the validation text is the same for all.
"""

import argparse
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import torch  # noqa: E402 - after the path is set
from extending.stored import DATA, between  # noqa: E402
from extending.texts import Texts, draw  # noqa: E402
from extending.variants import GUARD_PASSAGES, SHARED_PASSAGES, Base, open_base, texts_of, untied  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402

from zhllama.io.files import to_json, write_whole  # noqa: E402
from zhllama.model.grow import grow  # noqa: E402
from zhllama.model.growth_plan import GrowthPlan, plan_growth  # noqa: E402
from zhllama.model.load import load_base  # noqa: E402
from zhllama.model.row_init_distilled import align_tokenizations  # noqa: E402

VALIDATION = {"zh": 300, "en": 500}  # characters of each passage
UNITS = {"zh": "character", "en": "byte"}
WAYS: dict[str, dict[str, Any]] = {
    "mean": {"init": "mean"},
    "weighted": {"init": "weighted"},
    "fitted": {"init": "fitted"},
    "shared": {"init": "shared"},
    "shared --fit": {"init": "shared", "fit": True},
    "shared --keep-old-rows": {"init": "shared", "keep_old_rows": True},
    "taught": {"init": "taught"},
    "taught --fit": {"init": "taught", "fit": True},
}
WITHOUT_TEXT = ("mean", "weighted")
MEASURES = ("head", "input", "both")
BASES = ("smollm2", "half", "small")
STORED = DATA / "first-values.json"
PAGES = {"en": DATA.parent / "first-values.md", "zh": DATA.parent / "first-values.zh.md"}
HEADS = {
    "en": ("new tokens", "initialization", "head alone", "input alone", "both", "seeds"),
    "zh": ("新增词元", "初始化", "只看输出层", "只看输入", "两者", "种子数"),
}
OLD = {"en": "old vocabulary", "zh": "原词表"}
TO = {"en": " to ", "zh": "到"}
Passages = list[tuple[str, Tensor]]  # texts, and their hidden states in the base with old tokens [ids, width]


def _states(model: Any, ids: Sequence[int]) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.base_model(input_ids=torch.tensor([list(ids)])).last_hidden_state[0].float()
    return found


def _nats(states: Tensor, targets: Sequence[int], head: Tensor) -> float:
    return float(cross_entropy(states @ head.T, torch.tensor(targets), reduction="sum"))


def measure_old(passages: Passages, plan: GrowthPlan, head: Tensor, unit: str) -> dict[str, float]:
    """What the base itself costs, in all its tokens and, for the input, where new tokens end."""
    whole = first = 0.0
    for text, states in passages:
        both = align_tokenizations(plan.old, plan.new, text)
        whole += _nats(states[:-1], both.old[1:], head)
        ends = [old for old, new in both.positions if old + 1 < len(both.old) and new + 1 < len(both.new)]
        first += _nats(states[ends], [both.old[old + 1] for old in ends], head)
    size = _size(passages, unit)
    return {"head": whole / size, "input": first / size, "both": whole / size}


def measure(grown: Any, passages: Passages, plan: GrowthPlan, head: Tensor, unit: str) -> dict[str, float]:
    """Bits per `unit` ("character" or "byte") of a grown model; `head` is that of the base."""
    new_head = grown.get_output_embeddings().weight.detach()
    alone = first = whole = 0.0
    for text, states in passages:
        both = align_tokenizations(plan.old, plan.new, text)
        own = _states(grown, both.new)
        whole += _nats(own[:-1], both.new[1:], new_head)
        ends = [
            (old, new) for old, new in both.positions if old + 1 < len(both.old) and new + 1 < len(both.new)
        ]
        alone += _nats(states[[old for old, _ in ends]], [both.new[new + 1] for _, new in ends], new_head)
        first += _nats(own[[new for _, new in ends]], [both.old[old + 1] for old, _ in ends], head)
    size = _size(passages, unit)
    return {"head": alone / size, "input": first / size, "both": whole / size}


def _size(passages: Passages, unit: str) -> float:
    """Characters or bytes, times ln 2."""
    return math.log(2) * sum(len(text) if unit == "character" else len(text.encode()) for text, _ in passages)


def measure_way(
    base: Base,
    model: Path,
    tokenizer: Path,
    way: str,
    texts: Texts,
    old: dict[str, Passages],
    head: Tensor,
) -> dict[str, Any]:
    """Grow by one initialization into a folder that is removed again, and measure the model."""
    folder = base.folder / "first-values"
    shutil.rmtree(folder, ignore_errors=True)
    some = texts.zh[:SHARED_PASSAGES] + (texts.en[:GUARD_PASSAGES] if "taught" in way else [])
    begun = time.process_time()
    grow(model, tokenizer, folder, **WAYS[way], texts=some if way not in WITHOUT_TEXT else ())
    seconds = time.process_time() - begun
    plan = plan_growth(model, tokenizer)
    grown = load_base(folder, torch.float32).eval()
    found = {name: measure(grown, old[name], plan, head, unit) for name, unit in UNITS.items()}
    shutil.rmtree(folder)
    return {**found, "cpu_seconds": round(seconds, 1)}


def table(measured: Mapping[str, Any], language: str = "en") -> Iterator[str]:
    """Markdown: Chinese and English of each measure by size and way, the mean of all seeds with their range in Chinese."""
    yield "| " + " | ".join(HEADS[language]) + " |"
    yield "|" + "---|" * len(HEADS[language])
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for name, one in measured.items():
        added, _, way = name.partition(" seed ")[0].partition(" ")
        groups.setdefault((int(added), way), []).append(one)
    order = ["old", *WAYS]
    for (size, way), some in sorted(groups.items(), key=lambda item: (item[0][0], order.index(item[0][1]))):
        cells = [
            _cell([one["zh"][m] for one in some], [one["en"][m] for one in some], language) for m in MEASURES
        ]
        title = OLD[language] if way == "old" else f"`{way}`"
        yield f"| {size:,} | {title} | {' | '.join(cells)} | {'' if way == 'old' else len(some)} |"


def _cell(zh: list[float], en: list[float], language: str) -> str:
    low, high = f"{min(zh):.3f}", f"{max(zh):.3f}"
    spread = f" ({low}{TO[language]}{high})" if low != high else ""
    return f"{mean(zh):.3f}{spread} / {mean(en):.4f}"


def write(work: Path | None) -> None:
    """Put what a folder measured into docs/data, if one is given, and the tables into the pages."""
    stored: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8")) if STORED.is_file() else {}
    for base in BASES:
        path = work / base / "first_values.json" if work is not None else None
        if path is not None and path.is_file():
            stored[base] = json.loads(path.read_text(encoding="utf-8"))
    write_whole(STORED, to_json(stored))
    for language, page in PAGES.items():
        text = page.read_text(encoding="utf-8")
        for base, measured in stored.items():
            text = between(text, base, "\n".join(table(measured, language)))
        write_whole(page, text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path)
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared" / "data")
    parser.add_argument("--base", choices=BASES, default="smollm2")
    parser.add_argument("--added", type=int, action="append")
    parser.add_argument("--way", action="append", choices=tuple(WAYS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--show", action="store_true", help="print the table without measuring")
    parser.add_argument("--write", action="store_true", help="write docs/data and the tables of the pages")
    args = parser.parse_args()
    if args.write:
        write(args.work)
        return
    if args.work is None:
        parser.error("--work is missing")
    path = args.work / args.base / "first_values.json"
    measured: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if args.show:
        print("\n".join(table(measured)))
        return
    texts = texts_of(args.base, draw(args.data, args.work / "texts.json"))
    base = open_base(args.base, args.work, args.data, texts)
    folder = base.folder / "base"
    folder = untied(folder, base.folder / "base-untied") if args.base == "smollm2" else folder
    model = load_base(folder, torch.float32).eval()
    head = model.get_output_embeddings().weight.detach()
    old: dict[str, Passages] = {}
    for added in args.added or [2000, 8000]:
        tokenizer = base.tokenizer(added, texts)
        plan = plan_growth(folder, tokenizer)
        for name, some in (("zh", texts.validation_zh), ("en", texts.validation_en)):
            if name not in old:
                parts = [text[: VALIDATION[name]] for text in some]
                old[name] = [(p, _states(model, plan.old.encode([p])[0])) for p in parts]
        measured.setdefault(
            f"{added} old", {name: measure_old(old[name], plan, head, unit) for name, unit in UNITS.items()}
        )
        for way in args.way or WAYS:
            for seed in range(1 if way in WITHOUT_TEXT else args.seeds):
                name = f"{added} {way} seed {seed}"
                if name in measured:
                    continue
                measured[name] = measure_way(base, folder, tokenizer, way, texts.reordered(seed), old, head)
                write_whole(path, to_json(measured))
                print(name, measured[name], flush=True)


if __name__ == "__main__":
    main()
