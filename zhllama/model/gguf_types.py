"""Which type each tensor of a GGUF file is stored in: llama.cpp's mixtures of types, by the name of the tensor and its layer."""

import re
from dataclasses import dataclass
from typing import Literal

Quantization = Literal[
    "f16", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q4_k_m", "q4_k_s", "q4_0", "q3_k_l", "q3_k_m", "q3_k_s", "q2_k"
]  # fmt: skip
# LlamaFileType, in the order of the choices.
FILE_TYPES: dict[Quantization, int] = {
    "f16": 1, "q8_0": 7, "q6_k": 18, "q5_k_m": 17, "q5_k_s": 16, "q4_k_m": 15, "q4_k_s": 14, "q4_0": 2, "q3_k_l": 13,
    "q3_k_m": 12, "q3_k_s": 11, "q2_k": 10,
}  # fmt: skip
BLOCK, LARGE_BLOCK = 32, 256  # values in a block of the plain types and of the K types
# What llama.cpp stores a matrix in whose rows are no multiple of LARGE_BLOCK.
FALLBACK = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
EMBEDDING, HEAD = "token_embd.weight", "output.weight"
VALUES = ("attn_v", "attn_qkv", "attn_kv_b")  # matrices of values, alone and in one with others
EIGHT_EXPERTS = (*VALUES, "attn_k")


@dataclass(frozen=True)
class MixtureShape:
    """What llama.cpp's mixtures depend on: number of layers, query heads to a key head, whether the head is tied, and experts."""

    layers: int
    query_groups: int
    tied: bool
    experts: int = 1


def is_mixture(kind: Quantization) -> bool:
    """Whether a file of this kind has K types, which llama.cpp's quantizer alone writes."""
    return "_k" in kind


def tensor_type(kind: Quantization, name: str, shape: tuple[int, ...], model: MixtureShape) -> str:
    """The type of a tensor by its name in llama.cpp and its shape [rows, columns]: a name of GGMLQuantizationType.

    Source: llama_tensor_get_type of llama.cpp's src/llama-quant.cpp, without an importance matrix.
    """
    if len(shape) < 2:
        return "F32"
    if is_mixture(kind):
        type = _mixture_type(kind, name, model)
        if shape[-1] % LARGE_BLOCK and type in FALLBACK:
            type = "Q8_0" if name == HEAD or (model.tied and name == EMBEDDING) else FALLBACK[type]
    elif kind == "f16":
        type = "F16"
    else:
        # 4 bits lose too much in the embedding and the head; llama.cpp stores them with more bits too.
        type = "Q8_0" if name in (EMBEDDING, HEAD) else kind.upper()
    return "F16" if shape[-1] % BLOCK else type


def _mixture_type(kind: Quantization, name: str, model: MixtureShape) -> str:
    plain = kind[:4].upper()  # the type of most matrices: Q4_K of q4_k_m
    if name == HEAD or (model.tied and name == EMBEDDING):
        return "Q6_K"
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if match is None:
        return plain
    layer, part = int(match[1]), match[2]
    if model.experts == 8 and part in EIGHT_EXPERTS:  # small beside the experts of Mixtral
        return "Q8_0"
    if part in VALUES:
        type = _value_type(kind, layer, model) or plain
        # Of the models with 80 layers, those whose query heads share key heads have a small matrix of values.
        return "Q5_K" if model.layers == 80 and model.query_groups > 1 and type in ("Q3_K", "Q4_K") else type
    if part.startswith("ffn_down"):  # of experts too
        return _down_type(kind, layer, model.layers) or plain
    if part == "attn_output":
        if model.experts == 8:
            return plain if kind in ("q3_k_l", "q5_k_s", "q5_k_m", "q6_k") else "Q5_K"
        return {"q2_k": "Q3_K", "q3_k_m": "Q4_K", "q3_k_l": "Q5_K"}.get(kind, plain)
    return plain


def _value_type(kind: Quantization, layer: int, model: MixtureShape) -> str | None:
    match kind:
        case "q2_k":
            return "Q4_K" if model.query_groups >= 4 else "Q3_K"
        case "q3_k_m":
            return "Q5_K" if layer < 2 else "Q4_K"
        case "q3_k_l":
            return "Q5_K"
        case "q4_k_s":
            return "Q5_K" if layer < 4 else None
        case "q4_k_m" | "q5_k_m":
            return "Q6_K" if _more_bits(layer, model.layers) else None
    return None


def _down_type(kind: Quantization, layer: int, layers: int) -> str | None:
    match kind:
        case "q2_k":
            return "Q3_K"
        case "q3_k_m":
            return "Q5_K" if layer < layers // 16 else "Q4_K"
        case "q3_k_l":
            return "Q5_K"
        case "q4_k_s":
            return "Q5_K" if layer < layers // 8 else None
        case "q4_k_m" | "q5_k_m":
            return "Q6_K" if _more_bits(layer, layers) else None
    return None


def _more_bits(layer: int, layers: int) -> bool:
    """The first and the last eighth of the layers, and every third between them."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
