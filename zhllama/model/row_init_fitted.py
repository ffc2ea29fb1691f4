"""Output rows of new pieces fitted on the old model's hidden states, without a step of training; for heads of their own.

A new piece may come next where its first old piece might, and among all pieces that begin with that one it has a share of the
text. So its row is that of its first old piece, and the logarithm of the share is added along the one direction in
which all hidden states lie alike: rows have no bias to hold it. A mean of all old pieces instead promises the later bytes of a
character where only a first one can stand.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zhllama.model import row_init as initialise
from zhllama.vocab.any_tokenizer import AnyTokenizer
from zhllama.vocab.token_counts import Counts, token_counts

if TYPE_CHECKING:
    import torch

STATES = 8192  # hidden states that the direction is solved from
LENGTH = 512  # ids read at once
RIDGE = 1e-3  # of the mean square of a column


def fitted(
    model: Any,
    old: AnyTokenizer,
    new: AnyTokenizer,
    cuts: Sequence[Sequence[int]],
    texts: Sequence[str],
    advance: Callable[[float], None] | None = None,
) -> "torch.Tensor":
    """The new rows [n, width] of the head, float32; a piece made of no old one, as a special token, has the mean of all rows."""
    import torch

    head = model.get_output_embeddings().weight.detach()
    firsts = [cut[0] if cut else -1 for cut in cuts]
    shares = torch.from_numpy(log_shares(new, firsts, texts)).float()
    direction = _direction(model, old, texts, advance)
    rows: torch.Tensor = head[torch.tensor(firsts).clamp(min=0)].float() + shares[:, None] * direction
    bare = [i for i, first in enumerate(firsts) if first < 0]
    if bare:
        rows[bare] = initialise.moments(head)[0]
    return rows


def log_shares(new: AnyTokenizer, firsts: Sequence[int], texts: Sequence[str]) -> Counts:
    """Of all tokens of the text that begin with the same old piece the share that each new one has, as a logarithm; [n]."""
    n_old = new.size - len(firsts)
    counts = token_counts(new.encode, ((text, 1.0) for text in texts), new.size) + 0.1  # none is impossible
    first = np.concatenate([np.arange(n_old), np.maximum(firsts, 0)])
    together = np.bincount(first, weights=counts, minlength=n_old)
    shares: Counts = np.log(counts / together[first])[n_old:]
    return shares


def _direction(
    model: Any, old: AnyTokenizer, texts: Sequence[str], advance: Callable[[float], None] | None
) -> "torch.Tensor":
    """The vector [width] whose product with every hidden state is nearest to 1."""
    import torch

    width = model.get_output_embeddings().weight.shape[1]
    squares, total, read = torch.zeros(width, width), torch.zeros(width), 0
    with torch.no_grad():
        for ids in _windows(old, texts):
            states = model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0].float()
            squares += states.T @ states
            total += states.sum(0)
            read += len(ids)
            if advance is not None:
                advance(len(ids) / STATES)
            if read >= STATES:
                break
    ridge = RIDGE * squares.diagonal().mean() * torch.eye(width)
    solved: torch.Tensor = torch.linalg.solve(squares + ridge, total)
    return solved


def _windows(old: AnyTokenizer, texts: Sequence[str]) -> Iterator[list[int]]:
    for text in texts:
        (ids,) = old.encode([text])
        if ids:
            yield ids[:LENGTH]
