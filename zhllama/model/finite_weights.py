"""Refuses weights that contain values which are infinite or no numbers, before anything is made of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from zhllama.errors import InputError
from zhllama.io.safetensors import AGAIN
from zhllama.model.stored_model import StoredModel
from zhllama.pretrained import loaded_tensors

if TYPE_CHECKING:
    import torch


def refuse_not_finite(stored: StoredModel) -> None:
    """Read every tensor that transformers loads into a parameter; InputError with file and tensor for the first bad one.

    Others stay unread: GPT-J's files contain masks that are infinite in float16, and transformers ignores them.
    """
    loaded = loaded_tensors(stored.model, stored.weights.tensors)
    for file in stored.weights.files:
        for name, tensor in stored.weights.in_file(file):
            if name in loaded:
                check_finite(stored.folder / file, {name: tensor}, AGAIN)


def check_finite(path: Path, tensors: "Mapping[str, torch.Tensor]", remedy: str) -> None:
    """Raise InputError for the first tensor of a file with values that are not finite."""
    for name, tensor in tensors.items():
        if not _is_finite(tensor):
            raise InputError(path, f"contains values in {name} that are infinite or no numbers", remedy)


def _is_finite(tensor: "torch.Tensor") -> bool:
    """Whether all values are finite numbers; by the least and the largest, which is ten times faster than `isfinite`."""
    import torch

    if not tensor.is_floating_point() or not tensor.numel():
        return True
    values = tensor.float() if tensor.itemsize == 1 else tensor
    return all(bool(bound.isfinite()) for bound in torch.aminmax(values))  # a NaN is both
