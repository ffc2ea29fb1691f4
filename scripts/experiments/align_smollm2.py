"""What a small model learns from ranked answers in a quarter of an hour: a reward model, and DPO, on SmolLM2-135M-Instruct.

    python scripts/experiments/align_smollm2.py --work /tmp/align --only reward
    python scripts/experiments/align_smollm2.py --work /tmp/align --only dpo

The model is the one of scripts/experiments/initialisations.py, with its own template and vocabulary; the pairs are all short
ones of `instructions/rank_oasst_zh` (people's rankings, OpenAssistant). One thread; results go to WORK/NAME/manifest.json, and
as a row of a table to stdout.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

from initialisations import smollm2

COMMANDS = {"reward": ("--lr", "2e-4"), "dpo": ("--lr", "1e-4")}


def train(command: str, model: Path, pairs: Path, out: Path, given: argparse.Namespace) -> dict[str, object]:
    """One run of the command line, gone on with where it was left; its figures, and the processor time of this start."""
    if not (out / "manifest.json").is_file():
        line = [
            sys.executable, "-P", "-m", "zhllama", command, "--model", model, "--pairs", pairs, "--out", out, "--skip-bad",
            "--max-length", given.length, "--steps", given.steps, "--batch", 4, "--micro-batch", 4, "--aside", given.aside,
            "--log-every", 4, "--save-every", 8, "--precision", "fp32", *COMMANDS[command],
        ]  # fmt: skip
        resume = ["--resume"] if out.exists() else []
        subprocess.run([*map(str, line), *resume], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
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
    parser.add_argument("--aside", type=float, default=0.2, help="share of the prompts")
    given = parser.parse_args()
    model = smollm2(given.work / "smollm2")
    pairs = given.data / "instructions" / "rank_oasst_zh.jsonl.xz"
    print(
        "| command | pairs learnt, aside | accuracy | margin | likelier | CPU seconds |\n|---|---|---|---|---|---|"
    )
    for command in given.only or COMMANDS:
        found = train(command, model, pairs, given.work / command, given)
        shown = [found.get(f"{name}_aside") for name in ("accuracy", "margin", "likelier")]
        cells = [f"{x['before']:.3f} → {x['after']:.3f}" if isinstance(x, dict) else "–" for x in shown]
        print(
            f"| {command} | {4 * given.steps}, {found['pairs_aside']} | {' | '.join(cells)} | {found['cpu_seconds']} |"
        )


if __name__ == "__main__":
    main()
