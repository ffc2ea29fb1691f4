"""Compiles the layers of a model with torch.compile, if they compute the loss and gradients that they computed before.

Each layer is compiled in its place, so that no name of a parameter changes, and the layers of a kind share one result.
Embedding, LM head and loss stay as they are: their own kernels depend on the number of labels.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from zhllama.training.probe import autocast_to, relative_difference, tolerance_of, unchanged_rng


def compile_layers(model: Any, batch: Mapping[str, Tensor], autocast: torch.dtype | None) -> str | None:
    """Compile each layer of a model in training; return why not, with all layers as before, None if it worked.

    `batch`: the first micro-batch, with whose loss and gradients, without dropout, the compiled layers are compared.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        return "the model has no layers of transformers' kind"
    training = model.training
    # Compilers draw numbers too; a run must not depend on whether it compiled.
    with unchanged_rng(next(model.parameters()).device):
        model.eval()
        try:
            loss, gradients = _pass(model, batch, autocast)
            for layer in layers:
                layer.compile(dynamic=False)  # blocks have one size
            compiled_loss, compiled_gradients = _pass(model, batch, autocast)
            reason = _difference(
                (loss, compiled_loss), (gradients, compiled_gradients), tolerance_of(model, autocast)
            )
            if reason is None:
                model.train()
                _pass(model, batch, autocast)  # with dropout and checkpointing, as in training
        except Exception as error:  # compilers are missing, or fail on foreign code in any way
            reason = f"it fails with {type(error).__name__} ({' '.join(str(error).split())[:120]})"
        finally:
            model.train(training)
    if reason is not None:
        for layer in layers:
            layer._compiled_call_impl = None
    return reason


def _pass(model: Any, batch: Mapping[str, Tensor], autocast: torch.dtype | None) -> tuple[Tensor, Tensor]:
    """Return the loss of a batch, and the gradients of all trainable parameters as one vector of norms."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    device = parameters[0].device
    with torch.enable_grad(), autocast_to(device, autocast):
        loss = model(**{name: tensor.to(device) for name, tensor in batch.items()}, use_cache=False).loss
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    norms = [loss.new_zeros(()).float() if g is None else g.float().norm() for g in gradients]
    return loss.detach(), torch.stack(norms)


def _difference(losses: tuple[Tensor, Tensor], norms: tuple[Tensor, Tensor], tolerance: float) -> str | None:
    if not relative_difference(losses[1], losses[0]) <= tolerance:
        return f"its loss becomes {float(losses[1]):.4f} instead of {float(losses[0]):.4f}"
    difference = relative_difference(norms[1], norms[0])
    return None if difference <= tolerance else f"its gradients change by {100 * difference:.3g} %"
