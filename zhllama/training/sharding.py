"""Sharding over processes by FSDP or ZeRO: whether it is on, and the gathering of whole parameters."""

import os
from typing import Any

from torch import Tensor


def is_sharded() -> bool:
    """Return whether `accelerate launch` shards the parameters (FSDP, ZeRO)."""
    names = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    return any(os.environ.get(name, "").lower() == "true" for name in names)


def is_zero() -> bool:
    """Return whether `accelerate launch` shards by DeepSpeed's ZeRO."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true"


def gather_parameters(trainer: Any) -> dict[str, Tensor] | None:
    """Return all parameters whole, None if they are not sharded; every process must call this."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        state: dict[str, Tensor] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
        return state
    return None
