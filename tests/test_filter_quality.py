"""Precision and recall of the filters on 300 hand-marked tasks: `pytest -s tests/test_filter_quality.py` prints them.

The tasks were marked before the filters were written, and every third one was not looked at while they were tuned
(`held_out`). Each group of tasks is made for one filter; the groups without `known` are given to all filters but that of near
duplicates.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from zhllama.generation.filters import FILTERS, FilterOptions
from zhllama.generation.impossible_requests import read_acts
from zhllama.generation.task_pool import TaskOrigin, TaskPool
from zhllama.generation.tasks import SeedTask, Task
from zhllama.resources import shipped

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parent / "golden" / "filter_tasks.jsonl")
    .read_text(encoding="utf-8")
    .splitlines()
]
MEASURED = ("near duplicate", "black list", "needs what is not there", "broken characters")
OPTIONS = FilterOptions(acts=read_acts(shipped("prompts_zh", "blacklist.txt")))


def is_rejected(row: dict[str, Any], reason: str) -> bool:
    task = Task(row["instruction"], row["input"], row["output"])
    if reason != "near duplicate":
        return FILTERS[reason](task, OPTIONS) is not None
    others = frozenset(FILTERS)
    rejected: list[dict[str, Any]] = []
    pool = TaskPool(
        FilterOptions(without=others), [SeedTask("s", Task(row["known"], "", "好"))], 9, rejected.append
    )
    pool.offer(task, TaskOrigin(0, 0, 0))
    return bool(rejected)


def test_there_are_300_tasks_and_100_held_out() -> None:
    assert len(ROWS) == 300 and sum(row["held_out"] for row in ROWS) == 100
    assert len({(row["known"], row["instruction"], row["input"], row["output"]) for row in ROWS}) == 300


@pytest.mark.parametrize("reason", MEASURED)
def test_precision_and_recall(reason: str) -> None:
    figures = {}
    for part in (None, True):
        rows = [
            row
            for row in ROWS
            if bool(row["known"]) == (reason == "near duplicate") and part in (None, row["held_out"])
        ]
        wanted = [reason in row["reasons"] for row in rows]
        found = [is_rejected(row, reason) for row in rows]
        right = sum(a and b for a, b in zip(wanted, found, strict=True))
        figures[part] = right / sum(found), right / sum(wanted), len(rows)
    for part, (precision, recall, count) in figures.items():
        print(f"\n{reason}{' (held out)' if part else ''}: {precision:.3f} {recall:.3f} of {count} tasks")
    assert figures[None][0] >= 0.95 and figures[None][1] >= 0.9
