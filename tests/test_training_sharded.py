"""Parameters cut up over two processes by the shipped files: what one process computes, killed or not.

ZeRO's two are skipped where deepspeed is not installed, as in `scripts/test.sh`: it needs a compiler.
pytest -m slow tests/test_training_sharded.py
"""

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from tests.model_toys import line
from tests.test_training_run import cache, ground, losses, rows_of, stage

__all__ = ["cache", "ground"]
HERE = Path(__file__).parent
LAUNCH = (sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--mixed_precision", "no",
          "--main_process_port", "29741")  # fmt: skip
ZERO = [pytest.param(name, marks=[pytest.mark.slow, pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs deepspeed")])
        for name in ("zero2", "zero3")]  # fmt: skip


def start(ground: Path, how: str, *arguments: object) -> subprocess.Popen[str]:
    launch = (
        *LAUNCH,
        "--config_file",
        HERE.parent / "scripts" / "launch" / f"{how}.yaml",
        HERE / "gloo_as_gpus.py",
    )
    env = {**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*map(str, launch), *map(str, arguments)],
        cwd=ground, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize("how", ["fsdp", *ZERO])
@pytest.mark.parametrize(
    ("number", "more"), [pytest.param(1, (), marks=pytest.mark.slow), (2, ("--lora-dropout", 0))]
)
def test_two_processes_compute_what_one_does(
    ground: Path, how: str, number: int, more: tuple[object, ...]
) -> None:
    settings = ("--tokenizer", "tok", "--steps", 4, *more)
    assert line(ground, *stage(number, "base", "one", *settings)).code == 0
    running = start(ground, how, *stage(number, "base", "two", *settings))
    _, told = running.communicate(timeout=200)
    assert running.returncode == 0, told[-3000:]
    assert how != "fsdp" or "Warning" not in told
    assert "whole matrices with the gradient of old rows masked" in told
    assert losses(ground / "two") == pytest.approx(losses(ground / "one"), abs=1e-5)
    one, two = rows_of(ground / "one"), rows_of(ground / "two")
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[name].float(), two[name].float(), atol=1e-4) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fsdp", *ZERO])
def test_a_killed_one_goes_on(ground: Path, how: str) -> None:
    settings = ("--tokenizer", "tok", "--steps", 12, "--lora-dropout", 0, "--save-every", 2)
    whole = start(ground, how, *stage(2, "base", "whole", *settings))
    assert whole.wait(timeout=200) == 0
    arguments = stage(2, "base", "killed", *settings, "--resume")
    running = start(ground, how, *arguments)
    while len(losses(ground / "killed") if (ground / "killed" / "log.jsonl").exists() else []) < 5:
        time.sleep(0.02)
        assert running.poll() is None
    for process in (
        *psutil.Process(running.pid).children(recursive=True),
        running,
    ):  # workers have sessions of their own
        process.kill()
    running.wait()
    assert not (ground / "killed" / "manifest.json").exists()
    again = start(ground, how, *arguments)
    _, told = again.communicate(timeout=200)
    assert again.returncode == 0, told[-3000:]
    assert losses(ground / "killed") == losses(ground / "whole")
    assert all(
        torch.equal(rows, rows_of(ground / "whole")[name])
        for name, rows in rows_of(ground / "killed").items()
    )


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fsdp", *ZERO])
def test_a_model_trained_as_a_whole_is_written_as_a_whole(ground: Path, how: str) -> None:
    samples = [
        {"instruction": f"说说{name}", "output": f"{name}，常见而有用。"} for name in "山水火木金土日月星云"
    ]
    (ground / "data.json").write_text(json.dumps(samples, ensure_ascii=False), encoding="utf-8")
    settings = ("sft", "--model", "base", "--data", "data.json", "--full", "--max-length", 256, "--batch", 4, "--micro-batch", 2,
                "--steps", 4, "--log-every", 1, "--precision", "fp32")  # fmt: skip
    assert line(ground, *settings, "--out", "one").code == 0
    running = start(ground, how, *settings, "--out", "two")
    _, told = running.communicate(timeout=200)
    assert running.returncode == 0, told[-3000:]
    assert losses(ground / "two") == pytest.approx(losses(ground / "one"), abs=1e-5)
    one, two = (load_file(ground / name / "tuned" / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)
