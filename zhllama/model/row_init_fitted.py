"""Fits the output rows of new pieces to the old model's hidden states without training, for untied heads.

A new piece can follow wherever its first old token can, and it has a share of all tokens that begin with that old token.
So its row is the row of its first old token, plus the logarithm of the share times the direction along which all hidden
states have the product 1, which acts as the bias that the head lacks. A mean of all old tokens would instead raise the
probability of a character's later bytes where only a first byte can follow.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from zhllama.errors import InputError
from zhllama.model.first_layers import bf16_products
from zhllama.model.row_init import moments
from zhllama.vocab.any_tokenizer import AnyTokenizer
from zhllama.vocab.token_counts import Counts, token_counts

if TYPE_CHECKING:
    import torch

STATES = 8192  # hidden states used to solve for the direction
LENGTH = 512  # ids per forward pass
RIDGE = 1e-3  # regularization, relative to the mean square of a column


@dataclass(frozen=True)
class ReadPassage:
    """A text, its first old ids, and the model's last hidden state after each of them [ids, width]."""

    text: str
    ids: list[int]
    states: "torch.Tensor"


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
    direction = bias_direction(model, old, texts, advance=advance)
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


def bias_direction(
    model: Any,
    old: AnyTokenizer,
    texts: Sequence[str],
    count: int = STATES,
    advance: Callable[[float], None] | None = None,
) -> "torch.Tensor":
    """The vector [width] by which a row of the head is moved to add 1 to its logit, solved on `count` hidden states of `texts`."""
    return solve_direction([passage.states for passage in scaled_states(model, old, texts, count, advance)])


def scaled_states(
    model: Any,
    old: AnyTokenizer,
    texts: Sequence[str],
    count: int,
    advance: Callable[[float], None] | None = None,
    fast: bool = False,
    length: int = LENGTH,
) -> list[ReadPassage]:
    """Passages with `count` hidden states, whose products with the rows of the head are the logits.

    Errors: InputError for text without two tokens.
    """
    scale = None
    found: list[ReadPassage] = []
    for passage in hidden_states(model, old, texts, count, fast, length):
        scale = scale or logit_scale(model, passage.ids)
        found.append(replace(passage, states=passage.states * scale))
        if advance is not None:
            advance(len(passage.ids) / count)
    if not found:
        raise InputError("`text`", "contains nothing of two tokens", "Give text in the new language")
    return found


def solve_direction(states: "Sequence[torch.Tensor]") -> "torch.Tensor":
    """The vector [width] whose product with hidden states [n, width] is closest to 1 (ridge regression)."""
    import torch

    squares = sum(part.T @ part for part in states)
    assert isinstance(squares, torch.Tensor)
    total = torch.stack([part.sum(0) for part in states]).sum(0)
    ridge = RIDGE * squares.diagonal().mean() * torch.eye(len(total))
    solved: torch.Tensor = torch.linalg.solve(squares + ridge, total)
    return solved


def hidden_states(
    model: Any,
    old: AnyTokenizer,
    texts: Sequence[str],
    count: int,
    fast: bool = False,
    length: int = LENGTH,
) -> Iterator[ReadPassage]:
    """The first `length` ids of each text and their hidden states, until there are `count`.

    With `fast`, matrices are multiplied in bf16 where the processor does that in hardware.
    """
    import torch

    read = 0
    for text in texts:
        (ids,) = old.encode([text])
        ids = ids[:length]
        if len(ids) < 2:
            continue
        with torch.no_grad(), bf16_products() if fast else nullcontext():
            states = model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0].float()
        yield ReadPassage(text, ids, states)
        read += len(ids)
        if read >= count:
            return


def logit_scale(model: Any, ids: Sequence[int]) -> float:
    """The factor between the product of hidden state and row and the logit, which some models have (Cohere, Granite)."""
    import torch

    head = model.get_output_embeddings()
    some = torch.tensor([list(ids[:8])])
    with torch.no_grad():
        logits = model(input_ids=some).logits.float()
        products = head(model.base_model(input_ids=some).last_hidden_state).float()
    return float((logits * products).sum() / products.square().sum())
