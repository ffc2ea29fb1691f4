"""Sharding over processes by FSDP or ZeRO: whether it is on, and the gathering of whole parameters."""

import os
from typing import Any

from torch import Tensor
from transformers.integrations.deepspeed import unset_hf_deepspeed_config


def is_sharded() -> bool:
    """Return whether `accelerate launch` shards the parameters (FSDP, ZeRO)."""
    names = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    return any(os.environ.get(name, "").lower() == "true" for name in names)


def open_whole_models() -> None:
    """Open and build models whole from now on, until a Trainer is made.

    Under ZeRO-3, transformers otherwise cuts up every model that it makes, which takes all processes at once.
    """
    unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]


def gather_parameters(trainer: Any) -> dict[str, Tensor] | None:
    """Return all parameters whole, None if they are not sharded; every process must call this."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        state: dict[str, Tensor] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
        open_whole_models()
        return state
    return None
