"""Initializes new rows: sparse combinations of old rows, or random rows from their statistics."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from zhllama.errors import InputError
from zhllama.io.files import open_regular
from zhllama.vocab.any_tokenizer import AnyTokenizer
from zhllama.vocab.vocabulary import SPACE

if TYPE_CHECKING:
    import torch

RowInit = Literal["mean", "weighted", "random", "hf-mean", "focus", "fitted", "shared", "distill", "taught"]
Side = Literal["input", "output"]
CHUNK = 1024  # rows processed at once
HF_SPREAD = 1e-9  # transformers' own resizing scales the covariance by this (modeling_utils.py, 5.23)


@dataclass(frozen=True)
class RowCombination:
    """New rows as weighted sums of old rows: new row i sums the old rows `ids[i]` with `weights[i]`, which sum to 1.

    A new row without old ids, such as a special token's, becomes the mean of all old rows.
    """

    ids: Sequence[Sequence[int]]
    weights: Sequence[Sequence[float]]

    def rows(self, matrix: "torch.Tensor") -> "torch.Tensor":
        """The new rows [n, width], float32, from the old matrix; only the old rows in use are read."""
        import torch

        rows = torch.zeros(len(self.ids), matrix.shape[1])
        for begin in range(0, len(self.ids), CHUNK):
            ids = self.ids[begin : begin + CHUNK]
            flat = torch.tensor([id for row in ids for id in row], dtype=torch.long)
            scale = torch.tensor([w for row in self.weights[begin : begin + CHUNK] for w in row])
            owner = torch.repeat_interleave(torch.arange(len(ids)), torch.tensor([len(row) for row in ids]))
            rows[begin : begin + CHUNK].index_add_(0, owner, matrix[flat].float() * scale[:, None])
        empty = [i for i, ids in enumerate(self.ids) if not ids]
        if empty:
            rows[empty] = moments(matrix)[0]
        return rows


def mean(old_tokens: Sequence[Sequence[int]]) -> RowCombination:
    """The mean of each new piece's old tokens: the best initialization measured (docs/model.md)."""
    return RowCombination(old_tokens, [[1 / len(tokens) for _ in tokens] for tokens in old_tokens])


def first_token(old_tokens: Sequence[Sequence[int]]) -> RowCombination:
    """The row of each new piece's first old token."""
    return RowCombination([tokens[:1] for tokens in old_tokens], [[1.0] for _ in old_tokens])


def weighted_mean(old_tokens: Sequence[Sequence[int]], side: Side) -> RowCombination:
    """A mean that distinguishes 上海 from 海上: weights 1, 2, 3, ... for inputs, and the reverse for outputs.

    After reading a piece, a model has read its last old token; before writing it, it predicts its first.
    """
    weights = []
    for tokens in old_tokens:
        ramp = range(1, len(tokens) + 1) if side == "input" else range(len(tokens), 0, -1)
        weights.append([w / sum(ramp) for w in ramp])
    return RowCombination(old_tokens, weights)


def focus(
    old_tokens: Sequence[Sequence[int]],
    old: AnyTokenizer,
    new_surfaces: Sequence[bytes],
    vectors: "Mapping[str, torch.Tensor]",
) -> RowCombination:
    """Combine for each new piece the old rows whose word vectors are most similar to its own, weighted by sparsemax.

    FOCUS (arXiv:2305.14481) with `vectors` by piece text; a new piece without a vector gets the mean of its old tokens.
    """
    import torch

    means = mean(old_tokens)
    ids, weights = list(means.ids), list(means.weights)
    donors = [(id, key) for id in range(old.size) for key in [vector_key(old.surface(id))] if key in vectors]
    targets = [
        (i, key) for i, surface in enumerate(new_surfaces) for key in [vector_key(surface)] if key in vectors
    ]
    if not donors or not targets:
        raise InputError(
            "vectors",
            "contain no piece of the old vocabulary, or none of the new one",
            f"Give one line per piece, with a space written as {SPACE}",
        )
    donor_vectors = torch.nn.functional.normalize(torch.stack([vectors[key] for _, key in donors]))
    for begin in range(0, len(targets), 256):
        part = targets[begin : begin + 256]
        similarity = (
            torch.nn.functional.normalize(torch.stack([vectors[key] for _, key in part])) @ donor_vectors.T
        )
        for (i, _), row in zip(part, sparsemax(similarity), strict=True):
            chosen = row.nonzero().flatten().tolist()
            ids[i] = [donors[c][0] for c in chosen]
            weights[i] = row[chosen].tolist()
    return RowCombination(ids, weights)


def sparsemax(scores: "torch.Tensor") -> "torch.Tensor":
    """Project each row of scores onto the probability simplex; most results are 0 (arXiv:1602.02068)."""
    import torch

    ranked = scores.sort(dim=1, descending=True).values
    total = ranked.cumsum(1) - 1
    count = torch.arange(1, scores.shape[1] + 1)
    support = (ranked * count > total).sum(1, keepdim=True)
    threshold = total.gather(1, support - 1) / support
    return (scores - threshold).clamp(min=0)


def vector_key(surface: bytes) -> str:
    """The key of a piece in a vector file: its text with a space as ▁, or bytes that are not UTF-8 as <0xE4>."""
    try:
        return surface.decode().replace(" ", SPACE)
    except UnicodeDecodeError:
        return "".join(f"<0x{byte:02X}>" for byte in surface)


def read_vectors(path: Path, wanted: Iterable[str]) -> "dict[str, torch.Tensor]":
    """The vectors of the `wanted` keys in a text file in word2vec or fastText format: a key and its numbers per line."""
    import numpy as np
    import torch

    keys = set(wanted)
    vectors: dict[str, torch.Tensor] = {}
    width = None
    try:
        with TextIOWrapper(open_regular(path), encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                key, *numbers = line.rstrip("\n").rstrip(" ").split(" ")
                if number == 1 and len(numbers) == 1:
                    continue  # the header: count and width
                width = width or len(numbers)
                if len(numbers) != width:
                    raise InputError(
                        f"{path}:{number}",
                        f"has {len(numbers)} numbers and the first had {width}",
                        "Correct the file",
                    )
                if key in keys:
                    vectors[key] = torch.from_numpy(np.array(numbers, np.float32))
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "Check `vectors`") from error
    except ValueError as error:
        raise InputError(
            path, f"is not a text file of vectors ({error})", "Give one in word2vec's text format"
        ) from error
    return vectors


def random(matrix: "torch.Tensor", n: int, seed: int) -> "torch.Tensor":
    """Rows [n, width] drawn from a normal distribution with the mean and deviation of all values of the old matrix."""
    import torch

    center, spread = moments(matrix)
    draw = torch.randn(n, matrix.shape[1], generator=torch.Generator().manual_seed(seed))
    rows: torch.Tensor = center.mean() + draw * (spread.square().mean() + center.var()).sqrt()
    return rows


def hf_mean(matrix: "torch.Tensor", n: int, seed: int) -> "torch.Tensor":
    """The mean of all old rows plus a little noise, as transformers' own resizing does (with a diagonal covariance)."""
    import torch

    center, spread = moments(matrix)
    draw = torch.randn(n, matrix.shape[1], generator=torch.Generator().manual_seed(seed))
    rows: torch.Tensor = center + draw * spread * HF_SPREAD**0.5
    return rows


def moments(matrix: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """Mean and standard deviation of each column [width], with few rows in memory at a time."""
    import torch

    total = torch.zeros(matrix.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for begin in range(0, matrix.shape[0], CHUNK):
        rows = matrix[begin : begin + CHUNK].double()
        total += rows.sum(0)
        squares += rows.square().sum(0)
    center = total / matrix.shape[0]
    return center.float(), (squares / matrix.shape[0] - center.square()).clamp(min=0).sqrt().float()
