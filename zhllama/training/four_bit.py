"""Frozen layers in 4 bits (QLoRA, arXiv:2305.14314): where a CUDA GPU and bitsandbytes are, and adapters learn beside them."""

from importlib.util import find_spec
from typing import Any

import torch

from zhllama.errors import MissingPackage, OptionError
from zhllama.model.chain import ADAPTER, Chain

# A weight: half a byte, a byte for the scale of 64 of them, and four for the scale of 256 such scales.
BYTES_A_WEIGHT = 0.5 + 1 / 64 + 4 / (64 * 256)


def refuse_four_bit(chain: Chain, sharded: bool) -> None:
    """OptionError unless this machine and this model can be trained over layers in 4 bits."""
    if not torch.cuda.is_available():
        remedy = "Leave it out; to plan for one, give --dry-run --machine 4090"
        raise OptionError("load_in_4bit", "needs a CUDA GPU, and here is none", remedy)
    if find_spec("bitsandbytes") is None:
        raise MissingPackage("load_in_4bit", "bitsandbytes", "cuda")
    if sharded:
        told = "does not go with parameters that are cut up (FSDP, ZeRO)"
        raise OptionError("load_in_4bit", told, "Start it with torchrun")
    for run in chain.runs:
        if (run / ADAPTER).is_dir():
            # Folded into 4 bits they would be rounded away, and export would fold them into what was never trained on.
            told = f"cannot hold the adapter of {run} beside a new one"
            raise OptionError("load_in_4bit", told, "Export that run, and train on the exported model")


def loading(dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """How transformers is to load the layers: NormalFloat4, its scales quantised too, products in `dtype`; both matrices stay whole."""
    from transformers import BitsAndBytesConfig

    config: Any = BitsAndBytesConfig
    return {
        "device_map": {"": device},
        "quantization_config": config(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        ),
    }
