"""Chooses the attention of packed blocks by the device, its packages, and a check of the user's own model.

transformers separates the documents of a block with a dense mask, which SDPA reads on CUDA at the cost of its fastest kernel
and of `block_size` numbers per token and layer. FlashAttention takes the bounds of the documents, and flex_attention a mask
of tiles. A kernel is taken only if the model's logits and gradients stay those of SDPA under the mask, and no document
affects the next one.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor

from zhllama.errors import OptionError
from zhllama.pretrained import build_causal
from zhllama.training.attention import use_document_attention
from zhllama.training.flash_attention import flash_implementation, use_flash_attention
from zhllama.training.options import Attention, Precision
from zhllama.training.probe import (
    TOLERANCE,
    autocast_to,
    random_ids,
    relative_difference,
    takes_position_ids,
    tolerance_of,
    unchanged_rng,
)

Kernel = Literal["documents", "sdpa", "flex", "flash"]
LENGTH = 280  # tokens of a checked block: two tiles of flex_attention and a part of one
REMEDY = "Leave it out, or give sdpa"


@dataclass(frozen=True)
class Gpu:
    """What kernels need to know of a CUDA GPU: its compute capability, and whether Triton can compile for it."""

    capability: tuple[int, int]
    triton: bool


@dataclass(frozen=True)
class AttentionChoice:
    """The chosen kernel, and why each of those that `auto` prefers was not taken. `documents`: SDPA per document, for CPUs."""

    kernel: Kernel
    rejected: Mapping[str, str] = field(default_factory=dict)

    @property
    def dense_mask(self) -> bool:
        """Whether the documents of a block are separated by a mask over the whole block."""
        return self.kernel == "sdpa"


def this_gpu(device: torch.device) -> Gpu | None:
    """Return the GPU that `device` is; None if it is none."""
    if device.type != "cuda":
        return None
    return Gpu(torch.cuda.get_device_capability(device), find_spec("triton") is not None)


def obstacle(
    kernel: Literal["flex", "flash"], model_class: Any, precision: Precision, gpu: Gpu | None
) -> str | None:
    """Return why a kernel cannot be used, whatever the weights of the model; None if nothing is known against it."""
    if gpu is None:
        missing = ", since torch has no backward pass of it for CPUs" if kernel == "flex" else ""
        return f"needs a CUDA GPU{missing}"
    if not takes_position_ids(model_class):
        return f"needs positions, which {model_class.__name__} does not take"
    if kernel == "flex":
        if not gpu.triton:
            return "needs Triton, which is not installed"
        return None if model_class._supports_flex_attn else f"is not supported by {model_class.__name__}"
    if gpu.capability < (8, 0):
        return "needs compute capability 8.0 (Ampere) or later"
    if precision == "fp32":
        return "computes in 16 bits, not in fp32"
    implementation = flash_implementation()
    if implementation is None:
        return "needs the package flash_attn, or torch 2.11"
    if not model_class._supports_flash_attn:
        return f"is not supported by {model_class.__name__}"
    return None


def check_attention(wanted: Attention, model_class: Any, precision: Precision, device: torch.device) -> None:
    """Raise OptionError for a kernel that this machine or this architecture cannot use."""
    if wanted in ("flex", "flash") and (reason := obstacle(wanted, model_class, precision, this_gpu(device))):
        raise OptionError(f"attention {wanted}", reason, REMEDY)


def choose_attention(
    model: Any, wanted: Attention, precision: Precision, device: torch.device, *, length: int,
    autocast: torch.dtype | None = None,
) -> AttentionChoice:  # fmt: skip
    """Switch a model, which has SDPA, to the wanted kernel, or with `auto` to the first that passes the check.

    `length`: tokens of a block. A model that is not on the device, because it is sharded later, is represented by two
    random layers of its config. Errors: OptionError for a wanted kernel that does not pass.
    """
    if wanted == "sdpa":
        return AttentionChoice("sdpa")
    if device.type == "cpu" and wanted == "auto":
        return AttentionChoice("documents" if use_document_attention(model) else "sdpa")
    gpu = this_gpu(device)
    kernels: tuple[Literal["flex", "flash"], ...] = ("flash", "flex") if wanted == "auto" else (wanted,)
    rejected: dict[str, str] = {}
    checked = model if _is_on(model, device) else _two_layers(model, device)
    reference = None
    for kernel in kernels:
        reason = obstacle(kernel, type(model), precision, gpu)
        if reason is None:
            reference = reference or packed_passes(checked, min(length, LENGTH), autocast)
            reason = _difference(checked, kernel, reference, autocast)
            if reason is None and checked is not model:
                _switch(model, kernel)
        if reason is None:
            return AttentionChoice(kernel, rejected)
        if wanted != "auto":
            raise OptionError(f"attention {wanted}", reason, REMEDY)
        rejected[kernel] = reason
    return AttentionChoice("sdpa", rejected)


@dataclass(frozen=True)
class PackedPasses:
    """What a model computes from two packed blocks: logits [2, length, vocabulary], and gradients of embedding rows.

    `changed`: the logits behind the first document of each block after other tokens took its place.
    """

    logits: Tensor
    gradients: Tensor
    changed: list[Tensor]
    first: tuple[int, int]  # lengths of the first documents


def packed_passes(model: Any, length: int, autocast: torch.dtype | None) -> PackedPasses:
    """Run two packed blocks of random tokens forward and backward, and again with other first documents."""
    ids = random_ids(model, 3 * length).view(3, length)
    blocks, others = ids[:2], ids[2]
    # No document ends where a tile does, one has a single token, and the two blocks differ.
    lengths = ((length // 2 + 2, 1, length - length // 2 - 3), (length // 5, length - length // 5))
    positions = torch.stack([torch.cat([torch.arange(n) for n in some]) for some in lengths]).to(ids.device)
    changed = blocks.clone()
    for block, (first, *_) in zip(changed, lengths, strict=True):
        block[:first] = others[:first]
    weight = model.get_input_embeddings().weight
    trainable = weight.requires_grad
    weight.requires_grad_(True)
    try:
        with torch.enable_grad(), autocast_to(ids.device, autocast):
            logits = model(input_ids=blocks, position_ids=positions, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1).float(), blocks[:, 1:].flatten()
            )
        (gradient,) = torch.autograd.grad(loss, [weight])
    finally:
        weight.requires_grad_(trainable)
    with torch.no_grad(), autocast_to(ids.device, autocast):
        again = model(input_ids=changed, position_ids=positions, use_cache=False).logits
    starts = (lengths[0][0], lengths[1][0])
    rest = [block[n:].float() for block, n in zip(again, starts, strict=True)]
    rows = gradient[blocks.unique()]  # type: ignore[no-untyped-call]
    return PackedPasses(logits.detach().float(), rows.float(), rest, starts)


def _difference(
    model: Any, kernel: Literal["flex", "flash"], reference: PackedPasses, autocast: torch.dtype | None
) -> str | None:
    """Switch a model to a kernel; return how it then differs from the reference and switch back, None if it agrees."""
    before = model.config._attn_implementation
    undo = _switch(model, kernel)
    try:
        unchanged = model.config._attn_implementation == before
        reason = "cannot be set for this model" if unchanged else _measure(model, reference, autocast)
    except Exception as error:  # kernels refuse widths, types and devices by any exception
        reason = f"fails with {type(error).__name__} ({' '.join(str(error).split())[:120]})"
    if reason is not None:
        undo()
    return reason


def _measure(model: Any, reference: PackedPasses, autocast: torch.dtype | None) -> str | None:
    length = reference.logits.shape[1]
    measured = packed_passes(model, length, autocast)
    for before, after, first in zip(measured.logits, measured.changed, measured.first, strict=True):
        if not relative_difference(after, before[first:]) <= TOLERANCE:
            return "lets the documents of a block see each other"
    tolerance = tolerance_of(model, autocast)
    for name in ("logits", "gradients"):
        difference = relative_difference(getattr(measured, name), getattr(reference, name))
        if not difference <= tolerance:
            return f"computes {name} that differ from those of sdpa by {100 * difference:.3g} %"
    training = model.training
    model.train()  # some kernels refuse dropout, which only training has
    try:
        packed_passes(model, length, autocast)
    finally:
        model.train(training)
    return None


def _switch(model: Any, kernel: Literal["flex", "flash"]) -> Callable[[], None]:
    """Switch a model to a kernel, and return what switches it back."""
    before = model.config._attn_implementation
    hook = None
    if kernel == "flash":
        hook = use_flash_attention(model)
    else:
        model.set_attn_implementation("flex_attention")

    def undo() -> None:
        if hook is not None:
            hook.remove()
        model.set_attn_implementation(before)

    return undo


def _is_on(model: Any, device: torch.device) -> bool:
    return bool(model.get_input_embeddings().weight.device.type == device.type)


def _two_layers(model: Any, device: torch.device) -> Any:
    """Build a model of the same config with two layers of random weights on the device."""
    config = deepcopy(model.config)
    text = config.get_text_config()
    text.num_hidden_layers = min(2, text.num_hidden_layers)
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[: text.num_hidden_layers]
    with unchanged_rng(device), torch.device(device):
        small = build_causal(config)
    return small.to(model.get_input_embeddings().weight.dtype if model.dtype is None else model.dtype).eval()
