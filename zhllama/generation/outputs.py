"""The output files of a gen-zh run: accepted tasks, rejects, statistics and the report."""

from collections.abc import Mapping
from typing import Any

from zhllama.generation.methods import GenerationMethod
from zhllama.io.files import JsonLines, json_lines, to_json
from zhllama.llm.spending import Spending
from zhllama.pages.generation import generation_page
from zhllama.run import Run

JOURNAL, REJECTED = "journal.jsonl", "rejected.jsonl"
SAMPLE = 200  # instructions compared with all others for the similarity histogram


def generation_statistics(method: GenerationMethod, spending: Spending) -> Mapping[str, Any]:
    """The statistics of a run, as the manifest and the report show them."""
    pool = method.pool
    return {
        "wanted": pool.wanted,
        "kept": len(pool.accepted),  # the key of accepted tasks in manifests
        "rejected": pool.rejected,
        "candidates": pool.candidates,
        "reasons": dict(pool.reasons.most_common()),
        "flags": dict(pool.flags.most_common()),
        **spending.figures(),
    }


def write_products(
    run: Run, method: GenerationMethod, statistics: Mapping[str, Any], rejects: JsonLines, seed: int
) -> None:
    """Write all output files, once the method has accepted all replies."""
    accepted = method.pool.accepted
    rejects.close()
    alpaca_rows = [
        {"instruction": row.task.instruction, "input": row.task.input, "output": row.task.output}
        for row in accepted
    ]
    run.write("instructions.json", to_json(alpaca_rows))
    run.write("instructions.jsonl", json_lines(row.row() for row in accepted))
    for name, rows in method.products().items():
        run.write(name, to_json(rows))
    title = f"{run.out.name} · zhllama {run.command}"
    similarities = method.pool.nearest(SAMPLE)
    run.write("report.html", generation_page(title, statistics, accepted, similarities, seed))
