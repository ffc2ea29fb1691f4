"""Models whose stored names, shapes or types differ from their parameters: grown and exported as transformers loads them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.model_toys import (
    CHINESE,
    ENGLISH,
    base_vocabulary,
    larger_vocabulary,
    line,
    logits,
    write_model,
    write_run,
    write_tokenizer,
)
from zhllama.errors import InputError
from zhllama.model.chain import resolve_chain
from zhllama.model.embeddings import find_matrices
from zhllama.model.export import merge_chain, prove_export
from zhllama.model.grow import grow
from zhllama.model.stored_model import read_stored_model
from zhllama.training.lora import linear_names

N_OLD = 600
IDS = base_vocabulary().processor.encode(ENGLISH)
SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 16, "layer_types": ["full_attention", "full_attention"]}  # fmt: skip
TEXT = {**SIZES, "vocab_size": N_OLD, "bos_token_id": 1, "eos_token_id": 2}
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
          "image_size": 28, "patch_size": 14}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
DENSE_FIRST = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
               "first_k_dense_replace": 1, "moe_intermediate_size": 32}  # fmt: skip
LATENT = {"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
          "qk_nope_head_dim": 8, "v_head_dim": 16}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "gpt_neox": {},  # stored as embed_out
    "gemma3": {"text_config": TEXT, "vision_config": VISION, "mm_tokens_per_image": 4},  # language_model.model....
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4},  # weights [in, out]
    "phi": {"partial_rotary_factor": 0.5},  # a head with a bias
    "phi3": {"pad_token_id": 0},
    "falcon": {},
    "bloom": {},
    "opt": {"word_embed_proj_dim": 64, "ffn_dim": 96, "pad_token_id": 0},
    "mixtral": EXPERTS,
    "qwen3_moe": EXPERTS,
    "deepseek_v3": {**DENSE_FIRST, **LATENT},
    "glm4_moe": {**DENSE_FIRST, "head_dim": 16},
}  # fmt: skip


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(larger_vocabulary(), tmp_path_factory.mktemp("larger"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_grows_and_exports(tmp_path: Path, larger: Path, kind: str) -> None:
    base = write_model(
        tmp_path / "base", kind, tied=kind in ("gpt2", "bloom", "opt", "gemma3"), **KINDS[kind]
    )
    grown = grow(base, larger, tmp_path / "grown")
    assert torch.equal(logits(base, IDS), logits(tmp_path / "grown", IDS)[:, :N_OLD])
    stored = read_stored_model(tmp_path / "grown")
    modules = linear_names(stored.model.config)
    assert modules
    run = write_run(
        tmp_path / "run", tmp_path / "grown", range(grown.n_old, grown.rows), grown.tied, lora=True,
        target_modules=list(modules),
    )  # fmt: skip
    chain = resolve_chain(run)
    changed = merge_chain(chain, tmp_path / "out")
    proof = prove_export(chain, tmp_path / "out", [ENGLISH, CHINESE], changed)
    assert proof.agree == 1
    assert not torch.allclose(logits(tmp_path / "out", IDS), logits(tmp_path / "grown", IDS), atol=0.1)


def test_names_of_a_model_with_vision_as_in_its_text_model(tmp_path: Path, larger: Path) -> None:
    """Qwen3.5 is published with vision, and transformers opens its language model by other names."""
    base = write_model(tmp_path / "base", "qwen3_5_text", tied=True, **{**SIZES, "linear_num_value_heads": 4,
                       "linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16})  # fmt: skip
    held = load_file(base / "model.safetensors")
    nested = {f"model.language_model.{k.removeprefix('model.')}": v for k, v in held.items()}
    nested["model.visual.merger.norm.weight"] = torch.ones(4)
    save_file(nested, base / "model.safetensors", metadata={"format": "pt"})
    assert find_matrices(read_stored_model(base)).input == "model.language_model.embed_tokens.weight"
    grow(base, larger, tmp_path / "out")
    assert torch.equal(logits(base, IDS), logits(tmp_path / "out", IDS)[:, :N_OLD])
    assert "model.visual.merger.norm.weight" in load_file(tmp_path / "out" / "model.safetensors")


def test_gpt_neox_is_stored_with_embed_out(tmp_path: Path, larger: Path) -> None:
    base = write_model(tmp_path / "base", "gpt_neox")
    held = load_file(base / "model.safetensors")
    held["embed_out.weight"] = held.pop("lm_head.weight", held.get("embed_out.weight"))
    save_file(held, base / "model.safetensors", metadata={"format": "pt"})
    assert find_matrices(read_stored_model(base)).output == "embed_out.weight"


def test_a_tied_model_that_stores_its_head_alone(tmp_path: Path, larger: Path) -> None:
    base = write_model(tmp_path / "base", tied=True)
    held = load_file(base / "model.safetensors")
    held["lm_head.weight"] = held.pop("model.embed_tokens.weight")
    save_file(held, base / "model.safetensors", metadata={"format": "pt"})
    assert grow(base, larger, tmp_path / "out").tied
    assert torch.equal(logits(base, IDS), logits(tmp_path / "out", IDS)[:, :N_OLD])


@pytest.mark.parametrize(
    ("method", "settings", "remedy"),
    [
        ("gptq", {"bits": 4}, "Use the original weights, which are not quantized."),
        ("awq", {"bits": 4}, "Use the original weights, which are not quantized."),
        ("bitsandbytes_4bit", {"quant_method": "bitsandbytes", "load_in_4bit": True}, "model.dequantize()"),
        ("bitsandbytes_8bit", {"quant_method": "bitsandbytes", "load_in_8bit": True}, "model.dequantize()"),
        ("fp8", {"weight_block_size": [128, 128]}, "FineGrainedFP8Config(dequantize=True)"),
        ("mxfp4", {}, "Mxfp4Config(dequantize=True)"),
        ("compressed-tensors", {"config_groups": {}}, "CompressedTensorsConfig(dequantize=True)"),
        ("one-of-next-year", {}, "Use the original weights, which are not quantized."),
    ],
)
def test_quantized_weights_are_refused_before_any_work(
    tmp_path: Path, larger: Path, method: str, settings: dict[str, Any], remedy: str
) -> None:
    base = write_model(tmp_path / "base")
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": method, **settings}
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "text.txt").write_text(ENGLISH, encoding="utf-8")
    (tmp_path / "data.json").write_text(json.dumps([{"instruction": "a", "output": "b"}]), encoding="utf-8")
    for arguments in (
        ("grow", "--tokenizer", larger),
        ("pretrain", "--stage", "2", "--text", "en=text.txt", "--old-rows", "500"),
        ("sft", "--data", "data.json", "--rows", "none"),
    ):
        done = line(tmp_path, *arguments, "--model", "base", "--out", "out")
        assert done.code == 1, done
        assert done.err.count("\n") == 1 and f"is quantized ({method})" in done.err and remedy in done.err
        assert not (tmp_path / "out").exists()


def test_a_tensor_of_few_bits_without_a_method_is_refused(tmp_path: Path, larger: Path) -> None:
    base = write_model(tmp_path / "base", dtype=torch.bfloat16)
    held = load_file(base / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    held[name] = held[name].to(torch.float8_e4m3fn)
    save_file(held, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"up_proj.weight as F8_E4M3, and quantized weights"):
        grow(base, larger, tmp_path / "out")
