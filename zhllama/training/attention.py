"""Attention within each document of packed blocks, on processors: no mask, and no product between documents.

Given positions that restart, transformers keeps documents apart by a mask over the whole block: every score is computed
and most are thrown away. GPUs have kernels for this (flash attention reads the same positions); processors have none.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "zhllama_documents"
# Those that hand positions on to their attention, and whose masks say no more than order, documents and windows.
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


def within_documents(model: Any) -> bool:
    """Give a transformers model this attention where it can have it, and tell whether it did."""
    config = model.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    windows = getattr(config, "sliding_window", None) is not None or kinds != {"full_attention"}
    if config.model_type not in FAMILIES or windows or config._attn_implementation != "sdpa":
        return False
    AttentionInterface.register(NAME, attend)  # no mask stands under this name, so transformers makes none
    model.set_attn_implementation(NAME)
    return True


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
    """Causal attention of every document to itself.

    query, key, value [blocks, heads, positions, width], key and value of fewer heads where they are shared;
    position_ids [blocks or 1, positions], 0 where a document begins; gives [blocks, positions, heads, width].
    """
    blocks, _, size, _ = query.shape
    lengths = [lengths_of(row) for row in position_ids.expand(blocks, -1)]
    if all(len(some) == 1 for some in lengths):
        return sdpa_attention_forward(module, query, key, value, None, **options)
    # Split, not sliced: the gradient of a slice is a tensor as large as the whole, one for each document.
    documents = zip(*(_split(whole, lengths) for whole in (query, key, value)), strict=True)
    found = [sdpa_attention_forward(module, q, k, v, None, **options)[0] for q, k, v in documents]
    return torch.cat(found, 1).view(blocks, size, *found[0].shape[2:]), None


def lengths_of(positions: Tensor) -> list[int]:
    """Lengths of the documents of one block [positions]; what stands before the first start is one too."""
    inner = ((positions[1:] == 0).nonzero().flatten() + 1).tolist()
    return [end - start for start, end in pairwise([0, *inner, len(positions)])]


def _split(whole: Tensor, lengths: list[list[int]]) -> list[Tensor]:
    blocks = zip(whole.unbind(), lengths, strict=True)
    return [part[None] for block, some in blocks for part in block.split_with_sizes(some, 1)]
