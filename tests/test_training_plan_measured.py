"""A plan beside what its run really took: never less memory than was alive, at most half as much again; and the time of one
core, in seconds of the processor, since seconds of the clock hang on what else the machine does.

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
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.model_toys import line, write_model
from tests.test_training_run import cache, ground
from zhllama.training import hardware as machine
from zhllama.training import trainer

__all__ = ["cache", "ground"]
pytestmark = pytest.mark.slow
BIG = {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8, "num_attention_heads": 8,
       "num_key_value_heads": 8}  # fmt: skip
SMALL = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "num_attention_heads": 4,
         "num_key_value_heads": 2}  # fmt: skip
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


def time_of(folder: Path, *arguments: object) -> tuple[float, float]:
    """Seconds of the processor that a run was planned to take, and took by the median of its steps."""

    def work() -> list[Any]:
        machine._product_speed.cache_clear()  # what was measured by the clock
        machine._softmax_speed.cache_clear()
        machine.time = SimpleNamespace(perf_counter=time.process_time)  # type: ignore[attr-defined]
        trainer.time = SimpleNamespace(monotonic=time.process_time)  # type: ignore[attr-defined]
        told = line(folder, "pretrain", *RUN, "off", *arguments)
        return [told.out, told.err]

    out, err = in_a_child(work)
    assert out, err
    figures = json.loads(out)
    return figures["seconds"], figures["tokens"] / figures["tokens_per_second"]


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


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize(("name", "rows"), [("big", 20_000), ("small", 8_000)])
def test_time_is_as_planned(ground: Path, name: str, rows: int, stage: int, precision: str) -> None:
    """Of a model whose products are most of it, and of one where they are not."""
    if precision == "bf16" and not machine.has_amx():
        pytest.skip("this processor has no products in bf16")
    write_model(ground / name, rows=rows, **(BIG if name == "big" else SMALL))
    learning = ("--stage", stage, "--rows", "new", "--old-rows", rows * 3 // 4, "--precision", precision)
    planned, took = time_of(ground, "--model", name, "--out", "run", "--force", "--steps", 5, *learning)
    print(f"\n{name}, stage {stage}, {precision}: planned {planned} s, took {took:.1f} s")
    assert 0.7 < planned / took < 1.4
