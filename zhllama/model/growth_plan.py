"""Checks that a tokenizer extends a model's own, and finds what must grow."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhllama.errors import InputError, OptionError
from zhllama.io.files import is_present
from zhllama.io.json import read_object
from zhllama.manifest import check_outputs
from zhllama.model.chain import MODEL_FILES, local_folder
from zhllama.model.embeddings import EmbeddingNames, find_matrices, untied_names
from zhllama.model.old_pieces import check_extends, tokenize_surfaces
from zhllama.model.row_init import Side
from zhllama.model.stored_model import StoredModel, read_stored_model
from zhllama.model.tokenizer_class import check_tokenizer_class
from zhllama.model.weight_files import Weights
from zhllama.pretrained import build_causal
from zhllama.run_folder import MANIFEST
from zhllama.vocab.any_tokenizer import AnyTokenizer, load_any_tokenizer
from zhllama.vocab.folder import base_ids_of

if TYPE_CHECKING:
    import torch

PER_LAYER_ROWS = "vocab_size_per_layer_input"
TOKEN_IDS = ("_token_id", "_token_index")  # the ends of the names under which configs give token ids


@dataclass(frozen=True)
class GrowthPlan:
    """A model and its larger vocabulary; the row of new id i < `n_old` is the old row `old_ids[i]`.

    `copied`: for a model that is untied, its one stored matrix, of which a matrix that is not stored is a copy.
    """

    model: Path
    tokenizer: Path
    stored: StoredModel
    matrices: EmbeddingNames
    old: AnyTokenizer
    new: AnyTokenizer
    old_ids: Sequence[int]
    pruned: bool
    rows: int
    old_rows: int
    width: int
    copied: str | None = None

    @property
    def weights(self) -> Weights:
        return self.stored.weights

    @property
    def n_old(self) -> int:
        return len(self.old_ids)

    @property
    def n_new(self) -> int:
        return self.new.size - len(self.old_ids)

    @property
    def names(self) -> dict[str, Side]:
        """The stored tensors that grow, each with its side."""
        sides: dict[str, Side] = {self.matrices.input: "input"}
        if self.matrices.output is not None:
            sides[self.matrices.output] = "output"
        for name in (self.matrices.copy, self.matrices.per_layer):
            if name is not None:
                sides[name] = "input"
        return sides

    def old_matrix(self, side: Side) -> "torch.Tensor":
        """The matrix of a side [old rows, width], or that to which it is tied."""
        name = self.matrices.output if side == "output" else self.matrices.input
        return self.weights.tensor(self.stored_as(name or self.matrices.input))

    def stored_as(self, name: str) -> str:
        """The stored tensor of which the tensor `name` is made."""
        return name if name in self.weights.tensors or self.copied is None else self.copied

    @cached_property
    def surfaces(self) -> list[bytes]:
        """The bytes of each new id."""
        return [self.new.surface(id) for id in range(self.n_old, self.new.size)]

    @cached_property
    def old_tokens(self) -> list[list[int]]:
        """The old ids that each new piece is tokenized into; none for a special token."""
        return tokenize_surfaces(self.old, self.surfaces)


def plan_growth(model: str | Path, tokenizer: Path, pad_rows_to: int = 1, untie: bool = False) -> GrowthPlan:
    """Check that a tokenizer extends the model's own, and count the rows; InputError where it does not.

    `untie` gives a tied model a head of its own; OptionError where it has one.
    """
    folder = local_folder(model)
    if (folder / MANIFEST).is_file() and not (folder / "config.json").is_file():
        raise InputError(
            folder, "is a run, and only a plain model can grow", "Export it first: zhllama export"
        )
    if not tokenizer.is_dir():
        raise InputError(tokenizer, "is not a tokenizer folder", "Give one that merge-vocab wrote")
    check_outputs([folder], *MODEL_FILES)
    stored = read_stored_model(folder)
    weights, matrices = stored.weights, find_matrices(stored)
    old_rows, width = weights.tensors[matrices.input].shape
    copied = matrices.input if untie else None
    if untie:
        if matrices.output is not None:
            raise OptionError("untie", f"finds the LM head of {folder} untied", "Leave it out")
        matrices = untied_names(stored, matrices)
    old, new = load_any_tokenizer(folder), load_any_tokenizer(tokenizer)
    if old.size > old_rows:
        lacking = old.name(old_rows) or f"id {old_rows}"
        raise InputError(
            folder,
            f"has {old.size:,} ids and only {old_rows:,} rows: {lacking} has none",
            "Put the model's own tokenizer there, or give its added tokens rows (resize_token_embeddings)",
        )
    _refuse_unnamed_rows(folder, old.size, min(old_rows, new.size))
    base_ids = base_ids_of(tokenizer, old.size)
    pruned = base_ids is not None
    old_ids = range(old.size) if base_ids is None else base_ids
    check_extends(old, new, old_ids, tokenizer, folder)
    check_tokenizer_class(tokenizer, stored.model.config.model_type)
    if pad_rows_to < 1:
        raise OptionError("pad_rows_to", f"cannot be {pad_rows_to}", "Give 1 or more, e.g. 64")
    # A model's padding rows beyond its ids stay, except under a pruned vocabulary.
    rows = new.size if pruned else max(new.size, old_rows)
    rows += -rows % pad_rows_to
    _check_shapes(stored, matrices, rows)
    return GrowthPlan(
        folder, tokenizer, stored, matrices, old, new, old_ids, pruned, rows, old_rows, width, copied
    )


def _check_shapes(stored: StoredModel, matrices: EmbeddingNames, rows: int) -> None:
    """Raise InputError for a model that transformers builds otherwise with so many rows than `grow` writes it.

    Some have further tables of the vocabulary, as DeepSeek-V4, or count rows by another setting, as Marian.
    """
    import torch

    config = deepcopy(stored.model.config)
    for part in (config, config.get_text_config()):
        for setting in ("vocab_size", PER_LAYER_ROWS):
            if hasattr(part, setting):
                setattr(part, setting, rows)
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in build_causal(config).state_dict().items()}
    growing = {matrices.input, matrices.output, matrices.copy, matrices.per_layer, *matrices.biases}
    for name, key in stored.names.items():
        old = stored.weights.tensors[key].shape
        new = (rows, *old[1:]) if key in growing else old
        if shapes.get(name, new) != new:
            message = f"cannot grow: {name} would be {new}, and with {rows:,} rows transformers expects {shapes[name]}"
            raise InputError(stored.folder, message, "Name another model")


def _refuse_unnamed_rows(folder: Path, size: int, end: int) -> None:
    """Refuse to take the row of an id that the model's configs use and its tokenizer does not name.

    Rows from `size` to `end` belong to no token of the model's tokenizer, and new tokens would take them.
    """
    for name in ("config.json", "generation_config.json"):
        config = read_object(folder / name) if is_present(folder / name) else {}
        for key, value in _token_ids(config):
            ids = value if isinstance(value, list) else [value]
            used = next((id for id in ids if type(id) is int and size <= id < end), None)
            if used is not None:
                message = f"uses id {used} as {key}, and its tokenizer has only {size:,} ids"
                remedy = "Name that token in the folder's added_tokens.json, so that its row is retained"
                raise InputError(folder / name, message, remedy)


def _token_ids(config: dict[str, Any]) -> list[tuple[str, Any]]:
    """The entries of a config, and of the config of its language model, that name ids of tokens."""
    text = config.get("text_config")
    parts = [config, *([text] if isinstance(text, dict) else [])]
    return [(key, value) for part in parts for key, value in part.items() if key.endswith(TOKEN_IDS)]
