"""A model prepared for training: opened with the results of earlier runs, with adapters and trainable rows in place."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zhllama.errors import InputError
from zhllama.model.chain import Chain
from zhllama.model.load import open_model
from zhllama.model.trained_rows import apply_trained_rows
from zhllama.training.choose_attention import LENGTH, AttentionChoice, choose_attention
from zhllama.training.four_bit import loading_options
from zhllama.training.lora import add_adapters
from zhllama.training.options import Attention, Lora, Precision, WhichMatrices
from zhllama.training.probe import (
    Probe,
    predicts_from_earlier_tokens,
    probe_model,
    scales_loss_by_count,
    separates_documents,
)
from zhllama.training.trainable_rows import PlainRows, RowLayout, TrainableRows, rows_by_probe

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class ProbedModel:
    """A model with its earlier runs merged in, and what was found out about it with a few tokens."""

    model: Any
    probe: Probe
    attention: AttentionChoice
    separates_documents: bool


@dataclass(frozen=True)
class PreparedModel:
    """A model in training: `model` is what the Trainer gets, a PEFT model in stage 2.

    `plain_reason`: why the model keeps its own embedding, head and loss; None if it has ours.
    """

    model: Any
    rows: TrainableRows | PlainRows
    plain_reason: str | None


def open_for_training(
    chain: Chain, matrices: WhichMatrices | None, precision: Precision, device: torch.device,
    *, full: bool = False, four_bit: bool = False, sharded: bool = False, attention: Attention = "auto",
    length: int = LENGTH,
) -> ProbedModel:  # fmt: skip
    """Open the chain with its earlier runs merged in, and run a few tokens through it as transformers does.

    `matrices`: which of them will have trainable rows, None for no rows. Frozen parameters are in `precision`, or with
    `four_bit` the linear layers in 4 bits; trainable matrices are in fp32. `length`: tokens of a block. Errors: OptionError
    for an attention that the model cannot have.
    """
    dtype = torch.float32 if full else DTYPES[precision]
    loading = loading_options(dtype, device) if four_bit else None
    model = open_model(chain.runs[-1] if chain.runs else chain.base, dtype=dtype, loading=loading).model
    refuse_not_finite(model, chain.model)
    norms_to_fp32(model)
    if matrices is not None:
        _matrices_to_fp32(model, chain.runs, matrices)
    if not (four_bit or sharded):  # a sharded model is moved part by part, for it may not fit as a whole
        model.to(device)
    autocast = autocast_type(precision)
    probe = _probe(model, autocast)
    chosen = choose_attention(model, attention, precision, device, length=length, autocast=autocast)
    return ProbedModel(model, probe, chosen, separates_documents(model, autocast))


def prepare_model(
    opened: ProbedModel, layout: RowLayout, matrices: WhichMatrices, lora: Lora | None,
    *, full: bool = False, checkpointing: bool = False, sharded: bool = False,
) -> PreparedModel:  # fmt: skip
    """Make rows and adapters of an opened model trainable, or with `full` everything.

    torch's seed decides the initial values of the adapters. Errors: InputError for a sharded model that cannot take our
    modules and has frozen rows, since sharding loses the masks of gradients.
    """
    model = opened.model
    model.requires_grad_(full)
    trained = add_adapters(model, lora) if lora is not None else model
    rows, plain_reason = rows_by_probe(model, layout, matrices, opened.probe)
    if plain_reason is not None and sharded and rows.masked:
        message = f"cannot train some of its rows while it is sharded: {plain_reason}"
        raise InputError(model.config.model_type, message, "Give `rows` all, or do without FSDP and ZeRO")
    if not scales_loss_by_count(model, opened.probe):
        model.accepts_loss_kwargs = False  # the Trainer then averages the micro-batches of a step
    if checkpointing:
        recompute_activations(model)
    return PreparedModel(trained, rows, plain_reason)


def recompute_activations(model: Any) -> None:
    """Switch gradient checkpointing on, by the name that this version of transformers has for it."""
    for name in ("activation", "gradient"):
        enable = getattr(model, f"{name}_checkpointing_enable", None)
        if enable is not None:
            enable(**{f"{name}_checkpointing_kwargs": {"use_reentrant": False}})
            return


def _probe(model: Any, autocast: torch.dtype | None) -> Probe:
    """Run the probe; InputError for a model without a loss over the next token."""
    kind = model.config.model_type
    try:
        probe = probe_model(model, autocast)
        causal = predicts_from_earlier_tokens(model, autocast)
    except Exception as error:  # whatever fails here in the model's own code would fail in the first step
        reason = " ".join(str(error).split())[:200]
        message = f"cannot be trained: its own forward or backward pass fails with {type(error).__name__} ({reason})"
        raise InputError(kind, message, "Train a causal language model") from error
    if not causal:
        message = "is no causal language model: its logits depend on the tokens that they are to predict"
        raise InputError(kind, message, "Train another model")
    return probe


def refuse_not_finite(model: Any, where: Path) -> None:
    """Raise InputError for weights that are infinite or no numbers: the loss is not finite with them, nor an export equal."""
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            message = f"contains values in {name} that are infinite or no numbers as {str(parameter.dtype).removeprefix('torch.')}"
            raise InputError(where, message, "Download the model again, or train in another `precision`")


def autocast_type(precision: Precision) -> torch.dtype | None:
    """Return the type of matrix products in training where the weights' own is another one."""
    return None if precision == "fp32" else DTYPES[precision]


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
