"""Layers in 4 bits: refused without a GPU, planned by their bytes, and, with bitsandbytes installed, trained and exported.

bitsandbytes also multiplies on CPUs, slowly: tests that disable our check run all that a GPU would run.
"""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.model_toys import line, write_model, write_run
from tests.test_training_run import cache, losses, stage, workspace
from zhllama.errors import MissingPackage, OptionError
from zhllama.model.chain import resolve_chain
from zhllama.model.load import open_model
from zhllama.training import four_bit
from zhllama.training.hardware import named_hardware
from zhllama.training.options import PretrainingOptions
from zhllama.training.plan import TrainingPlan, plan_training, shape_of

__all__ = ["cache", "workspace"]
FOUR = ("--load-in-4bit", "--rows", "all", "--lora-dropout", 0, "--precision", "fp32")


def planned(four: bool, **more: Any) -> TrainingPlan:
    from zhllama.training.model_info import read_shape

    options = PretrainingOptions(stage=2, rows="all", steps=1, load_in_4bit=four, **more)
    shape = shape_of(read_shape(None, "llama-7b"), options.lora, 49953)
    return plan_training(options, shape, 32000, named_hardware("4090"))


def test_the_plan_knows_four_bits() -> None:
    plain, four = planned(False).memory, planned(True).memory
    layers = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    assert plain["frozen"] - four["frozen"] == pytest.approx(layers * (2 - 0.5159), rel=1e-4)
    assert four["dequantized"] == 4096 * 11008 * 2 and "dequantized" not in [k for k, v in plain.items() if v]
    same = ("matrices", "adapters", "gradients", "optimizer", "activations")
    assert {k: plain[k] for k in same} == {k: four[k] for k in same}


def test_a_dry_run_plans_four_bits_without_a_gpu(tmp_path: Path) -> None:
    result = line(
        tmp_path, "pretrain", "--config", "llama-7b-24gb-stage2", "--load-in-4bit", "--dry-run", "--json"
    )
    assert result.code == 0, result.err
    assert json.loads(result.out)["memory_bytes"]["frozen"] < 4 * 2**30


def test_refused_in_one_line(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = line(workspace, *stage(2, "base", "run", "--rows", "all", "--load-in-4bit"))
    assert result.code == 1 and result.err == (
        "zhllama: --load-in-4bit: needs a CUDA GPU, and here is none. "
        "Leave it out; to plan for one, give --dry-run --machine 4090.\n"
    )
    assert not (workspace / "run").exists()
    result = line(workspace, *stage(1, "base", "run", "--rows", "all", "--load-in-4bit"))
    assert (
        result.code == 1
        and "--load-in-4bit: freezes the layers, so that adapters must be trained" in result.err
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(four_bit, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match=r"needs the package bitsandbytes\. .*\[cuda\]'?\."):
        four_bit.check_four_bit(resolve_chain(workspace / "base"), sharded=False)
    monkeypatch.setattr(four_bit, "find_spec", lambda name: name)
    four_bit.check_four_bit(resolve_chain(workspace / "base"), sharded=False)
    with pytest.raises(OptionError, match="Start it with torchrun"):
        four_bit.check_four_bit(resolve_chain(workspace / "base"), sharded=True)
    rows = write_run(workspace / "rows", workspace / "base", new=range(500, 600))
    four_bit.check_four_bit(resolve_chain(rows), sharded=False)
    adapted = write_run(workspace / "adapted", workspace / "base", lora=True)
    with pytest.raises(OptionError, match=r"cannot combine the adapter of .*adapted with a new one"):
        four_bit.check_four_bit(resolve_chain(adapted), sharded=False)


def test_loading_options_of_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "0.50.2" if name == "bitsandbytes" else version(name)
    )
    options = four_bit.loading_options(torch.bfloat16, torch.device("cuda", 1))
    assert options["device_map"] == {"": torch.device("cuda", 1)}
    config = options["quantization_config"]
    assert (config.quant_method, config.load_in_4bit, config.bnb_4bit_quant_type) == (
        "bitsandbytes",
        True,
        "nf4",
    )
    assert config.bnb_4bit_use_double_quant and config.bnb_4bit_compute_dtype == torch.bfloat16


@pytest.fixture
def on_a_cpu(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bitsandbytes", reason="no bitsandbytes: pip install 'zhllama[cuda]'")
    from zhllama.training import train

    monkeypatch.setattr(train, "check_four_bit", lambda chain, sharded: None)
    write_model(workspace / "base", intermediate_size=128)  # bitsandbytes on CPUs requires widths of 64


def test_trained_in_four_bits_and_exported_whole(workspace: Path, on_a_cpu: None) -> None:
    """Adapters and rows are trained over rounded layers, and merged into the base's own layers."""
    assert line(workspace, *stage(2, "base", "plain", *FOUR[1:], "--steps", 4)).code == 0
    result = line(workspace, *stage(2, "base", "run", *FOUR, "--steps", 4))
    assert result.code == 0, result.err
    plain, four = losses(workspace / "plain"), losses(workspace / "run")
    assert four != plain and four == pytest.approx(plain, rel=0.05) and four[-1] < four[0]
    result = line(workspace, "export", "run", "--out", "model")
    assert result.code == 0, result.err
    base, model = (load_file(workspace / name / "model.safetensors") for name in ("base", "model"))
    gate = "model.layers.0.mlp.gate_proj.weight"
    assert torch.equal(base[gate], model[gate]), (
        "a layer without an adapter is the base's own, not rounded to 4 bits"
    )
    query = "model.layers.0.self_attn.q_proj.weight"
    adapter = load_file(workspace / "run" / "adapter" / "adapter_model.safetensors")
    a, b = (adapter[f"base_model.model.{query.replace('weight', '')}lora_{x}.weight"] for x in "AB")
    assert torch.allclose(model[query], base[query] + 4 * b @ a, atol=1e-6)
    assert torch.equal(
        open_model(workspace / "run").model.get_input_embeddings().weight, model["model.embed_tokens.weight"]
    )


def test_four_bits_resume_from_rows_and_from_a_checkpoint(workspace: Path, on_a_cpu: None) -> None:
    assert line(workspace, *stage(1, "base", "one", "--tokenizer", "tok", "--steps", 2)).code == 0
    arguments = stage(2, "one", "two", "--load-in-4bit", "--steps", 6)
    whole = stage(2, "one", "whole", "--load-in-4bit", "--steps", 6)
    assert line(workspace, *whole).code == 0
    from tests.test_training_run import killed_at

    assert killed_at(workspace, arguments, workspace / "two", 4)
    result = line(workspace, *arguments, "--resume")
    assert result.code == 0, result.err
    for name in ("rows.safetensors", "adapter/adapter_model.safetensors"):
        assert (workspace / "two" / name).read_bytes() == (workspace / "whole" / name).read_bytes(), name


def test_a_tied_model_in_four_bits(workspace: Path, on_a_cpu: None) -> None:
    write_model(workspace / "tied", tied=True, intermediate_size=128)
    result = line(workspace, *stage(2, "tied", "run", *FOUR, "--steps", 2))
    assert result.code == 0, result.err
    assert load_file(workspace / "run" / "rows.safetensors").keys() == {"input_rows", "input_ids"}
