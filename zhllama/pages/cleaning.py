"""report.html of a corpus cleaning run: the counts, lengths and examples of each step."""

from collections.abc import Mapping
from dataclasses import dataclass

from zhllama.corpus.stats import CleaningStats, StepStats
from zhllama.pages.charts import BarRow, bar_rows
from zhllama.pages.render import render


@dataclass(frozen=True)
class StepSection:
    """A step with its share of touched documents in percent, and its lengths as bars."""

    stats: StepStats
    percent: float
    lengths: list[BarRow]


def cleaning_page(stats: CleaningStats, title: str) -> str:
    """The page of a run; `title` names its inputs."""
    return render(
        "cleaning",
        title=title,
        stats=stats,
        lengths=_bars(stats.lengths),
        steps=[StepSection(step, _percent(step), _bars(step.lengths)) for step in stats.steps],
    )


def _percent(step: StepStats) -> float:
    touched = step.dropped if step.drops else step.changed
    return 100 * touched / step.documents if step.documents else 0.0


def _bars(lengths: Mapping[int, int]) -> list[BarRow]:
    return bar_rows([(f"{low:,}+", count) for low, count in lengths.items()])
