"""Gives a model rows for a larger vocabulary, shard by shard: only the embedding and the head are read and changed."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhllama.errors import InputError, OptionError
from zhllama.io.files import to_json
from zhllama.io.json import read_object
from zhllama.manifest import check_outputs
from zhllama.model import row_init as initialise
from zhllama.model.embeddings import EmbeddingNames, find_matrices
from zhllama.model.load import MODEL_FILES, load_base, load_tokenizer, local_folder
from zhllama.model.old_pieces import check_extends, cut_inside
from zhllama.model.row_init import RowInit, Side
from zhllama.model.row_init_distilled import Distilling, distill, snippets
from zhllama.model.row_init_fitted import fitted
from zhllama.model.weight_files import Change, Weights, read_weights, rewrite
from zhllama.run_folder import MANIFEST
from zhllama.vocab.any_tokenizer import AnyTokenizer, load_any_tokenizer
from zhllama.vocab.folder import ID_MAP, base_ids_of

if TYPE_CHECKING:
    import torch

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
BESIDE = ("generation_config.json", "chat_template.jinja", "LICENSE*", "NOTICE*")


@dataclass(frozen=True)
class Grown:
    """What became of the matrices: old ids kept, ids that are new, rows altogether, and how the new ones began."""

    n_old: int
    n_new: int
    rows: int
    padding: int
    tied: bool
    init: str
    rewritten: list[str]


@dataclass(frozen=True)
class GrowthPlan:
    """A model, the vocabulary it is to have, and which old row each kept id takes."""

    model: Path
    tokenizer: Path
    weights: Weights
    matrices: EmbeddingNames
    old: AnyTokenizer
    new: AnyTokenizer
    kept: Sequence[int]
    pruned: bool
    rows: int

    @property
    def n_old(self) -> int:
        return len(self.kept)

    @property
    def n_new(self) -> int:
        return self.new.size - len(self.kept)

    @property
    def names(self) -> dict[str, Side]:
        """The stored tensors that grow, each with its side."""
        named: dict[str, Side] = {self.matrices.input: "input"}
        if self.matrices.output is not None:
            named[self.matrices.output] = "output"
        if self.matrices.copy is not None:
            named[self.matrices.copy] = "input"
        return named

    @cached_property
    def surfaces(self) -> list[bytes]:
        """The bytes of each new id."""
        return [self.new.surface(id) for id in range(self.n_old, self.new.size)]

    @cached_property
    def cuts(self) -> list[list[int]]:
        """The old pieces of each new id; none for a special one."""
        return cut_inside(self.old, self.surfaces)


def plan_growth(model: str | Path, tokenizer: Path, pad_rows_to: int = 1) -> GrowthPlan:
    """Check that a tokenizer extends a model's own and count the rows; InputError where it does not."""
    folder = local_folder(model)
    if (folder / MANIFEST).is_file() and not (folder / "config.json").is_file():
        raise InputError(folder, "is a run, and only a plain model grows", "Export it first: zhllama export")
    if not tokenizer.is_dir():
        raise InputError(tokenizer, "is not a tokenizer's folder", "Give one that merge-vocab wrote")
    check_outputs([folder], *MODEL_FILES)
    weights = read_weights(folder)
    matrices = find_matrices(weights)
    held = weights.tensors[matrices.input].shape[0]
    old, new = load_any_tokenizer(folder), load_any_tokenizer(tokenizer)
    if old.size > held:
        raise InputError(
            folder, f"has {old.size:,} ids and only {held:,} rows", "Put the tokenizer there that fits"
        )
    found = base_ids_of(tokenizer, old.size)
    kept, pruned = (range(old.size), False) if found is None else (found, True)
    check_extends(old, new, kept, tokenizer)
    if pad_rows_to < 1:
        raise OptionError("--pad-rows-to", f"cannot be {pad_rows_to}", "Give 1 or more, e.g. 64")
    # Rows that a model holds beyond its ids stay, unless ids are dropped anyway.
    rows = new.size if pruned else max(new.size, held)
    rows += -rows % pad_rows_to
    return GrowthPlan(folder, tokenizer, weights, matrices, old, new, kept, pruned, rows)


def grow(
    model: str | Path,
    tokenizer: Path,
    out: Path,
    *,
    init: RowInit = "mean",
    pad_rows_to: int = 1,
    seed: int = 0,
    vectors: Path | None = None,
    texts: Sequence[str] = (),
    distilling: Distilling | None = None,
    advance: Callable[[float], None] | None = None,
) -> Grown:
    """Write to the folder `out` the model with one row for each id of `tokenizer`, old rows unchanged to the byte.

    `focus` needs `vectors`, `fitted` and `distill` some `texts` in the new language and the whole model in memory.
    The config comes last, so that a folder without one was not finished. Errors: InputError, OptionError, OutputError.
    """
    todo = plan_growth(model, tokenizer, pad_rows_to)
    fresh = _fresh_rows(todo, init, seed, vectors, texts, distilling, advance)
    out.mkdir(parents=True, exist_ok=True)
    width = todo.weights.tensors[todo.matrices.input].shape[1]

    def change(side: Side) -> Change:
        return Change((todo.rows, width), lambda matrix: _enlarged(todo, matrix, fresh(matrix, side)))

    rewritten = rewrite(todo.weights, out, {name: change(side) for name, side in todo.names.items()})
    copy_tokenizer(todo.tokenizer, out)
    for pattern in BESIDE:
        for path in todo.model.glob(pattern):
            if not (out / path.name).exists():
                shutil.copyfile(path, out / path.name)
    _write_configs(todo, out)
    return Grown(
        todo.n_old,
        todo.n_new,
        todo.rows,
        todo.rows - todo.new.size,
        todo.matrices.output is None,
        init,
        rewritten,
    )


Fresh = Callable[["torch.Tensor", Side], "torch.Tensor"]


def _fresh_rows(
    todo: GrowthPlan,
    init: RowInit,
    seed: int,
    vectors: Path | None,
    texts: Sequence[str],
    distilling: Distilling | None,
    advance: Callable[[float], None] | None,
) -> Fresh:
    """What makes the new rows of either side from its old matrix."""
    if init == "random":
        return lambda matrix, side: initialise.random(matrix, todo.n_new, seed + (side == "output"))
    if init == "hf-mean":
        return lambda matrix, side: initialise.hf_mean(matrix, todo.n_new, seed + (side == "output"))
    if init == "weighted":
        return lambda matrix, side: initialise.weighted(todo.cuts, side).rows(matrix)
    if init == "focus":
        if vectors is None:
            raise OptionError("--init focus", "needs vectors of the pieces", "Give --vectors FILE.vec")
        surfaces = [todo.old.surface(id) for id in range(todo.old.size)] + todo.surfaces
        known = initialise.read_vectors(vectors, map(initialise.vector_key, surfaces))
        blend = initialise.focus(todo.cuts, todo.old, todo.surfaces, known)
        return lambda matrix, side: blend.rows(matrix)
    if init == "fitted":
        return _fitted(todo, texts, advance)
    if init == "distill":
        return _distilled(todo, texts, distilling or Distilling(seed=seed), advance)
    return lambda matrix, side: initialise.mean(todo.cuts).rows(matrix)


def _check_texts(init: RowInit, todo: GrowthPlan, texts: Sequence[str]) -> None:
    if todo.pruned:
        raise OptionError(f"--init {init}", "cannot follow a pruned vocabulary", "Take --init mean")
    if not texts:
        raise OptionError(f"--init {init}", "needs text in the new language", "Give --text FILE")


def _fitted(todo: GrowthPlan, texts: Sequence[str], advance: Callable[[float], None] | None) -> Fresh:
    """Weighted means on the way in, where they do better beside these (docs/model.md), fitted rows on the way out."""
    _check_texts("fitted", todo, texts)
    if todo.matrices.output is None:
        raise OptionError(
            "--init fitted",
            "needs a head of its own, and this model's is its embedding",
            "Take --init mean or distill",
        )
    outputs = fitted(load_base(todo.model), todo.old, todo.new, todo.cuts, texts, advance)
    return lambda matrix, side: (
        outputs if side == "output" else initialise.weighted(todo.cuts, side).rows(matrix)
    )


def _distilled(
    todo: GrowthPlan, texts: Sequence[str], how: Distilling, advance: Callable[[float], None] | None
) -> Fresh:
    _check_texts("distill", todo, texts)
    taught = snippets(todo.old, todo.new, texts, todo.n_old, how.length)
    if not taught:
        raise InputError("--text", "holds none of the new pieces", "Give text in the new language")
    start = initialise.mean(todo.cuts)
    inputs = start.rows(todo.weights.tensor(todo.matrices.input))
    output = todo.matrices.output
    outputs = None if output is None else start.rows(todo.weights.tensor(output))
    inputs, outputs, _ = distill(load_base(todo.model), taught, inputs, outputs, todo.n_old, how, advance)
    return lambda matrix, side: inputs if side == "input" or outputs is None else outputs


def _enlarged(todo: GrowthPlan, matrix: "torch.Tensor", fresh: "torch.Tensor") -> "torch.Tensor":
    """Kept rows, new rows, and rows that belong to no id: old ones where there were, else the mean of all."""
    import torch

    made = torch.empty(todo.rows, matrix.shape[1], dtype=matrix.dtype)
    for begin in range(0, todo.n_old, initialise.CHUNK):
        ids = todo.kept[begin : begin + initialise.CHUNK]
        made[begin : begin + len(ids)] = matrix[list(ids)]
    made[todo.n_old : todo.new.size] = fresh.to(matrix.dtype)
    if todo.rows > todo.new.size:
        spare = matrix.shape[0] if not todo.pruned else 0
        made[todo.new.size :] = initialise.moments(matrix[: todo.old.size])[0].to(matrix.dtype)
        if spare > todo.new.size:
            made[todo.new.size : spare] = matrix[todo.new.size : spare]
    return made


def copy_tokenizer(source: Path, out: Path) -> None:
    """Copy what makes up a tokenizer; an id map stays behind, since what it says has been followed."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)


def _write_configs(todo: GrowthPlan, out: Path) -> None:
    """config.json and generation_config.json, true to the rows and to where special ids are now."""
    tokenizer = load_tokenizer(out)
    if len(tokenizer) > todo.rows:
        raise InputError(
            todo.tokenizer,
            f"has {len(tokenizer):,} ids in transformers and {todo.new.size:,} by itself",
            "Its tokenizer_config.json adds tokens: make it again",
        )
    moved = {was: id for id, was in enumerate(todo.kept)}
    for name in ("generation_config.json", "config.json"):
        source = todo.model / name
        if not source.is_file():
            continue
        config = read_object(source, "Fetch the model again")
        for key in [k for k in config if k.endswith("_token_id")]:
            config[key] = _moved(todo, key, config[key], moved)
        if config.get("pad_token_id") is None and tokenizer.pad_token_id is not None:
            config["pad_token_id"] = tokenizer.pad_token_id
        if name == "config.json":
            config["vocab_size"] = todo.rows
        (out / name).write_text(to_json(config), encoding="utf-8")


def _moved(todo: GrowthPlan, key: str, id: Any, moved: dict[int, int]) -> Any:
    if isinstance(id, list):
        return [_moved(todo, key, one, moved) for one in id]
    if not isinstance(id, int) or not 0 <= id < todo.old.size:
        return id
    if id not in moved:
        raise InputError(
            todo.tokenizer / ID_MAP, f"drops id {id}, which the model has as {key}", "Keep that piece"
        )
    return moved[id]
