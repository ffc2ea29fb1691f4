"""Measures a head on hidden states of the original model, so that the input loses nothing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zhllama.model.row_init_distilled import align_tokenizations
from zhllama.model.row_init_fitted import ReadPassage, hidden_states, logit_scale
from zhllama.vocab.any_tokenizer import AnyTokenizer

if TYPE_CHECKING:
    import torch

CHUNK = 256  # hidden states whose logits exist at one time


@dataclass(frozen=True)
class NextTokens:
    """Hidden states [places, width + 1], the last column 1 for a bias, the ids that follow them, and the bytes of these."""

    states: "torch.Tensor"
    targets: "torch.Tensor"
    bytes: int

    @classmethod
    def old(cls, model: Any, old: AnyTokenizer, texts: Sequence[str], count: int) -> "NextTokens":
        """The old tokens of `texts`, about `count`."""
        import torch

        states, targets = [], []
        for passage in hidden_states(model, old, texts, count):
            states.append(passage.states[:-1])
            targets += passage.ids[1:]
        return cls._with_bias(torch.cat(states) * logit_scale(model, targets), targets, old)

    @classmethod
    def new(cls, old: AnyTokenizer, new: AnyTokenizer, passages: Sequence[ReadPassage]) -> "NextTokens":
        """The new tokens of `passages` that begin where an old one ends; states are scaled for the head."""
        import torch

        states, targets = [], []
        for passage in passages:
            both = align_tokenizations(old, new, passage.text)
            last_old, last_new = len(passage.ids) - 1, len(both.new) - 1
            ends = [(at, place) for at, place in both.positions if at < last_old and place < last_new]
            states.append(passage.states[[at for at, _ in ends]])
            targets += [both.new[place + 1] for _, place in ends]
        return cls._with_bias(torch.cat(states), targets, new)

    @classmethod
    def _with_bias(
        cls, states: "torch.Tensor", targets: Sequence[int], tokenizer: AnyTokenizer
    ) -> "NextTokens":
        import torch

        size = sum(len(tokenizer.surface(id)) for id in targets)
        return cls(
            torch.cat([states, torch.ones(len(states), 1)], 1), torch.tensor(targets, dtype=torch.int64), size
        )

    def bits_per_byte(
        self,
        head: "torch.Tensor",
        rows: "torch.Tensor | None" = None,
        changed: Sequence[int] = (),
        changed_rows: "torch.Tensor | None" = None,
    ) -> float:
        """Bits under a head whose rows `changed` are replaced, and to which `rows` are appended."""
        import torch

        nats = 0.0
        for states, targets in zip(
            torch.split(self.states, CHUNK), torch.split(self.targets, CHUNK), strict=True
        ):
            logits = states @ head.T
            if changed_rows is not None and changed:
                logits[:, list(changed)] = states @ changed_rows.T
            if rows is not None and len(rows):
                logits = torch.cat([logits, states @ rows.T], 1)
            nats += float((logits.logsumexp(1) - logits.gather(1, targets[:, None])[:, 0]).sum())
        return nats / math.log(2) / max(1, self.bytes)
