"""What a run leaves behind: instructions in Alpaca's form and with their provenance, the rejects, the report."""

from collections.abc import Mapping
from typing import Any

from zhllama.generation.methods import Method
from zhllama.generation.page import page
from zhllama.io.files import JsonLines, json_lines, to_json
from zhllama.run import Run

JOURNAL, REJECTED = "journal.jsonl", "rejected.jsonl"
SAMPLE = 200  # instructions compared with all others, for the histogram of similarity


def write_products(
    run: Run, method: Method, figures: Mapping[str, Any], rejects: JsonLines, seed: int
) -> None:
    """Write every product of a run whose replies are all folded."""
    kept = method.shelf.kept
    rejects.close()
    plain = [
        {"instruction": k.task.instruction, "input": k.task.input, "output": k.task.output} for k in kept
    ]
    run.write("instructions.json", to_json(plain))
    run.write("instructions.jsonl", json_lines(k.row() for k in kept))
    for name, rows in method.products().items():
        run.write(name, to_json(rows))
    run.write(
        "report.html",
        page(f"{run.out.name} · zhllama {run.command}", figures, kept, method.shelf.nearest(SAMPLE), seed),
    )
