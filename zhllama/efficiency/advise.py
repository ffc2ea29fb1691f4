"""How far to extend a vocabulary, and whether at all, from one run of continued BPE.

Each use of a merge makes tokens fewer by one, and merges are used in the order of their rank. So one cut with all
pieces holds the cut with the first n of them: what stands in it, taken apart where it was joined later.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from zhllama.vocab.token_counts import Counts, merge_uses

STEP = 1000  # pieces between two points of the curve
WORTH = 0.005  # share of tokens that the next thousand pieces must save; at LLaMA's size it stops near 20,000
SEEN = 100  # times a new piece must stand in the training text: a rule of thumb, see docs/advise.md
NINE_IN_TEN = 0.9
PAYS, HARDLY = 0.25, 0.15  # share of tokens saved
# What a character of Chinese cost two bases in bits, and how many characters had been read when the extended vocabulary had caught up:
# seen for the second; the first had not by then, so that the law is a lower bound (docs/extending.md).
CAUGHT_UP = ((6.1, 2.15e6), (7.9, 1.65e4))
LATE = "Extending does not pay: this text ends before the larger vocabulary has caught up with the old one."
BYTES = 2  # of a parameter in 16 bits

Verdict = Literal["yes", "hardly", "no"]


@dataclass(frozen=True)
class AdvisedModel:
    """What the vocabulary belongs to: width and number of its layers, and whether both matrices are one."""

    hidden: int = 4096
    layers: int = 32
    tied: bool = False

    @property
    def body(self) -> int:
        """Parameters of the layers: 12 hidden squared each (attention 4, feed-forward 8)."""
        return 12 * self.layers * self.hidden**2

    def head_share(self, rows: int) -> float:
        """Share of the operations of one token that the output matrix has."""
        return rows * self.hidden / (rows * self.hidden + self.body)


@dataclass(frozen=True)
class Measured:
    """One text cut with all pieces: its characters, and how often each id stands in it, [base + added]."""

    characters: int
    counts: Counts


@dataclass(frozen=True)
class AdviceStep:
    """The vocabulary with some pieces added: what it gains and what it costs."""

    added: int
    characters_per_token: float
    domains: Mapping[str, float]
    saved: float  # share of the base's tokens
    next_saves: float  # share of the tokens that the next thousand save; 0 after the last
    parameters: int
    memory_mb: float
    head_share: float
    compute: float  # operations for the same text, against the base
    seen: float  # share of the new pieces that stand SEEN times in the training text


@dataclass(frozen=True)
class Advice:
    """The curve, how many pieces to add, and a plain word on whether to add any."""

    base_size: int
    model: AdvisedModel
    train_tokens: float
    steps: tuple[AdviceStep, ...]
    recommended: AdviceStep
    verdict: Verdict
    sentence: str
    caution: str
    repaid_after: float | None  # characters served until training has paid for itself in operations

    @property
    def repaid(self) -> str:
        """When the training has paid for itself, in words; empty where extending is advised against."""
        if self.repaid_after is None or self.verdict == "no":
            return ""
        return (
            f"Training on {self.train_tokens / 1e9:g} billion tokens is repaid, in operations, once the model has read or "
            f"written {self.repaid_after / 1e9:.1f} billion characters."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in advice.json."""
        return asdict(self)


def savings(counts: Counts, parts: Sequence[Sequence[int]], first: int) -> Counts:
    """Tokens that each new piece saves in a text cut with all of them; shape [len(parts)]."""
    return merge_uses(counts, parts, first) * np.array([len(joined) - 1 for joined in parts], np.float64)


def seen_shares(
    training: Counts, parts: Sequence[Sequence[int]], first: int, tokens: float
) -> dict[int, float]:
    """For each point of the curve the share of its new pieces that stand SEEN times in `tokens` of training text."""
    counts, shares = training.copy(), {0: 1.0}
    for added in range(len(parts), 0, -1):
        if added % STEP == 0 or added == len(parts):
            often = counts[first : first + added] * (tokens / max(1.0, counts.sum()))
            shares[added] = float((often >= SEEN).mean())
        id = first + added - 1
        for part in parts[added - 1]:
            counts[part] += counts[id]
        counts[id] = 0.0
    return shares


def catching_up(bits: float) -> float:
    """Characters of training text that extending needs at least to catch up, for a base that needs so many bits a character of Chinese.

    Evenly in the logarithm between the two bases measured, and no further: beyond them it is the nearer one's.
    """
    (low, many), (high, few) = CAUGHT_UP
    share = (min(max(bits, low), high) - low) / (high - low)
    return float(many ** (1 - share) * few**share)


def advise(
    base_size: int,
    parts: Sequence[Sequence[int]],
    domains: Mapping[str, Measured],
    training: Counts,
    model: AdvisedModel,
    train_tokens: float,
    bits: float | None = None,
) -> Advice:
    """From the pieces in their order (`parts[i]` are the ids that id `base_size + i` is joined from) the advice.

    `domains` are texts kept aside, `training` the counts of the text that was trained on, `bits` what a character of Chinese
    costs the base before any training: with it, text too short for extending to catch up turns the advice to no.
    """
    after = {
        label: m.counts.sum() + _behind(savings(m.counts, parts, base_size)) for label, m in domains.items()
    }
    tokens = sum(after.values())
    characters = sum(m.characters for m in domains.values())
    shares = seen_shares(training, parts, base_size, train_tokens)
    points = sorted(shares)
    base_cost = tokens[0] / (1 - model.head_share(base_size))
    steps = tuple(
        AdviceStep(
            added=n,
            characters_per_token=characters / tokens[n],
            domains={label: m.characters / after[label][n] for label, m in domains.items()},
            saved=1 - tokens[n] / tokens[0],
            next_saves=1 - tokens[following] / tokens[n],
            parameters=n * model.hidden * (1 if model.tied else 2),
            memory_mb=n * model.hidden * (1 if model.tied else 2) * BYTES / 1e6,
            head_share=model.head_share(base_size + n),
            compute=tokens[n] / (1 - model.head_share(base_size + n)) / base_cost,
            seen=shares[n],
        )
        for n, following in zip(points, [*points[1:], points[-1]], strict=True)
    )
    best = recommended(steps)
    verdict: Verdict = "yes" if best.saved >= PAYS else "hardly" if best.saved >= HARDLY else "no"
    read = train_tokens * best.characters_per_token
    late = bits is not None and best.added > 0 and read < catching_up(bits)
    law = "" if bits is None or (verdict == "no" and not late) else _law(bits, read)
    if late:
        verdict = "no"
    fewer = (1 / steps[0].characters_per_token) - (1 / best.characters_per_token)
    return Advice(
        base_size=base_size,
        model=model,
        train_tokens=train_tokens,
        steps=steps,
        recommended=best,
        verdict=verdict,
        sentence=LATE if late else _sentence(verdict, steps[0], best),
        caution=f"{law} {_caution(verdict, train_tokens)}".strip(),
        repaid_after=3 * train_tokens / fewer if fewer > 0 else None,
    )


def _behind(saved: Counts) -> Counts:
    """What the pieces from each place on save together; shape [len(saved) + 1]."""
    return np.concatenate([np.cumsum(saved[::-1])[::-1], [0.0]])


def recommended(steps: Sequence[AdviceStep]) -> AdviceStep:
    """The last step up to which each thousand saved enough, nine new pieces in ten are seen enough, and compute falls."""
    best = steps[0]
    for before, step in pairwise(steps):
        if before.next_saves < WORTH or step.seen < NINE_IN_TEN or step.compute > before.compute:
            break
        best = step
    return best


def _sentence(verdict: Verdict, base: AdviceStep, best: AdviceStep) -> str:
    now, then = base.characters_per_token, best.characters_per_token
    if best.added == 0:
        return (
            f"Extending does not pay: at {now:.2f} characters a token no thousand pieces save {WORTH:.1%} of the tokens "
            f"and are seen {SEEN} times each."
        )
    gain = f"{best.added:,} more pieces take {now:.2f} characters a token to {then:.2f}, {best.saved:.0%} fewer tokens"
    return {
        "yes": f"Extending pays: {gain}.",
        "hardly": f"Extending hardly pays: {gain}, against new rows that all have to be trained.",
        "no": f"Extending does not pay: this base cuts Chinese well enough already; {gain}.",
    }[verdict]


def _law(bits: float, read: float) -> str:
    (low, _), (high, _) = CAUGHT_UP
    outside = "" if low <= bits <= high else ", which lies outside of what was measured"
    return (
        f"A base at {bits:g} bits a character{outside}: extended, it has caught up after about {_rounded(catching_up(bits))} characters of text at the earliest, "
        f"and yours has {_rounded(read)} (two small bases, docs/extending.md)."
    )


def _rounded(number: float) -> str:
    """To three digits, which is more than a line through two points knows."""
    return f"{float(f'{number:.3g}'):,.0f}"


def _caution(verdict: Verdict, tokens: float) -> str:
    if verdict == "no" or tokens >= 2e9:
        return ""
    return (
        f"{tokens / 1e9:g} billion training tokens are few: with 0.5 billion LLaMA's own vocabulary did better than an "
        "extended one (arXiv:2401.01055), and the gains that others report took 2 billion and more (arXiv:2402.14714)."
    )


def shown_steps(advice: Advice) -> list[AdviceStep]:
    """The steps that fit one screen: the first two thousand, every fourth thousand, the last, and the one advised."""
    wanted = {1000, 2000, advice.recommended.added, advice.steps[-1].added}
    return [step for step in advice.steps if step.added in wanted or step.added % (4 * STEP) == 0]
