"""A model made ready to learn: opened with all that was trained before, its adapters and its learning rows in place."""

import inspect
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zhllama.errors import MissingPackage
from zhllama.model.chain import Chain
from zhllama.model.load import open_model
from zhllama.model.trained_rows import apply_trained_rows
from zhllama.training.attention import within_documents
from zhllama.training.four_bit import loading as four_bit_loading
from zhllama.training.hardware import DTYPES
from zhllama.training.options import Lora, Precision, WhichMatrices
from zhllama.training.plan import adapted_layers
from zhllama.training.trainable_rows import RowLayout, TrainableRows, refuse_other_heads, train_rows


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
    """Opens the chain, folds in what was trained before, and lets the given rows and adapters learn, or with `full` everything.

    The body is in `precision`, or with `four_bit` its layers in 4 bits, what learns in fp32. torch's seed decides the adapters' first values.
    """
    dtype = torch.float32 if full else DTYPES[precision]
    loading = four_bit_loading(dtype, device) if four_bit else None
    model = open_model(chain.runs[-1] if chain.runs else chain.base, dtype=dtype, loading=loading).model
    refuse_other_heads(model)
    norms_in_fp32(model)
    if layout.first < model.get_input_embeddings().num_embeddings:
        _widen(model, chain.runs, matrices)
    if not (four_bit or sharded):  # what is cut up is moved part by part, for it may not fit as a whole
        model.to(device)
    model.requires_grad_(full)
    if device.type == "cpu":
        within_documents(model)
    trained = add_adapters(model, lora) if lora is not None else model
    rows = train_rows(model, layout.on(device), matrices)
    if checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    apart = "position_ids" in inspect.signature(model.forward).parameters
    return PreparedModel(trained, rows, apart)


def norms_in_fp32(model: Any) -> None:
    """Layer norms that on processors take no fp32 input beside bf16 weights."""
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.float()


def _widen(model: Any, runs: Sequence[Path], matrices: WhichMatrices) -> None:
    """Learning matrices to fp32, and into them once more the rows that earlier runs saved in fp32."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if embedding.weight.dtype == torch.float32:
        return
    for layer in {
        id(x.weight): x for x in ((embedding, head) if matrices == "both" else (embedding,))
    }.values():
        layer.weight.data = layer.weight.data.float()
    for run in runs:
        apply_trained_rows(model, run)


def add_adapters(model: Any, lora: Lora) -> Any:
    """A PEFT model around `model` whose adapters alone learn; OptionError for modules that it does not have."""
    adapted_layers(model, lora.modules)
    config = adapters_of(lora, "CAUSAL_LM")
    from peft import get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers 5.23 by names that v6 drops
        return get_peft_model(model, config)


def adapters_of(lora: Lora, kind: str, **more: Any) -> Any:
    """PEFT's config of adapters for a kind of task; MissingPackage."""
    try:
        from peft import LoraConfig
    except ImportError:
        raise MissingPackage("training adapters", "peft", "train") from None
    return LoraConfig(
        task_type=kind, r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout,
        target_modules=list(lora.modules), **more,
    )  # fmt: skip
