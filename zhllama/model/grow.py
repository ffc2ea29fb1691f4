"""Grows a model for a larger vocabulary, shard by shard: only embedding and LM head are read and changed, unless layers are taught."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhllama.errors import InputError, OptionError
from zhllama.io.files import to_json
from zhllama.io.json import read_object
from zhllama.model import row_init
from zhllama.model.copy_files import copy_missing, copy_tokenizer
from zhllama.model.finite_weights import refuse_not_finite
from zhllama.model.growth_plan import PER_LAYER_ROWS, TOKEN_IDS, GrowthPlan, plan_growth
from zhllama.model.load import load_transformers_tokenizer
from zhllama.model.row_init import RowCombination, RowInit, Side
from zhllama.model.row_init_distilled import Distillation
from zhllama.model.row_init_taught import NoProgress, Progress, Teaching
from zhllama.model.row_values import UNCHANGED, ChangedRows, Initialization, check_init, row_values
from zhllama.model.weight_files import Change, rewrite
from zhllama.vocab.folder import ID_MAP

if TYPE_CHECKING:
    import torch

PARTIAL = ".taught"  # the folder of checkpoints inside an unfinished output


@dataclass(frozen=True)
class Grown:
    """Counts of the grown matrices: retained old rows, new rows, all rows, padding rows; and the row initialization.

    `spare_taken` of the new rows were rows of the model that belonged to no id. `untied`: the parameters of a head that was
    tied before. `changed_head_rows`: the ids of the old rows of the head that `shared` changed; every other old row is equal
    to the byte. `english_bits_per_byte`: those of the old head and of the new one, where `shared` measured them. `taught_layers`:
    the first layers that `taught` changed, `changed_weights` their stored weights; all other weights are equal to the byte.
    `boundary_error`: that of the hidden states where new tokens end, before and after, as a share of their variance.
    `guard_text`: where the text comes from that kept English as it was. `per_layer`: the table of each layer's inputs that
    grew too, with means of old rows whatever `init` (Gemma 3n, Gemma 4). `fit_kept`: the share of the changes of `fit` that was
    kept, `fit_held_out` bits per byte of held-out passages without and with them, the inputs being those of the old tokens.
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
    taught_layers: int = 0
    changed_weights: list[str] = field(default_factory=list)
    boundary_error: tuple[float, float] | None = None
    guard_text: str | None = None
    per_layer: str | None = None
    fit_kept: float | None = None
    fit_held_out: tuple[float, float] | None = None


def grow(
    model: str | Path,
    tokenizer: Path,
    out: Path,
    *,
    init: RowInit = "mean",
    pad_rows_to: int = 1,
    untie: bool = False,
    keep_old_rows: bool = False,
    fit: bool = False,
    seed: int = 0,
    vectors: Path | None = None,
    texts: Sequence[str] = (),
    distillation: Distillation | None = None,
    teaching: Teaching | None = None,
    advance: Callable[[float], None] | None = None,
    progress: Progress | None = None,
) -> Grown:
    """Write the model to the folder `out` with one row for each id of `tokenizer`; old rows stay equal to the byte.

    Only `shared` and `taught` change old rows, in the head alone, unless `keep_old_rows`, and only `taught` changes layers;
    `Grown` lists both. `fit` fits their head further (docs/model.md). `focus` needs `vectors`; `fitted`, `shared`, `distill` and `taught` need `texts` in the new language and the
    whole model in memory. An interrupted `taught` goes on from its checkpoint in `out`; `progress` tells its stages.
    The config is written last: a folder without one is unfinished. Errors: InputError, OptionError, OutputError.
    """
    plan = plan_growth(model, tokenizer, pad_rows_to, untie)
    check_options(plan, init, keep_old_rows, fit, bool(texts), vectors is not None)
    refuse_not_finite(plan.stored)
    partial = out / PARTIAL
    asked = Initialization(init, seed, vectors, texts, keep_old_rows, fit, distillation, teaching)
    values = row_values(plan, asked, partial, advance, progress or NoProgress())
    out.mkdir(parents=True, exist_ok=True)

    def change(name: str, side: Side) -> Change:
        source = plan.stored_as(name)
        width = plan.weights.tensors[source].shape[1]  # RemBERT's head is wider than its embedding
        if name == plan.matrices.per_layer:
            return Change((plan.rows, width), lambda table: _enlarged_per_layer(plan, table))
        return Change(
            (plan.rows, width),
            lambda matrix: _enlarged(plan, matrix, values.new(matrix, side), values.changed[side]),
            None if source == name else source,
        )

    changes = {name: change(name, side) for name, side in plan.names.items()}
    for name in plan.matrices.biases:
        changes[name] = Change((plan.rows,), lambda bias: _enlarged_bias(plan, bias, values.bias))
    for name, values_of_it in values.weights.items():
        changes[name] = _replaced(values_of_it)
    rewritten = rewrite(plan.weights, out, changes)
    copy_tokenizer(plan.tokenizer, out)
    copy_missing(plan.model, out)
    _write_configs(plan, out)
    shutil.rmtree(partial, ignore_errors=True)
    taught = values.taught
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
        0 if taught is None else taught.layers,
        sorted(values.weights),
        None if taught is None else (taught.inputs.before, taught.inputs.after),
        None if taught is None else taught.guard,
        plan.matrices.per_layer,
        values.head.fit_kept if fit and values.head is not None else None,
        None if values.head is None else values.head.held_out,
    )


def check_options(
    plan: GrowthPlan, init: RowInit, keep_old_rows: bool, fit: bool, has_text: bool, has_vectors: bool
) -> None:
    """Refuse options that `init` would ignore, and an `init` that this model does not allow; OptionError."""
    if keep_old_rows and init not in ("shared", "taught"):
        raise OptionError("keep_old_rows", f"changes nothing with `init` {init}", "Give `init` shared")
    if fit and init not in ("shared", "taught"):
        raise OptionError("fit", f"changes nothing with `init` {init}", "Give `init` shared")
    check_init(plan, init, has_text, has_vectors)


def _replaced(values: "torch.Tensor") -> Change:
    return Change(tuple(values.shape), lambda _: values)


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


def _enlarged_per_layer(plan: GrowthPlan, table: "torch.Tensor") -> "torch.Tensor":
    """The table of each layer's inputs: that of a new row is the mean of its old pieces, whatever `init`.

    Old rows that the table lacks become copies of its first one, where Gemma 3n looks them up.
    """
    import torch

    missing = plan.old_rows - len(table)
    complete = torch.cat([table, table[:1].expand(missing, -1)]) if missing > 0 else table
    return _enlarged(plan, complete, row_init.mean(plan.old_tokens).rows(complete))


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
                if plan.matrices.per_layer is not None:
                    part[PER_LAYER_ROWS] = plan.rows
        if config.get("pad_token_id") is None and tokenizer.pad_token_id is not None:
            config["pad_token_id"] = tokenizer.pad_token_id
        (out / name).write_text(to_json(config), encoding="utf-8")


def _new_id(plan: GrowthPlan, key: str, id: Any, new_ids: dict[int, int]) -> Any:
    """The new id, or ids, of a special token that a config names under `key`."""
    if isinstance(id, list):
        return [_new_id(plan, key, one, new_ids) for one in id]
    if key == "pad_token_id" and type(id) is int and id < 0:
        return None  # transformers counts -1 from the last row: a new one, which would get no gradient
    if not isinstance(id, int) or not 0 <= id < plan.old.size:
        return id
    if id not in new_ids:
        raise InputError(
            plan.tokenizer / ID_MAP, f"drops id {id}, which the model uses as {key}", "Keep that piece"
        )
    return new_ids[id]
