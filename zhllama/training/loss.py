"""Cross-entropy of a language model's head that never holds the logits: three products a chunk, gradients in place."""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

CHUNK = 256  # positions whose logits exist at one time: 51 MB with 49,953 rows in fp32
IGNORED = -100

# Logits [n, vocabulary] and labels [n] to their summed loss and, where asked for, its gradient, which takes their memory.
Kernel = Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor | None]]


def head_loss(
    hidden: Tensor, rows: Tensor, matrix: Tensor, labels: Tensor, start: int = 0, first: int = 0
) -> Tensor:
    """Sum of -ln p(label) over all positions whose label is not -100.

    hidden [..., width]; labels [...], already shifted; matrix [vocabulary, width] is read only, and `rows`, its part
    from row `start` on (the same memory), is what gets the gradient, zero for rows before `first`. A `rows` that needs
    no gradient costs no product. Softmax and sums are fp32, products in autocast's type where it is on.
    """
    learning = torch.is_grad_enabled()  # inside a Function it always reads as off
    total: Tensor = _HeadLoss.apply(hidden, rows, matrix, labels, start, first, learning)  # type: ignore[no-untyped-call]
    return total


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        rows: Tensor,
        matrix: Tensor,
        labels: Tensor,
        start: int,
        first: int,
        learning: bool,
    ) -> Tensor:
        wants_hidden, wants_rows = (learning and needed for needed in ctx.needs_input_grad[:2])
        flat = hidden.reshape(-1, hidden.shape[-1])
        kept = (labels.reshape(-1) != IGNORED).nonzero(as_tuple=True)[0]  # masked before the product
        labels = labels.reshape(-1)[kept]
        dtype = (
            torch.get_autocast_dtype(hidden.device.type)
            if torch.is_autocast_enabled(hidden.device.type)
            else None
        )
        weight = matrix.to(dtype or matrix.dtype)
        grad_hidden = torch.zeros_like(flat) if wants_hidden else None
        grad_rows = torch.zeros_like(rows, dtype=torch.float32) if wants_rows else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        fused = kernel(hidden.device.type)
        buffer = torch.empty(min(CHUNK, len(kept)) * len(weight), dtype=weight.dtype, device=weight.device)
        with torch.autocast(hidden.device.type, enabled=False):
            for at in range(0, len(kept), CHUNK):
                part, label = kept[at : at + CHUNK], labels[at : at + CHUNK]
                states = flat[part].to(weight.dtype)
                # Into one buffer again and again: fresh memory for every chunk costs its page faults.
                held = buffer[: len(part) * len(weight)]
                if fused is None:  # a third faster than states @ weight.T [measured: docs/results.md]
                    logits = torch.mm(weight, states.T, out=held.view(len(weight), -1)).T
                else:  # which reads row by row
                    logits = torch.mm(states, weight.T, out=held.view(-1, len(weight)))
                wanted = grad_hidden is not None or grad_rows is not None
                loss, errors = (fused or _plain)(logits, label, wanted)
                total += loss
                if errors is None:
                    continue
                if grad_hidden is not None:
                    grad_hidden[part] = (errors @ weight).to(grad_hidden.dtype)
                if grad_rows is not None:
                    trained, told = grad_rows[first - start :], errors[:, first:].T
                    if weight.dtype == torch.float32:
                        trained.addmm_(told, states)
                    else:
                        trained += told @ states
        ctx.grads = (
            None if grad_hidden is None else grad_hidden.view_as(hidden),
            None if grad_rows is None else grad_rows.to(rows.dtype),
        )
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        # Made in the forward pass, so only the factor of what came after is left; given away, so that autograd need
        # not copy the largest tensor of the step.
        grad_hidden, grad_rows = ctx.grads
        del ctx.grads
        return tuple(None if g is None else g.mul_(grads[0]) for g in (grad_hidden, grad_rows)) + (None,) * 5


def _plain(logits: Tensor, labels: Tensor, learning: bool) -> tuple[Tensor, Tensor | None]:
    """Softmax and its gradient in steps that are as fast for logits that stand column by column."""
    label = labels[:, None]
    scores = logits.float()
    highest, told = scores.amax(1, keepdim=True), scores.gather(1, label)
    total = scores.sub_(highest).exp_().sum(1, keepdim=True)
    loss = (highest + total.log() - told).sum()
    if not learning:
        return loss, None
    errors = scores.div_(total)  # softmax, then minus one at the label: the gradient of the logits
    errors.scatter_add_(1, label, errors.new_full(label.shape, -1.0))
    return loss, logits.copy_(errors)  # in 16 bits, or itself


@cache
def kernel(device: str) -> Kernel | None:
    """Liger's, where the package is and the device is a CUDA GPU: one pass over the logits, in their own memory.

    Its fused loss of a whole head gives either the gradient of all rows or of none. So only its cross-entropy is taken,
    and the products stay ours: rows that do not learn cost none, whatever part of the matrix learns.
    """
    if device != "cuda" or find_spec("liger_kernel") is None:
        return None
    liger_cross_entropy = import_module("liger_kernel.transformers.functional").liger_cross_entropy

    def loss_of(logits: Tensor, labels: Tensor, learning: bool) -> tuple[Tensor, Tensor | None]:
        with torch.enable_grad():  # inside a Function it is off
            leaf = logits.detach().requires_grad_(learning)
            loss = liger_cross_entropy(leaf, labels, reduction="sum")
            errors = torch.autograd.grad(loss, leaf)[0] if learning else None
        return loss.detach().float(), errors

    return loss_of


def shifted(labels: Tensor) -> Tensor:
    """The label that each position predicts: the next one, and none at the end."""
    return torch.nn.functional.pad(labels[..., 1:], (0, 1), value=IGNORED)
