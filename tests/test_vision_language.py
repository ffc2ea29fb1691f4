"""Models with vision: the text part of those that are language models in transformers is right, others are refused at once."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.model_toys import base_vocabulary, larger_vocabulary, line, write_tokenizer

TEXT = {
    "vocab_size": 600, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    "max_position_embeddings": 512,
}  # fmt: skip
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "patch_size": 14,
}
QWEN = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}
QWEN_VISION = {"depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 14, "out_hidden_size": 64,
               "window_size": 28, "fullatt_block_indexes": [0]}  # fmt: skip
GEMMA3 = {"vision_config": {**VISION, "image_size": 28}, "mm_tokens_per_image": 4, "image_token_index": 599, "boi_token_index": 597,
          "eoi_token_index": 598}  # fmt: skip
GEMMA4_TEXT = {
    **TEXT, "hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": 600, "sliding_window": 64, "num_kv_shared_layers": 0,
    "layer_types": ["sliding_attention", "full_attention"], "global_head_dim": 16,
}  # fmt: skip
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma3": ("Gemma3", {"text_config": {**TEXT, "query_pre_attn_scalar": 16, "sliding_window": 64}, **GEMMA3}),
    "gemma3 untied": ("Gemma3", {"text_config": {**TEXT, "query_pre_attn_scalar": 16, "sliding_window": 64,
                                                 "tie_word_embeddings": False}, "tie_word_embeddings": False, **GEMMA3}),
    "gemma4": ("Gemma4", {"text_config": GEMMA4_TEXT, "vision_config": {**VISION, "num_key_value_heads": 2, "head_dim": 16},
                          "audio_config": None, "image_token_id": 599, "boi_token_id": 597, "eoi_token_id": 598,
                          "video_token_id": 596, "audio_token_id": 595, "boa_token_id": 594, "eoa_token_id": 593}),
    "llava": ("Llava", {"text_config": {**TEXT, "model_type": "llama"}, "image_token_index": 599,
                        "vision_config": {**VISION, "image_size": 28, "model_type": "clip_vision_model"}}),
    "mistral3": ("Mistral3", {"text_config": {**TEXT, "model_type": "mistral"}, "image_token_index": 599,
                              "vision_config": {**VISION, "image_size": 28, "head_dim": 16, "model_type": "pixtral"}}),
    "qwen2_5_vl": ("Qwen2_5_VL", {"text_config": {**TEXT, "rope_parameters": QWEN}, "vision_config": QWEN_VISION,
                                  "image_token_id": 599, "video_token_id": 598, "vision_start_token_id": 597,
                                  "vision_end_token_id": 596}),
}  # fmt: skip


def write(kind: str, folder: Path) -> Path:
    import transformers

    name, settings = SETTINGS[kind]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**settings)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.1)
    model.save_pretrained(folder)
    return write_tokenizer(base_vocabulary(), folder)


def write_texts(folder: Path) -> tuple[object, ...]:
    (folder / "zh.txt").write_text("我们今天没有时间研究历史。\n" * 60, encoding="utf-8")
    sizes = ("--steps", 2, "--batch", 2, "--micro-batch", 2, "--precision", "fp32")
    return "--text", "zh=zh.txt", "--eval-text", "zh=zh.txt", "--block-size", 32, *sizes


@pytest.mark.parametrize("kind", ["gemma3", "gemma3 untied", "gemma4"])
def test_the_text_part_grows_and_is_trained(tmp_path: Path, kind: str) -> None:
    from transformers import AutoModelForImageTextToText

    write(kind, tmp_path / "base")
    write_tokenizer(larger_vocabulary(), tmp_path / "larger")
    text = write_texts(tmp_path)
    told = line(tmp_path, "grow", "--model", "base", "--tokenizer", "larger", "--out", "grown")
    assert told.code == 0, told.err
    ids = torch.tensor([list(range(5, 30))])
    logits = []
    for name in ("base", "grown"):
        model, info = AutoModelForImageTextToText.from_pretrained(tmp_path / name, output_loading_info=True)
        assert not info["missing_keys"] and not info["mismatched_keys"]
        with torch.inference_mode():
            logits.append(model(input_ids=ids).logits[..., :600])
    assert torch.equal(*logits)
    config = json.loads((tmp_path / "grown" / "config.json").read_text(encoding="utf-8"))
    assert config["text_config"]["vocab_size"] == model.get_input_embeddings().weight.shape[0] > 600
    told = line(tmp_path, "pretrain", "--stage", 1, "--model", "grown", *text, "--out", "run")
    assert told.code == 0, told.err
    told = line(tmp_path, "export", "run", "--out", "plain")
    assert told.code == 0, told.err
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("grown", "plain"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("embed_tokens.weight" in name or "lm_head" in name for name in changed)
    assert all(torch.equal(before[name][:600], after[name][:600]) for name in changed)
    told = line(tmp_path, "eval", "plain", "--text", "zh.txt")  # BOS is in the config of the language model
    assert told.code == 0, told.err


@pytest.mark.parametrize("kind", ["llava", "mistral3", "qwen2_5_vl"])
def test_others_are_refused_before_the_work(tmp_path: Path, kind: str) -> None:
    write(kind, tmp_path / "base")
    write_tokenizer(larger_vocabulary(), tmp_path / "larger")
    text = write_texts(tmp_path)
    wanted = "base: is no causal language model in transformers. Name a causal language model.\n"
    for words in (
        ("grow", "--model", "base", "--tokenizer", "larger", "--out", "out"),
        ("pretrain", "--stage", 1, "--model", "base", "--rows", "all", *text, "--out", "out"),
        ("pretrain", "--stage", 2, "--model", "base", "--rows", "all", *text, "--dry-run"),
        ("export", "base", "--out", "out"),
        ("chat", "base"),
        ("eval", "base", "--text", "zh.txt"),
    ):
        told = line(tmp_path, *words)
        assert told.code == 1 and told.err.endswith(wanted), told.err
        assert not (tmp_path / "out").exists()
