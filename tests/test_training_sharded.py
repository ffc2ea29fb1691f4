"""Parameters sharded over two processes by the shipped launch files: the results of one process, killed or not.

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

from tests.align_toys import write_ranked
from tests.model_toys import line, write_model
from tests.test_training_run import cache, losses, rows_of, stage, workspace
from zhllama.training.trainer import read_log

__all__ = ["cache", "workspace"]
HERE = Path(__file__).parent
LAUNCH = (sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--mixed_precision", "no",
          "--main_process_port", "29741")  # fmt: skip
ZERO = [pytest.param(name, marks=[pytest.mark.slow, pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs deepspeed")])
        for name in ("zero2", "zero3")]  # fmt: skip


def start(workspace: Path, method: str, *arguments: object) -> subprocess.Popen[str]:
    launch = (
        *LAUNCH,
        "--config_file",
        HERE.parent / "scripts" / "launch" / f"{method}.yaml",
        HERE / "gloo_as_gpus.py",
    )
    env = {**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*map(str, launch), *map(str, arguments)],
        cwd=workspace, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize("method", ["fsdp", *ZERO])
@pytest.mark.parametrize(
    ("number", "more"), [pytest.param(1, (), marks=pytest.mark.slow), (2, ("--lora-dropout", 0))]
)
def test_two_processes_compute_what_one_does(
    workspace: Path, method: str, number: int, more: tuple[object, ...]
) -> None:
    settings = ("--tokenizer", "tok", "--steps", 4, *more)
    assert line(workspace, *stage(number, "base", "one", *settings)).code == 0
    running = start(workspace, method, *stage(number, "base", "two", *settings))
    _, errors = running.communicate(timeout=200)
    assert running.returncode == 0, errors[-3000:]
    assert method != "fsdp" or "Warning" not in errors
    assert "whole matrices with the gradient of old rows masked" in errors
    assert losses(workspace / "two") == pytest.approx(losses(workspace / "one"), abs=1e-5)
    one, two = rows_of(workspace / "one"), rows_of(workspace / "two")
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[name].float(), two[name].float(), atol=1e-4) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fsdp", *ZERO])
def test_a_killed_run_resumes(workspace: Path, method: str) -> None:
    settings = ("--tokenizer", "tok", "--steps", 12, "--lora-dropout", 0, "--save-every", 2)
    whole = start(workspace, method, *stage(2, "base", "whole", *settings))
    assert whole.wait(timeout=200) == 0
    arguments = stage(2, "base", "killed", *settings, "--resume")
    running = start(workspace, method, *arguments)
    while len(losses(workspace / "killed") if (workspace / "killed" / "log.jsonl").exists() else []) < 5:
        time.sleep(0.02)
        assert running.poll() is None
    for process in (
        *psutil.Process(running.pid).children(recursive=True),
        running,
    ):  # workers have their own sessions
        process.kill()
    running.wait()
    assert not (workspace / "killed" / "manifest.json").exists()
    again = start(workspace, method, *arguments)
    _, errors = again.communicate(timeout=200)
    assert again.returncode == 0, errors[-3000:]
    assert losses(workspace / "killed") == losses(workspace / "whole")
    assert all(
        torch.equal(rows, rows_of(workspace / "whole")[name])
        for name, rows in rows_of(workspace / "killed").items()
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fsdp", *ZERO])
def test_a_fully_trained_model_is_written_whole(workspace: Path, method: str) -> None:
    samples = [
        {"instruction": f"说说{name}", "output": f"{name}，常见而有用。"} for name in "山水火木金土日月星云"
    ]
    (workspace / "data.json").write_text(json.dumps(samples, ensure_ascii=False), encoding="utf-8")
    settings = ("sft", "--model", "base", "--data", "data.json", "--full", "--max-length", 256, "--batch", 4, "--micro-batch", 2,
                "--steps", 4, "--log-every", 1, "--precision", "fp32")  # fmt: skip
    assert line(workspace, *settings, "--out", "one").code == 0
    running = start(workspace, method, *settings, "--out", "two")
    _, errors = running.communicate(timeout=200)
    assert running.returncode == 0, errors[-3000:]
    assert losses(workspace / "two") == pytest.approx(losses(workspace / "one"), abs=1e-5)
    one, two = (load_file(workspace / name / "tuned" / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, and ranked and labelled answers."""
    folder = tmp_path_factory.mktemp("pairs")
    write_model(folder / "base")
    write_ranked(folder / "pairs.jsonl")
    return folder


PAIRS = [
    pytest.param("dpo", (), id="dpo", marks=pytest.mark.slow),
    pytest.param("dpo", ("--full",), id="dpo-full", marks=pytest.mark.slow),
    pytest.param("reward", (), id="reward", marks=pytest.mark.slow),
    pytest.param("kto", (), id="kto", marks=pytest.mark.slow),
    pytest.param("kto", ("--full",), id="kto-full", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("method", ["fsdp", *ZERO])
@pytest.mark.parametrize(("command", "more"), PAIRS)
def test_two_processes_prefer_what_one_does(
    ground: Path, tmp_path: Path, method: str, command: str, more: tuple[str, ...]
) -> None:
    data = ("--data" if command == "kto" else "--pairs", "pairs.jsonl")
    sizes = ("--max-length", 256, "--batch", 8, "--log-every", 1, "--precision", "fp32")
    steps = ("--steps", 4, "--eval-every", 2, "--lr", 1e-3)
    words = (command, "--model", "base", *data, *sizes, *steps, *more)
    # KTO estimates how far the model has moved on the answers that all processes have at a time.
    told = line(ground, *words, "--micro-batch", 4, "--out", tmp_path / "one")
    assert told.code == 0, told.err
    running = start(ground, method, *words, "--micro-batch", 2, "--out", tmp_path / "two")
    _, errors = running.communicate(timeout=400)
    assert running.returncode == 0, errors[-3000:]
    one, two = (read_log(tmp_path / out / "log.jsonl") for out in ("one", "two"))
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for key in ("loss", "accuracy_validation", "margin_validation"):
        wanted = [row[key] for row in one if key in row]
        assert wanted and [row[key] for row in two if key in row] == pytest.approx(wanted, abs=1e-5)
    found = [
        json.loads((tmp_path / out / "figures.json").read_text(encoding="utf-8")) for out in ("one", "two")
    ]
    measured = [{k: list(v.values()) for k, v in f.items() if k.endswith("_validation")} for f in found]
    assert measured[0].keys() == measured[1].keys() and measured[0]
    assert all(measured[1][k] == pytest.approx(v, abs=1e-5) for k, v in measured[0].items())
    (folder,) = [name for name in ("tuned", "adapter", "reward") if (tmp_path / "one" / name).is_dir()]
    file = "model.safetensors" if more else "adapter_model.safetensors"
    left, right = (load_file(tmp_path / out / folder / file) for out in ("one", "two"))
    assert left.keys() == right.keys()
    assert all(torch.allclose(left[name], right[name], atol=1e-4) for name in left)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fsdp", *ZERO])
@pytest.mark.parametrize(("command", "more"), [("dpo", ()), ("dpo", ("--full",)), ("reward", ())])
def test_killed_preferences_resume(
    ground: Path, tmp_path: Path, method: str, command: str, more: tuple[str, ...]
) -> None:
    sizes = ("--max-length", 256, "--batch", 8, "--micro-batch", 2, "--log-every", 1, "--precision", "fp32")
    steps = ("--steps", 8, "--save-every", 2, "--lr", 1e-3, "--resume")
    words = (command, "--model", "base", "--pairs", "pairs.jsonl", *sizes, *steps, *more, "--out")
    whole = start(ground, method, *words, tmp_path / "whole")
    _, errors = whole.communicate(timeout=400)
    assert whole.returncode == 0, errors[-3000:]
    running = start(ground, method, *words, tmp_path / "killed")
    while not any((tmp_path / "killed" / "checkpoints").glob("checkpoint-*")):
        time.sleep(0.02)
        assert running.poll() is None
    for process in (*psutil.Process(running.pid).children(recursive=True), running):
        process.kill()
    running.wait()
    assert not (tmp_path / "killed" / "manifest.json").exists()
    again = start(ground, method, *words, tmp_path / "killed")
    _, errors = again.communicate(timeout=400)
    assert again.returncode == 0, errors[-3000:]
    found = []
    for out in ("whole", "killed"):
        log = read_log(tmp_path / out / "log.jsonl")
        (folder,) = [name for name in ("tuned", "adapter", "reward") if (tmp_path / out / name).is_dir()]
        (file,) = (tmp_path / out / folder).glob("*model.safetensors")
        found.append(([(row["step"], row.get("loss")) for row in log], load_file(file)))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(tensor, found[1][1][name]) for name, tensor in found[0][1].items())
