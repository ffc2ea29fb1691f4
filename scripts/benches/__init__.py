"""The result rows of benchmark suites, and paired timing of two functions."""

import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One case against one peer. `ratios` are median, minimum and maximum of all rounds; above 1, zhllama is faster.

    equal: both gave the same result; None if results are not comparable. skipped: why nothing was measured.
    """

    suite: str
    case: str
    peer: str
    ours: float = 0.0
    theirs: float = 0.0
    unit: str = ""
    ratios: tuple[float, float, float] = (0.0, 0.0, 0.0)
    equal: bool | None = None
    skipped: str | None = None

    def as_json(self) -> dict[str, Any]:
        """One row of the JSON that bench.py prints."""
        labels: dict[str, Any] = {"suite": self.suite, "case": self.case, "peer": self.peer}
        if self.skipped is not None:
            return labels | {"skipped": self.skipped}
        figures = {"ours": round(self.ours, 4), "theirs": round(self.theirs, 4), "unit": self.unit}
        ratios = dict(zip(("ratio", "low", "high"), (round(ratio, 3) for ratio in self.ratios), strict=True))
        return labels | figures | ratios | {"equal": self.equal}


@dataclass(frozen=True)
class Scale:
    """The size and place of a training benchmark: a random LLaMA, and the blocks of a step.

    `low`: frozen weights and matrix products are in bf16. `attention`: as in --attention; `compiled`: as in --compile.
    """

    hidden: int = 512
    inner: int = 1376
    layers: int = 8
    heads: int = 8
    old: int = 32_000
    rows: int = 49_953
    blocks: int = 4
    size: int = 512
    device: str = "cpu"
    low: bool = False
    attention: str = "auto"
    compiled: bool = False


def paired(
    ours: Callable[[], object], theirs: Callable[[], object], rounds: int
) -> tuple[float, float, tuple[float, float, float]]:
    """Median CPU seconds of ours and of theirs, and the ratio theirs / ours: median, minimum, maximum.

    Both alternate in one process after an unmeasured round, so a slower machine slows both. CPU time of all threads is
    measured, so that other processes matter less and a peer on several cores has no advantage.
    """
    a, b = [], []
    for number in range(-1, rounds):
        times = []
        for work in (ours, theirs):
            start = time.process_time()
            work()
            times.append(time.process_time() - start)
        if number >= 0:
            a.append(times[0])
            b.append(times[1])
    ratios = [theirs / ours for ours, theirs in zip(a, b, strict=True)]
    return statistics.median(a), statistics.median(b), (statistics.median(ratios), min(ratios), max(ratios))


def test_data() -> Path:
    """The folder of real models and texts that the tests use; it may not exist."""
    return Path(os.environ.get("ZHLLAMA_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def log(*words: object) -> None:
    """Print progress to stderr."""
    print(*words, file=sys.stderr, flush=True)
