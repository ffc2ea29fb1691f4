"""The planned memory against what the run takes: never less than it uses, at most half as much again.

pytest -m slow -s tests/test_training_plan_measured.py
"""

import ctypes
import json
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.model_toys import line, write_model
from tests.test_training_run import cache, ground

__all__ = ["cache", "ground"]
pytestmark = pytest.mark.slow
BIG = {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8, "num_attention_heads": 8,
       "num_key_value_heads": 8}  # fmt: skip
RUN = ("--text", "zh=zh.txt", "--eval-text", "zh=few.zh.txt", "--steps", 2, "--batch", 4, "--micro-batch", 4,
       "--block-size", 512, "--log-every", 1, "--precision", "fp32", "--json",
       "--gradient-checkpointing")  # fmt: skip


def resident() -> int:
    """Bytes of memory that this process has now, mapped weights among them."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.M)
    assert found is not None
    return int(found[1]) * 1024


def in_a_child(work: Callable[[], Any]) -> Any:
    """What some work gives, as JSON, in a process of its own with one thread."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        torch.set_num_threads(1)
        os.write(writing, json.dumps(work()).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        found = json.load(answer)
    os.wait()
    return found


def memory_of(folder: Path, how: str, *arguments: object) -> tuple[int, dict[str, Any]]:
    """Bytes that a run takes at its highest over what this process holds, and its figures."""

    def work() -> list[Any]:
        # What is freed goes back at once (M_MMAP_THRESHOLD), or glibc's leftovers would be measured, not the run.
        ctypes.CDLL(None).mallopt(-3, 1 << 19)
        before, highest = resident(), 0

        def watch() -> None:
            nonlocal highest
            while True:
                highest = max(highest, resident())
                time.sleep(0.01)

        threading.Thread(target=watch, daemon=True).start()
        told = line(folder, "pretrain", *arguments, *RUN, how)
        return [highest - before, told.out, told.err]

    held, out, err = in_a_child(work)
    assert out, err
    return held, json.loads(out)


@pytest.mark.parametrize(
    ("stage", "how", "rows"),
    [
        (1, "off", ("new", "--old-rows", 12000)),
        (1, "off", ("all",)),
        (2, "off", ("new", "--old-rows", 12000)),
        (2, "on", ("new", "--old-rows", 12000)),
    ],
)
def test_memory_is_as_planned(ground: Path, stage: int, how: str, rows: tuple[object, ...]) -> None:
    options = ("--stage", stage, "--rows", *rows)
    write_model(ground / "big", rows=20_000, **BIG)
    # What the libraries of this stage hold by themselves.
    idle, _ = memory_of(ground, how, *options[:2], "--rows", "all", "--model", "base", "--out", "idle")
    held, figures = memory_of(ground, how, *options, "--model", "big", "--out", "run")
    planned = figures["memory_total_bytes"]
    print(f"\nplanned {planned >> 20} MiB, took {(held - idle) >> 20} MiB")
    assert 0.95 < planned / (held - idle) < 1.5
