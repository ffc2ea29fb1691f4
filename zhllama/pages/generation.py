"""report.html of a gen-zh run: what was accepted and rejected, its diversity, lengths and similarity, and examples."""

from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from zhllama.generation.task_pool import AcceptedTask
from zhllama.generation.verbs_and_nouns import histogram, kind, verbs_and_nouns
from zhllama.pages.charts import BarRow, bar_rows, sunburst
from zhllama.pages.render import label, render

EXAMPLES = 20
SAMPLE = 2000  # instructions segmented into words; 1.5 ms each
LENGTHS = (0, 10, 20, 40, 80, 160, 320, 640, 1280)
SCORES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def generation_page(
    title: str,
    statistics: Mapping[str, Any],
    accepted: Sequence[AcceptedTask],
    nearest: Sequence[float],
    seed: int,
) -> str:
    """The page; `nearest` are the ROUGE-L F measures of a sample to their nearest neighbors."""
    random = Random(seed)
    sample = random.sample(accepted, min(SAMPLE, len(accepted)))
    kinds = Counter(kind(row.task.instruction) for row in accepted)
    return render(
        "generation",
        title=title,
        statistics=statistics,
        slices=sunburst(verbs_and_nouns(row.task.instruction for row in sample)),
        kinds=bar_rows([(label("generation.kind", name), count) for name, count in kinds.most_common()]),
        reasons=_labelled("reason", statistics["reasons"]),
        flags=_labelled("flag", statistics["flags"]),
        instruction_lengths=_bins([len(row.task.instruction) for row in accepted], LENGTHS),
        output_lengths=_bins([len(row.task.output) for row in accepted], LENGTHS),
        similarities=_bins(nearest, SCORES),
        examples=[row.task for row in random.sample(accepted, min(EXAMPLES, len(accepted)))],
    )


def _labelled(group: str, counts: Mapping[str, int]) -> list[BarRow]:
    return bar_rows([(label(f"generation.{group}", name), count) for name, count in counts.items()])


def _bins(values: Sequence[float], edges: Sequence[float]) -> list[BarRow]:
    """A bar for each range, labelled like `10–19`, the last `1280+`."""
    if not values:
        return []
    counts = histogram(values, edges)
    whole = all(isinstance(edge, int) for edge in edges)
    ends = [f"–{following - 1}" if whole else f"–{following:g}" for following in edges[1:]]
    rows = zip(edges, [*ends, "+" if whole else "–1"], counts, strict=True)
    return bar_rows([(f"{edge:g}{end}", count) for edge, end, count in rows])
