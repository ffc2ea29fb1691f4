"""Reads the embedding and head rows that a run trained, and writes them into a model."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhllama.errors import InputError
from zhllama.io.safetensors import load_tensors
from zhllama.model.chain import ROWS

if TYPE_CHECKING:
    import torch


def read_trained_rows(run: Path) -> Iterator[tuple[str, "torch.Tensor", "torch.Tensor"]]:
    """The rows that a run trained, as (`input` or `output`, row ids [n], rows [n, width])."""
    path = run / ROWS
    if not path.is_file():
        return
    tensors = load_tensors(path, "Start the run over")
    for side in ("input", "output"):
        if f"{side}_rows" in tensors:
            if f"{side}_ids" not in tensors:
                raise InputError(path, f"contains {side} rows without their ids", "Start the run over")
            yield side, tensors[f"{side}_ids"], tensors[f"{side}_rows"]


def apply_trained_rows(model: Any, run: Path) -> None:
    """Write a run's trained rows into a model's matrices; InputError where they do not fit."""
    import torch

    for side, ids, rows in read_trained_rows(run):
        layer = model.get_input_embeddings() if side == "input" else model.get_output_embeddings()
        weight = layer.weight
        check_rows(run, tuple(weight.shape), ids, rows)
        with torch.no_grad():
            weight[ids.to(weight.device)] = rows.to(weight)


def check_rows(run: Path, shape: tuple[int, ...], ids: "torch.Tensor", rows: "torch.Tensor") -> None:
    """Refuse rows of another width than the matrix, and ids beyond its last row."""
    if rows.shape[1] != shape[1]:
        raise InputError(
            run,
            f"contains rows of width {rows.shape[1]}, and its base has width {shape[1]}",
            "Give the base it was trained on",
        )
    if ids.numel() and int(ids.max()) >= shape[0]:
        raise InputError(
            run,
            f"trained the row of id {int(ids.max())}, and its base has {shape[0]} rows",
            "Give the base it was trained on",
        )
