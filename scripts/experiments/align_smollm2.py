"""Trains a reward model and runs DPO on SmolLM2-135M-Instruct, each in a quarter of an hour, from ranked answers.

    python scripts/experiments/align_smollm2.py --work /tmp/align --only reward
    python scripts/experiments/align_smollm2.py --work /tmp/align --only dpo

The model is that of scripts/experiments/row_initializations.py, with its own template and vocabulary; the pairs are all short
ones of `instructions/rank_oasst_zh` (human rankings, OpenAssistant). Runs on one thread; results go to WORK/NAME/manifest.json
and, as a table row, to stdout.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

from row_initializations import smollm2

COMMANDS = {"reward": ("--lr", "2e-4"), "dpo": ("--lr", "1e-4")}


def train(command: str, model: Path, pairs: Path, out: Path, args: argparse.Namespace) -> dict[str, object]:
    """Run or resume one command; returns its figures and the CPU time of this start."""
    if not (out / "manifest.json").is_file():
        command_line = [
            sys.executable, "-P", "-m", "zhllama", command, "--model", model, "--pairs", pairs, "--out", out, "--skip-bad",
            "--max-length", args.length, "--steps", args.steps, "--batch", 4, "--micro-batch", 4, "--validation-share", args.validation_share,
            "--log-every", 4, "--save-every", 8, "--precision", "fp32", *COMMANDS[command],
        ]  # fmt: skip
        resume = ["--resume"] if out.exists() else []
        subprocess.run(
            [*map(str, command_line), *resume], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    figures: dict[str, object] = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["figures"]
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {**figures, "cpu_seconds": round(spent.ru_utime + spent.ru_stime)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[3] / "shared" / "data")
    parser.add_argument("--only", action="append", choices=tuple(COMMANDS))
    parser.add_argument("--length", type=int, default=128, help="tokens of a prompt with its answer")
    parser.add_argument("--steps", type=int, default=24, help="of four pairs")
    parser.add_argument("--validation-share", type=float, default=0.2, help="share of the prompts")
    args = parser.parse_args()
    model = smollm2(args.work / "smollm2")
    pairs = args.data / "instructions" / "rank_oasst_zh.jsonl.xz"
    print(
        "| command | pairs for training, validation | accuracy | margin | likelier | CPU seconds |\n|---|---|---|---|---|---|"
    )
    for command in args.only or COMMANDS:
        figures = train(command, model, pairs, args.work / command, args)
        shown = [figures.get(f"{name}_validation") for name in ("accuracy", "margin", "likelier")]
        cells = [f"{x['before']:.3f} → {x['after']:.3f}" if isinstance(x, dict) else "–" for x in shown]
        print(
            f"| {command} | {4 * args.steps}, {figures['validation_pairs']} | {' | '.join(cells)} | {figures['cpu_seconds']} |"
        )


if __name__ == "__main__":
    main()
