"""Compares the old rows, and all other weights, of a grown model with those of the model that it grew from."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zhllama.manifest import read_manifest
from zhllama.model.embeddings import find_matrices
from zhllama.model.row_init import CHUNK
from zhllama.model.stored_model import StoredModel, read_stored_model
from zhllama.model.weight_files import Weights
from zhllama.pretrained import CONFIG
from zhllama.run_folder import MANIFEST
from zhllama.vocab.any_tokenizer import load_any_tokenizer

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class OldRows:
    """The ids of the old rows that differ by a byte, in the embedding and in the LM head, out of `rows`.

    `listed` are the rows of the head whose change the manifest of the grown model declares. `weights` are the names of all
    stored weights beside both matrices; of these, `changed_weights` differ by a byte, and `listed_weights` are declared.
    """

    model: str
    rows: int
    listed: tuple[int, ...]
    embedding: tuple[int, ...]
    head: tuple[int, ...]
    weights: int = 0
    listed_weights: tuple[str, ...] = ()
    changed_weights: tuple[str, ...] = ()

    @property
    def undeclared(self) -> tuple[int, ...]:
        """The rows that differ although the manifest does not say so; it never declares rows of the embedding."""
        return tuple(sorted({*self.embedding, *(set(self.head) - set(self.listed))}))

    @property
    def undeclared_weights(self) -> tuple[str, ...]:
        """The other weights that differ although the manifest does not say so."""
        return tuple(sorted(set(self.changed_weights) - set(self.listed_weights)))


def compare_old_rows(grown: Path) -> OldRows | None:
    """Compare a folder that `grow` wrote with its model; None for another folder, a pruned vocabulary, or a model that is gone."""
    if not (grown / MANIFEST).is_file() or (manifest := read_manifest(grown)).get("command") != "grow":
        return None
    figures = manifest.get("figures", {})
    rows, listed = figures.get("n_old"), figures.get("changed_head_rows", [])
    # The inputs have whole paths; the option may be a hub name, or relative to another folder.
    inputs = (Path(str(one.get("path"))) for one in manifest.get("inputs", []) if isinstance(one, dict))
    base = next((path.parent for path in inputs if path.name == CONFIG), None)
    listed_weights = figures.get("changed_weights", [])
    if not isinstance(rows, int) or not isinstance(listed, list) or not isinstance(listed_weights, list):
        return None
    if base is None or not base.is_dir():
        return None
    if load_any_tokenizer(base).size != rows:  # pruned: its rows moved
        return None
    before, after = read_stored_model(base), read_stored_model(grown)
    (before_in, before_out), (after_in, after_out) = _matrices(before), _matrices(after)
    embedding = _different(before_in[:rows], after_in[:rows])
    head = embedding if after_out is after_in else _different(before_out[:rows], after_out[:rows])
    others, changed = _other_weights(before, after, rows)
    return OldRows(
        str(base), rows, tuple(listed), embedding, head, others, tuple(map(str, listed_weights)), changed
    )


def _matrices(stored: StoredModel) -> "tuple[Tensor, Tensor]":
    """The embedding and the head, the same tensor if they are tied."""
    names = find_matrices(stored)
    embedding = stored.weights.tensor(names.input)
    return embedding, embedding if names.output is None else stored.weights.tensor(names.output)


def _other_weights(before: StoredModel, after: StoredModel, rows: int) -> tuple[int, tuple[str, ...]]:
    """The number of stored weights beside both matrices, and the names of those that differ by a byte.

    Of a table of each layer's inputs, which grows, the first `rows` are compared.
    """
    growing = set[str]()
    for stored in (before, after):
        names = find_matrices(stored)
        growing |= {names.input, names.output or "", names.copy or "", *names.biases}
    tensors = (before.weights.tensors, after.weights.tensors)
    others = (tensors[0].keys() | tensors[1].keys()) - growing
    table = find_matrices(after).per_layer
    return len(others), tuple(
        sorted(
            name
            for name in others
            if _differs(name, before.weights, after.weights, rows if name == table else None)
        )
    )


def _differs(name: str, before: Weights, after: Weights, rows: int | None) -> bool:
    if name not in before.tensors or name not in after.tensors:
        return True
    files = [weights.folder / weights.tensors[name].file for weights in (before, after)]
    if files[0].samefile(files[1]):  # a hard link
        return False
    one, other = before.tensor(name)[:rows], after.tensor(name)[:rows]
    if rows is not None:  # ids beyond the table of the model before have a copy of its first row
        other = other[: len(one)]
    return (
        one.dtype != other.dtype
        or one.shape != other.shape
        or bool(_different(one.reshape(1, -1), other.reshape(1, -1)))
    )


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
