"""Chooses how new rows come about: by a combination of old ones, or from text with the whole model in memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from zhllama.errors import InputError, OptionError
from zhllama.io.text import read_documents
from zhllama.model import row_init
from zhllama.model.growth_plan import GrowthPlan
from zhllama.model.load import load_base
from zhllama.model.row_init import RowCombination, RowInit, Side
from zhllama.model.row_init_distilled import Distillation, distill, find_snippets
from zhllama.model.row_init_fitted import fit_output_rows
from zhllama.model.row_init_shared import SharedHead, fit_shared_head
from zhllama.model.row_init_taught import Progress, Teaching
from zhllama.model.taught_model import TaughtModel, teach_model
from zhllama.resources import sample_files

if TYPE_CHECKING:
    import torch

# Maps the old matrix [old rows, width] of a side to the new rows [n_new, width].
RowInitializer = Callable[["torch.Tensor", Side], "torch.Tensor"]
ChangedRows = tuple[Sequence[int], "torch.Tensor | None"]  # ids of old rows, and their new values
UNCHANGED: ChangedRows = ((), None)
UNTIED = ("fitted", "shared", "taught")  # initializations of an LM head of its own


@dataclass(frozen=True)
class Initialization:
    """The method `init` that fills new rows, and what single methods take (docs/model.md)."""

    init: RowInit
    seed: int
    vectors: Path | None
    texts: Sequence[str]
    keep_old_rows: bool
    fit: bool
    distillation: Distillation | None
    teaching: Teaching | None


@dataclass(frozen=True)
class RowValues:
    """How new rows and the head's new biases come about, and the old rows of each side and other weights that change."""

    new: RowInitializer
    bias: RowCombination
    changed: dict[Side, ChangedRows]
    head: SharedHead | None = None
    english: tuple[float, float] | None = None
    weights: "Mapping[str, torch.Tensor]" = field(default_factory=dict)  # by stored name
    taught: TaughtModel | None = None


def row_values(
    plan: GrowthPlan,
    asked: Initialization,
    partial: Path,
    advance: Callable[[float], None] | None,
    progress: Progress,
) -> RowValues:
    """The values as `asked`; those of `taught` have their checkpoint in the folder `partial`."""
    if asked.init == "shared":
        return _shared(plan, asked, advance)
    if asked.init == "taught":
        return _taught(plan, asked, partial, progress)
    first = asked.init == "fitted"
    bias = row_init.first_token(plan.old_tokens) if first else row_init.mean(plan.old_tokens)
    return RowValues(_row_initializer(plan, asked, advance), bias, {"input": UNCHANGED, "output": UNCHANGED})


def _row_initializer(
    plan: GrowthPlan, asked: Initialization, advance: Callable[[float], None] | None
) -> RowInitializer:
    init, seed = asked.init, asked.seed
    if init == "random":
        return lambda matrix, side: row_init.random(matrix, plan.n_new, seed + (side == "output"))
    if init == "hf-mean":
        return lambda matrix, side: row_init.hf_mean(matrix, plan.n_new, seed + (side == "output"))
    if init == "weighted":
        return lambda matrix, side: row_init.weighted_mean(plan.old_tokens, side).rows(matrix)
    if init == "focus":
        assert asked.vectors is not None  # check_init
        surfaces = [plan.old.surface(id) for id in range(plan.old.size)] + plan.surfaces
        by_piece = row_init.read_vectors(asked.vectors, map(row_init.vector_key, surfaces))
        combination = row_init.focus(plan.old_tokens, plan.old, plan.surfaces, by_piece)
        return lambda matrix, side: combination.rows(matrix)
    if init == "fitted":
        return _fitted(plan, asked.texts, advance)
    if init == "distill":
        return _distilled(plan, asked, advance)
    return lambda matrix, side: row_init.mean(plan.old_tokens).rows(matrix)


def check_init(plan: GrowthPlan, init: RowInit, has_text: bool, has_vectors: bool) -> None:
    """Refuse an initialization that this model or vocabulary does not allow, or that lacks text or vectors; OptionError."""
    if init == "focus" and not has_vectors:
        raise OptionError("init focus", "needs vectors of pieces", "Give `vectors` FILE.vec")
    if init in (*UNTIED, "distill"):
        if plan.pruned:
            raise OptionError(f"init {init}", "does not work with a pruned vocabulary", "Use `init` mean")
        if not has_text:
            raise OptionError(f"init {init}", "needs text in the new language", "Give `text` FILE")
    if init in ("distill", "taught") and plan.matrices.per_layer is not None:
        message = f"runs the model without ids, and this one looks them up in {plan.matrices.per_layer} too"
        raise OptionError(f"init {init}", message, "Give `init` mean or shared")
    if init in UNTIED and plan.matrices.output is None:
        raise OptionError(
            f"init {init}",
            f"needs an untied LM head, and {plan.model} ties it to its embedding",
            f"Give `untie` ({plan.rows * plan.width:,} more parameters), or `init` mean",
        )


def _fitted(
    plan: GrowthPlan, texts: Sequence[str], advance: Callable[[float], None] | None
) -> RowInitializer:
    """Fitted output rows with weighted means as input rows, the best pair measured (docs/model.md)."""
    outputs = fit_output_rows(load_base(plan.model), plan.old, plan.new, plan.old_tokens, texts, advance)
    return lambda matrix, side: (
        outputs if side == "output" else row_init.weighted_mean(plan.old_tokens, side).rows(matrix)
    )


def _shared(plan: GrowthPlan, asked: Initialization, advance: Callable[[float], None] | None) -> RowValues:
    """A shared head with means as input rows, the best pair measured (docs/model.md)."""
    english = list(read_documents(sample_files("en")))
    head = fit_shared_head(
        load_base(plan.model),
        plan.old,
        plan.new,
        plan.old_tokens,
        asked.texts,
        english,
        asked.keep_old_rows,
        advance,
        asked.fit,
    )
    inputs = row_init.mean(plan.old_tokens)
    return RowValues(
        lambda matrix, side: head.rows if side == "output" else inputs.rows(matrix),
        row_init.first_token(plan.old_tokens),
        {"input": UNCHANGED, "output": (head.changed, head.changed_rows)},
        head,
        head.english,
    )


def _taught(plan: GrowthPlan, asked: Initialization, partial: Path, progress: Progress) -> RowValues:
    """A shared head, and input rows and first layers that learned from the original ones (docs/model.md)."""
    english = list(read_documents(sample_files("en")))
    settings = asked.teaching or Teaching(seed=asked.seed)
    taught = teach_model(
        plan, asked.texts, english, asked.keep_old_rows, asked.fit, settings, partial, progress
    )
    return RowValues(
        lambda matrix, side: taught.head.rows if side == "output" else taught.inputs.rows,
        row_init.first_token(plan.old_tokens),
        {"input": UNCHANGED, "output": (taught.head.changed, taught.head.changed_rows)},
        taught.head,
        taught.english,
        taught.weights,
        taught,
    )


def _distilled(
    plan: GrowthPlan, asked: Initialization, advance: Callable[[float], None] | None
) -> RowInitializer:
    settings = asked.distillation or Distillation(seed=asked.seed)
    snippets = find_snippets(plan.old, plan.new, asked.texts, plan.n_old, settings.length)
    if not snippets:
        raise InputError("`text`", "contains none of the new pieces", "Give text in the new language")
    start = row_init.mean(plan.old_tokens)
    inputs = start.rows(plan.old_matrix("input"))
    outputs = None if plan.matrices.output is None else start.rows(plan.old_matrix("output"))
    inputs, outputs, _ = distill(
        load_base(plan.model), snippets, inputs, outputs, plan.n_old, settings, advance
    )
    return lambda matrix, side: inputs if side == "input" or outputs is None else outputs
