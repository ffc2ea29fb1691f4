"""Computes whether and by how many pieces to extend a vocabulary, from one run of continued BPE.

Each use of a merge reduces the number of tokens by one, and merges are applied in order of rank. The tokenization with the
first n pieces therefore follows from that with all pieces, by splitting the later pieces into their parts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from zhllama.efficiency.break_even import BreakEven, break_even, rounded
from zhllama.vocab.token_counts import Counts, merge_uses

STEP = 1000  # pieces between two points of the curve
WORTH = 0.005  # share of tokens that the next thousand pieces must save; for LLaMA this stops near 20,000
SEEN = 100  # minimum occurrences of a new piece in the training text, a rule of thumb (docs/advise.md)
NINE_IN_TEN = 0.9
PAYS, HARDLY = 0.25, 0.15  # share of tokens saved
TOO_LITTLE_TEXT = (
    "Extending does not pay: this text is too short for the larger vocabulary to match the old one."
)
FEW_TOKENS = 2e9  # gains were reported from this many training tokens on
BYTES = 2  # per 16-bit parameter

Verdict = Literal["yes", "hardly", "no"]


@dataclass(frozen=True)
class AdvisedModel:
    """The shape of the model: hidden size, number of layers, and whether embedding and LM head are tied."""

    hidden: int = 4096
    layers: int = 32
    tied: bool = False

    @property
    def body(self) -> int:
        """Parameters of the layers: 12 hidden² each (attention 4, feed-forward 8)."""
        return 12 * self.layers * self.hidden**2

    def head_share(self, rows: int) -> float:
        """The LM head's share of the operations for one token."""
        return rows * self.hidden / (rows * self.hidden + self.body)


@dataclass(frozen=True)
class MeasuredText:
    """One text tokenized with all pieces: its characters, and the count of each id, [base + added]."""

    characters: int
    counts: Counts


@dataclass(frozen=True)
class AdviceStep:
    """Gain and cost of the vocabulary with a number of added pieces."""

    added: int
    characters_per_token: float
    domains: Mapping[str, float]
    saved: float  # share of the base's tokens
    next_saves: float  # share of tokens that the next thousand pieces save; 0 after the last
    parameters: int
    memory_mb: float
    head_share: float
    compute: float  # operations for the same text, relative to the base
    seen: float  # share of the new pieces that occur SEEN times in the training text


@dataclass(frozen=True)
class Advice:
    """The curve, the recommended number of pieces, and a verdict on whether to add any."""

    base_size: int
    model: AdvisedModel
    train_tokens: float
    steps: tuple[AdviceStep, ...]
    recommended: AdviceStep
    verdict: Verdict
    sentence: str
    caution: str
    repaid_after: float | None  # characters processed until the saved operations equal those of the training
    bits: float | None = None  # per Chinese character, of the base before training
    break_even: BreakEven | None = (
        None  # characters of training text until the extended base is as good; None without bits
    )

    @property
    def repaid(self) -> str:
        """When the training is repaid, as a sentence; empty if the advice is not to extend."""
        if self.repaid_after is None or self.verdict == "no":
            return ""
        return (
            f"Training on {self.train_tokens / 1e9:g} billion tokens is repaid, in operations, once the model has read or "
            f"written {self.repaid_after / 1e9:.1f} billion characters."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for advice.json."""
        return asdict(self)


def savings(counts: Counts, parts: Sequence[Sequence[int]], first: int) -> Counts:
    """Tokens that each new piece saves in a text tokenized with all of them, [len(parts)]."""
    return merge_uses(counts, parts, first) * np.array([len(joined) - 1 for joined in parts], np.float64)


def seen_shares(
    training: Counts, parts: Sequence[Sequence[int]], first: int, tokens: float
) -> dict[int, float]:
    """For each point of the curve, the share of new pieces that occur SEEN times in `tokens` tokens of training text."""
    counts, shares = training.copy(), {0: 1.0}
    for added in range(len(parts), 0, -1):
        if added % STEP == 0 or added == len(parts):
            occurrences = counts[first : first + added] * (tokens / max(1.0, counts.sum()))
            shares[added] = float((occurrences >= SEEN).mean())
        id = first + added - 1
        for part in parts[added - 1]:
            counts[part] += counts[id]
        counts[id] = 0.0
    return shares


def advise(
    base_size: int,
    parts: Sequence[Sequence[int]],
    domains: Mapping[str, MeasuredText],
    training: Counts,
    model: AdvisedModel,
    train_tokens: float,
    bits: float | None = None,
) -> Advice:
    """Compute the advice.

    parts: for each new piece in order, the ids that id `base_size + i` is joined from.
    domains: the validation texts. training: the counts of the training text, [base + added].
    bits: bits per Chinese character of the base before any training; if given, too little text makes the verdict "no".
    """
    after = {
        label: m.counts.sum() + _suffix_sums(savings(m.counts, parts, base_size))
        for label, m in domains.items()
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
    even = None if bits is None else break_even(bits)
    too_little = even is not None and best.added > 0 and read < even.low
    note = "" if verdict == "no" and not too_little else _quality_note(bits, read)
    if too_little:
        verdict = "no"
    fewer = (1 / steps[0].characters_per_token) - (1 / best.characters_per_token)
    return Advice(
        base_size=base_size,
        model=model,
        train_tokens=train_tokens,
        steps=steps,
        recommended=best,
        verdict=verdict,
        sentence=TOO_LITTLE_TEXT if too_little else _sentence(verdict, steps[0], best),
        caution=f"{note} {_caution(verdict, train_tokens)}".strip(),
        repaid_after=3 * train_tokens / fewer if fewer > 0 else None,
        bits=bits,
        break_even=even,
    )


def _suffix_sums(saved: Counts) -> Counts:
    """Tokens that all pieces from each index on save together, [len(saved) + 1]."""
    return np.concatenate([np.cumsum(saved[::-1])[::-1], [0.0]])


def recommended(steps: Sequence[AdviceStep]) -> AdviceStep:
    """The last step before a thousand pieces save too little, one new piece in ten is too rare, or compute rises."""
    best = steps[0]
    for before, step in pairwise(steps):
        if before.next_saves < WORTH or step.seen < NINE_IN_TEN or step.compute > before.compute:
            break
        best = step
    return best


def _sentence(verdict: Verdict, base: AdviceStep, best: AdviceStep) -> str:
    before, after = base.characters_per_token, best.characters_per_token
    if best.added == 0:
        return (
            f"Extending does not pay: at {before:.2f} characters per token, no thousand pieces save {WORTH:.1%} of the tokens "
            f"and occur {SEEN} times each."
        )
    gain = f"{best.added:,} more pieces raise {before:.2f} characters per token to {after:.2f}, {best.saved:.0%} fewer tokens"
    return {
        "yes": f"Extending pays in tokens, at once: {gain}.",
        "hardly": f"Extending hardly pays: {gain}, but every new row must be trained.",
        "no": f"Extending does not pay: the base already tokenizes Chinese well; {gain}.",
    }[verdict]


def _quality_note(bits: float | None, read: float) -> str:
    """After how much text a larger vocabulary is no worse than the old one; what is unknown without the base's bits."""
    if bits is None:
        return (
            "In quality it pays only after training, because new rows start worse than the old spelling: "
            "advise --model estimates after how much text (docs/extending.md)."
        )
    even = break_even(bits)
    low, yours = rounded(even.low), rounded(read)
    if even.about is None:
        return (
            f"Fewer tokens now; in bits per character as good as before after more than {low} characters of training text, how many more "
            f"is not known. Yours has {yours}; the base has {bits:g} bits per character, fewer than all that were measured (docs/extending.md)."
        )
    about = rounded(even.about)
    if even.high is None:
        return (
            f"Fewer tokens now; in bits per character as good as before after about {about} characters of training text ({low} or more). "
            f"Yours has {yours}; the base has {bits:g} bits per character (curves of small bases, docs/extending.md)."
        )
    return (
        f"Fewer tokens now; in bits per character as good as before after about {about} characters of training text ({low} to {rounded(even.high)}). "
        f"Yours has {yours}; the base has {bits:g} bits per character (curves of small bases, docs/extending.md)."
    )


def _caution(verdict: Verdict, tokens: float) -> str:
    if verdict == "no" or tokens >= FEW_TOKENS:
        return ""
    return (
        f"{tokens / 1e9:g} billion training tokens are few: with 0.5 billion, LLaMA's own vocabulary did better than an "
        "extended one (arXiv:2401.01055); reported gains needed 2 billion and more (arXiv:2402.14714)."
    )


def shown_steps(advice: Advice) -> list[AdviceStep]:
    """The steps that fit on one screen: 1,000, 2,000, every 4,000, the last and the recommended one."""
    wanted = {1000, 2000, advice.recommended.added, advice.steps[-1].added}
    return [step for step in advice.steps if step.added in wanted or step.added % (4 * STEP) == 0]
