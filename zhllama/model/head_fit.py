"""Fits the new rows of a shared head to what the original model predicts after each first token.

A share is the same wherever a first token can follow. The original model knows more: after the first token it predicts the second
one. Its prediction depends on the text before, and so can a row that is fitted to the hidden state before the first token.

Where the first token does not follow, nothing of that holds a row: a fit to those states alone took English from 2.27 to as much as
4.95 bits per byte on a base of 10M parameters. So the rows of a first token keep the sum of their probabilities elsewhere too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zhllama.model.row_init_fitted import ReadPassage

if TYPE_CHECKING:
    import torch

DIRECTIONS = 128  # principal directions of the hidden states that the fit uses
CONSTANT = 3.0  # the value of the constant feature
STEPS, RATE, BETAS = 40, 3e-3, (0.9, 0.95)
LAST_RATE = 0.1  # share of the rate at the last step
PRIOR = 5.0  # weight of the squares of the fitted numbers
ELSEWHERE = 1.0  # weight of the states elsewhere, as many times as there are states before a first token
CHUNK = 512  # states whose logits exist at one time


@dataclass(frozen=True)
class Options:
    """What can follow a first token `lead`: nothing new, or new tokens by their second old token.

    `seconds` are the second old tokens, `tokens[k]` the new tokens (from 0) that go on with `seconds[k]`.
    """

    lead: int
    seconds: list[int]
    tokens: list[list[int]]


@dataclass(frozen=True)
class FittedChanges:
    """What is added to new rows [n, width], and to the old rows of the leads [leads, width]."""

    new: "torch.Tensor"
    own: "torch.Tensor"


def options_of(leads: Sequence[int], old_tokens: Sequence[Sequence[int]]) -> list[Options]:
    """The options of each lead."""
    found: dict[int, dict[int, list[int]]] = {lead: {} for lead in leads}
    for number, tokens in enumerate(old_tokens):
        if len(tokens) > 1:
            found[tokens[0]].setdefault(tokens[1], []).append(number)
    return [Options(lead, list(by_second), list(by_second.values())) for lead, by_second in found.items()]


def fit_changes(
    head: "torch.Tensor",
    direction: "torch.Tensor",
    options: Sequence[Options],
    new_shares: NDArray[np.float64],
    own_shares: NDArray[np.float64],
    passages: Sequence[ReadPassage],
    elsewhere: "torch.Tensor",
) -> FittedChanges:
    """Fit on `passages`, the products of whose states with `head` are the logits; `elsewhere` [n, width] are states of other text.

    `new_shares` are the log shares of the new tokens, `own_shares` those of the leads.
    """
    import torch

    states = torch.cat([passage.states for passage in passages])
    center = states.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((states - center).T))
    kept = min(DIRECTIONS, len(values))
    scale = (values.clamp(min=0) + values.median()).sqrt()[-kept:]
    basis = vectors[:, -kept:] / scale
    others = _features(elsewhere, center, basis)
    before, after = _occurrences(options, passages)
    new, own = torch.zeros(len(new_shares), head.shape[1]), torch.zeros(len(options), head.shape[1])
    for number, one in enumerate(options):
        places = before[one.lead]
        if not places or not one.seconds:
            continue
        features = _features(states[places], center, basis)
        target = _taught(head, states[after[one.lead]], one.seconds)
        shares = [np.logaddexp.reduce(new_shares[tokens]) for tokens in one.tokens]
        base = torch.tensor([own_shares[number], *shares]).float()
        fitted = _fit(features, target, base, others)
        along = CONSTANT * fitted[:, -1] - fitted[:, :-1] @ (center @ basis)
        changes = fitted[:, :-1] @ basis.T + along[:, None] * direction
        own[number] = changes[0]
        for tokens, change in zip(one.tokens, changes[1:], strict=True):
            new[tokens] = change
    return FittedChanges(new, own)


def _features(states: "torch.Tensor", center: "torch.Tensor", basis: "torch.Tensor") -> "torch.Tensor":
    import torch

    return torch.cat([(states - center) @ basis, torch.full((len(states), 1), CONSTANT)], 1)


def _occurrences(
    options: Sequence[Options], passages: Sequence[ReadPassage]
) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """For each lead the places of the states before it and after it, in all states one after another."""
    before: dict[int, list[int]] = {one.lead: [] for one in options}
    after: dict[int, list[int]] = {one.lead: [] for one in options}
    at = 0
    for passage in passages:
        for place, id in enumerate(passage.ids[1:]):
            if id in before:
                before[id].append(at + place)
                after[id].append(at + place + 1)
        at += len(passage.ids)
    return before, after


def _taught(head: "torch.Tensor", states: "torch.Tensor", seconds: Sequence[int]) -> "torch.Tensor":
    """The probabilities [states, 1 + seconds] of anything else, and of each second token."""
    import torch

    parts = []
    for some in torch.split(states, CHUNK):
        logits = some @ head.T
        parts.append((logits[:, list(seconds)] - logits.logsumexp(1, keepdim=True)).exp())
    found = torch.cat(parts)
    return torch.cat([(1 - found.sum(1, keepdim=True)).clamp(min=1e-6), found], 1)


def _fit(
    features: "torch.Tensor", target: "torch.Tensor", base: "torch.Tensor", others: "torch.Tensor"
) -> "torch.Tensor":
    """Numbers [options, features]: divergence from the target, and the square of the log of the sum, by Adam.

    The features of `others` have no target, and so only the sum.
    """
    import torch

    found = torch.zeros(target.shape[1], features.shape[1])
    moment, square = torch.zeros_like(found), torch.zeros_like(found)
    first, second = BETAS
    weight = ELSEWHERE * len(features) / max(1, len(others))
    for step in range(STEPS):
        chances, total = _chances(base, features, found)
        slope = chances - target + 2 * total * chances
        elsewhere, sums = _chances(base, others, found)
        gradient = slope.T @ features + (2 * weight * sums * elsewhere).T @ others + 2 * PRIOR * found
        moment = first * moment + (1 - first) * gradient
        square = second * square + (1 - second) * gradient.square()
        size = (square / (1 - second ** (step + 1))).sqrt() + 1e-12
        rate = RATE * max(LAST_RATE, 1 - step / STEPS)
        found = found - rate * moment / (1 - first ** (step + 1)) / size
    return found


def _chances(
    base: "torch.Tensor", features: "torch.Tensor", found: "torch.Tensor"
) -> "tuple[torch.Tensor, torch.Tensor]":
    """The share of each option [states, options], and the log of their sum before [states, 1]."""
    logits = base + features @ found.T
    total = logits.logsumexp(1, keepdim=True)
    return (logits - total).exp(), total
