"""Training killed by SIGKILL at random moments of its whole time, until it is done: equal to the byte.

pytest -m slow tests/faults/test_training_kills.py
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.model_toys import line
from tests.test_sft import ALPACA, sft, write_rows
from tests.test_training_run import cache, losses, stage, workspace

__all__ = ["cache", "workspace"]
KILLS = 50
STEPS = ("--steps", 24, "--save-every", 2)
FILES = ("rows.safetensors", "adapter/adapter_model.safetensors", "tokenizer/tokenizer.json")


def killed_after(folder: Path, arguments: tuple[object, ...], seconds: float) -> bool:
    """Run a command line in a child, SIGKILL it after so many seconds, and return whether it was still alive."""
    child = os.fork()
    if child == 0:
        os._exit(line(folder, *arguments).code)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def outputs(run: Path) -> Iterator[bytes]:
    return ((run / name).read_bytes() for name in FILES if (run / name).is_file())


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "kills"), [("stage 1", 17), ("stage 2", 17), ("sft", KILLS - 34)])
def test_fifty_kills_and_the_same_bytes(workspace: Path, kind: str, kills: int) -> None:
    folder, random = workspace, Random(kind)
    write_rows(folder / "rows.jsonl", ALPACA[20:220])
    write_rows(folder / "few.jsonl", ALPACA[:10])

    def run(out: str, *more: object) -> tuple[object, ...]:
        if kind == "sft":
            return sft("base", out, *STEPS, *more)
        return stage(int(kind[-1]), "base", out, "--tokenizer", "tok", *STEPS, *more)

    told = line(folder, *run("whole"))  # which also imports what each child then has
    assert told.code == 0, told.err
    begun = time.monotonic()
    assert not killed_after(folder, run("timed"), 600)
    whole = time.monotonic() - begun
    left, rounds = kills, 0
    while left:
        out, rounds = f"killed-{rounds}", rounds + 1
        resumed = False
        while left and killed_after(folder, run(out, "--resume"), random.uniform(0, whole / (1 + resumed))):
            left, resumed = left - 1, True
        if not (folder / out / "manifest.json").is_file():
            told = line(folder, *run(out, "--resume"))
            assert told.code == 0, told.err
        found, expected = list(outputs(folder / out)), list(outputs(folder / "whole"))
        assert found == expected and len(found) >= 2, (kind, out)
        assert losses(folder / out) == losses(folder / "whole")
    assert left == 0 and rounds
