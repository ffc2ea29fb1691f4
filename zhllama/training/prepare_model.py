"""A model prepared for training: opened with the results of earlier runs, with adapters and trainable rows in place."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zhllama.model.chain import Chain
from zhllama.model.load import open_model
from zhllama.model.trained_rows import apply_trained_rows
from zhllama.training.attention import use_document_attention
from zhllama.training.four_bit import loading_options
from zhllama.training.hardware import DTYPES
from zhllama.training.lora import add_adapters
from zhllama.training.options import Lora, Precision, WhichMatrices
from zhllama.training.trainable_rows import RowLayout, TrainableRows, check_head, make_rows_trainable


@dataclass(frozen=True)
class PreparedModel:
    """A model in training: `model` is what the Trainer gets, a PEFT model in stage 2."""

    model: Any
    rows: TrainableRows
    keeps_documents_apart: bool


def prepare_model(
    chain: Chain, layout: RowLayout, matrices: WhichMatrices, lora: Lora | None, precision: Precision, device: torch.device,
    *, full: bool = False, four_bit: bool = False, checkpointing: bool = False, sharded: bool = False,
) -> PreparedModel:  # fmt: skip
    """Open the chain with its earlier runs merged in, and make rows and adapters trainable, or with `full` everything.

    Frozen parameters are in `precision`, or with `four_bit` the linear layers in 4 bits; trainable ones are in fp32.
    torch's seed decides the initial values of the adapters.
    """
    dtype = torch.float32 if full else DTYPES[precision]
    loading = loading_options(dtype, device) if four_bit else None
    model = open_model(chain.runs[-1] if chain.runs else chain.base, dtype=dtype, loading=loading).model
    check_head(model)
    norms_to_fp32(model)
    if layout.first < model.get_input_embeddings().num_embeddings:
        _matrices_to_fp32(model, chain.runs, matrices)
    if not (four_bit or sharded):  # a sharded model is moved part by part, for it may not fit as a whole
        model.to(device)
    model.requires_grad_(full)
    if device.type == "cpu":
        use_document_attention(model)
    trained = add_adapters(model, lora) if lora is not None else model
    rows = make_rows_trainable(model, layout.on(device), matrices)
    if checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    return PreparedModel(trained, rows, takes_position_ids(type(model)))


def takes_position_ids(model_class: Any) -> bool:
    """Return whether models of this class separate the documents of a block, by position_ids that restart."""
    return "position_ids" in inspect.signature(model_class.forward).parameters


def norms_to_fp32(model: Any) -> None:
    """Convert layer norms to fp32: on CPUs they take no fp32 input beside bf16 weights."""
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.float()


def _matrices_to_fp32(model: Any, runs: Sequence[Path], matrices: WhichMatrices) -> None:
    """Convert the trained matrices to fp32, and apply again the rows that earlier runs saved in fp32."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if embedding.weight.dtype == torch.float32:
        return
    layers = (embedding, head) if matrices == "both" else (embedding,)
    for layer in {id(layer.weight): layer for layer in layers}.values():
        layer.weight.data = layer.weight.data.float()
    for run in runs:
        apply_trained_rows(model, run)
