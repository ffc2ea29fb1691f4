"""A plan beside what its run really took: memory within a quarter; time is printed, for it hangs on what else the machine does.

pytest -m slow -s tests/test_training_plan_measured.py
"""

import json
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.model_toys import line, write_model
from tests.test_training_run import cache, ground

__all__ = ["cache", "ground"]
pytestmark = pytest.mark.slow
BIG = {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8, "num_attention_heads": 8}
RUN = ("--text", "zh=zh.txt", "--eval-text", "zh=few.zh.txt", "--steps", 2, "--batch", 4, "--micro-batch", 4,
       "--block-size", 512, "--log-every", 1, "--precision", "fp32", "--json")  # fmt: skip


def anonymous() -> int:
    """Bytes of this process that are no file's."""
    found = re.search(r"^RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.M)
    assert found is not None
    return int(found[1]) * 1024


def taken(folder: Path, *arguments: object) -> tuple[int, dict[str, Any]]:
    """Bytes that a run takes at its highest over what this process holds, and its figures."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        torch.set_num_threads(1)
        before, highest = anonymous(), 0

        def watch() -> None:
            nonlocal highest
            while True:
                highest = max(highest, anonymous())
                time.sleep(0.01)

        threading.Thread(target=watch, daemon=True).start()
        told = line(folder, "pretrain", *arguments, *RUN)
        os.write(writing, json.dumps([highest - before, told.out, told.err]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        held, out, err = json.load(answer)
    os.wait()
    assert out, err
    return held, json.loads(out)


@pytest.mark.parametrize(
    "options",
    [
        ("--stage", 1, "--rows", "new", "--old-rows", 12000),
        ("--stage", 1, "--rows", "all"),
        ("--stage", 2, "--rows", "new", "--old-rows", 12000),
        ("--stage", 2, "--rows", "new", "--old-rows", 12000, "--gradient-checkpointing", "on"),
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_memory_is_as_planned(ground: Path, options: tuple[object, ...]) -> None:
    write_model(ground / "big", rows=20_000, num_key_value_heads=8, **BIG)
    idle, _ = taken(
        ground, "--stage", 1, "--rows", "all", "--model", "base", "--out", "idle"
    )  # the libraries
    held, figures = taken(ground, *options, "--model", "big", "--out", "run")
    planned, spent = figures["memory_total_bytes"], figures["tokens"] / figures["tokens_per_second"]
    print(
        f"\nplanned {planned >> 20} MiB, took {(held - idle) >> 20} MiB; planned {figures['seconds']} s, took {spent:.0f} s"
    )
    assert 0.75 < planned / (held - idle) < 1.25
