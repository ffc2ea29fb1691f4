"""First values for new rows: sparse combinations of old rows, or draws from their statistics."""

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

RowInit = Literal["mean", "weighted", "random", "hf-mean", "focus", "fitted", "distill"]
Side = Literal["input", "output"]
CHUNK = 1024  # new rows made at once
HF_SPREAD = 1e-9  # transformers' own resizing scales the covariance by this (modeling_utils.py, 5.23)


@dataclass(frozen=True)
class Blend:
    """Each new row as a weighted sum of old rows; row i is made of `ids[i]` with `weights[i]`, which sum to 1.

    A row made of none, as of a special token, becomes the mean of all old rows.
    """

    ids: Sequence[Sequence[int]]
    weights: Sequence[Sequence[float]]

    def rows(self, matrix: "torch.Tensor") -> "torch.Tensor":
        """The new rows [n, width], float32, from the old matrix; only the old rows in use are touched."""
        import torch

        made = torch.zeros(len(self.ids), matrix.shape[1])
        for begin in range(0, len(self.ids), CHUNK):
            ids = self.ids[begin : begin + CHUNK]
            flat = torch.tensor([id for row in ids for id in row], dtype=torch.long)
            scale = torch.tensor([w for row in self.weights[begin : begin + CHUNK] for w in row])
            owner = torch.repeat_interleave(torch.arange(len(ids)), torch.tensor([len(row) for row in ids]))
            made[begin : begin + CHUNK].index_add_(0, owner, matrix[flat].float() * scale[:, None])
        bare = [i for i, ids in enumerate(self.ids) if not ids]
        if bare:
            made[bare] = moments(matrix)[0]
        return made


def mean(cuts: Sequence[Sequence[int]]) -> Blend:
    """The plain mean of each new piece's old pieces: the best one measured (docs/model.md)."""
    return Blend(cuts, [[1 / len(cut) for _ in cut] for cut in cuts])


def weighted(cuts: Sequence[Sequence[int]], side: Side) -> Blend:
    """A mean that tells 上海 from 海上: weights 1, 2, 3, ... to the end for inputs, from the end for outputs.

    A model that has read the pieces stands at the last one, and a model about to write them at the first.
    """
    rows = []
    for cut in cuts:
        ramp = range(1, len(cut) + 1) if side == "input" else range(len(cut), 0, -1)
        rows.append([w / sum(ramp) for w in ramp])
    return Blend(cuts, rows)


def focus(
    cuts: Sequence[Sequence[int]],
    old: AnyTokenizer,
    new_surfaces: Sequence[bytes],
    vectors: "Mapping[str, torch.Tensor]",
) -> Blend:
    """Each new row from the old rows whose given vectors are nearest to its own, weighted by sparsemax.

    FOCUS, arXiv:2305.14481, over any vectors of the pieces' texts; a new piece without one gets the mean of its cut.
    """
    import torch

    plain = mean(cuts)
    ids, weights = list(plain.ids), list(plain.weights)
    donors = [(id, key) for id in range(old.size) for key in [vector_key(old.surface(id))] if key in vectors]
    asked = [
        (i, key) for i, surface in enumerate(new_surfaces) for key in [vector_key(surface)] if key in vectors
    ]
    if not donors or not asked:
        raise InputError(
            "vectors",
            "name no piece of the old or none of the new vocabulary",
            f"Give one line a piece, a space written as {SPACE}",
        )
    known = torch.nn.functional.normalize(torch.stack([vectors[key] for _, key in donors]))
    for begin in range(0, len(asked), 256):
        part = asked[begin : begin + 256]
        likeness = torch.nn.functional.normalize(torch.stack([vectors[key] for _, key in part])) @ known.T
        for (i, _), row in zip(part, sparsemax(likeness), strict=True):
            chosen = row.nonzero().flatten().tolist()
            ids[i] = [donors[c][0] for c in chosen]
            weights[i] = row[chosen].tolist()
    return Blend(ids, weights)


def sparsemax(scores: "torch.Tensor") -> "torch.Tensor":
    """The nearest point to each row of scores on the simplex, mostly zeros (arXiv:1602.02068)."""
    import torch

    ranked = scores.sort(dim=1, descending=True).values
    total = ranked.cumsum(1) - 1
    count = torch.arange(1, scores.shape[1] + 1)
    held = (ranked * count > total).sum(1, keepdim=True)
    threshold = total.gather(1, held - 1) / held
    return (scores - threshold).clamp(min=0)


def vector_key(surface: bytes) -> str:
    """The name of a piece in a file of vectors: its text, a space written as ▁; bytes that are no text as <0xE4>."""
    try:
        return surface.decode().replace(" ", SPACE)
    except UnicodeDecodeError:
        return "".join(f"<0x{byte:02X}>" for byte in surface)


def read_vectors(path: Path, wanted: Iterable[str]) -> "dict[str, torch.Tensor]":
    """The vectors of some names from a text file as word2vec and fastText write it: a name and its numbers a line."""
    import numpy as np
    import torch

    asked = set(wanted)
    found: dict[str, torch.Tensor] = {}
    width = None
    try:
        with TextIOWrapper(open_regular(path), encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                name, *numbers = line.rstrip("\n").rstrip(" ").split(" ")
                if number == 1 and len(numbers) == 1:
                    continue  # a head line: how many, how wide
                width = width or len(numbers)
                if len(numbers) != width:
                    raise InputError(
                        f"{path}:{number}",
                        f"has {len(numbers)} numbers and the first had {width}",
                        "Mend the file",
                    )
                if name in asked:
                    found[name] = torch.from_numpy(np.array(numbers, np.float32))
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "Check --vectors") from error
    except ValueError as error:
        raise InputError(
            path, f"is no text file of vectors ({error})", "Give one as word2vec writes it"
        ) from error
    return found


def random(matrix: "torch.Tensor", n: int, seed: int) -> "torch.Tensor":
    """Rows drawn from a normal law with the mean and the spread of all numbers of the old matrix."""
    import torch

    centre, spread = moments(matrix)
    draw = torch.randn(n, matrix.shape[1], generator=torch.Generator().manual_seed(seed))
    drawn: torch.Tensor = centre.mean() + draw * (spread.square().mean() + centre.var()).sqrt()
    return drawn


def hf_mean(matrix: "torch.Tensor", n: int, seed: int) -> "torch.Tensor":
    """The mean of all old rows and a breath of noise: what transformers' own resizing does (its diagonal)."""
    import torch

    centre, spread = moments(matrix)
    draw = torch.randn(n, matrix.shape[1], generator=torch.Generator().manual_seed(seed))
    drawn: torch.Tensor = centre + draw * spread * HF_SPREAD**0.5
    return drawn


def moments(matrix: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """Mean and standard deviation of each column, a few rows in memory at a time."""
    import torch

    total = torch.zeros(matrix.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for begin in range(0, matrix.shape[0], CHUNK):
        rows = matrix[begin : begin + CHUNK].double()
        total += rows.sum(0)
        squares += rows.square().sum(0)
    centre = total / matrix.shape[0]
    return centre.float(), (squares / matrix.shape[0] - centre.square()).clamp(min=0).sqrt().float()
