"""Frozen layers in 4 bits under trainable adapters (QLoRA, arXiv:2305.14314); needs a CUDA GPU and bitsandbytes."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from zhllama.errors import MissingPackage, OptionError
from zhllama.model.chain import ADAPTER, Chain

if TYPE_CHECKING:
    import torch

# Half a byte per weight, one byte for the scale of 64 weights, and four for the scale of 256 such scales.
BYTES_PER_WEIGHT = 0.5 + 1 / 64 + 4 / (64 * 256)


def check_four_bit(chain: Chain, sharded: bool) -> None:
    """Raise OptionError unless this machine can train adapters over this model in 4 bits; MissingPackage."""
    import torch

    if not torch.cuda.is_available():
        remedy = "Leave it out; to plan for one, give `dry_run` `machine` 4090"
        raise OptionError("load_in_4bit", "needs a CUDA GPU, and here is none", remedy)
    if find_spec("bitsandbytes") is None:
        raise MissingPackage("load_in_4bit", "bitsandbytes", "cuda")
    if sharded:
        message = "does not work with sharded parameters (FSDP, ZeRO)"
        raise OptionError("load_in_4bit", message, "Start it with torchrun")
    for run in chain.runs:
        if (run / ADAPTER).is_dir():
            # Merged into 4-bit weights, the adapter would be rounded away, and export would merge it into weights
            # that the new adapter was never trained on.
            message = f"cannot combine the adapter of {run} with a new one"
            raise OptionError("load_in_4bit", message, "Export that run, and train on the exported model")


def loading_options(dtype: "torch.dtype", device: "torch.device") -> dict[str, Any]:
    """Return transformers' loading options: NormalFloat4 with quantized scales, matrix products in `dtype`.

    The embedding matrix and the LM head are not quantized.
    """
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
