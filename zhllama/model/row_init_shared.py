"""Fits an untied LM head in which an old token shares its probability with the new ones that begin with it.

`fitted` counts mass twice: the shares of all tokens that begin with an old token sum to 1, and the old token keeps its
own row besides. Here its row gets its own share too, so that together they have the probability that it had alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zhllama.errors import InputError
from zhllama.model.head_fit import FittedChanges, fit_changes, options_of
from zhllama.model.next_tokens import NextTokens
from zhllama.model.row_init import moments
from zhllama.model.row_init_fitted import ReadPassage, scaled_states, solve_direction
from zhllama.vocab.any_tokenizer import AnyTokenizer
from zhllama.vocab.token_counts import Counts, token_counts

if TYPE_CHECKING:
    import torch

STATES = 12_000  # hidden states from which the direction is solved, and on which `fit` fits
SMOOTHING = 0.1  # added to every count
FLOOR = -6.0  # smallest log share of an old token
# Added to the log share of a new token, because the log of a mean share is above the mean of its logs; the best measured on
# SmolLM2. Tokens whose old token keeps its row, and so its mass, take more from the others (docs/model.md).
MORE, MORE_BESIDE_KEPT = 0.25, 1.5
# The same for tokens beside a kept row that English uses, if English cost too much; the second if the first is not enough.
LESS_FOR_ENGLISH = (0.0, -1.0)
ENGLISH_LIMIT = 0.005  # share by which English bits may rise
ENGLISH_IDS = 4096  # old ids of English text on which they are measured
FIT_SHARES = (1.0, 0.5, 0.25)  # of the fit's changes, from which the largest that English permits is taken
FIT_STATES = 1024  # English states at which a fit keeps sums of probabilities
# Every eighth text is held out of the fit and tells whether it pays: the first 128 ids of 32 of them, because three whole
# passages of 512 once said that a fit costs .5 % which gains 1.4 % (SmolLM2, 2,000 new tokens).
HELD_OUT, HELD_OUT_LENGTH, HELD_OUT_IDS = 8, 128, 4096
GAIN = 0.0025  # share of the bits there that a fit must save; some thousand tokens tell no smaller one from chance


@dataclass(frozen=True)
class Shares:
    """The log shares of tokens among all that begin with the same old token.

    `first` [n] is the old token of each new one, -1 for a special token, `new` [n] its log share; `leads` are the old tokens
    that begin new ones, ascending, and `own` their own log shares.
    """

    first: NDArray[np.int64]
    new: Counts
    leads: NDArray[np.int64]
    own: Counts


@dataclass(frozen=True)
class SharedHead:
    """New rows [n, width] of the head, and the old rows that change, by id; float32.

    `english` are the bits per byte of English text under the old head and under the new one, the inputs being equal. `fit_kept`
    is the share of a fit's changes that the rows have, `held_out` the bits per byte of held-out passages without and with them.
    """

    rows: "torch.Tensor"
    changed: list[int]
    changed_rows: "torch.Tensor"
    english: tuple[float, float]
    fit_kept: float = 0.0
    held_out: tuple[float, float] | None = None


def fit_shared_head(
    model: Any,
    old: AnyTokenizer,
    new: AnyTokenizer,
    old_tokens: Sequence[Sequence[int]],
    texts: Sequence[str],
    english: Sequence[str],
    keep_old_rows: bool = False,
    advance: Callable[[float], None] | None = None,
    fit: bool = False,
    fast: bool = False,
) -> SharedHead:
    """Fit the head to the shares in `texts`, and with `fit` further to what the model predicts after each first token.

    With `fast`, the hidden states of `texts` are computed in bf16 where the processor does that in hardware.

    If `english` costs over ENGLISH_LIMIT more by it, the fit is weakened, then the old tokens that occur there keep their rows, and
    then new tokens that begin with them get less. A fit that does not gain on held-out passages is left out.
    """
    import torch

    head = model.get_output_embeddings()
    # The bias of a head that has one as a further column, and 1 as a further hidden state.
    bias = (
        torch.zeros(len(head.weight)) if getattr(head, "bias", None) is None else head.bias.detach().float()
    )
    weight = torch.cat([head.weight.detach().float(), bias[:, None]], 1)
    shares = log_shares(new, [tokens[0] if tokens else -1 for tokens in old_tokens], texts)
    # Chinese states alone would give a direction along which English states have .62 instead of 1 (SmolLM2), so that the
    # new tokens would take a share of English text.
    read = NextTokens.old(model, old, english, ENGLISH_IDS)
    passages = scaled_states(model, old, texts, STATES, advance, fast)
    found = solve_direction([read.states[:, :-1], *(passage.states for passage in passages)])
    direction = torch.cat([found, torch.zeros(1)])
    before = read.bits_per_byte(weight)
    chosen = share_head(weight, shares, direction, read, before, keep_old_rows)
    if fit:
        every = min(HELD_OUT, len(texts))
        kept_aside = texts[every - 1 :: every]
        rest = [passage for passage in passages if passage.text not in kept_aside]
        if not rest:
            message = "has one passage of two tokens, and `fit` needs another one that it is tried on"
            raise InputError("`text`", message, "Give more text, or leave out `fit`")
        changes = fit_changes(
            weight,
            direction,
            options_of(shares.leads.tolist(), old_tokens),
            shares.new,
            shares.own,
            [_with_bias(passage) for passage in rest],
            read.states[:FIT_STATES],
        )
        fitted = share_head(weight, shares, direction, read, before, keep_old_rows, changes)
        tried = scaled_states(model, old, kept_aside, HELD_OUT_IDS, None, fast, HELD_OUT_LENGTH)
        held_out = NextTokens.new(old, new, tried)
        chosen = with_fit(chosen, fitted, weight, held_out)
    return replace(chosen, rows=chosen.rows[:, :-1], changed_rows=chosen.changed_rows[:, :-1])


def _with_bias(passage: ReadPassage) -> ReadPassage:
    import torch

    return replace(passage, states=torch.cat([passage.states, torch.ones(len(passage.states), 1)], 1))


def share_head(
    head: "torch.Tensor",
    shares: Shares,
    direction: "torch.Tensor",
    english: NextTokens,
    before: float,
    keep_old_rows: bool,
    changes: FittedChanges | None = None,
) -> SharedHead:
    """The head of the first choice that English permits, else of the last; with `changes`, of weaker and weaker ones.

    `before` are the bits of `english` under `head`.
    """
    used = set(english.targets.tolist())
    everything = set(shares.leads.tolist()) if keep_old_rows else set[int]()
    choices = [(everything, MORE_BESIDE_KEPT), *((everything | used, less) for less in LESS_FOR_ENGLISH)]
    for kept, beside_english in choices:
        more = added_shares(shares, kept, used, beside_english)
        for share in (0.0,) if changes is None else FIT_SHARES:
            some = None if changes is None else FittedChanges(share * changes.new, share * changes.own)
            rows, changed, changed_rows = shared_rows(head, shares, direction, kept, more, some)
            after = english.bits_per_byte(head, rows, changed, changed_rows)
            if after <= before * (1 + ENGLISH_LIMIT):
                return SharedHead(rows, changed, changed_rows, (before, after), share)
    return SharedHead(rows, changed, changed_rows, (before, after), share)


def with_fit(plain: SharedHead, fitted: SharedHead, head: "torch.Tensor", held_out: NextTokens) -> SharedHead:
    """The fitted head if it gains GAIN on held-out passages and costs English no more than is permitted, else the plain one."""
    without, fit = (
        held_out.bits_per_byte(head, one.rows, one.changed, one.changed_rows) for one in (plain, fitted)
    )
    before, after = fitted.english
    permitted = after <= max(before * (1 + ENGLISH_LIMIT), plain.english[1])
    return replace(fitted if permitted and fit <= without * (1 - GAIN) else plain, held_out=(without, fit))


def log_shares(new: AnyTokenizer, firsts: Sequence[int], texts: Sequence[str]) -> Shares:
    """Count the tokens of `texts`; `firsts` has the first old token of each new one, or -1."""
    n_old = new.size - len(firsts)
    counts = token_counts(new.encode, ((text, 1.0) for text in texts), new.size) + SMOOTHING
    first = np.asarray(firsts, np.int64)
    begun = first >= 0
    together = counts[:n_old] + np.bincount(first[begun], weights=counts[n_old:][begun], minlength=n_old)
    leads = np.unique(first[begun])
    return Shares(
        first,
        np.log(counts[n_old:] / together[np.maximum(first, 0)]),
        leads,
        np.maximum(np.log(counts[leads] / together[leads]), FLOOR),
    )


def added_shares(shares: Shares, kept: set[int], english: set[int], beside_english: float) -> Counts:
    """What is added to each new token's log share [n]; less beside a kept row of a token that English uses."""
    is_kept, is_english = (np.isin(shares.first, sorted(some)) for some in (kept, kept & english))
    return np.where(is_english, beside_english, np.where(is_kept, MORE_BESIDE_KEPT, MORE))


def shared_rows(
    head: "torch.Tensor",
    shares: Shares,
    direction: "torch.Tensor",
    kept: set[int],
    more: Counts,
    changes: FittedChanges | None = None,
) -> "tuple[torch.Tensor, list[int], torch.Tensor]":
    """New rows, whose log shares are raised by `more`, and ids and values of the old rows that change, all but those of `kept`.

    `changes` are added to both.
    """
    import torch

    changing = np.array([id not in kept for id in shares.leads.tolist()], bool)
    changed: list[int] = shares.leads[changing].tolist()
    along = torch.from_numpy(shares.new + more).float()
    rows = head[torch.from_numpy(shares.first).clamp(min=0)] + along[:, None] * direction
    if changes is not None:
        rows = rows + changes.new
    special = torch.from_numpy(shares.first < 0)
    if bool(special.any()):
        rows[special] = moments(head)[0]
    own = torch.from_numpy(shares.own[changing]).float()
    values = head[changed] + own[:, None] * direction
    if changes is not None:
        values = values + changes.own[torch.from_numpy(changing)]
    return rows, changed, values
