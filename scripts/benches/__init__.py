"""What every suite gives back, and how two things are timed fairly."""

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
    """One case against one peer. `ratios` are the median, the lowest and the highest of all rounds; above 1 we lead.

    `equal`: both gave the same answer; None where that is no question. `skipped`: why nothing was measured.
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
        named: dict[str, Any] = {"suite": self.suite, "case": self.case, "peer": self.peer}
        if self.skipped is not None:
            return named | {"skipped": self.skipped}
        figures = {"ours": round(self.ours, 4), "theirs": round(self.theirs, 4), "unit": self.unit}
        ratios = dict(zip(("ratio", "low", "high"), (round(ratio, 3) for ratio in self.ratios), strict=True))
        return named | figures | ratios | {"equal": self.equal}


def paired(
    ours: Callable[[], object], theirs: Callable[[], object], rounds: int
) -> tuple[float, float, tuple[float, float, float]]:
    """CPU seconds of ours and of theirs (medians), and how many times theirs takes ours: median, lowest, highest.

    A B A B, in one process, after one round unmeasured: what slows the machine slows both. CPU time of all threads,
    so that neighbours on a shared machine count less, and a peer that takes several cores gains nothing.
    """
    a, b = [], []
    for measured in range(-1, rounds):
        times = []
        for work in (ours, theirs):
            start = time.process_time()
            work()
            times.append(time.process_time() - start)
        if measured >= 0:
            a.append(times[0])
            b.append(times[1])
    ratios = [theirs / ours for ours, theirs in zip(a, b, strict=True)]
    return statistics.median(a), statistics.median(b), (statistics.median(ratios), min(ratios), max(ratios))


def test_data() -> Path:
    """The folder of real models and texts, as the tests find it; it may be absent."""
    return Path(os.environ.get("ZHLLAMA_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def tell(*words: object) -> None:
    """Progress, to stderr."""
    print(*words, file=sys.stderr, flush=True)
