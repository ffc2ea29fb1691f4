"""Benchmarks zhllama against peers: `python scripts/bench.py [SUITE...] [--rounds N] [--json]`.

A suite is a module of scripts/benches/ with `run(rounds) -> list[Row]`. The table, or with --json the
rows as JSON, goes to stdout, and progress to stderr.
"""

import argparse
import importlib
import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Before any peer is imported: each uses one core, otherwise the ratios mean nothing.
for name in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from benches import Row  # noqa: E402 - after the path is set

SUITES = sorted(path.stem for path in (HERE / "benches").glob("*.py") if path.stem != "__init__")
PACKAGES = ("numpy", "numba", "sentencepiece", "tokenizers", "gigatoken", "tokie", "rapidfuzz", "rouge-score", "torch",
            "transformers", "peft", "trl", "accelerate", "triton", "liger-kernel", "bitsandbytes", "flash-attn")  # fmt: skip


def machine() -> dict[str, object]:
    """The machine and the package versions."""
    lines = (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if Path("/proc/cpuinfo").exists()
        else []
    )
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: installed for name in PACKAGES if (installed := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def table(rows: list[Row]) -> str:
    """The rows as aligned text."""
    lines = [("suite", "case", "peer", "ours", "theirs", "unit", "ratio", "low", "high", "equal")]
    for row in rows:
        if row.skipped is not None:
            lines.append((row.suite, row.case, row.peer, f"skipped: {row.skipped}", *[""] * 6))
        else:
            figures = (f"{row.ours:,.2f}", f"{row.theirs:,.2f}", row.unit, *(f"{x:.2f}" for x in row.ratios))
            lines.append(
                (row.suite, row.case, row.peer, *figures, {True: "yes", False: "NO", None: ""}[row.equal])
            )
    widths = [max(len(line[k]) for line in lines if not line[3].startswith("skipped")) for k in range(10)]
    widths[1:3] = [max(len(line[k]) for line in lines) for k in (1, 2)]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "suites", nargs="*", metavar="SUITE", help=f"one or more of {', '.join(SUITES)}; all by default"
    )
    parser.add_argument("--rounds", type=int, default=7, help="paired rounds; the ratio is their median")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    unknown = sorted(set(args.suites) - set(SUITES))
    if unknown or args.rounds < 1:
        parser.error(f"no suite {', '.join(unknown)}" if unknown else "--rounds must be 1 or more")
    rows: list[Row] = []
    for suite in args.suites or SUITES:
        rows += importlib.import_module(f"benches.{suite}").run(args.rounds)
    if args.json:
        print(
            json.dumps(
                {"machine": machine(), "results": [row.as_json() for row in rows]},
                ensure_ascii=False,
                indent=1,
            )
        )
    else:
        print(table(rows))


if __name__ == "__main__":
    main()
