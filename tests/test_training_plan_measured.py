"""The planned memory against what the run takes: never less than it uses, at most half as much again (pairs: 1.6 times).

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

from tests.model_toys import base_vocabulary, line, write_model, write_tokenizer
from tests.test_training_run import cache, workspace
from zhllama.io.files import json_line
from zhllama.vocab.sentencepiece_vocabulary import Piece

__all__ = ["cache", "workspace"]
pytestmark = pytest.mark.slow
BIG = {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8, "num_attention_heads": 8,
       "num_key_value_heads": 8}  # fmt: skip
RUN = ("--text", "zh=zh.txt", "--eval-text", "zh=few.zh.txt", "--steps", 2, "--batch", 4, "--micro-batch", 4,
       "--block-size", 512, "--log-every", 1, "--precision", "fp32", "--json",
       "--gradient-checkpointing")  # fmt: skip


def resident() -> int:
    """Return the resident memory of this process in bytes, mapped weights included."""
    match = re.search(r"^VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.M)
    assert match is not None
    return int(match[1]) * 1024


def in_a_child(work: Callable[[], Any]) -> Any:
    """Return the result of some work, as JSON, from a child process with one thread."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        torch.set_num_threads(1)
        os.write(writing, json.dumps(work()).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        result = json.load(answer)
    os.wait()
    return result


def memory_of(folder: Path, *arguments: object) -> tuple[int, dict[str, Any]]:
    """Return the peak memory of a command line in bytes, above that of this process, and its figures."""

    def work() -> list[Any]:
        # Freed memory is returned at once (M_MMAP_THRESHOLD), so that glibc's free lists are not measured.
        ctypes.CDLL(None).mallopt(-3, 1 << 19)
        before, highest = resident(), 0

        def watch() -> None:
            nonlocal highest
            while True:
                highest = max(highest, resident())
                time.sleep(0.01)

        threading.Thread(target=watch, daemon=True).start()
        result = line(folder, *arguments)
        return [highest - before, result.out, result.err]

    used, out, err = in_a_child(work)
    assert out, err
    return used, json.loads(out)


def write_big(workspace: Path, **changed: object) -> None:
    """Write the model `big`, whose tokenizer has an id for each of its rows: others are not trained."""
    write_model(workspace / "big", rows=20_000, **{**BIG, **changed})
    base = base_vocabulary()
    added = [Piece(f"\u4e00{chr(0x4E01 + number)}", -1000.0 - number) for number in range(20_000 - base.size)]
    write_tokenizer(base.extended(added), workspace / "big")


@pytest.mark.parametrize(
    ("stage", "checkpointing", "rows"),
    [
        (1, "off", ("new", "--old-rows", 12000)),
        (1, "off", ("all",)),
        (2, "off", ("new", "--old-rows", 12000)),
        (2, "on", ("new", "--old-rows", 12000)),
    ],
)
def test_memory_is_as_planned(
    workspace: Path, stage: int, checkpointing: str, rows: tuple[object, ...]
) -> None:
    options = ("pretrain", "--stage", stage, "--rows", *rows, *RUN, checkpointing)
    write_big(workspace)
    # The memory of the libraries of this stage.
    alone = (*options[:3], "--rows", "all", *RUN, checkpointing)
    idle, _ = memory_of(workspace, *alone, "--model", "base", "--out", "idle")
    used, figures = memory_of(workspace, *options, "--model", "big", "--out", "run")
    planned = figures["memory_total_bytes"]
    print(f"\nplanned {planned >> 20} MiB, took {(used - idle) >> 20} MiB")
    assert 0.95 < planned / (used - idle) < 1.5


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("command", ["dpo", "kto", "reward"])
def test_memory_of_pairs_is_as_planned(workspace: Path, command: str, precision: str) -> None:
    """trl's loss of dpo and kto has the logits of all positions at once; a plan with chunks had a seventh of what dpo takes."""
    write_big(workspace, num_hidden_layers=2)
    rows = [{"prompt": f"说{n}？", "chosen": "中国" * 68, "rejected": "上海" * 68} for n in range(16)]
    (workspace / "pairs.jsonl").write_text("".join(map(json_line, rows)), encoding="utf-8")
    words = (command, "--data" if command == "kto" else "--pairs", "pairs.jsonl", "--max-length", 512, "--steps", 2, "--batch", 4,
             "--micro-batch", 4, "--precision", precision, "--validation-share", 0, "--json", "--gradient-checkpointing", "off")  # fmt: skip
    idle, _ = memory_of(workspace, *words, "--model", "base", "--out", "idle")
    used, figures = memory_of(workspace, *words, "--model", "big", "--out", "run")
    planned = figures["memory_total_bytes"]
    print(f"\nplanned {planned >> 20} MiB, took {(used - idle) >> 20} MiB")
    assert 0.95 < planned / (used - idle) < 1.6
