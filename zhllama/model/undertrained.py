"""Finds tokens that a model hardly learned, by their rows alone, as in arXiv:2405.05417 (Land and Bartolo, 2024).

A row whose token was never met in training keeps what all rows share. In the LM head, or a tied matrix, training pushes
such rows in one direction, so that they lie close together; in an untied embedding they do not move at all.
Rows that were added to a trained model began elsewhere: of those the change since their start is compared.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from zhllama.vocab.any_tokenizer import AnyTokenizer

NEAR = 0.5  # of the median distance; on SmolLM2 the nearest .2 % of all rows (docs/results.md)
ALIKE = 0.9  # cosine from which rows of tokens that may be unused count as the same row
STILL = 0.05  # of the median change; weight decay alone moves a row by less
LOWEST = 0.02  # share of rows: a measure that names more does not tell unused rows from others (arXiv:2405.05417, section 3.3)
NEVER_IN_UTF8 = frozenset(bytes([byte]) for byte in (0xC0, 0xC1, *range(0xF5, 0x100)))
_PLACEHOLDER = re.compile(r"unused|reserved|placeholder|extra_id|dummy|\bpad\d", re.IGNORECASE)


def common_direction(matrix: "Tensor", rounds: int = 100) -> "Tensor":
    """The first principal direction [width] of rows [n, width] that are not centered, by power iteration."""
    import torch

    start = matrix.mean(0)
    # Where the mean is zero, any direction will do to begin with.
    direction = start if bool(start.norm() > 0) else torch.ones_like(start)
    for _ in range(rounds):
        product = matrix.T @ (matrix @ (direction / direction.norm().clamp(min=1e-30)))
        if not bool(product.norm() > 0):
            break
        direction = product
    unit: Tensor = direction / direction.norm().clamp(min=1e-30)
    return unit


def without_direction(matrix: "Tensor", direction: "Tensor") -> "Tensor":
    """The rows without their part along a direction of length 1."""
    remaining: Tensor = matrix - (matrix @ direction)[:, None] * direction
    return remaining


def may_be_unused(tokenizer: "AnyTokenizer", rows: int) -> list[int]:
    """Ids that training probably never met: rows without a token, bytes that UTF-8 lacks, special and reserved tokens.

    Special tokens can be trained, so this is only where `unused_rows` looks.
    """
    found = []
    for id in range(rows):
        name, surface = (tokenizer.name(id), tokenizer.surface(id)) if id < tokenizer.size else (None, b"")
        if not surface or surface in NEVER_IN_UTF8 or (name and _PLACEHOLDER.search(name)):
            found.append(id)
    return found


def unused_rows(matrix: "Tensor", candidates: Sequence[int]) -> list[int]:
    """The candidates whose rows [n, width] are alike: the largest group of two or more around one of them, else none."""
    import torch

    rows = matrix[list(candidates)]
    lengths = rows.norm(dim=1)
    present = [i for i in range(len(candidates)) if bool(lengths[i] > 0)]
    if not present:
        return []
    rows = rows[present] / lengths[present, None]
    alike = rows @ rows.T > ALIKE
    group = alike[int(torch.argmax(alike.sum(1)))].nonzero().flatten().tolist()
    return [candidates[present[i]] for i in group] if len(group) > 1 else []


def distances(rows: "Tensor", to: "Tensor") -> "Tensor":
    """The cosine distance [n] of rows [n, width] to one row [width]; of a row of zeros it is 1."""
    distance: Tensor = 1 - (rows @ to) / (rows.norm(dim=1) * to.norm()).clamp(min=1e-30)
    return distance


@dataclass(frozen=True)
class Measure:
    """A measure of all rows of one matrix: `value` [n], of which those up to `limit` are hardly learned.

    `limit` is None where the measure cannot tell unused rows from others, for that `reason`.
    """

    matrix: str
    name: str
    value: "Tensor"
    limit: float | None
    typical: float
    reason: str | None = None

    def hardly_learned(self) -> list[int]:
        """The places of the rows up to the limit, least learned first."""
        if self.limit is None:
            return []
        order = self.value.argsort(stable=True)
        return [int(i) for i in order[: int((self.value <= self.limit).sum())]]


def head_measure(matrix: "Tensor", candidates: Sequence[int], name: str) -> tuple[Measure, list[int]]:
    """Distance of each row of an LM head or a tied matrix [n, width] to the mean unused row, and the unused rows.

    The first principal component, which all rows share, is removed before.
    """
    rows = without_direction(matrix, common_direction(matrix))
    unused = unused_rows(rows, candidates)
    if not unused:
        nothing = Measure(
            name,
            "distance to unused rows",
            matrix.new_ones(len(matrix)),
            None,
            1.0,
            reason="no two rows of unused or special tokens are alike, so there is nothing to compare with",
        )
        return nothing, []
    value = distances(rows, rows[unused].mean(0))
    median = float(value.median())
    return Measure(name, "distance to unused rows", value, NEAR * median, median), unused


def embedding_measure(matrix: "Tensor", unused: Sequence[int], name: str) -> Measure:
    """The length of each row of an untied embedding [n, width]; unused rows are short where weight decay shrank them."""
    value = matrix.norm(dim=1)
    median = float(value.median())
    limit = float(value[list(unused)].max()) * 1.001 if unused else None
    if limit is None:
        return Measure(name, "length", value, None, median, reason="no unused rows are known")
    below = int((value <= limit).sum()) - len(unused)
    if below > LOWEST * len(matrix):
        reason = f"{below:,} rows are as short as unused ones, so the length does not tell them apart"
        return Measure(name, "length", value, None, median, reason=reason)
    return Measure(name, "length", value, limit, median)


def change_measure(
    now: "Tensor", start: "Tensor", matrix: str, head: bool, unmoved: Sequence[int] = ()
) -> Measure:
    """How much of their own added rows [n, width] learned since they were at `start` [n, width].

    Rows of an untied embedding (`head` false) that were never met do not move. Rows of a head or a tied matrix all move in
    one direction; what remains of the change without it, as a share of the change, is the row's own.
    `unmoved` are the places of rows known not to be met, whose mean change is then that direction.
    """
    change = now - start
    length = change.norm(dim=1)
    if not head:
        value = length / start.norm(dim=1).clamp(min=1e-30)
        median = _typical(value)
        return Measure(matrix, "change", value, STILL * median if median > 0 else 0.0, median)
    direction = change[list(unmoved)].mean(0) if len(unmoved) > 1 else common_direction(change)
    direction = direction / direction.norm().clamp(min=1e-30)
    own = without_direction(change, direction).norm(dim=1) / length.clamp(min=1e-30)
    median = _typical(own)
    return Measure(matrix, "own change", own, NEAR * median if median > 0 else 0.0, median)


def _typical(value: "Tensor") -> float:
    """The median of the upper half: rows that were never met may be more than half of all."""
    return float(value.sort().values[len(value) // 4 * 3]) if len(value) else 0.0
