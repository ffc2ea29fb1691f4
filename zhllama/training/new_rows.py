"""Counts how often each new row of a model was met in training, and lists those that were hardly met."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zhllama.run import Run
from zhllama.training.packed_blocks import Example
from zhllama.vocab.any_tokenizer import AnyTokenizer
from zhllama.vocab.folder import table

FEW = 10  # a row that was met less often has hardly learned anything
SHOWN = 60  # on the page
EDGES = (0, 1, FEW, 100, 1000)  # of the groups of rows by how often they were met
FILE = "new_rows.tsv"


def count_new_ids(examples: Sequence[Example], first: int, rows: int) -> NDArray[np.int64]:
    """How often each id from `first` on occurs in the blocks that a run trains on; shape [rows - first]."""
    counts = np.zeros(rows - first, np.int64)
    for number in range(len(examples)):
        ids = examples[number]["input_ids"]
        counts += np.bincount(ids[(ids >= first) & (ids < rows)] - first, minlength=len(counts))
    return counts


def times_met(counts: NDArray[np.int64]) -> list[list[Any]]:
    """How many rows were met how often, by groups: `0`, `1–9`, and so on to the last, which is open."""
    groups: list[list[Any]] = []
    for low, high in zip(EDGES, (*EDGES[1:], None), strict=True):
        within = counts >= low if high is None else (counts >= low) & (counts < high)
        label = f"{low:,}+" if high is None else f"{low:,}" if high == low + 1 else f"{low:,}–{high - 1:,}"
        groups.append([label, int(within.sum())])
    return groups


def new_row_figures(
    run: Run, examples: Any, first: int | None, rows: int, tokenizer: AnyTokenizer
) -> dict[str, Any]:
    """Write the rows that were met less than FEW times into the run, and return the figures of all new rows.

    No figures for a model without new rows, and for a streamed text, which would have to be read again.
    """
    rows = min(rows, tokenizer.size)  # spare rows without an id are not trained
    if first is None or first >= rows or not hasattr(examples, "__len__"):
        return {}
    counts = count_new_ids(examples, first, rows)
    hardly_met = sorted(
        (int(counts[id - first]), id) for id in range(first, rows) if counts[id - first] < FEW
    )
    named = [(id, tokenizer.name(id) or "", count) for count, id in hardly_met]
    run.write(
        FILE, table([("id", "piece", "met"), *((str(id), name, str(count)) for id, name, count in named)])
    )
    return {
        "new_rows": {
            "rows": len(counts),
            "never_met": int((counts == 0).sum()),
            "met_fewer_than": FEW,
            "hardly_met": len(named),
            "by_times_met": times_met(counts),
            "least": [[name or f"<id {id}>", count] for id, name, count in named[:SHOWN]],
        }
    }
