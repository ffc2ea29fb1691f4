"""CPU seconds of `zhllama --help` beside importing typer and rich, each in a new process."""

import os
import resource
import statistics
import subprocess
import sys

from benches import Row

HELP = ("-m", "zhllama", "--help")
IMPORTS = ("-c", "import typer, rich")


def run(rounds: int) -> list[Row]:
    """One row; a ratio of .5 means that the help costs twice the imports."""
    pairs = [(_seconds(HELP), _seconds(IMPORTS)) for _ in range(rounds + 1)][1:]  # the first warms the caches
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = [imports / shown for shown, imports in pairs]
    spread = statistics.median(ratios), min(ratios), max(ratios)
    return [Row("start", "--help", "import typer, rich", ours, theirs, "CPU seconds", spread)]


def _seconds(arguments: tuple[str, ...]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=os.environ)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
