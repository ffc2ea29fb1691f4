"""Teaches new rows what the old model makes of their old pieces, before any training proper (arXiv:2505.20133)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zhllama.vocab.any_tokenizer import AnyTokenizer

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Distilling:
    """How the rows are taught; the rate is in units of the old matrix's spread."""

    steps: int = 200
    batch: int = 8
    length: int = 96  # ids of the old cut in one snippet
    rate: float = 0.03
    seed: int = 0


@dataclass(frozen=True)
class Snippet:
    """One text in both cuts, and the places (old, new) where both have read the same bytes."""

    old: list[int]
    new: list[int]
    places: list[tuple[int, int]]


def align_tokenizations(old: AnyTokenizer, new: AnyTokenizer, text: str) -> Snippet:
    """Both cuts of a text and where their boundaries meet."""
    (old_ids,), (new_ids,) = old.encode([text]), new.encode([text])
    places, at = [], {end: place for place, end in enumerate(_ends(old, old_ids))}
    for place, end in enumerate(_ends(new, new_ids)):
        if end in at:
            places.append((at[end], place))
    return Snippet(old_ids, new_ids, places)


def _ends(tokenizer: AnyTokenizer, ids: Sequence[int]) -> Iterator[int]:
    end = 0
    for id in ids:
        end += len(tokenizer.surface(id))
        yield end


def snippets(
    old: AnyTokenizer, new: AnyTokenizer, texts: Sequence[str], n_old: int, length: int
) -> list[Snippet]:
    """Pieces of text of about `length` old ids, those with no new id left out."""
    found = []
    for text in texts:
        (ids,) = old.encode([text])
        step = max(8, len(text) * length // max(1, len(ids)))
        for begin in range(0, len(text), step):
            snippet = align_tokenizations(old, new, text[begin : begin + step])
            if len(snippet.places) > 1 and max(snippet.new) >= n_old:
                found.append(snippet)
    return found


def distill(
    model: Any,
    taught: Sequence[Snippet],
    inputs: "torch.Tensor",
    outputs: "torch.Tensor | None",
    n_old: int,
    how: Distilling,
    advance: Callable[[float], None] | None = None,
) -> "tuple[torch.Tensor, torch.Tensor | None, list[float]]":
    """New rows after `how.steps` steps, and the loss of each step; the model itself stays as it is.

    Input rows: the last hidden states at shared boundaries come near those of the old cut. Output rows: given the old
    cut's hidden states, the new ids are what comes next. Tied models have one set of rows (`outputs` None) and both aims.
    """
    import torch

    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    old_rows, old_head = embedding.detach()[:n_old], head.detach()[:n_old]
    model.requires_grad_(False)
    body = model.base_model
    rows = torch.nn.Parameter(inputs.to(old_rows.dtype, copy=True))
    head_rows = rows if outputs is None else torch.nn.Parameter(outputs.to(old_rows.dtype, copy=True))
    groups = [{"params": [rows], "lr": how.rate * float(old_rows.float().std())}]
    if outputs is not None:
        groups.append({"params": [head_rows], "lr": how.rate * float(old_head.float().std())})
    # Adagrad: a row that is met rarely moves when it is met, and by no momentum in between
    optimiser = torch.optim.Adagrad(groups)
    # up over a tenth of the steps, down to nothing over the second half
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, 10 * (step + 1) / how.steps, 2 * (1 - step / how.steps))
    )
    draw = torch.Generator().manual_seed(how.seed)
    losses: list[float] = []
    for _ in range(how.steps):
        chosen = [taught[int(i)] for i in torch.randint(len(taught), (how.batch,), generator=draw)]
        with torch.no_grad():
            old_ids, mask = _padded([s.old for s in chosen])
            seen = body(input_ids=old_ids, attention_mask=mask).last_hidden_state
        new_ids, mask = _padded([s.new for s in chosen])
        fresh = new_ids >= n_old
        embedded = torch.where(
            fresh[..., None], rows[(new_ids - n_old).clamp(min=0)], old_rows[new_ids.clamp(max=n_old - 1)]
        )
        made = body(inputs_embeds=embedded, attention_mask=mask).last_hidden_state
        which = [(i, a, b) for i, s in enumerate(chosen) for a, b in s.places]
        text, at_old, at_new = torch.tensor(which).T
        target = seen[text, at_old].float()
        loss = (made[text, at_new].float() - target).square().mean() / target.square().mean()
        # What follows a shared place, new or old: were only new ids asked for, new rows would grow without bound.
        nexts = torch.tensor(
            [s.new[b + 1] if b + 1 < len(s.new) else -100 for s in chosen for _, b in s.places]
        )
        hidden = seen[text, at_old]
        logits = torch.cat([hidden @ old_head.T, hidden @ head_rows.T], dim=1).float()
        loss = loss + torch.nn.functional.cross_entropy(logits, nexts)
        wanted = nexts[nexts >= n_old]
        optimiser.zero_grad()
        loss.backward()
        _only_seen(rows, torch.cat([new_ids[fresh], wanted]) - n_old)
        if outputs is not None:
            _only_seen(head_rows, wanted - n_old)
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if advance is not None:
            advance(1)
    return rows.detach(), None if outputs is None else head_rows.detach(), losses


def _padded(lists: Sequence[Sequence[int]]) -> "tuple[torch.Tensor, torch.Tensor]":
    import torch

    width = max(map(len, lists))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in lists])
    return ids, torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in lists])


def _only_seen(rows: "torch.nn.Parameter", ids: "torch.Tensor") -> None:
    """Drop the gradient of rows that this step did not meet: its traces would become full steps."""
    import torch

    if rows.grad is not None:
        kept = torch.zeros(rows.shape[0], 1, dtype=rows.dtype)
        kept[ids] = 1
        rows.grad.mul_(kept)
