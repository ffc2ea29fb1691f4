"""Refuses quantized weights where they would be changed: rows and adapters cannot be added to them."""

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zhllama.errors import InputError
from zhllama.model.weight_files import Weights

ORIGINAL = "Use the original weights, which are not quantized"
FLOATS = ("F64", "F32", "F16", "BF16")


def refuse_quantized(folder: Path, config: Any) -> None:
    """Raise InputError for a model whose config names a quantization method."""
    settings = getattr(config, "quantization_config", None)
    if settings is None:
        settings = getattr(config.get_text_config(), "quantization_config", None)
    if settings is None:
        return
    if not isinstance(settings, dict):
        settings = settings.to_dict()
    method = str(settings.get("quant_method") or "an unknown method")
    if method == "bitsandbytes":
        method = "bitsandbytes_8bit" if settings.get("load_in_8bit") else "bitsandbytes_4bit"
    raise InputError(
        folder,
        f"is quantized ({method}), and quantized weights are neither grown nor trained",
        _remedy(method),
    )


def refuse_quantized_tensors(weights: Weights, names: Iterable[str]) -> None:
    """Raise InputError where a parameter is stored in a type that is no floating-point type of at least 16 bits.

    Some folders contain such tensors without a quantization method in their config.
    """
    for name in names:
        stored = weights.tensors[name]
        if stored.dtype not in FLOATS:
            raise InputError(
                weights.folder,
                f"stores {name} as {stored.dtype}, and quantized weights are neither grown nor trained",
                ORIGINAL,
            )


def _remedy(method: str) -> str:
    """How to get unquantized weights: by transformers where it implements that for the method."""
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING
    from transformers.quantizers.base import HfQuantizer

    settings: Any = AUTO_QUANTIZATION_CONFIG_MAPPING.get(method)
    quantizer: Any = AUTO_QUANTIZER_MAPPING.get(method)
    if settings is not None and "dequantize" in inspect.signature(settings).parameters:
        loading = f"quantization_config={settings.__name__}(dequantize=True)"
        return f"{ORIGINAL}, or load it in transformers with {loading} and save it"
    if quantizer is not None and quantizer._dequantize is not HfQuantizer._dequantize:
        return f"{ORIGINAL}, or load it in transformers, call model.dequantize() and save it"
    return ORIGINAL
