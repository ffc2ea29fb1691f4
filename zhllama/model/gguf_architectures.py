"""How llama.cpp runs each model type that is written as GGUF: its name, the form of its tensors, its settings and positions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zhllama.errors import InputError

OMIT = "Omit `gguf`"
CONVERTER = "Omit `gguf`, and use llama.cpp's own converter"
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SCALINGS = ("default", "linear", "yarn", "llama3")  # of positions
NOPE_EVERY = 4  # SmolLM3 in llama.cpp: every fourth layer has no rotation
# Gemma 2 and 3 in llama.cpp divide queries by the root of the width of a head, except the largest models of both, known by
# their number of layers.
LARGEST = {"gemma2": 46, "gemma3_text": 62}
LOCAL_EVERY = {"gemma2": 2, "gemma3_text": 6}  # all but each so many-th layer have a sliding window
# Settings of YaRN, with the value that transformers takes by default; llama.cpp computes with these whatever a file says.
ONLY = {"beta_fast": 32, "beta_slow": 1, "mscale": None, "mscale_all_dim": None, "truncate": True}
# Numbers of transformers' configs, by the end of the name of gguf's method that writes them.
GRANITE = {"attention_scale": "attention_multiplier", "embedding_scale": "embedding_multiplier", "residual_scale": "residual_multiplier",
           "logit_scale": "logits_scaling"}  # fmt: skip
GEMMA2 = {"attn_logit_softcapping": "attn_logit_softcapping", "final_logit_softcapping": "final_logit_softcapping",
          "sliding_window": "sliding_window"}  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """A model type in llama.cpp.

    `name`: in gguf.MODEL_ARCH. `interleaved`: the two halves of each query and key head alternate, in the order of llama.cpp's
    rotation. `norm_offset`: what is added to the weights of norms, since Gemma's norms multiply by one more than is stored.
    `activation`: the one that llama.cpp computes, whatever a config says. `biases`: the layers of which it reads a bias.
    `head`: whether it reads an LM head of its own, and does without. `windows`: whether it has sliding windows. `factors`:
    whether it reads the divisors of Llama 3.1's rotation frequencies.
    """

    name: str
    interleaved: bool = False
    norm_offset: int = 0
    activation: str = "silu"
    biases: tuple[str, ...] = ()
    head: Literal["any", "tied", "untied"] = "any"
    windows: bool = False
    factors: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)


GELU = "gelu_pytorch_tanh"
ARCHITECTURES = {
    "llama": Architecture("LLAMA", interleaved=True, factors=True, biases=LAYERS),
    "mistral": Architecture("LLAMA", interleaved=True, factors=True),
    "qwen2": Architecture("QWEN2", biases=LAYERS[:3]),
    "qwen3": Architecture("QWEN3"),
    "smollm3": Architecture("SMOLLM3", interleaved=True),
    "granite": Architecture("GRANITE", interleaved=True, factors=True, biases=LAYERS, settings=GRANITE),
    "olmo2": Architecture("OLMO2", head="untied"),
    "gemma": Architecture("GEMMA", norm_offset=1, activation=GELU, head="tied"),
    "gemma2": Architecture(
        "GEMMA2", norm_offset=1, activation=GELU, head="tied", windows=True, settings=GEMMA2
    ),
    "gemma3_text": Architecture("GEMMA3", norm_offset=1, activation=GELU, windows=True, settings=GEMMA2),
}


def architecture_of(folder: Path, config: Any) -> Architecture:
    """What llama.cpp runs a model of one of these types as; InputError for a config that it would run differently."""
    found = ARCHITECTURES[config.model_type]
    scaling = rope_of(config).get("rope_type", "default")
    if scaling not in SCALINGS or (scaling == "llama3" and not found.factors):
        raise InputError(
            folder, f"scales its positions by {scaling}, which `gguf` does not support", CONVERTER
        )
    activation = getattr(config, "hidden_activation", None) or config.hidden_act
    if activation != found.activation:
        raise InputError(
            folder, f"has the activation {activation}, which llama.cpp replaces by {found.activation}", OMIT
        )
    if (reason := _computed_otherwise(config)) is not None:
        raise InputError(folder, f"has {reason}, which llama.cpp does not compute", OMIT)
    return found


def rope_of(config: Any) -> Mapping[str, Any]:
    """The positions of a config; those of the layers without a sliding window where there are two kinds."""
    rope: Mapping[str, Any] = config.rope_parameters.get("full_attention", config.rope_parameters)
    return rope


def _computed_otherwise(config: Any) -> str | None:
    """A setting that llama.cpp has no key for and computes in one way only, if this config has another."""
    layers, kind = config.num_hidden_layers, config.model_type
    if kind == "smollm3":
        if list(config.no_rope_layers[:layers]) != [int((n + 1) % NOPE_EVERY != 0) for n in range(layers)]:
            return "no_rope_layers other than every fourth"
        if "sliding_attention" in config.layer_types:
            return "sliding windows"
    if kind in LOCAL_EVERY:
        local = [(n + 1) % LOCAL_EVERY[kind] != 0 for n in range(layers)]
        if [name == "sliding_attention" for name in config.layer_types] != local:
            return "sliding windows in other layers"
        largest = layers == LARGEST[kind]
        width = config.hidden_size / config.num_attention_heads if largest else config.head_dim
        if config.query_pre_attn_scalar != width:
            return f"a query_pre_attn_scalar other than {width:g}"
    if getattr(config, "use_bidirectional_attention", None):
        return "attention to later tokens"
    given = {name: rope_of(config).get(name) for name in ONLY}
    other = next((name for name, value in given.items() if value not in (None, ONLY[name])), None)
    return None if other is None else f"another {other} in its positions"


def add_positions(writer: Any, config: Any) -> None:
    """Write how positions are rotated and scaled."""
    from gguf import RopeScalingType

    rope = rope_of(config)
    writer.add_rope_freq_base(rope["rope_theta"])
    local = config.rope_parameters.get("sliding_attention")
    if local is not None:
        writer.add_rope_freq_base_swa(local["rope_theta"])
    scaling = rope.get("rope_type", "default")
    if scaling not in ("linear", "yarn"):
        return
    original = rope.get("original_max_position_embeddings")
    factor = rope.get("factor") or config.max_position_embeddings / original
    writer.add_rope_scaling_type(RopeScalingType(scaling))
    writer.add_rope_scaling_factor(factor)
    if scaling == "yarn":
        writer.add_rope_scaling_orig_ctx_len(original)
        if rope.get("attention_factor") is not None:
            writer.add_rope_scaling_attn_factors(rope["attention_factor"] / yarn_attention(factor))


def yarn_attention(factor: float) -> float:
    """What YaRN multiplies queries and keys by (arXiv:2309.00071); llama.cpp's attn_factor multiplies this once more."""
    return 0.1 * math.log(factor) + 1 if factor > 1 else 1.0


def rope_factors(config: Any) -> np.ndarray[Any, Any]:
    """The divisors [head width / 2] of the rotation frequencies of Llama 3.1 in float32, as llama.cpp's converter has them."""
    rope = config.rope_parameters
    width = head_width(config)
    wavelengths = 2 * math.pi * rope["rope_theta"] ** (np.arange(0, width, 2) / width)
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    turns = rope["original_max_position_embeddings"] / wavelengths
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    factors: np.ndarray[Any, Any] = (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)
    return factors


def head_width(config: Any) -> int:
    """The width of one head of attention."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
