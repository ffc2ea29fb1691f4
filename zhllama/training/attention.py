"""Attention within each document of packed blocks, for CPUs: no mask, and no scores between documents.

Given positions that restart, transformers separates documents with a mask over the whole block: it computes every score
and discards most of them. GPUs have kernels for this (flash attention reads the same positions); CPUs have none.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "zhllama_documents"
# Families that pass positions to their attention, and whose masks encode only order, documents and windows.
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


def use_document_attention(model: Any) -> bool:
    """Switch a transformers model to this attention if the model supports it; return whether it did."""
    config = model.config
    layer_types = set(getattr(config, "layer_types", None) or ["full_attention"])
    has_window = getattr(config, "sliding_window", None) is not None or layer_types != {"full_attention"}
    if config.model_type not in FAMILIES or has_window or config._attn_implementation != "sdpa":
        return False
    AttentionInterface.register(
        NAME, attend
    )  # no mask is registered under this name, so transformers builds none
    model.set_attn_implementation(NAME)
    return True


@torch.compiler.disable  # type: ignore[untyped-decorator]  # the documents differ from batch to batch, and would be compiled for each
def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: None,
    *,
    position_ids: Tensor,
    **options: Any,
) -> tuple[Tensor, None]:
    """Compute causal attention within each document.

    query [blocks, heads, positions, width]; key and value the same, with fewer heads for grouped queries;
    position_ids [blocks or 1, positions], 0 at the start of a document. Returns [blocks, positions, heads, width].
    """
    blocks, _, size, _ = query.shape
    lengths = [document_lengths(row) for row in position_ids.expand(blocks, -1)]
    if all(len(in_block) == 1 for in_block in lengths):
        return sdpa_attention_forward(module, query, key, value, None, **options)
    # Split, not sliced: the gradient of each slice would be a tensor as large as the whole.
    documents = zip(*(_split(tensor, lengths) for tensor in (query, key, value)), strict=True)
    outputs = [sdpa_attention_forward(module, q, k, v, None, **options)[0] for q, k, v in documents]
    return torch.cat(outputs, 1).view(blocks, size, *outputs[0].shape[2:]), None


def document_lengths(positions: Tensor) -> list[int]:
    """Return the lengths of the documents in one block [positions]; tokens before the first start count as a document."""
    inner_starts = ((positions[1:] == 0).nonzero().flatten() + 1).tolist()
    return [end - start for start, end in pairwise([0, *inner_starts, len(positions)])]


def _split(tensor: Tensor, lengths: list[list[int]]) -> list[Tensor]:
    blocks = zip(tensor.unbind(), lengths, strict=True)
    return [part[None] for block, in_block in blocks for part in block.split_with_sizes(in_block, 1)]
