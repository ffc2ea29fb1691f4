"""Fits the output rows of new pieces to the old model's hidden states without training, for untied heads.

A new piece can follow wherever its first old token can, and it has a share of all tokens that begin with that old token.
So its row is the row of its first old token, plus the logarithm of the share times the direction along which all hidden
states have the product 1, which acts as the bias that the head lacks. A mean of all old tokens would instead raise the
probability of a character's later bytes where only a first byte can follow.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zhllama.model.row_init import moments
from zhllama.vocab.any_tokenizer import AnyTokenizer
from zhllama.vocab.token_counts import Counts, token_counts

if TYPE_CHECKING:
    import torch

STATES = 8192  # hidden states used to solve for the direction
LENGTH = 512  # ids per forward pass
RIDGE = 1e-3  # regularization, relative to the mean square of a column


def fit_output_rows(
    model: Any,
    old: AnyTokenizer,
    new: AnyTokenizer,
    old_tokens: Sequence[Sequence[int]],
    texts: Sequence[str],
    advance: Callable[[float], None] | None = None,
) -> "torch.Tensor":
    """The new rows [n, width] of the head in float32; a special token, without old tokens, gets the mean of all rows."""
    import torch

    head = model.get_output_embeddings().weight.detach()
    firsts = [tokens[0] if tokens else -1 for tokens in old_tokens]
    shares = torch.from_numpy(log_shares(new, firsts, texts)).float()
    direction = _direction(model, old, texts, advance)
    rows: torch.Tensor = head[torch.tensor(firsts).clamp(min=0)].float() + shares[:, None] * direction
    empty = [i for i, first in enumerate(firsts) if first < 0]
    if empty:
        rows[empty] = moments(head)[0]
    return rows


def log_shares(new: AnyTokenizer, firsts: Sequence[int], texts: Sequence[str]) -> Counts:
    """The log of each new piece's share [n] of the text's tokens that begin with the same old token."""
    n_old = new.size - len(firsts)
    counts = token_counts(new.encode, ((text, 1.0) for text in texts), new.size) + 0.1  # smoothing
    first = np.concatenate([np.arange(n_old), np.maximum(firsts, 0)])
    totals = np.bincount(first, weights=counts, minlength=n_old)
    shares: Counts = np.log(counts / totals[first])[n_old:]
    return shares


def _direction(
    model: Any, old: AnyTokenizer, texts: Sequence[str], advance: Callable[[float], None] | None
) -> "torch.Tensor":
    """The vector [width] whose product with the hidden states is closest to 1 (ridge regression)."""
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
