"""Plans: the published shares of trained parameters from a config alone, memory, FLOPs, and the time on known GPUs."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.model_toys import line, write_model
from zhllama.commands.recipes import read_recipe
from zhllama.commands.training_screen import lines_of
from zhllama.errors import MissingPackage, OptionError
from zhllama.pretrained import config_of
from zhllama.training.hardware import Hardware, named_hardware, this_hardware
from zhllama.training.lora import linear_names
from zhllama.training.model_shape import block_layers, shape_by_formula
from zhllama.training.options import ChatTuningOptions, Lora, PretrainingOptions
from zhllama.training.plan import plan_training, shape_of

RECIPES = sorted(
    path.stem
    for path in (Path(__file__).parent.parent / "zhllama" / "recipes").glob("*.yaml")
    if read_recipe(path.stem).get("command") in ("pretrain", "sft") and "shape" in read_recipe(path.stem)
)
PUBLISHED = {"chinese-llama-7b-stage1": 2.97, "chinese-llama-7b-stage2": 6.06, "chinese-alpaca-7b": 6.22}
A100 = named_hardware("8xA100")


def planned(tmp_path: Path, *arguments: str, command: str = "pretrain") -> dict[str, Any]:
    result = line(tmp_path, command, *arguments, "--dry-run", "--json")
    assert result.code == 0, result.err
    figures: dict[str, Any] = json.loads(result.out)
    return figures


def test_no_figure_is_torn_from_its_unit(tmp_path: Path) -> None:
    told = line(tmp_path, "pretrain", "--stage", 2, "--dry-run", "--shape", "llama-7b", "--steps", 9)
    assert told.code == 0, told.err
    rows = [row.rstrip() for row in told.out.splitlines()]
    torn = [row for row in rows if re.search(r"[a-z] [\d.]+$", row)]
    assert max(map(len, rows)) <= 80 and not torn, told.out
    parts = [f"{word} {n} MiB" for n, word in enumerate(("frozen", "matrices", "loss"))]
    assert lines_of(parts, 200) == ["frozen 0 MiB, matrices 1 MiB, loss 2 MiB"]
    assert lines_of(parts, 13) == ["frozen 0 MiB,", "matrices 1 MiB,", "loss 2 MiB"] and lines_of([], 9) == []


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_planned_without_weights(tmp_path: Path, name: str) -> None:
    figures = planned(tmp_path, "--config", name, command=read_recipe(name)["command"])
    assert figures["trained"] > 0 and figures["memory_total_bytes"] > 0
    if name in PUBLISHED:
        assert figures["trained_percent"] == PUBLISHED[name]
    if "24gb" in name:
        assert figures["memory_total_bytes"] < 24 * 2**30 and not figures["notes"]


def test_recipes_are_shipped() -> None:
    assert {
        *PUBLISHED,
        "chinese-llama-13b-stage1",
        "chinese-alpaca-13b",
        "belle-bloomz-7b1-mt",
        "cpu-stage1",
    } <= {*RECIPES}


def test_the_printed_plan(tmp_path: Path) -> None:
    result = line(tmp_path, "pretrain", "--config", "chinese-llama-7b-stage1", "--dry-run")
    assert "204,607,488 of 6,885,486,592 parameters, 2.97 %" in result.out
    assert "8 x A100, bf16" in result.out and "3,000 steps, 1,572,864,000 tokens" in result.out
    assert "4.3e+19 FLOPs, about 11.9 h" in result.out


def test_a_flag_wins_over_the_recipe(tmp_path: Path) -> None:
    figures = planned(tmp_path, "--config", "chinese-llama-7b-stage1", "--steps", "7", "--machine", "4090")
    assert figures["steps"] == 7 and figures["machine"] == "4090"


def test_the_plan_of_a_local_model_counts_its_parameters(tmp_path: Path) -> None:
    model = write_model(tmp_path / "base")
    figures = planned(tmp_path, "--stage", "2", "--model", str(model), "--rows", "all", "--lora-rank", "4")
    matrices, lora = 2 * 600 * 64, 2 * 4 * (2 * (64 + 64) + 2 * (64 + 32))
    assert figures["trained"] == matrices + lora


def test_checkpointing_is_on_where_memory_is_short() -> None:
    options = PretrainingOptions(stage=1, rows="all", matrices="input", steps=10, batch=64, micro_batch=64)
    shape = shape_of(shipped_config("llama-7b"), rows=49953)
    roomy = Hardware("GPU", 1, 400 << 30, 1e14, "bf16")
    assert not plan_training(options, shape, 32000, roomy).checkpointing
    tight = plan_training(options, shape, 32000, Hardware("GPU", 1, 40 << 30, 1e14, "bf16"))
    assert tight.checkpointing and tight.peak < plan_training(options, shape, 32000, roomy).peak
    small = plan_training(options, shape, 32000, Hardware("GPU", 1, 8 << 30, 1e14, "bf16"))
    assert any("lower the micro-batch" in note for note in small.notes)


def test_masks_are_planned_where_the_attention_has_them() -> None:
    shape = shape_of(shipped_config("llama-7b"), rows=49953)
    a100, v100, cpu = (
        named_hardware("A100"),
        named_hardware("V100"),
        Hardware("CPU", 1, 400 << 30, None, "fp32"),
    )

    def masks(hardware: Hardware, **changed: Any) -> int:
        settings: dict[str, Any] = {"steps": 1, "batch": 8, "micro_batch": 4, "block_size": 1024, **changed}
        options = PretrainingOptions(stage=1, rows="all", gradient_checkpointing="off", **settings)
        plan = plan_training(options, shape, 32000, hardware)
        assert plan.dense_mask is bool(plan.memory["masks"])
        return plan.memory["masks"]

    dense = 4 * 1024 * 1024 * 32 * 2
    assert masks(a100) == masks(a100, attention="flex") == masks(v100, attention="flex") == 0
    assert masks(a100, attention="sdpa") == masks(v100) == dense
    assert masks(cpu) == 2 * dense
    options = PretrainingOptions(
        stage=1, rows="all", steps=1, block_size=1024, micro_batch=4, gradient_checkpointing="on"
    )
    seen = plan_training(options, shape, 32000, a100, dense_mask=True)
    assert seen.dense_mask and seen.memory["masks"] == dense // 32
    assert not any(
        plan_training(options, shape, 32000, a100, dense_mask=False).memory[name] for name in ("masks",)
    )


@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_full_training_on_several_devices_has_a_reference_model(tmp_path: Path, name: str) -> None:
    """Several processes keep a second copy of the whole model in fp32, one process none: docs/align.md."""
    model = write_model(tmp_path / "base")
    words = ("--model", str(model), "--steps", "2", "--max-length", "64")

    def memory(*more: str) -> dict[str, int]:
        return dict(planned(tmp_path, *words, *more, command=name)["memory_bytes"])

    parameters = planned(tmp_path, *words, "--full", command=name)["parameters"]
    assert memory("--full", "--machine", "2xA100")["reference"] == 4 * parameters
    assert (
        memory("--full", "--machine", "A100")["reference"] == memory("--machine", "2xA100")["reference"] == 0
    )
    assert planned(tmp_path, "--stage", "1", "--rows", "all", *words[:4], "--machine", "2xA100")["memory_bytes"]["reference"] == 0  # fmt: skip


@pytest.mark.parametrize(("name", "kept"), [("dpo", 8), ("kto", 4), ("reward", 0)])
def test_the_logits_of_all_positions_are_planned_where_the_loss_has_them(
    tmp_path: Path, name: str, kept: int
) -> None:
    model = write_model(tmp_path / "base")
    words = ("--model", str(model), "--steps", "2", "--micro-batch", "4", "--precision", "fp32")
    short, long = (
        planned(tmp_path, *words, "--max-length", length, command=name)["memory_bytes"]["loss"]
        for length in ("64", "128")
    )
    hidden = 2 * 8 * 64 * 64 * 4
    assert long - short == kept * 8 * 64 * 600 * 4 + hidden


def test_flops_follow_the_published_formula() -> None:
    """6 FLOPs per parameter and token (arXiv:2001.08361), 4 for frozen ones, and attention."""
    shape = shape_of(shipped_config("llama-7b"))
    sizes: dict[str, Any] = {"steps": 10, "batch": 1, "micro_batch": 1, "block_size": 8, "rows": "all"}
    full = ChatTuningOptions(full=True, gradient_checkpointing="off", **sizes)
    rows_alone = PretrainingOptions(stage=1, gradient_checkpointing="off", **sizes)
    tokens, attention = 80, 2 * 2 * 2 * 8 * 4096 * 32
    plan = plan_training(full, shape, 0, A100)
    assert plan.tokens == tokens
    head = 6 * 32000 * 4096
    assert plan.flops == tokens * (6 * shape.body + attention + head)
    frozen = plan_training(rows_alone, shape, 0, A100)
    assert frozen.flops == tokens * (4 * shape.body + attention + head)


def test_time_is_planned_only_where_the_speed_is_known() -> None:
    shape = shape_of(shipped_config("llama-7b"), rows=49953)
    options = PretrainingOptions(stage=1, rows="all", steps=10)
    known = plan_training(options, shape, 32000, A100)
    assert known.seconds == pytest.approx(known.flops / (8 * 312e12 * 0.4))
    for name in ("CPU", "GPU of no list"):
        unknown = plan_training(options, shape, 32000, Hardware(name, 1, 400 << 30, None, "bf16"))
        assert (
            unknown.flops == known.flops and unknown.seconds is None and unknown.figures()["seconds"] is None
        )


def test_new_rows_cost_less_than_all_and_adapters_alone_least() -> None:
    shape = shape_of(shipped_config("llama-7b"), Lora(), 49953)
    trained = {
        rows: plan_training(PretrainingOptions(stage=2, rows=rows), shape, 32000, A100).trained
        for rows in ("all", "new", "none")
    }
    assert trained == {"all": 417603584, "new": 2 * 17953 * 4096 + 8388608, "none": 8388608}


def shipped_config(name: str) -> Any:
    from zhllama.training.model_info import read_shape

    return read_shape(None, name)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((), "--model: is missing"),
        (("--shape", "gpt-5"), "is neither a config.json nor a shipped shape"),
        (("--shape", "llama-7b", "--machine", "abacus"), "'abacus' is not known. Give e.g. 8xA100"),
        (
            ("--shape", "llama-7b", "--lora-module", "query"),
            "no linear layer 'query'. Its layers are down_proj",
        ),
        (("--shape", "llama-7b", "--lr", "2"), "--lr: 2 is not below 1. Give e.g. 0.0002."),
        (("--shape", "llama-7b", "--warmup", "1.5"), "--warmup: 1.5 is not below 1. Give e.g. 0.05."),
        (("--shape", "llama-7b", "--lora-rank", "0"), "--lora-rank: 0 is not above 0. Give e.g. 8."),
        (("--config", "no-such-recipe"), "is neither a .yaml file nor a shipped recipe"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, arguments: tuple[str, ...], wanted: str) -> None:
    result = line(tmp_path, "pretrain", "--stage", "2", *arguments, "--dry-run")
    assert result.code == 1 and wanted in result.err and result.err.count("\n") == 1


def test_stage_one_without_rows_is_refused() -> None:
    with pytest.raises(OptionError, match="nothing to learn"):
        PretrainingOptions(stage=1, rows="none")


@pytest.mark.parametrize(
    ("name", "gpu", "speed"),
    [
        ("NVIDIA H200", "H200", 989e12),
        ("NVIDIA H100 80GB HBM3", "H100", 989e12),
        ("NVIDIA A100-SXM4-80GB", "A100", 312e12),
        ("NVIDIA GeForce RTX 4090", "4090", 165e12),
        ("NVIDIA RTX A6000", "A6000", 155e12),
        ("Tesla V100-SXM2-32GB", "V100", 125e12),
        ("NVIDIA L40S", "L40S", 362e12),
        ("NVIDIA L40", "NVIDIA L40", None),
        ("NVIDIA A1000 Laptop GPU", "NVIDIA A1000 Laptop GPU", None),
    ],
)
def test_gpus_are_known_by_whole_words_of_their_names(
    name: str, gpu: str, speed: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: name)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda index: SimpleNamespace(total_memory=1 << 36)
    )
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    found = this_hardware()
    assert (found.name, found.memory) == (gpu, 1 << 36)
    assert found.speed == (None if speed is None else pytest.approx(0.4 * speed))


def test_machine_names_are_parsed() -> None:
    assert named_hardware("16 x A100-40GB").memory == 40 << 30
    assert named_hardware("rtx4090").precision == "bf16" and named_hardware("V100").precision == "fp16"


SHAPES = sorted((Path(__file__).parent.parent / "zhllama" / "recipes" / "shapes").glob("*.json"))
FAMILY = (
    {"model_type": "llama"},
    {"model_type": "llama", "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    {"model_type": "mistral", "head_dim": 24},
    {"model_type": "qwen2", "tie_word_embeddings": True},
    {"model_type": "qwen3", "head_dim": 32},
    {"model_type": "qwen3", "head_dim": 16, "attention_bias": True},
)


def family_config(settings: dict[str, Any]) -> Any:
    return config_of(
        {
            "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, **settings,
        },
        "here",
    )  # fmt: skip


@pytest.mark.parametrize("settings", FAMILY, ids=str)
@pytest.mark.parametrize("lora", [None, Lora(), Lora(rank=3, modules=("q_proj", "down_proj"))], ids=str)
def test_formulas_count_what_the_built_model_has(settings: dict[str, Any], lora: Lora | None) -> None:
    config = family_config(settings)
    assert shape_by_formula(config, lora, 400) == shape_of(config, lora, 400)
    assert set(block_layers(config)) == set(linear_names(config))


@pytest.mark.parametrize(
    "path", [path for path in SHAPES if "bloom" not in path.name], ids=lambda path: path.stem
)
def test_formulas_count_the_shipped_shapes(path: Path) -> None:
    config = shipped_config(path.stem)
    assert shape_by_formula(config, Lora()) == shape_of(config, Lora())


def test_formulas_refuse_other_layers_and_other_models() -> None:
    with pytest.raises(OptionError, match=r"no linear layer 'c_attn'.*q_proj"):
        shape_by_formula(family_config({"model_type": "llama"}), Lora(modules=("c_attn",)))
    with pytest.raises(MissingPackage, match="the plan of a bloom model: needs the package torch"):
        shape_by_formula(shipped_config("bloomz-7b1"))
