"""Adapters with settings that few have: folded as PEFT merges them, or refused by the name of the setting before the work."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.model_toys import CHINESE, ENGLISH, base_vocabulary, line, write_model, write_tokenizer
from tests.test_foreign_adapters import write_adapter
from zhllama.errors import InputError
from zhllama.model.export import scale_of
from zhllama.model.foreign_adapters import fold, plan_fold, prove_fold
from zhllama.model.load import load_base
from zhllama.pretrained import open_adapter, open_config
from zhllama.training.lora import linear_names

ROWS = len(base_vocabulary().pieces)
FIRST = r"model\.layers\.0\.self_attn\.[qk]_proj"  # patterns of PEFT are regular expressions over the end of a path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("odd") / "base")


@pytest.mark.parametrize(
    "settings",
    [
        {"use_rslora": True, "rank_pattern": {FIRST: 2, "down_proj": 3}, "alpha_pattern": {FIRST: 32, "v_proj": 1}},
        {"alpha_pattern": {"proj": 64, "layers.1.mlp.up_proj": 2}},  # `proj` is the end of no path, though of its text
        {"layers_to_transform": [1], "layers_pattern": "layers", "exclude_modules": ["o_proj"]},
        {"target_modules": "all-linear", "bias": "lora_only", "lora_dropout": 0.3, "init_lora_weights": "gaussian"},
        {"target_modules": r".*\.1\..*_proj"},
        {"target_modules": ["q_proj", "lm_head"]},
    ],
)  # fmt: skip
def test_settings_that_peft_has(tmp_path: Path, base: Path, settings: dict[str, Any]) -> None:
    one = write_adapter(tmp_path / "one", base, ROWS, whole=False, **settings)
    plan = plan_fold(base, [one], None)
    proof = prove_fold(plan, tmp_path / "out", [ENGLISH, CHINESE], fold(plan, tmp_path / "out"))
    assert proof.difference < 1e-5 and proof.agree == 1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"use_dora": True}, "it sets use_dora"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "it sets layer_replication"),
        ({"alora_invocation_tokens": [5, 6]}, "it sets alora_invocation_tokens"),
        ({"something_new": {"a": 1}}, "it sets something_new"),
        ({"init_lora_weights": "pissa_niter_4"}, "was initialized by pissa_niter_4"),
        ({"init_lora_weights": "olora"}, "weights of its base were changed too"),
        ({"lora_alpha": "many"}, "has an alpha for .* that cannot be read"),
        ({"alpha_pattern": {"[": 3}}, "has an alpha for .* that cannot be read"),
    ],
)
def test_settings_that_are_refused(tmp_path: Path, base: Path, settings: dict[str, Any], told: str) -> None:
    one = write_adapter(tmp_path / "one", base, ROWS, whole=False)
    path = one / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | settings), encoding="utf-8")
    with pytest.raises(InputError, match=told):
        plan_fold(base, [one], None)


def test_the_rank_is_that_of_the_tensors(tmp_path: Path) -> None:
    """Where a config says another rank, as after a rank was reduced, PEFT could not open the adapter."""
    assert scale_of(tmp_path, {"r": 8, "lora_alpha": 16}, "a.q_proj", 4) == 4
    assert scale_of(tmp_path, {"use_rslora": True}, "a.q_proj", 4) == 4
    assert scale_of(tmp_path, {"alpha_pattern": {"q_proj": 2}}, "a.q_proj", 4) == 0.5


def test_tensors_of_a_live_model_and_of_parameters(tmp_path: Path, base: Path) -> None:
    one = write_adapter(tmp_path / "one", base, ROWS, whole=False)
    path = one / "adapter_model.safetensors"
    held = load_file(path)
    save_file({k.replace("lora_A.weight", "lora_A.default.weight"): v for k, v in held.items()}, path)
    with pytest.raises(InputError, match=r"contains .*lora_A\.default\.weight, which is not a LoRA weight"):
        plan_fold(base, [one], None)
    experts = {"base_model.model.model.layers.0.mlp.experts.lora_A.weight": torch.ones(4, 64),
               "base_model.model.model.layers.0.mlp.experts.lora_B.weight": torch.ones(64, 4)}  # fmt: skip
    save_file(held | experts, path)
    with pytest.raises(InputError, match=r"changes model\.layers\.0\.mlp\.experts"):
        plan_fold(base, [one], None)


def test_an_adapter_that_peft_loses(tmp_path: Path) -> None:
    """For Laguna transformers renames `mlp.shared_expert.`, by a pattern that its own new name matches, too: PEFT only warns."""
    from peft import LoraConfig, get_peft_model

    from scripts.experiments.toy_architectures import toy_model

    base = write_tokenizer(base_vocabulary(), tmp_path / "base")
    toy_model("laguna").save_pretrained(base)
    assert "up_proj" not in linear_names(open_config(base)) and "q_proj" in linear_names(open_config(base))
    words = ("--stage", 2, "--model", "base", "--rows", "all", "--lora-module", "up_proj", "--block-size", 64)
    (tmp_path / "zh.txt").write_text("我们今天没有时间。\n", encoding="utf-8")
    done = line(
        tmp_path, "pretrain", *words, "--text", "zh=zh.txt", "--eval-text", "zh=zh.txt", "--out", "run"
    )
    assert done.code == 1 and "which PEFT would not load again into this type of model" in done.err, done.err
    for name, layers in (("kept", ["q_proj"]), ("lost", ["q_proj", "up_proj"])):
        settings = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=layers, init_lora_weights=False)
        get_peft_model(load_base(tmp_path / "base", torch.float32), settings).save_pretrained(tmp_path / name)
    open_adapter(load_base(tmp_path / "base", torch.float32), tmp_path / "kept")
    with pytest.raises(InputError, match=r"contains .*shared_experts.*, which PEFT does not load"):
        open_adapter(load_base(tmp_path / "base", torch.float32), tmp_path / "lost")
