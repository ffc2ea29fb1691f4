"""Fused LM head and cross-entropy: the logits exist only a chunk at a time, and the forward pass computes the gradients."""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from zhllama.training.options import LOSS_CHUNK as CHUNK

IGNORED = -100

# (logits [n, vocabulary], labels [n], needs_gradient) -> (summed loss, gradient of the logits in the logits' own memory)
Kernel = Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor | None]]


def head_loss(
    hidden: Tensor, rows: Tensor, matrix: Tensor, labels: Tensor, start: int = 0, first: int = 0
) -> Tensor:
    """Return the sum of -ln p(label) over all positions whose label is not -100.

    hidden [..., width]; labels [...], already shifted; matrix [vocabulary, width] is only read. `rows` shares memory
    with matrix[start:] and receives the gradient, which is zero for rows of the matrix before `first`; without
    requires_grad it costs no product. Softmax and sums are fp32; products have autocast's type where it is enabled.
    """
    needs_grad = torch.is_grad_enabled()  # inside a Function it always reads as off
    total: Tensor = _HeadLoss.apply(hidden, rows, matrix, labels, start, first, needs_grad)  # type: ignore[no-untyped-call]
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
        needs_grad: bool,
    ) -> Tensor:
        hidden_grad_needed, rows_grad_needed = (needs_grad and need for need in ctx.needs_input_grad[:2])
        flat = hidden.reshape(-1, hidden.shape[-1])
        labeled = (labels.reshape(-1) != IGNORED).nonzero(as_tuple=True)[0]  # masked before the product
        labels = labels.reshape(-1)[labeled]
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        weight = matrix.to(dtype or matrix.dtype)
        grad_hidden = torch.zeros_like(flat) if hidden_grad_needed else None
        grad_rows = torch.zeros_like(rows, dtype=torch.float32) if rows_grad_needed else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        fused = kernel(device)
        # One buffer for all chunks: allocating memory for each would cost its page faults.
        buffer = torch.empty(min(CHUNK, len(labeled)) * len(weight), dtype=weight.dtype, device=weight.device)
        with torch.autocast(device, enabled=False):
            for at in range(0, len(labeled), CHUNK):
                part, label = labeled[at : at + CHUNK], labels[at : at + CHUNK]
                states = flat[part].to(weight.dtype)
                out = buffer[: len(part) * len(weight)]
                if fused is None:  # a third faster than states @ weight.T [measured: docs/results.md]
                    logits = torch.mm(weight, states.T, out=out.view(len(weight), -1)).T
                else:  # the kernel reads row by row
                    logits = torch.mm(states, weight.T, out=out.view(-1, len(weight)))
                needs_errors = grad_hidden is not None or grad_rows is not None
                loss, errors = (fused or _cross_entropy)(logits, label, needs_errors)
                total += loss
                if errors is None:
                    continue
                if grad_hidden is not None:
                    grad_hidden[part] = (errors @ weight).to(grad_hidden.dtype)
                if grad_rows is not None:
                    trained, trained_errors = grad_rows[first - start :], errors[:, first:].T
                    if weight.dtype == torch.float32:
                        trained.addmm_(trained_errors, states)
                    else:
                        trained += trained_errors @ states
        ctx.grads = (
            None if grad_hidden is None else grad_hidden.view_as(hidden),
            None if grad_rows is None else grad_rows.to(rows.dtype),
        )
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        # The forward pass computed the gradients; only the upstream factor is missing. Dropping the references spares
        # autograd a copy of the largest tensor of the step.
        grad_hidden, grad_rows = ctx.grads
        del ctx.grads
        return tuple(None if g is None else g.mul_(grads[0]) for g in (grad_hidden, grad_rows)) + (None,) * 5


def _cross_entropy(logits: Tensor, labels: Tensor, needs_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """Compute softmax cross-entropy and its gradient by operations that are also fast on column-major logits."""
    label = labels[:, None]
    scores = logits.float()
    highest, target = scores.amax(1, keepdim=True), scores.gather(1, label)
    total = scores.sub_(highest).exp_().sum(1, keepdim=True)
    loss = (highest + total.log() - target).sum()
    if not needs_gradient:
        return loss, None
    errors = scores.div_(total)  # softmax, then minus one at the label: the gradient of the logits
    errors.scatter_add_(1, label, errors.new_full(label.shape, -1.0))
    return loss, logits.copy_(errors)  # in the logits' own type; no copy in fp32


@cache
def kernel(device: str) -> Kernel | None:
    """Return Liger's cross-entropy, one pass in the logits' memory, if it is installed and the device is a CUDA GPU.

    Liger's fused head gives the gradient of all rows or of none. We use its cross-entropy alone and keep our own
    products, so that rows that are not trained cost none.
    """
    if device != "cuda" or find_spec("liger_kernel") is None:
        return None
    liger_cross_entropy = import_module("liger_kernel.transformers.functional").liger_cross_entropy

    def cross_entropy(logits: Tensor, labels: Tensor, needs_gradient: bool) -> tuple[Tensor, Tensor | None]:
        with torch.enable_grad():  # inside a Function it is off
            leaf = logits.detach().requires_grad_(needs_gradient)
            loss = liger_cross_entropy(leaf, labels, reduction="sum")
            errors = torch.autograd.grad(loss, leaf)[0] if needs_gradient else None
        return loss.detach().float(), errors

    return cross_entropy


def shifted(labels: Tensor) -> Tensor:
    """Return the label that each position predicts: the next one, and none at the end."""
    return torch.nn.functional.pad(labels[..., 1:], (0, 1), value=IGNORED)
