"""What a run leaves behind: instructions in Alpaca's form and with their provenance, the rejects, the report."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from zhllama.files import to_json
from zhllama.generate.methods import Method
from zhllama.generate.page import page
from zhllama.run import Run

JOURNAL, REJECTED = "journal.jsonl", "rejected.jsonl"
SAMPLE = 200  # instructions compared with all others, for the histogram of similarity


class Rejects:
    """Rejects as they fall, on the disk and not in memory; a whole file once `close` has named it."""

    def __init__(self, folder: Path) -> None:
        self._path, self._part = folder / REJECTED, folder / f".{REJECTED}.part"
        self._file: IO[str] = self._part.open("w", encoding="utf-8")

    def __call__(self, row: Mapping[str, Any]) -> None:
        self._file.write(_line(row))

    def close(self) -> None:
        """Make what was written the whole file."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._part.replace(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)


def write_products(run: Run, method: Method, figures: Mapping[str, Any], rejects: Rejects, seed: int) -> None:
    """Write every product of a run whose replies are all folded."""
    kept = method.shelf.kept
    rejects.close()
    plain = [
        {"instruction": k.task.instruction, "input": k.task.input, "output": k.task.output} for k in kept
    ]
    run.write("instructions.json", to_json(plain))
    run.write("instructions.jsonl", "".join(_line(k.row()) for k in kept))
    for name, rows in method.products().items():
        run.write(name, to_json(rows))
    run.write(
        "report.html",
        page(f"{run.out.name} · zhllama {run.command}", figures, kept, method.shelf.nearest(SAMPLE), seed),
    )


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
