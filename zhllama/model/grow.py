"""Grows a model for a larger vocabulary, shard by shard: only embedding and LM head are read and changed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhllama.errors import InputError, OptionError
from zhllama.io.files import is_present, to_json
from zhllama.io.json import read_object
from zhllama.io.text import read_documents
from zhllama.manifest import check_outputs
from zhllama.model import row_init
from zhllama.model.chain import MODEL_FILES, local_folder
from zhllama.model.copy_files import copy_missing, copy_tokenizer
from zhllama.model.embeddings import EmbeddingNames, find_matrices, untied_names
from zhllama.model.load import load_base, load_transformers_tokenizer
from zhllama.model.old_pieces import check_extends, tokenize_surfaces
from zhllama.model.row_init import RowCombination, RowInit, Side
from zhllama.model.row_init_distilled import Distillation, distill, find_snippets
from zhllama.model.row_init_fitted import fit_output_rows
from zhllama.model.row_init_shared import fit_shared_head
from zhllama.model.stored_model import read_stored_model
from zhllama.model.tokenizer_class import check_tokenizer_class
from zhllama.model.weight_files import Change, Weights, rewrite
from zhllama.resources import sample_files
from zhllama.run_folder import MANIFEST
from zhllama.vocab.any_tokenizer import AnyTokenizer, load_any_tokenizer
from zhllama.vocab.folder import ID_MAP, base_ids_of

if TYPE_CHECKING:
    import torch

TOKEN_IDS = ("_token_id", "_token_index")  # the ends of the names under which configs give token ids


@dataclass(frozen=True)
class Grown:
    """Counts of the grown matrices: retained old rows, new rows, all rows, padding rows; and the row initialization.

    `spare_taken` of the new rows were rows of the model that belonged to no id. `untied`: the parameters of a head that was
    tied before. `changed_head_rows`: the ids of the old rows of the head that `shared` changed; every other old row is equal
    to the byte. `english_bits_per_byte`: those of the old head and of the new one, where `shared` measured them.
    """

    n_old: int
    n_new: int
    rows: int
    padding: int
    tied: bool
    init: str
    rewritten: list[str]
    spare_taken: int
    untied: int = 0
    changed_head_rows: list[int] = field(default_factory=list)
    english_bits_per_byte: tuple[float, float] | None = None


@dataclass(frozen=True)
class GrowthPlan:
    """A model and its larger vocabulary; the row of new id i < `n_old` is the old row `old_ids[i]`.

    `copied`: for a model that is untied, its one stored matrix, of which a matrix that is not stored is a copy.
    """

    model: Path
    tokenizer: Path
    weights: Weights
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
        if self.matrices.copy is not None:
            sides[self.matrices.copy] = "input"
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
    return GrowthPlan(
        folder, tokenizer, weights, matrices, old, new, old_ids, pruned, rows, old_rows, width, copied
    )


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


def grow(
    model: str | Path,
    tokenizer: Path,
    out: Path,
    *,
    init: RowInit = "mean",
    pad_rows_to: int = 1,
    untie: bool = False,
    keep_old_rows: bool = False,
    seed: int = 0,
    vectors: Path | None = None,
    texts: Sequence[str] = (),
    distillation: Distillation | None = None,
    advance: Callable[[float], None] | None = None,
) -> Grown:
    """Write the model to the folder `out` with one row for each id of `tokenizer`; old rows stay equal to the byte.

    Only `shared` changes old rows, in the head alone, unless `keep_old_rows`; `Grown` lists them.
    `focus` needs `vectors`; `fitted`, `shared` and `distill` need `texts` in the new language and the whole model in memory.
    The config is written last: a folder without one is unfinished. Errors: InputError, OptionError, OutputError.
    """
    plan = plan_growth(model, tokenizer, pad_rows_to, untie)
    if keep_old_rows and init != "shared":
        raise OptionError("keep_old_rows", f"changes nothing with `init` {init}", "Give `init` shared")
    values = _row_values(plan, init, seed, vectors, texts, distillation, keep_old_rows, advance)
    out.mkdir(parents=True, exist_ok=True)

    def change(name: str, side: Side) -> Change:
        source = plan.stored_as(name)
        return Change(
            (plan.rows, plan.width),
            lambda matrix: _enlarged(plan, matrix, values.new(matrix, side), values.changed[side]),
            None if source == name else source,
        )

    changes = {name: change(name, side) for name, side in plan.names.items()}
    for name in plan.matrices.biases:
        changes[name] = Change((plan.rows,), lambda bias: _enlarged_bias(plan, bias, values.bias))
    rewritten = rewrite(plan.weights, out, changes)
    copy_tokenizer(plan.tokenizer, out)
    copy_missing(plan.model, out)
    _write_configs(plan, out)
    return Grown(
        plan.n_old,
        plan.n_new,
        plan.rows,
        plan.rows - plan.new.size,
        plan.matrices.output is None,
        init,
        rewritten,
        0 if plan.pruned else min(plan.n_new, plan.old_rows - plan.n_old),
        plan.rows * plan.width if untie else 0,
        list(values.changed["output"][0]),
        values.english,
    )


# Maps the old matrix [old rows, width] of a side to the new rows [n_new, width].
RowInitializer = Callable[["torch.Tensor", Side], "torch.Tensor"]
ChangedRows = tuple[Sequence[int], "torch.Tensor | None"]  # ids of old rows, and their new values
UNCHANGED: ChangedRows = ((), None)


@dataclass(frozen=True)
class RowValues:
    """How new rows and the head's new biases come about, and the old rows of each side that change."""

    new: RowInitializer
    bias: RowCombination
    changed: dict[Side, ChangedRows]
    english: tuple[float, float] | None = None


def _row_values(
    plan: GrowthPlan,
    init: RowInit,
    seed: int,
    vectors: Path | None,
    texts: Sequence[str],
    distillation: Distillation | None,
    keep_old_rows: bool,
    advance: Callable[[float], None] | None,
) -> RowValues:
    if init == "shared":
        return _shared(plan, texts, keep_old_rows, advance)
    bias = row_init.first_token(plan.old_tokens) if init == "fitted" else row_init.mean(plan.old_tokens)
    initializer = _row_initializer(plan, init, seed, vectors, texts, distillation, advance)
    return RowValues(initializer, bias, {"input": UNCHANGED, "output": UNCHANGED})


def _row_initializer(
    plan: GrowthPlan,
    init: RowInit,
    seed: int,
    vectors: Path | None,
    texts: Sequence[str],
    distillation: Distillation | None,
    advance: Callable[[float], None] | None,
) -> RowInitializer:
    if init == "random":
        return lambda matrix, side: row_init.random(matrix, plan.n_new, seed + (side == "output"))
    if init == "hf-mean":
        return lambda matrix, side: row_init.hf_mean(matrix, plan.n_new, seed + (side == "output"))
    if init == "weighted":
        return lambda matrix, side: row_init.weighted_mean(plan.old_tokens, side).rows(matrix)
    if init == "focus":
        if vectors is None:
            raise OptionError("init focus", "needs vectors of pieces", "Give `vectors` FILE.vec")
        surfaces = [plan.old.surface(id) for id in range(plan.old.size)] + plan.surfaces
        by_piece = row_init.read_vectors(vectors, map(row_init.vector_key, surfaces))
        combination = row_init.focus(plan.old_tokens, plan.old, plan.surfaces, by_piece)
        return lambda matrix, side: combination.rows(matrix)
    if init == "fitted":
        return _fitted(plan, texts, advance)
    if init == "distill":
        return _distilled(plan, texts, distillation or Distillation(seed=seed), advance)
    return lambda matrix, side: row_init.mean(plan.old_tokens).rows(matrix)


def _check_texts(init: RowInit, plan: GrowthPlan, texts: Sequence[str]) -> None:
    if plan.pruned:
        raise OptionError(f"init {init}", "does not work with a pruned vocabulary", "Use `init` mean")
    if not texts:
        raise OptionError(f"init {init}", "needs text in the new language", "Give `text` FILE")


def _fitted(
    plan: GrowthPlan, texts: Sequence[str], advance: Callable[[float], None] | None
) -> RowInitializer:
    """Fitted output rows with weighted means as input rows, the best pair measured (docs/model.md)."""
    _check_texts("fitted", plan, texts)
    _check_untied("fitted", plan)
    outputs = fit_output_rows(load_base(plan.model), plan.old, plan.new, plan.old_tokens, texts, advance)
    return lambda matrix, side: (
        outputs if side == "output" else row_init.weighted_mean(plan.old_tokens, side).rows(matrix)
    )


def _check_untied(init: RowInit, plan: GrowthPlan) -> None:
    if plan.matrices.output is None:
        raise OptionError(
            f"init {init}",
            f"needs an untied LM head, and {plan.model} ties it to its embedding",
            f"Give `untie` ({plan.rows * plan.width:,} more parameters), or `init` mean",
        )


def _shared(
    plan: GrowthPlan, texts: Sequence[str], keep_old_rows: bool, advance: Callable[[float], None] | None
) -> RowValues:
    """A shared head with means as input rows, the best pair measured (docs/model.md)."""
    _check_texts("shared", plan, texts)
    _check_untied("shared", plan)
    english = list(read_documents(sample_files("en")))
    head = fit_shared_head(
        load_base(plan.model), plan.old, plan.new, plan.old_tokens, texts, english, keep_old_rows, advance
    )
    inputs = row_init.mean(plan.old_tokens)
    return RowValues(
        lambda matrix, side: head.rows if side == "output" else inputs.rows(matrix),
        row_init.first_token(plan.old_tokens),
        {"input": UNCHANGED, "output": (head.changed, head.changed_rows)},
        head.english,
    )


def _distilled(
    plan: GrowthPlan, texts: Sequence[str], settings: Distillation, advance: Callable[[float], None] | None
) -> RowInitializer:
    _check_texts("distill", plan, texts)
    snippets = find_snippets(plan.old, plan.new, texts, plan.n_old, settings.length)
    if not snippets:
        raise InputError("`text`", "contains none of the new pieces", "Give text in the new language")
    start = row_init.mean(plan.old_tokens)
    inputs = start.rows(plan.old_matrix("input"))
    outputs = None if plan.matrices.output is None else start.rows(plan.old_matrix("output"))
    inputs, outputs, _ = distill(
        load_base(plan.model), snippets, inputs, outputs, plan.n_old, settings, advance
    )
    return lambda matrix, side: inputs if side == "input" or outputs is None else outputs


def _enlarged(
    plan: GrowthPlan, matrix: "torch.Tensor", new_rows: "torch.Tensor", changed: ChangedRows = UNCHANGED
) -> "torch.Tensor":
    """The retained rows, the new rows, and padding rows: old ones where the model had them, else the mean row."""
    import torch

    enlarged = torch.empty(plan.rows, matrix.shape[1], dtype=matrix.dtype)
    for begin in range(0, plan.n_old, row_init.CHUNK):
        ids = plan.old_ids[begin : begin + row_init.CHUNK]
        enlarged[begin : begin + len(ids)] = matrix[list(ids)]
    if changed[1] is not None:
        enlarged[list(changed[0])] = changed[1].to(matrix.dtype)
    enlarged[plan.n_old : plan.new.size] = new_rows.to(matrix.dtype)
    if plan.rows > plan.new.size:
        spare = matrix.shape[0] if not plan.pruned else 0
        enlarged[plan.new.size :] = row_init.moments(matrix[: plan.old.size])[0].to(matrix.dtype)
        if spare > plan.new.size:
            enlarged[plan.new.size : spare] = matrix[plan.new.size : spare]
    return enlarged


def _enlarged_bias(plan: GrowthPlan, bias: "torch.Tensor", combination: RowCombination) -> "torch.Tensor":
    """The head's bias [rows]: that of a new row combines its old pieces' biases."""
    column = bias[:, None]
    return _enlarged(plan, column, combination.rows(column))[:, 0]


def _write_configs(plan: GrowthPlan, out: Path) -> None:
    """Write config.json and generation_config.json with the new row count and the new ids of special tokens."""
    tokenizer = load_transformers_tokenizer(out)
    if len(tokenizer) > plan.rows:
        raise InputError(
            plan.tokenizer,
            f"has {len(tokenizer):,} ids in transformers and {plan.new.size:,} by itself",
            "Rebuild it: its tokenizer_config.json adds tokens",
        )
    new_ids = {old: new for new, old in enumerate(plan.old_ids)}
    for name in ("generation_config.json", "config.json"):
        source = plan.model / name
        if not source.is_file():
            continue
        config = read_object(source, "Download the model again")
        # The config of a model with vision or audio contains that of its language model.
        text = config["text_config"] if isinstance(config.get("text_config"), dict) else config
        for part in (config, text) if text is not config else (config,):
            for key in [k for k in part if k.endswith(TOKEN_IDS)]:
                part[key] = _new_id(plan, key, part[key], new_ids)
            if name == "config.json" and plan.copied is not None:
                part["tie_word_embeddings"] = False
            if name == "config.json" and (part is text or "vocab_size" in part):
                part["vocab_size"] = plan.rows
        if config.get("pad_token_id") is None and tokenizer.pad_token_id is not None:
            config["pad_token_id"] = tokenizer.pad_token_id
        (out / name).write_text(to_json(config), encoding="utf-8")


def _new_id(plan: GrowthPlan, key: str, id: Any, new_ids: dict[int, int]) -> Any:
    """The new id, or ids, of a special token that a config names under `key`."""
    if isinstance(id, list):
        return [_new_id(plan, key, one, new_ids) for one in id]
    if not isinstance(id, int) or not 0 <= id < plan.old.size:
        return id
    if id not in new_ids:
        raise InputError(
            plan.tokenizer / ID_MAP, f"drops id {id}, which the model uses as {key}", "Keep that piece"
        )
    return new_ids[id]
