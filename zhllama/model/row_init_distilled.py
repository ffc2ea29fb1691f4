"""Distills new rows from the old model's hidden states on the old tokens, before training (arXiv:2505.20133)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zhllama.vocab.any_tokenizer import AnyTokenizer

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Distillation:
    """Settings of the distillation; `rate` is relative to the standard deviation of the old matrix."""

    steps: int = 200
    batch: int = 8
    length: int = 96  # old ids in one snippet
    rate: float = 0.03
    seed: int = 0


@dataclass(frozen=True)
class Snippet:
    """A text under both tokenizers, and the positions (old, new) at which both have read the same bytes."""

    old: list[int]
    new: list[int]
    positions: list[tuple[int, int]]


def align_tokenizations(old: AnyTokenizer, new: AnyTokenizer, text: str) -> Snippet:
    """Tokenize a text with both tokenizers and find the token boundaries that they share."""
    (old_ids,), (new_ids,) = old.encode([text]), new.encode([text])
    old_positions = {end: position for position, end in enumerate(_token_ends(old, old_ids))}
    positions = [
        (old_positions[end], position)
        for position, end in enumerate(_token_ends(new, new_ids))
        if end in old_positions
    ]
    return Snippet(old_ids, new_ids, positions)


def _token_ends(tokenizer: AnyTokenizer, ids: Sequence[int]) -> Iterator[int]:
    """The end of each token, in bytes from the start of the text."""
    end = 0
    for id in ids:
        end += len(tokenizer.surface(id))
        yield end


def find_snippets(
    old: AnyTokenizer, new: AnyTokenizer, texts: Sequence[str], n_old: int, length: int
) -> list[Snippet]:
    """Parts of the texts of about `length` old ids that contain a new id."""
    snippets = []
    for text in texts:
        (ids,) = old.encode([text])
        step = max(8, len(text) * length // max(1, len(ids)))
        for begin in range(0, len(text), step):
            snippet = align_tokenizations(old, new, text[begin : begin + step])
            if len(snippet.positions) > 1 and max(snippet.new) >= n_old:
                snippets.append(snippet)
    return snippets


def distill(
    model: Any,
    snippets: Sequence[Snippet],
    inputs: "torch.Tensor",
    outputs: "torch.Tensor | None",
    n_old: int,
    settings: Distillation,
    advance: Callable[[float], None] | None = None,
) -> "tuple[torch.Tensor, torch.Tensor | None, list[float]]":
    """Train the new rows for `settings.steps` steps; return input rows, output rows and each step's loss.

    The model's own weights do not change. Input rows are trained so that the last hidden states at shared boundaries
    match those of the old tokens; output rows predict the next token from the old tokens' hidden states. A tied model
    has one set of rows [n_new, width] (`outputs` is None) and the sum of both losses.
    """
    import torch

    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    old_rows, old_head = embedding.detach()[:n_old], head.detach()[:n_old]
    model.requires_grad_(False)
    body = model.base_model
    rows = torch.nn.Parameter(inputs.to(old_rows.dtype, copy=True))
    head_rows = rows if outputs is None else torch.nn.Parameter(outputs.to(old_rows.dtype, copy=True))
    groups = [{"params": [rows], "lr": settings.rate * float(old_rows.float().std())}]
    if outputs is not None:
        groups.append({"params": [head_rows], "lr": settings.rate * float(old_head.float().std())})
    # Adagrad, because a rare row then moves in the steps in which it occurs, and not by momentum between them.
    optimizer = torch.optim.Adagrad(groups)
    # The rate rises over the first tenth of the steps and falls to 0 over the second half.
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, 10 * (step + 1) / settings.steps, 2 * (1 - step / settings.steps))
    )
    generator = torch.Generator().manual_seed(settings.seed)
    losses: list[float] = []
    for _ in range(settings.steps):
        batch = [
            snippets[int(i)] for i in torch.randint(len(snippets), (settings.batch,), generator=generator)
        ]
        with torch.no_grad():
            old_ids, mask = _padded([s.old for s in batch])
            old_states = body(input_ids=old_ids, attention_mask=mask).last_hidden_state
        new_ids, mask = _padded([s.new for s in batch])
        is_new = new_ids >= n_old
        embedded = torch.where(
            is_new[..., None], rows[(new_ids - n_old).clamp(min=0)], old_rows[new_ids.clamp(max=n_old - 1)]
        )
        new_states = body(inputs_embeds=embedded, attention_mask=mask).last_hidden_state
        positions = [(i, a, b) for i, s in enumerate(batch) for a, b in s.positions]
        text, at_old, at_new = torch.tensor(positions).T
        target = old_states[text, at_old].float()
        loss = (new_states[text, at_new].float() - target).square().mean() / target.square().mean()
        # The next tokens include old ids: with new ids alone the new rows would grow without bound.
        next_ids = torch.tensor(
            [s.new[b + 1] if b + 1 < len(s.new) else -100 for s in batch for _, b in s.positions]
        )
        hidden = old_states[text, at_old]
        logits = torch.cat([hidden @ old_head.T, hidden @ head_rows.T], dim=1).float()
        loss = loss + torch.nn.functional.cross_entropy(logits, next_ids)
        next_new_ids = next_ids[next_ids >= n_old]
        optimizer.zero_grad()
        loss.backward()
        _keep_gradient_of(rows, torch.cat([new_ids[is_new], next_new_ids]) - n_old)
        if outputs is not None:
            _keep_gradient_of(head_rows, next_new_ids - n_old)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if advance is not None:
            advance(1)
    return rows.detach(), None if outputs is None else head_rows.detach(), losses


def _padded(lists: Sequence[Sequence[int]]) -> "tuple[torch.Tensor, torch.Tensor]":
    """Ids padded with 0 and their attention mask, both [texts, longest]."""
    import torch

    width = max(map(len, lists))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in lists])
    return ids, torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in lists])


def _keep_gradient_of(rows: "torch.nn.Parameter", ids: "torch.Tensor") -> None:
    """Zero the gradient of all other rows: Adagrad would turn its rounding residue into full steps."""
    import torch

    if rows.grad is not None:
        mask = torch.zeros(rows.shape[0], 1, dtype=rows.dtype)
        mask[ids] = 1
        rows.grad.mul_(mask)
