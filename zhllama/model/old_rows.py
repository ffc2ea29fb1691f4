"""Compares the old rows of a grown model with those of the model that it grew from."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zhllama.manifest import read_manifest
from zhllama.model.embeddings import find_matrices
from zhllama.model.row_init import CHUNK
from zhllama.model.stored_model import StoredModel, read_stored_model
from zhllama.pretrained import CONFIG
from zhllama.run_folder import MANIFEST
from zhllama.vocab.any_tokenizer import load_any_tokenizer

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class OldRows:
    """The ids of the old rows that differ by a byte, in the embedding and in the LM head, out of `rows`.

    `listed` are the rows of the head whose change the manifest of the grown model declares.
    """

    model: str
    rows: int
    listed: tuple[int, ...]
    embedding: tuple[int, ...]
    head: tuple[int, ...]

    @property
    def undeclared(self) -> tuple[int, ...]:
        """The rows that differ although the manifest does not say so; it never declares rows of the embedding."""
        return tuple(sorted({*self.embedding, *(set(self.head) - set(self.listed))}))


def compare_old_rows(grown: Path) -> OldRows | None:
    """Compare a folder that `grow` wrote with its model; None for another folder, a pruned vocabulary, or a model that is gone."""
    if not (grown / MANIFEST).is_file() or (manifest := read_manifest(grown)).get("command") != "grow":
        return None
    figures = manifest.get("figures", {})
    rows, listed = figures.get("n_old"), figures.get("changed_head_rows", [])
    # The inputs have whole paths; the option may be a hub name, or relative to another folder.
    inputs = (Path(str(one.get("path"))) for one in manifest.get("inputs", []) if isinstance(one, dict))
    base = next((path.parent for path in inputs if path.name == CONFIG), None)
    if not isinstance(rows, int) or not isinstance(listed, list) or base is None or not base.is_dir():
        return None
    if load_any_tokenizer(base).size != rows:  # pruned: its rows moved
        return None
    (before_in, before_out), (after_in, after_out) = map(_matrices, map(read_stored_model, (base, grown)))
    embedding = _different(before_in[:rows], after_in[:rows])
    head = embedding if after_out is after_in else _different(before_out[:rows], after_out[:rows])
    return OldRows(str(base), rows, tuple(listed), embedding, head)


def _matrices(stored: StoredModel) -> "tuple[Tensor, Tensor]":
    """The embedding and the head, the same tensor if they are tied."""
    names = find_matrices(stored)
    embedding = stored.weights.tensor(names.input)
    return embedding, embedding if names.output is None else stored.weights.tensor(names.output)


def _different(before: "Tensor", after: "Tensor") -> tuple[int, ...]:
    """The rows that are not equal to the byte."""
    import torch

    if before.dtype != after.dtype or before.shape != after.shape:
        return tuple(range(len(before)))
    found: list[int] = []
    for begin in range(0, len(before), CHUNK):
        part = slice(begin, begin + CHUNK)
        unequal = before[part].contiguous().view(torch.uint8) != after[part].contiguous().view(torch.uint8)
        found += (unequal.any(1).nonzero(as_tuple=True)[0] + begin).tolist()
    return tuple(found)
