"""Proves that a model which another program trained has kept its vocabulary, and counts the rows that training changed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zhllama.errors import InputError
from zhllama.model.embeddings import find_matrices
from zhllama.model.load import load_transformers_tokenizer
from zhllama.model.old_pieces import check_extends
from zhllama.model.stored_model import read_stored_model
from zhllama.vocab.any_tokenizer import load_any_tokenizer

if TYPE_CHECKING:
    import torch

OTHER = "Name the model that it was trained from"


@dataclass(frozen=True)
class RowChanges:
    """How many rows of a matrix training changed: of the old ones, and of those that were added to the base."""

    matrix: str
    old: int
    old_changed: int
    new: int
    new_changed: int


@dataclass(frozen=True)
class TrainedElsewhere:
    """What another program did to a model: the special tokens that it added, rows without an id, changed rows."""

    added: tuple[str, ...]
    spare_rows: int
    matrices: tuple[RowChanges, ...]


def compare_with_start(
    trained: Path, before: Path, n_old: int | None, texts: Sequence[str]
) -> TrainedElsewhere:
    """Compare a trained model with the model that training started from, whose first `n_old` rows are its base's.

    Errors: InputError for an id that stands for something else, texts that become other ids, an id without a row, rows
    of another width, fewer rows, and rows that are not finite.
    """
    added = compare_vocabularies(trained, before, texts)
    changes = compare_rows(trained, before, n_old)
    rows = min(len(matrix) for _, matrix in _matrices(trained))
    size = load_any_tokenizer(trained).size
    if rows < size:
        remedy = "Give its added tokens rows (resize_token_embeddings) before training"
        raise InputError(trained, f"has {size:,} ids and {rows:,} rows", remedy)
    return TrainedElsewhere(added, rows - size, changes)


def compare_vocabularies(trained: Path, before: Path, texts: Sequence[str]) -> tuple[str, ...]:
    """The names of the ids that a trained model has more than before. Errors: those of `compare_with_start`."""
    old, new = load_any_tokenizer(before), load_any_tokenizer(trained)
    restore = f"Put the tokenizer files of {before} there"
    try:
        check_extends(old, new, range(old.size), trained, before)
    except InputError as error:
        raise InputError(trained, error.what, restore) from None
    ours, theirs = (load_transformers_tokenizer(folder) for folder in (before, trained))
    for text in (line for passage in texts for line in passage.splitlines() if line):
        expected, found = (list(tokenizer(text).input_ids) for tokenizer in (ours, theirs))
        if expected != found:
            at = next((n for n, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b), 0)
            ids = (f"{ids[at : at + 4]}" for ids in (found, expected))
            message = (
                f"tokenizes {text[:20]!r} from token {at} on as {next(ids)}, and {before} as {next(ids)}"
            )
            raise InputError(trained, message, restore)
    return tuple(new.name(id) or f"<id {id}>" for id in range(old.size, new.size))


def compare_rows(trained: Path, before: Path, n_old: int | None) -> tuple[RowChanges, ...]:
    """Count the changed rows of the embedding and the LM head. Errors: those of `compare_with_start`."""
    import torch

    changes, matrices = [], list(_matrices(before))
    for (name, now), (_, then) in zip(_matrices(trained), [*matrices, *matrices], strict=False):
        if now.shape[1] != then.shape[1]:
            message = f"has rows of width {now.shape[1]}, and {before} of width {then.shape[1]}"
            raise InputError(trained, message, OTHER)
        if len(now) < len(then):
            raise InputError(trained, f"has {len(now):,} rows, and {before} {len(then):,}", OTHER)
        bad = ~torch.isfinite(now).all(1)
        if bad.any():
            message = f"has {int(bad.sum()):,} rows of its {name} that are not finite"
            raise InputError(trained, message, "Train it again with a smaller learning rate")
        changed = (now[: len(then)] != then.to(now.dtype)).any(1)  # a coarser type alone changes nothing
        first = len(then) if n_old is None else min(n_old, len(then))
        old, new = int(changed[:first].sum()), int(changed[first:].sum())
        changes.append(RowChanges(name, first, old, len(then) - first, new))
    return tuple(changes)


def _matrices(folder: Path) -> "Iterator[tuple[str, torch.Tensor]]":
    """The embedding, and the LM head where it is not tied, with their names."""
    stored = read_stored_model(folder)
    names = find_matrices(stored)
    yield "tied matrix" if names.output is None else "embedding", stored.weights.tensor(names.input)
    if names.output is not None:
        yield "LM head", stored.weights.tensor(names.output)
