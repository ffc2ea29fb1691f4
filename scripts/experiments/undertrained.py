"""Names the tokens that SmolLM2 hardly learned, and added pieces that were kept out of the text they were trained on.

    python scripts/experiments/undertrained.py --work /tmp/undertrained [--data DATA] [--steps 40]

Both lists are those of `zhllama audit --model` (arXiv:2405.05417): by the rows of SmolLM2-135M-Instruct alone, and by those
of the same model with 1,000 more tokens after stage 1, in which 50 of them never occurred. The first list is checked by
asking the model to repeat each token; 100 tokens drawn at random are asked for too.
"""

import argparse
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from row_initializations import smollm2

from zhllama.io.text import read_lines
from zhllama.vocab.any_tokenizer import load_any_tokenizer

ADDED, HELD_OUT, LINES, OFTEN = 1_000, 50, 6_000, 15
TRAINING = (
    "--block-size",
    256,
    "--batch",
    2,
    "--micro-batch",
    2,
    "--lr",
    2e-3,
    "--eval-every",
    10_000,
    "--precision",
    "fp32",
)


def zhllama(*arguments: object) -> str:
    """What a command prints."""
    line = [sys.executable, "-m", "zhllama", *map(str, arguments)]
    return subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout


def hold_out(tokenizer: Path, first: int, lines: list[str]) -> tuple[list[int], list[str]]:
    """50 of the added words that occur often, drawn at random, and the lines in which none of them is a token."""
    vocabulary = load_any_tokenizer(tokenizer)
    encoded = vocabulary.encode(lines)
    counts = np.bincount(
        np.concatenate([np.array(ids, np.int64) for ids in encoded]), minlength=vocabulary.size
    )
    words = [
        id
        for id in range(first, vocabulary.size)
        if counts[id] >= OFTEN and len(vocabulary.surface(id).decode("utf-8", "ignore").strip()) > 1
    ]
    held_out = sorted(random.Random(0).sample(words, HELD_OUT))
    return held_out, [
        line for line, ids in zip(lines, encoded, strict=True) if not set(held_out).intersection(ids)
    ]


def repeats(model: Path, ids: list[int]) -> list[float]:
    """The probability that the model gives each token when it is asked to repeat it (section 3.3 of the paper)."""
    import torch

    from zhllama.model.load import open_model

    opened = open_model(model)
    before = opened.tokenizer("The word is: «hello». The same word again: «hello».\nThe word is: «").input_ids
    between = opened.tokenizer("». The same word again: «").input_ids
    found = []
    with torch.inference_mode():
        for id in ids:
            logits = opened.model(torch.tensor([[*before, id, *between]])).logits[0, -1]
            found.append(float(logits.float().softmax(0)[id]))
    return found


def base_model(work: Path) -> None:
    """The tokens of SmolLM2 itself."""
    found = json.loads(zhllama("audit", work / "base", "--model", work / "base", "--json"))["undertrained"]
    named = [token for token in found["tokens"] if token["kind"] == "token"]
    size = load_any_tokenizer(work / "base").size
    drawn = random.Random(0).sample(range(300, size), 100)
    asked, others = repeats(work / "base", [token["id"] for token in named]), repeats(work / "base", drawn)
    print(f"SmolLM2: {len(named)} tokens of {size:,}; unused rows: {len(found['unused'])}")
    for token, probability in list(zip(named, asked, strict=True))[:40]:
        print(f"{token['id']}\t{token['piece']}\t{token['value']:.3f}\t{probability:.4f}")
    for label, values in (("named", asked), ("drawn at random", others)):
        print(f"repeated with p >= .01: {sum(p >= 0.01 for p in values)} of {len(values)} {label}")


def held_out_pieces(work: Path, data: Path, steps: int) -> None:
    """The pieces that stage 1 never met."""
    text = data / "text" / "zh_small.txt.xz"
    base = work / "base"
    if not (work / "tokenizer").is_dir():
        zhllama("merge-vocab", "--base", base, "--recipe", "continued", "--add", ADDED, "--text", text,
                "--out", work / "tokenizer")  # fmt: skip
        zhllama("grow", "--model", base, "--tokenizer", work / "tokenizer", "--out", work / "grown")
    first = load_any_tokenizer(base).size
    lines = [line for line in read_lines([text]) if len(line) > 30][:LINES]
    held_out, kept = hold_out(work / "tokenizer", first, lines)
    (work / "zh.txt").write_text("\n\n".join(kept) + "\n", encoding="utf-8")
    if not (work / "run" / "manifest.json").is_file():
        zhllama("pretrain", "--stage", 1, "--model", work / "grown", "--out", work / "run", "--text",
                f"zh={work / 'zh.txt'}", "--steps", steps, *TRAINING)  # fmt: skip
    rows: Any = json.loads(zhllama("audit", work / "run" / "tokenizer", "--base", base, "--model", work / "run",
                                   "--fuzz", 0, "--json"))["undertrained"]  # fmt: skip
    named = {token["id"] for token in rows["tokens"]}
    met = {int(id): int(n) for id, _, n in (
        line.split("\t") for line in (work / "run" / "new_rows.tsv").read_text("utf-8").splitlines()[1:])}  # fmt: skip
    never = {id for id, times in met.items() if times == 0}
    print(f"kept out: {len(held_out)}, of which named: {len(named.intersection(held_out))}")
    print(f"never met: {len(never)} of {ADDED}, of which named: {len(named & never)}; named in all: {len(named)}, of "
          f"which met 10 times or more: {len(named - met.keys())}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("ZHLLAMA_TEST_DATA", "../shared/data"))
    )
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    smollm2(args.work / "base")
    base_model(args.work)
    held_out_pieces(args.work, args.data, args.steps)


if __name__ == "__main__":
    main()
