"""Audits the rows of a model's embedding and LM head: which tokens of its base and which added ones it hardly learned."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zhllama.errors import InputError
from zhllama.manifest import read_config, read_manifest
from zhllama.model.chain import TUNED, Chain, resolve_chain
from zhllama.model.embeddings import find_matrices
from zhllama.model.export import merged_matrix, plan_merge
from zhllama.model.old_pieces import tokenize_surfaces
from zhllama.model.old_rows import OldRows, compare_old_rows
from zhllama.model.row_init import mean
from zhllama.model.undertrained import (
    Measure,
    change_measure,
    embedding_measure,
    head_measure,
    may_be_unused,
)
from zhllama.run_folder import MANIFEST
from zhllama.vocab.any_tokenizer import AnyTokenizer

if TYPE_CHECKING:
    from torch import Tensor

Start = Literal["a stored model", "the mean of base tokens"]
Kind = Literal["token", "special", "part of a character", "unreachable"]


@dataclass(frozen=True)
class ModelMatrices:
    """The embedding [rows, width] and the LM head, None where it is tied to the embedding; float32."""

    input: "Tensor"
    output: "Tensor | None"


@dataclass(frozen=True)
class HardlyLearned:
    """A token whose row one of the measures names; by the measure that is furthest below its limit."""

    id: int
    piece: str
    kind: Kind
    added: bool
    matrix: str
    measure: str
    value: float
    limit: float


@dataclass(frozen=True)
class MeasureFigures:
    """A measure of the rows of the base or of the added ones: what is typical, its limit, and how many rows are up to that."""

    rows: Literal["base", "added"]
    matrix: str
    measure: str
    typical: float
    limit: float | None
    below: int
    reason: str | None


@dataclass(frozen=True)
class RowAudit:
    """The tokens that a model hardly learned, those of the base first, each part from the least learned on.

    `unused` are the tokens with which those of the base are compared. `start` says what the added rows are compared with.
    `old_rows` are the base's rows when training began, beside those of the model that was grown.
    """

    model: str
    tied: bool
    base: int
    added: int
    unused: tuple[str, ...]
    start: Start | None
    measures: tuple[MeasureFigures, ...]
    tokens: tuple[HardlyLearned, ...]
    old_rows: OldRows | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in audit.json."""
        return asdict(self)


def read_matrices(chain: Chain) -> ModelMatrices:
    """The matrices of a model or a run, with the rows and the adapters that its runs trained."""
    plan = plan_merge(chain)
    names = find_matrices(plan.base)
    output = None if names.output is None else merged_matrix(plan, names.output).float()
    return ModelMatrices(merged_matrix(plan, names.input).float(), output)


def trained_from(path: str | Path) -> Chain | None:
    """The model that the runs of a model began with, followed through exports and whole trained models; else None."""
    chain = resolve_chain(path)
    if chain.base.name == TUNED and chain.base.parent in chain.runs:
        before = read_config(chain.base.parent).get("model")
    elif chain.runs:
        return Chain(chain.base, (), chain.base)
    elif (chain.base / MANIFEST).is_file() and read_manifest(chain.base).get("command") == "export":
        before = read_manifest(chain.base).get("options", {}).get("run_folder")
    else:
        return None
    if not isinstance(before, str) or not Path(before).is_dir():
        return None
    return trained_from(before) or resolve_chain(before)


def audit_rows(
    model: str, tokenizer: AnyTokenizer, base: AnyTokenizer | None = None, n_base: int | None = None
) -> RowAudit:
    """Find the tokens of `tokenizer` that `model`, a folder, a hub name or a run, hardly learned.

    The first `n_base` ids are those of `base`, all others were added to it; without a base all are the model's own.
    Errors: InputError for a model that has fewer rows than the tokenizer has ids.
    """
    matrices = read_matrices(resolve_chain(model))
    rows = len(matrices.input)
    if rows < tokenizer.size:
        message = f"has {rows:,} rows, and the tokenizer has {tokenizer.size:,} ids"
        raise InputError(model, message, "Give the tokenizer of this model")
    first = min(tokenizer.size if n_base is None else n_base, tokenizer.size)
    # Behind added tokens, rows without a token were added too and are no measure for those of the base.
    candidates = may_be_unused(tokenizer, rows if first == tokenizer.size else first)
    own, unused = _base_measures(matrices, first, candidates)
    found = list(_hardly_learned(own, range(first), tokenizer, frozenset(unused), added=False))
    added, start = range(first, tokenizer.size), None
    changes: list[Measure] = []
    if len(added) and base is not None:
        before, start = _start_rows(model, matrices, base, tokenizer, added)
        changes = _added_measures(matrices, before, added)
        found += _hardly_learned(changes, added, tokenizer, frozenset(), added=True)
    grown = trained_from(model) or resolve_chain(model)
    return RowAudit(
        model, matrices.output is None, first, len(added),
        tuple(tokenizer.name(id) or f"<id {id}>" if id < tokenizer.size else f"<row {id}>" for id in unused),
        start, (*(_figures("base", one) for one in own), *(_figures("added", one) for one in changes)), tuple(found),
        compare_old_rows(grown.base),
    )  # fmt: skip


def _base_measures(
    matrices: ModelMatrices, first: int, candidates: Sequence[int]
) -> tuple[list[Measure], list[int]]:
    head = matrices.input if matrices.output is None else matrices.output
    rows = head if candidates and candidates[-1] >= first else head[:first]
    name = "tied matrix" if matrices.output is None else "LM head"
    measure, unused = head_measure(rows, candidates, name)
    if matrices.output is None:
        return [measure], unused
    return [measure, embedding_measure(matrices.input[: len(rows)], unused, "embedding")], unused


def _start_rows(
    model: str, now: ModelMatrices, base: AnyTokenizer, tokenizer: AnyTokenizer, added: range
) -> tuple[ModelMatrices, Start]:
    """The added rows when training began: those of the model it began with, else the mean of their base tokens."""
    began = trained_from(model)
    if began is not None:
        before = read_matrices(began)
        if len(before.input) >= added.stop and (before.output is None) == (now.output is None):
            output = None if before.output is None else before.output[added.start : added.stop]
            return ModelMatrices(before.input[added.start : added.stop], output), "a stored model"
    parts = mean(tokenize_surfaces(base, [tokenizer.surface(id) for id in added]))
    output = None if now.output is None else parts.rows(now.output[: added.start])
    return ModelMatrices(parts.rows(now.input[: added.start]), output), "the mean of base tokens"


def _added_measures(now: ModelMatrices, before: ModelMatrices, added: range) -> list[Measure]:
    where = slice(added.start, added.stop)
    if now.output is None or before.output is None:
        return [change_measure(now.input[where], before.input, "tied matrix", head=True)]
    moved = change_measure(now.input[where], before.input, "embedding", head=False)
    still = moved.hardly_learned()
    return [moved, change_measure(now.output[where], before.output, "LM head", head=True, unmoved=still)]


def _hardly_learned(
    measures: Sequence[Measure], ids: range, tokenizer: AnyTokenizer, unused: frozenset[int], added: bool
) -> Iterator[HardlyLearned]:
    """The tokens that any of the measures names, least learned first."""
    best: dict[int, tuple[float, Measure, float]] = {}
    for measure in measures:
        for place in measure.hardly_learned():
            if place >= len(ids) or ids[place] in unused:
                continue
            assert measure.limit is not None
            value = float(measure.value[place])
            share = value / measure.limit if measure.limit else 0.0
            if ids[place] not in best or share < best[ids[place]][0]:
                best[ids[place]] = share, measure, value
    for id, (_, measure, value) in sorted(best.items(), key=lambda one: (one[1][0], one[0])):
        assert measure.limit is not None
        piece = tokenizer.name(id) or f"<id {id}>"
        yield HardlyLearned(
            id, piece, _kind(tokenizer, id), added, measure.matrix, measure.name, value, measure.limit
        )


def _kind(tokenizer: AnyTokenizer, id: int) -> Kind:
    surface = tokenizer.surface(id)
    if not surface:
        return "special"
    try:
        text = surface.decode()
    except UnicodeDecodeError:
        return "part of a character"
    return "token" if id in tokenizer.encode_inside([text])[0] else "unreachable"


def _figures(rows: Literal["base", "added"], measure: Measure) -> MeasureFigures:
    below = len(measure.hardly_learned())
    return MeasureFigures(
        rows, measure.matrix, measure.name, measure.typical, measure.limit, below, measure.reason
    )
