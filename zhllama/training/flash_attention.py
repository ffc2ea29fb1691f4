"""FlashAttention within the documents of packed blocks: it gets the bounds of the documents and needs no mask.

The kernel is that of the package flash_attn, called by transformers, or else the one in torch (from 2.11 on). transformers
finds the documents itself only in batches of one block, so their bounds are computed here, once per forward pass.
"""

import inspect
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.utils.import_utils import is_flash_attn_2_available

NAME = "zhllama_varlen"  # without "flash", by which transformers would look for a package of that name
PACKAGE = "flash_attention_2"  # transformers' name of flash_attn


def flash_implementation() -> str | None:
    """Return the name under which transformers calls the kernel; None if neither flash_attn nor torch has it."""
    if is_flash_attn_2_available():
        return PACKAGE
    return NAME if _torch_kernel() is not None else None


def use_flash_attention(model: Any) -> Any:
    """Switch a transformers model to FlashAttention; return the handle of the hook that computes the bounds."""
    implementation = flash_implementation()
    assert implementation is not None
    if implementation == NAME:
        AttentionInterface.register(NAME, attend)  # no mask is registered, so transformers builds none
    model.set_attn_implementation(implementation)
    # A hook of the body: PEFT calls `forward` of the whole model, which runs no hooks.
    return model.base_model.register_forward_pre_hook(_add_bounds, with_kwargs=True)


def document_bounds(positions: Tensor) -> Tensor:
    """Return where documents start in flattened blocks, and the total: int32 [documents + 1].

    positions [blocks, size], 0 at the start of a document; each block starts one too.
    """
    starts = positions == 0
    starts[:, 0] = True
    first = starts.flatten().nonzero().flatten().int()
    return torch.nn.functional.pad(first, (0, 1), value=positions.numel())


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: None,
    *,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Compute causal attention within the documents by torch's kernel.

    query [blocks, heads, size, width]; key and value the same, with fewer heads for grouped queries; the bounds are those of
    `document_bounds`. Returns [blocks, size, heads, width]. Errors: ValueError for what the kernel does not have.
    """
    if dropout or softcap is not None or s_aux is not None or sliding_window is not None:
        raise ValueError("torch's FlashAttention has no dropout, caps, sinks or windows")
    if cu_seq_lens_q is None or max_length_q is None:
        return sdpa_attention_forward(
            module, query, key, value, None, scaling=scaling, dropout=dropout, **options
        )
    kernel = _torch_kernel()
    assert kernel is not None
    groups = query.shape[1] // key.shape[1]
    # Norms and rotations may leave fp32 behind, which the kernel does not take.
    device = query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
    flat = [
        tensor.transpose(1, 2).reshape(-1, query.shape[1], tensor.shape[-1]).to(dtype)
        for tensor in (query, repeat_kv(key, groups), repeat_kv(value, groups))
    ]
    bounds, longest = (cu_seq_lens_q,) * 2, (max_length_q,) * 2
    output = kernel(*flat, *bounds, *longest, scale=scaling, window_size=(-1, 0))
    return output.view(query.shape[0], query.shape[2], *output.shape[1:]), None


def _torch_kernel() -> Any:
    """Return torch's kernel if it takes a scale and a window, as since 2.11; else None."""
    if find_spec("torch.nn.attention.varlen") is None:
        return None
    from torch.nn.attention.varlen import varlen_attn

    known = inspect.signature(varlen_attn).parameters
    return varlen_attn if {"scale", "window_size"} <= set(known) else None


def _add_bounds(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
    """Add the bounds to the keyword arguments of a forward pass without a cache."""
    positions, past = kwargs.get("position_ids"), kwargs.get("past_key_values")
    tokens = kwargs.get("input_ids")
    tokens = kwargs.get("inputs_embeds") if tokens is None else tokens
    if positions is None or past is not None or tokens is None:
        return None
    bounds = document_bounds(positions.expand(len(tokens), -1))
    # The number of documents changes from batch to batch; compiled layers must not be compiled again for each.
    torch._dynamo.maybe_mark_dynamic(bounds, 0)
    # An upper limit of the documents' lengths. The exact one would make the CPU wait for the GPU.
    longest = positions.shape[-1]
    added = {
        "cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": longest, "max_length_k": longest,
    }  # fmt: skip
    return args, {**kwargs, **added}
