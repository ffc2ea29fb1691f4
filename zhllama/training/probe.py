"""Checks a model that is opened for training: zhllama's loss equals that of transformers, and documents in a block do not affect each other.

The checks run on the user's own model with a few random tokens. A list of known architectures could not cover the next one.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

TOLERANCE = 1e-4  # relative difference of losses, and of the norms of row gradients
LOW_PRECISION_TOLERANCE = 3e-2  # where weights or products are bf16 or fp16
LENGTH = 12  # tokens of a sequence
SEED = 17


@dataclass(frozen=True)
class LossAndGradients:
    """The mean loss of the probe's tokens, and the gradients of the rows of `ids` [len(ids), width] in fp32.

    `gradients` has `input` for the embedding matrix, and `output` for the LM head of an untied model.
    """

    loss: float
    ids: Tensor
    gradients: dict[str, Tensor]


@dataclass(frozen=True)
class Probe:
    """Random tokens [2, LENGTH] of a model, and what transformers' own modules and loss compute from them.

    `scales_logits`: its logits are the product of the LM head, or that times a number. A cap of logits would be lost in
    the rounding of bf16 if losses alone were compared.
    """

    ids: Tensor
    expected: LossAndGradients
    scales_logits: bool
    tolerance: float
    autocast: torch.dtype | None

    def difference(self, model: Any, backward: Callable[[Tensor, Tensor], LossAndGradients]) -> str | None:
        """Return how a changed model differs from transformers' own, None if it agrees within the tolerance.

        `backward(loss, ids)` runs the backward pass and returns the gradients of those rows of `ids` that are trained.
        """
        if not self.scales_logits:
            return "its logits are not those of its head"
        try:
            with torch.enable_grad(), autocast_to(self.ids.device, self.autocast):
                loss = model(**_inputs(model, self.ids), labels=self.ids).loss
            measured = backward(loss, self.expected.ids)
        except Exception as error:  # whatever foreign code does here, the model cannot be trained this way
            return f"it fails with {type(error).__name__}"
        if not _agree(torch.tensor(measured.loss), torch.tensor(self.expected.loss), self.tolerance):
            return f"its loss is {measured.loss:.4f} and transformers' is {self.expected.loss:.4f}"
        compared = torch.isin(self.expected.ids, measured.ids)
        for name, gradient in measured.gradients.items():
            expected = self.expected.gradients[name][compared]
            if not _agree(gradient, expected, self.tolerance):
                where = "embedding matrix" if name == "input" else "LM head"
                return f"its gradients of the {where} differ by {100 * relative_difference(gradient, expected):.3g} %"
        return None


def probe_model(model: Any, autocast: torch.dtype | None = None) -> Probe:
    """Run transformers' own forward and backward pass on a few tokens; `autocast`: the type of products in training."""
    ids = random_ids(model, 2 * LENGTH).view(2, LENGTH)
    weights = matrices(model)
    trainable = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_(True)
    products: list[Tensor] = []
    head = model.get_output_embeddings()
    hook = (
        None if head is None else head.register_forward_hook(lambda module, args, out: products.append(out))
    )
    try:
        with torch.enable_grad(), autocast_to(ids.device, autocast):
            output = model(input_ids=ids, labels=ids, use_cache=False)
        loss = output.loss
        gradients = torch.autograd.grad(loss, weights)
    finally:
        if hook is not None:
            hook.remove()
        for weight, flag in zip(weights, trainable, strict=True):
            weight.requires_grad_(flag)
    rows = ids.unique()  # type: ignore[no-untyped-call]
    by_name = {
        name: gradient[rows].float() for name, gradient in zip(("input", "output"), gradients, strict=False)
    }
    expected = LossAndGradients(loss.item(), rows, by_name)
    scales = len(products) == 1 and _is_multiple(output.logits, products[0])
    return Probe(ids, expected, scales, tolerance_of(model, autocast), autocast)


def matrices(model: Any) -> list[Tensor]:
    """Return the embedding matrix and, if it is another one, that of the LM head."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or head.weight is embedding.weight:
        return [embedding.weight]
    return [embedding.weight, head.weight]


def predicts_from_earlier_tokens(model: Any, autocast: torch.dtype | None = None) -> bool:
    """Return whether logits stay the same when later tokens change: an encoder such as BERT would read its own labels."""
    ids = random_ids(model, LENGTH)[None]
    changed = ids.clone()
    changed[:, LENGTH // 2 :] = ids[:, LENGTH // 2 :].flip(1)
    with torch.no_grad(), autocast_to(ids.device, autocast):
        before, after = (model(input_ids=i, use_cache=False).logits[:, : LENGTH // 2] for i in (ids, changed))
    if not torch.isfinite(before).all():
        return True  # broken weights say nothing; training stops at the loss that is not finite
    return _agree(after, before, tolerance_of(model, autocast))


def scales_loss_by_count(model: Any, probe: Probe) -> bool:
    """Return whether a loss is divided by the `num_items_in_batch` that the Trainer passes.

    Some forward passes take any keyword and ignore it; there the Trainer must average micro-batches itself.
    """
    try:
        with torch.no_grad(), autocast_to(probe.ids.device, probe.autocast):
            inputs = _inputs(model, probe.ids)
            loss = float(model(**inputs, labels=probe.ids, num_items_in_batch=1).loss)
    except TypeError:
        return False
    count = probe.ids[:, 1:].numel()
    return abs(loss - count * probe.expected.loss) <= 0.05 * abs(loss)


def separates_documents(model: Any, autocast: torch.dtype | None = None) -> bool:
    """Return whether a document that shares its block computes what it computes alone, whatever stands before it.

    The model gets positions that restart and no attention mask, as in training. Attention that ignores this, and state
    that is carried over (recurrent layers, convolutions), both fail.
    """
    if not takes_position_ids(type(model)):
        return False
    ids = random_ids(model, 3 * LENGTH).view(3, LENGTH)
    first, other, second = ids[:1], ids[1:2], ids[2:]
    positions = torch.arange(LENGTH, device=ids.device)[None]
    together = torch.cat([positions, positions], 1)

    def logits(*documents: Tensor) -> Tensor:
        places = positions if len(documents) == 1 else together
        output = model(input_ids=torch.cat(documents, 1), position_ids=places, use_cache=False)
        result: Tensor = output.logits[:, -LENGTH:].float()
        return result

    try:
        with torch.no_grad(), autocast_to(ids.device, autocast):
            packed, changed, alone = logits(first, second), logits(other, second), logits(second)
    except Exception:  # foreign code that does not take these inputs does not separate documents
        return False
    tolerance = tolerance_of(model, autocast)
    return _agree(changed, packed, tolerance) and _agree(packed, alone, tolerance)


def takes_position_ids(model_class: Any) -> bool:
    """Return whether the forward pass of this class has a parameter for positions."""
    return "position_ids" in inspect.signature(model_class.forward).parameters


def random_ids(model: Any, count: int) -> Tensor:
    """Return random ids, the last ones of the vocabulary first, without the special ones that the config names."""
    weight = model.get_input_embeddings().weight
    settings = model.config.get_text_config().to_dict()
    named = [value for key, value in settings.items() if key.endswith("_token_id")]
    special = {id for value in named for id in (value if isinstance(value, list) else [value])}
    size = weight.shape[0]
    order = torch.randperm(size, generator=torch.Generator().manual_seed(SEED)).tolist()
    order = list(dict.fromkeys([*range(size - 1, max(size - 4, -1), -1), *order]))
    usable = [id for id in order if id not in special] or order
    chosen = [usable[number % len(usable)] for number in range(count)]
    return torch.tensor(chosen, device=weight.device)


def embedding_scale(embedding: nn.Module, ids: Tensor) -> float | None:
    """Return the factor by which a module multiplies the rows of its matrix, as Gemma's does; 1 for a plain lookup.

    None if its output is anything else. `ids`: some ids to try.
    """
    with torch.no_grad():
        rows, output = embedding.weight[ids], embedding(ids)  # type: ignore[index]
    if torch.equal(rows, output):
        return 1.0
    return _scale(output, rows) if _is_multiple(output, rows) else None


def _inputs(model: Any, ids: Tensor) -> dict[str, Any]:
    """Return the inputs of a training step."""
    inputs: dict[str, Any] = {"input_ids": ids, "use_cache": False}
    if takes_position_ids(type(model)):
        inputs["position_ids"] = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
    return inputs


def _is_multiple(values: Tensor, of: Tensor) -> bool:
    """Return whether a tensor is a multiple of another, but for the rounding of their type."""
    if values.shape != of.shape:
        return False
    rounding = torch.finfo(of.dtype).eps if of.dtype in (torch.bfloat16, torch.float16) else 1e-6
    return torch.equal(values, of) or _agree(values, of.double() * _scale(values, of), rounding)


def _scale(values: Tensor, of: Tensor) -> float:
    """Return the factor that fits best between two tensors."""
    left, right = values.detach().double(), of.detach().double()
    return ((left * right).sum() / (right * right).sum().clamp(min=1e-30)).item()


def tolerance_of(model: Any, autocast: torch.dtype | None) -> float:
    """Return the relative difference that rounding explains in this model."""
    low = autocast is not None or any(p.dtype in (torch.bfloat16, torch.float16) for p in model.parameters())
    return LOW_PRECISION_TOLERANCE if low else TOLERANCE


def _agree(value: Tensor, reference: Tensor, tolerance: float) -> bool:
    """Return whether the relative difference is within the tolerance; never where one is NaN or infinite."""
    return relative_difference(value, reference) <= tolerance


def relative_difference(value: Tensor, reference: Tensor) -> float:
    """Return the norm of the difference over that of the reference."""
    value, reference = value.detach().double(), reference.detach().double()
    return float((value - reference).norm()) / max(float(reference.norm()), 1e-30)


def unchanged_rng(device: torch.device) -> Any:
    """Return the context that leaves the random generators of the CPU and of this device as they were."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def autocast_to(device: torch.device, dtype: torch.dtype | None) -> Any:
    """Return the context in which products have the type `dtype`; None leaves them as they are."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)
