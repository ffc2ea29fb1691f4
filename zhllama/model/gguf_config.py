"""Checks and completes the config that transformers reads from a GGUF file: positions, head width, and unread keys."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zhllama.errors import InputError
from zhllama.io.gguf import GgufTensor
from zhllama.model.gguf_architectures import rope_factors, yarn_attention

ORIGINAL = "Use the model's folder in the format of transformers"
FACTORS = "rope_freqs.weight"  # the divisors of Llama 3.1's rotation frequencies
# transformers' names of architectures where they differ from llama.cpp's.
NAMES = {"qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe", "gpt-oss": "gpt_oss", "minimax-m2": "minimax_m2"}
# Keys that only repeat shapes: a wrong one makes the weights not fit, which is refused.
SHAPES = ("attention.key_length", "attention.value_length", "rope.dimension_count", "vocab_size", "context_length",
          "expert_feed_forward_length", "expert_shared_feed_forward_length", "use_parallel_residual",
          "feed_forward_length", "tensor_data_layout")  # fmt: skip
# Settings of transformers' config with the value of a key that its reader of GGUF ignores.
SETTINGS = {
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "attention.sliding_window": "sliding_window",
    "logit_scale": "logit_scale",
}
SCALING = "rope.scaling."


def complete_config(
    path: Path, config: Any, metadata: Mapping[str, Any], tensors: Sequence[GgufTensor], begin: int
) -> None:
    """Set what transformers does not read, in place. Errors: InputError for a key that it does not read and nor do we."""
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING
    from transformers.integrations.gguf.gguf_config_mapping import GGUF_CONFIG_ARCHS

    architecture = str(metadata.get("general.architecture"))
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id"):
        id = getattr(config, name, None)
        if isinstance(id, int) and id >= config.get_text_config().vocab_size:
            setattr(config, name, None)
    keys = {k.removeprefix(f"{architecture}."): v for k, v in metadata.items()
            if k.startswith(f"{architecture}.")}  # fmt: skip
    factors = next((t for t in tensors if t.name == FACTORS), None)
    if factors is not None:
        _set_llama3_positions(path, config, factors, begin)
    if architecture in GGUF_CONFIG_ARCHS:  # transformers' new reader takes every key of these
        return
    if architecture != "gpt-oss":
        _set_scaled_positions(path, config, keys)
    if "attention.key_length" in keys and hasattr(config, "head_dim") and architecture != "gemma4":
        config.head_dim = keys["attention.key_length"]
    _check_partial_rotation(path, config, keys)
    mapping: Any = GGUF_CONFIG_MAPPING
    known = {*mapping.get(NAMES.get(architecture, architecture), {}), *SHAPES}
    for key, value in keys.items():
        if key in known or key.startswith(SCALING):
            continue
        setting = SETTINGS.get(key)
        if setting is None or not hasattr(config, setting):
            message = f"says {architecture}.{key}, which transformers does not read"
            raise InputError(path, message, ORIGINAL)
        setattr(config, setting, value)


def _set_scaled_positions(path: Path, config: Any, keys: Mapping[str, Any]) -> None:
    scaling = {k.removeprefix(SCALING): v for k, v in keys.items() if k.startswith(SCALING)}
    kind = scaling.pop("type", "none")
    scaling.pop("finetuned", None)
    names = {"factor": "factor", "original_context_length": "original_max_position_embeddings",
             "attn_factor": "attention_factor", "yarn_beta_fast": "beta_fast", "yarn_beta_slow": "beta_slow"}  # fmt: skip
    if kind == "none":
        return
    unknown = next((key for key in scaling if key not in names), None)
    if kind not in ("linear", "yarn") or unknown is not None:
        what = kind if unknown is None else f"{kind} with its setting {unknown}"
        raise InputError(path, f"scales its positions by {what}, which is not read", ORIGINAL)
    settings = {names[key]: value for key, value in scaling.items()}
    if kind == "linear":
        settings = {"factor": settings.get("factor", 1.0)}
    elif "attention_factor" in settings:
        settings["attention_factor"] *= yarn_attention(settings.get("factor", 1.0))
    config.rope_parameters = {**config.rope_parameters, "rope_type": kind, **settings}


def _set_llama3_positions(path: Path, config: Any, tensor: GgufTensor, begin: int) -> None:
    """Find the scaling of Llama 3.1 whose divisors a file contains.

    The file contains the divisors alone. Known models have the limits 1 and 4 of the smooth part, and differ in the factor,
    the largest divisor, and in the original length.
    """
    stored = np.fromfile(path, np.dtype("<f4"), tensor.shape[0], offset=begin + tensor.offset)
    before = dict(config.rope_parameters)
    for length in (1 << power for power in range(10, 20)):
        config.rope_parameters = {
            **before, "rope_type": "llama3", "factor": float(stored.max()), "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": length,
        }  # fmt: skip
        factors = rope_factors(config)
        if factors.shape == stored.shape and np.allclose(factors, stored, rtol=1e-4):
            return
    raise InputError(path, f"scales its positions by {FACTORS} in a way that is not known", ORIGINAL)


def _check_partial_rotation(path: Path, config: Any, keys: Mapping[str, Any]) -> None:
    """Refuse a file that rotates another part of each head than transformers would."""
    rotated = keys.get("rope.dimension_count")
    if rotated is None or not hasattr(config, "rope_parameters"):
        return
    rope = config.rope_parameters or {}
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    expected = int(width * rope.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", 1.0)))
    if rotated != expected:
        message = f"rotates {rotated} of {width} numbers of a head, and transformers would rotate {expected}"
        raise InputError(path, message, ORIGINAL)
