"""The command pretrain on two-layer models: unchanged bytes, resumption after kills, equality of two processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.model_toys import larger_vocabulary, line, write_model, write_tokenizer
from zhllama.manifest import read_manifest
from zhllama.model.load import open_model
from zhllama.resources import shipped
from zhllama.training.options import PretrainingOptions
from zhllama.training.train import warmup_steps
from zhllama.training.trainer import read_log

COMMON = ("--block-size", 64, "--batch", 8, "--micro-batch", 4, "--lr", 0.01, "--log-every", 1, "--save-every", 3,
          "--eval-every", 100, "--precision", "fp32")  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZHLLAMA_CACHE", str(tmp_path_factory.getbasetemp() / "blocks"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Return a folder with `base`, `tok` (a larger vocabulary), `zh.txt` and `en.txt`."""
    write_model(tmp_path / "base")
    write_tokenizer(larger_vocabulary(), tmp_path / "tok")
    for label in ("zh", "en"):
        some = [
            p.read_text(encoding="utf-8") for p in sorted(shipped("corpora", "sample").glob(f"{label}_*.txt"))
        ]
        (tmp_path / f"{label}.txt").write_text("\n\n".join(some), encoding="utf-8")
        (tmp_path / f"few.{label}.txt").write_text(some[0][:500], encoding="utf-8")
    return tmp_path


def stage(number: int, model: str, out: str, *more: object) -> tuple[object, ...]:
    text = ("--text", "zh=zh.txt:9", "--text", "en=en.txt:1") if "--text" not in more else ()
    few = (
        ("--eval-text", "zh=few.zh.txt", "--eval-text", "en=few.en.txt") if "--eval-every" not in more else ()
    )
    return ("pretrain", "--stage", number, "--model", model, "--out", out, *text, *few, *COMMON, *more)


def rows_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "rows.safetensors")


def losses(run: Path) -> list[float]:
    return [
        row["loss"] for row in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if "loss" in row
    ]


def test_two_stages_and_their_outputs(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zhllama.training import outputs

    seen: list[Any] = []
    write = outputs.write_outputs
    monkeypatch.setattr(outputs, "write_outputs", lambda *values: (seen.append(values[2]), write(*values))[1])
    result = line(workspace, *stage(1, "base", "one", "--tokenizer", "tok", "--steps", 6, "--eval-every", 3))
    assert result.code == 0, result.err
    assert "the model had 600 rows and grew to 667" in result.err and "zh bits/char" in result.out
    grown = load_file(workspace / "one" / "grown" / "model.safetensors")
    model, names = seen[0].model, {"embed_tokens": "model.embed_tokens", "lm_head": "lm_head"}
    for name, parameter in model.named_parameters():
        if not name.endswith(".rows"):
            assert torch.equal(parameter, grown[name]), name
    for name in names.values():
        matrix = model.get_submodule(name).weight
        assert torch.equal(matrix[:600], grown[f"{name}.weight"][:600])
        assert not torch.equal(matrix[600:], grown[f"{name}.weight"][600:])
    rows = rows_of(workspace / "one")
    assert rows["input_ids"].tolist() == rows["output_ids"].tolist() == list(range(600, 667))
    assert torch.equal(rows["input_rows"], model.get_submodule("model.embed_tokens").weight[600:])
    figures = read_manifest(workspace / "one")["figures"]
    assert (
        figures["n_old"] == 600
        and figures["zh_bits_per_character"]["after"] < figures["zh_bits_per_character"]["before"]
    )
    assert (
        not (workspace / "one" / "checkpoints").exists()
        and (workspace / "one" / "tokenizer" / "tokenizer.model").exists()
    )
    page = (workspace / "one" / "report.html").read_text(encoding="utf-8")
    assert (
        "<svg" in page
        and "prefers-color-scheme: dark" in page
        and "http" not in page.replace("http-equiv", "")
    )

    result = line(workspace, *stage(2, "one", "two", "--steps", 6, "--eval-every", 3))
    assert result.code == 0, result.err
    first, second = (read_manifest(workspace / run)["figures"]["en_bits_per_byte"] for run in ("one", "two"))
    assert second["before"] == pytest.approx(first["after"], abs=1e-5)
    assert "grown" not in result.err and {p.name for p in (workspace / "two" / "adapter").iterdir()} >= {
        "adapter_config.json"
    }
    assert read_manifest(workspace / "two")["parents"] == [str(workspace / "one")]
    assert not any("embed" in name or "lm_head" in name
                   for name in load_file(workspace / "two" / "adapter" / "adapter_model.safetensors"))  # fmt: skip
    opened = open_model(workspace / "two").model
    assert torch.equal(opened.get_input_embeddings().weight[600:], rows_of(workspace / "two")["input_rows"])


def test_tied_bloom_trains_used_rows_and_notes_that_documents_see_each_other(workspace: Path) -> None:
    write_model(workspace / "bloom", kind="bloom", tied=True)
    result = line(workspace, *stage(1, "bloom", "run", "--tokenizer", "tok", "--rows", "used", "--steps", 2))
    assert result.code == 0, result.err
    assert "bloom: documents of one block would see each other, so each has a block of its own" in result.err
    rows = rows_of(workspace / "run")
    assert rows.keys() == {"input_rows", "input_ids"}
    assert 0 < (rows["input_ids"] < 600).sum() < 600 and rows["input_ids"].tolist() == sorted(
        rows["input_ids"].tolist()
    )


@pytest.mark.parametrize(
    ("kind", "plain"),
    [("gemma", False), pytest.param("gemma2", True, marks=pytest.mark.slow), ("mixtral", False)],
)
def test_models_that_scale_cap_or_route(workspace: Path, kind: str, plain: bool) -> None:
    """The loss before the first step is transformers' own; old rows stay equal to the byte; export proves the result."""
    more = {"num_local_experts": 4} if kind == "mixtral" else {"head_dim": 16}
    write_model(workspace / kind, kind=kind, **more)
    result = line(workspace, *stage(2, kind, "run", "--tokenizer", "tok", "--rows", "new", "--steps", 2))
    assert result.code == 0, result.err
    assert ("trained with whole matrices and transformers' own loss" in result.err) is plain
    done = line(workspace, "export", "run", "--out", "plain")
    assert done.code == 0, done.err
    base, trained = open_model(workspace / kind).model, open_model(workspace / "plain").model
    for module in ("get_input_embeddings", "get_output_embeddings"):
        before, after = getattr(base, module)().weight, getattr(trained, module)().weight
        assert torch.equal(after[:600], before) and len(after) == 667
    measured = line(workspace, "eval", "plain", "--text", "zh.txt", "--json")
    assert measured.code == 0, measured.err


def test_adapters_alone(workspace: Path) -> None:
    result = line(workspace, *stage(2, "base", "run", "--rows", "none", "--steps", 2))
    assert result.code == 0, result.err
    assert not (workspace / "run" / "rows.safetensors").exists() and (workspace / "run" / "adapter").is_dir()


def test_mixed_precision_keeps_its_rows_in_fp32(workspace: Path) -> None:
    result = line(workspace, *stage(2, "base", "run", "--rows", "all", "--steps", 2, "--precision", "bf16"))
    assert result.code == 0, result.err
    assert rows_of(workspace / "run")["input_rows"].dtype == torch.float32


def test_gradient_checkpointing_changes_no_loss(workspace: Path) -> None:
    for out, how in (("with", "on"), ("without", "off")):
        line(
            workspace,
            *stage(
                2,
                "base",
                out,
                "--rows",
                "all",
                "--steps",
                3,
                "--lora-dropout",
                0,
                "--gradient-checkpointing",
                how,
            ),
        )
    assert losses(workspace / "with") == pytest.approx(losses(workspace / "without"), abs=1e-6)


def killed_at(folder: Path, arguments: tuple[object, ...], out: Path, lines: int, delay: float = 0.0) -> bool:
    """Run a command line in a child, SIGKILL it when its log has so many lines, and return whether it was still alive."""
    child = os.fork()
    if child == 0:
        os._exit(line(folder, *arguments).code)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        log = out / "log.jsonl"
        done, _ = os.waitpid(child, os.WNOHANG)
        if done:
            return False
        if log.exists() and log.read_bytes().count(b"\n") >= lines:
            break
        time.sleep(0.002)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def test_killed_anywhere_a_run_ends_with_the_same_bytes(workspace: Path) -> None:
    """Killed before the first checkpoint, after one, and while one is written; log lines 1 to 12 are steps."""
    settings = ("--tokenizer", "tok", "--rows", "used", "--steps", 12)
    assert line(workspace, *stage(2, "base", "whole", *settings)).code == 0
    arguments = stage(2, "base", "killed", *settings, "--resume")
    kills = [
        killed_at(workspace, arguments, workspace / "killed", *when)
        for when in ((3, 0), (5, 0.03), (8, 0.01), (11, 0.05))
    ]
    assert kills[0] and sum(kills) >= 3
    result = line(workspace, *arguments)
    assert result.code == 0, result.err
    for name in ("rows.safetensors", "adapter/adapter_model.safetensors"):
        assert (workspace / "killed" / name).read_bytes() == (workspace / "whole" / name).read_bytes(), name
    assert losses(workspace / "killed") == losses(workspace / "whole")


def test_a_run_of_one_step_trains(workspace: Path) -> None:
    """Its only step was the first of the warmup, which has the rate 0: text of less than a batch trained nothing."""
    done = line(workspace, *stage(1, "base", "run", "--rows", "all", "--steps", 1))
    assert done.code == 0, done.err
    (step,) = (row for row in read_log(workspace / "run" / "log.jsonl") if "loss" in row)
    assert step["learning_rate"] > 0
    before = load_file(workspace / "base" / "model.safetensors")["model.embed_tokens.weight"]
    assert not torch.equal(rows_of(workspace / "run")["input_rows"].float(), before.float())


@pytest.mark.parametrize(
    ("steps", "warmup", "expected"), [(1, 0.05, 0), (1, 0, 0), (2, 0.9, 1), (3000, 0.05, 150), (10, 0.05, 1)]
)
def test_the_warmup_leaves_a_step(steps: int, warmup: float, expected: int) -> None:
    assert warmup_steps(PretrainingOptions(stage=1, warmup=warmup), steps) == expected


def test_a_streamed_run_resumes_too(workspace: Path) -> None:
    settings = ("--tokenizer", "tok", "--steps", 8, "--stream")
    assert line(workspace, *stage(1, "base", "whole", *settings)).code == 0
    arguments = stage(1, "base", "killed", *settings, "--resume")
    assert killed_at(workspace, arguments, workspace / "killed", 6)
    assert line(workspace, *arguments).code == 0
    assert (workspace / "killed" / "rows.safetensors").read_bytes() == (
        workspace / "whole" / "rows.safetensors"
    ).read_bytes()


def test_two_processes_compute_what_one_does(workspace: Path) -> None:
    settings = ("--tokenizer", "tok", "--steps", 4, "--lora-dropout", 0)
    assert line(workspace, *stage(2, "base", "one", *settings)).code == 0
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "29731",
        "-m",
        "zhllama",
    ]
    done = subprocess.run(
        [*command, *map(str, stage(2, "base", "two", *settings))], cwd=workspace, capture_output=True, text=True,
        timeout=200, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(workspace / "two") == pytest.approx(losses(workspace / "one"), abs=1e-5)
    for name, rows in rows_of(workspace / "two").items():
        assert torch.allclose(rows.float(), rows_of(workspace / "one")[name].float(), atol=1e-4)


def test_a_rise_in_english_bits_warns_and_with_strict_stops(workspace: Path) -> None:
    settings = ("--rows", "all", "--steps", 4, "--eval-every", 2, "--lr", 0.5, "--text", "zh=zh.txt")
    result = line(workspace, *stage(1, "base", "warned", *settings))
    assert result.code == 0 and re.search(
        r"step 2: English went from [\d.]+ to [\d.]+ bits per byte", result.err
    )
    result = line(workspace, *stage(1, "base", "stopped", *settings, "--strict"))
    assert result.code == 1 and "give English text more weight" in result.err.splitlines()[-1]
    assert not (workspace / "stopped" / "manifest.json").exists()


def test_a_loss_that_is_not_finite_stops_and_writes_its_batch(workspace: Path) -> None:
    write_model(workspace / "broken")
    weights = load_file(workspace / "broken" / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0] = 3e38  # a number, whose products are none
    from safetensors.torch import save_file

    save_file(weights, workspace / "broken" / "model.safetensors", metadata={"format": "pt"})
    result = line(workspace, *stage(1, "broken", "run", "--rows", "all", "--steps", 3))
    assert result.code == 1 and "the loss of step 1 is nan" in result.err.splitlines()[-1]
    batch = json.loads((workspace / "run" / "not-finite-step-1.json").read_text(encoding="utf-8"))
    assert (
        batch["step"] == 1
        and len(batch["text"]) == 4
        and not any((workspace / "run" / "checkpoints").iterdir())
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """Return the mount point of a disk of 1.5 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1536k", "tmpfs", str(place)], capture_output=True
    ).returncode:
        pytest.skip("no right to mount a small tmpfs")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_keeps_the_last_good_checkpoint(workspace: Path, small_disk: Path) -> None:
    arguments = stage(1, "base", str(small_disk / "run"), "--rows", "all", "--steps", 9)
    result = line(workspace, *arguments)
    assert result.code == 1 and "Free some room" in result.err.splitlines()[-1], result.err
    kept = sorted(p.name for p in (small_disk / "run" / "checkpoints").iterdir())
    assert kept == ["checkpoint-3"]
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    result = line(workspace, *arguments, "--resume")
    assert result.code == 0, result.err
    assert line(workspace, *stage(1, "base", "whole", "--rows", "all", "--steps", 9)).code == 0
    assert (small_disk / "run" / "rows.safetensors").read_bytes() == (
        workspace / "whole" / "rows.safetensors"
    ).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("--rows", "new"), "nothing says which rows of .* are new. Grow it with zhllama grow"),
        (("--rows", "all", "--batch", "6"), "--batch: 6 is no multiple of 4"),
        (
            ("--rows", "all", "--block-size", "1024"),
            "--block-size: is 1,024 and the model was made for 512 tokens",
        ),
        (("--rows", "all", "--text", "zh=missing.txt"), "no such file"),
        (("--rows", "all", "--tokenizer", "missing"), "missing: no such file"),
        (("--rows", "all", "--stream", "--epochs", "2"), "--steps: is needed where the text is streamed"),
        (
            ("--rows", "used", "--stream", "--steps", "2", "--old-rows", "500"),
            "counts the text, which --stream does not",
        ),
        (("--old-rows", "5000"), "--old-rows: 5,000 is not among the model's 600 rows"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(
    workspace: Path, arguments: tuple[str, ...], wanted: str
) -> None:
    result = line(workspace, *stage(1, "base", "run", *arguments))
    assert result.code == 1 and re.search(wanted, result.err) and result.err.count("\n") == 1, result.err


def test_a_tokenizer_or_layer_that_does_not_fit_is_refused(workspace: Path) -> None:
    assert line(workspace, *stage(1, "base", "one", "--tokenizer", "tok", "--steps", 2)).code == 0
    write_tokenizer(larger_vocabulary(), workspace / "same")
    from tests.model_toys import base_vocabulary

    write_tokenizer(base_vocabulary(), workspace / "smaller")
    result = line(workspace, *stage(2, "one", "two", "--tokenizer", "smaller"))
    assert result.code == 1 and "is not the tokenizer that" in result.err
    assert line(workspace, *stage(2, "one", "two", "--tokenizer", "same", "--steps", 1)).code == 0
    result = line(
        workspace, *stage(2, "one", "two", "--steps", 1, "--lora-module", "query_key_value", "--force")
    )
    assert result.code == 1 and "no linear layer 'query_key_value'" in result.err
    result = line(workspace, *stage(1, "base", "one", "--tokenizer", "tok", "--steps", 3))
    assert result.code == 1 and "contains a finished run. Give --force" in result.err


def test_a_checkpoint_from_other_options_is_refused(workspace: Path) -> None:
    arguments = stage(1, "base", "run", "--tokenizer", "tok", "--steps", 9)
    assert killed_at(workspace, arguments, workspace / "run", 5)
    result = line(workspace, *arguments, "--lr", 0.5, "--resume")
    assert result.code == 1 and "was started with other options: lr 0.01 → 0.5" in result.err
    result = line(workspace, *arguments)
    assert result.code == 1 and "contains an unfinished run. Give --resume" in result.err


@pytest.mark.parametrize("number", [1, 2])
def test_rows_and_head_learn_at_their_own_rates(workspace: Path, number: int) -> None:
    """A rate that moves nothing by a rounding leaves what it is given for, and nothing else."""
    assert line(workspace, "grow", "--model", "base", "--tokenizer", "tok", "--out", "grown").code == 0
    start = load_file(workspace / "grown" / "model.safetensors")
    names = {"input": "model.embed_tokens.weight", "output": "lm_head.weight"}

    def moved(out: str, *more: object) -> dict[str, bool]:
        told = line(workspace, *stage(number, "grown", out, "--steps", 2, *more))
        assert told.code == 0, told.err
        rows = rows_of(workspace / out)
        return {
            side: not torch.equal(rows[f"{side}_rows"], start[name][rows[f"{side}_ids"]])
            for side, name in names.items()
        }

    assert moved("both") == {"input": True, "output": True}
    assert moved("still", "--rows-lr", 1e-30) == {"input": False, "output": False}
    assert moved("input", "--head-lr", 1e-30) == {"input": True, "output": False}
    assert moved("head", "--rows-lr", 1e-30, "--head-lr", 0.01) == {"input": False, "output": True}


def test_rates_of_rows_that_are_not_trained_are_refused(workspace: Path) -> None:
    told = line(workspace, *stage(2, "base", "none", "--steps", 1, "--rows", "none", "--rows-lr", 0.1))
    assert told.code == 1 and "rows-lr: is a rate of rows, and none are trained" in told.err
    told = line(workspace, *stage(1, "base", "input", "--steps", 1, "--matrices", "input", "--head-lr", 0.1))
    assert told.code == 1 and "head-lr: is a rate of the LM head" in told.err
    write_model(workspace / "tied", tied=True)
    tied = stage(1, "tied", "run", "--steps", 1, "--rows", "all", "--head-lr", 0.1)
    told = line(workspace, *tied)
    assert told.code == 1 and "which is tied to the embedding" in told.err
