"""Runs the first layers of a model alone, whatever its architecture: the forward pass is left after the last of them."""

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zhllama.errors import InputError
from zhllama.io.processor import multiplies_bf16

if TYPE_CHECKING:
    import torch

# Share by which the states of the layers alone may differ from those of the whole model: a few roundings of bf16.
TOLERANCE = 1e-2


class _Left(Exception):
    """Raised inside the model after the last layer that is run."""


@dataclass(frozen=True)
class FirstLayers:
    """The layers of a model without its embedding and head, `body`, of which the first `depth` are run.

    `scale`: the factor with which the embedding multiplies its rows, 1 in most models.
    """

    body: Any
    layers: Sequence[Any]
    depth: int
    scale: float

    def states(self, rows: "torch.Tensor", also: Sequence[int] = ()) -> "dict[int, torch.Tensor]":
        """Hidden states [texts, ids, width] after layer `depth`, and after the layers `also` (from 1), by layer.

        `rows` [texts, ids, width] are rows of the embedding matrix. Texts of different lengths are padded at their ends.
        """
        kept: dict[int, torch.Tensor] = {}

        def keep(number: int) -> Any:
            def hook(module: Any, args: Any, output: Any) -> None:
                kept[number] = output[0] if isinstance(output, tuple) else output
                if number == self.depth:
                    raise _Left

            return hook

        numbers = {*also, self.depth}
        hooks = [self.layers[number - 1].register_forward_hook(keep(number)) for number in numbers]
        try:
            with suppress(_Left):
                self.body(inputs_embeds=rows * self.scale, use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        return kept


def find_first_layers(model: Any, depth: int, ids: Sequence[int], name: object) -> FirstLayers:
    """Find the layers, and prove on `ids` that the first `depth` have the states alone that they have in the whole model.

    Errors: InputError for a model, called `name`, whose layers cannot be found or run alone.
    """
    import torch

    layers = _layers(model)
    if not 0 < depth < len(layers):
        message = f"has {len(layers)} layers, and the first {depth} cannot be run alone"
        raise InputError(name, message, "Choose fewer `teach_layers`, or another `init`")
    embedding = model.get_input_embeddings()
    some = torch.tensor([list(ids)])
    with torch.no_grad():
        rows = embedding.weight[some]
        scale = float((embedding(some).float() * rows.float()).sum() / rows.float().square().sum())
        first = FirstLayers(model.base_model, layers, depth, scale)
        try:
            expected = model.base_model(
                input_ids=some, output_hidden_states=True, use_cache=False
            ).hidden_states
            alone = first.states(rows, range(1, depth))
            differs = next((n for n in sorted(alone) if not _close(alone[n], expected[n])), None)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:150]
            raise _cannot_be_run(name, f" ({reason})") from error
    if differs is not None or depth not in alone:
        raise _cannot_be_run(name, f": layer {differs} then gives other hidden states")
    return first


def _cannot_be_run(name: object, why: str) -> InputError:
    return InputError(name, f"has first layers that cannot be run alone{why}", "Choose another `init`")


def _layers(model: Any) -> Sequence[Any]:
    """The layers: the list of modules that has as many as the config says; empty if there is not exactly one."""
    from torch.nn import ModuleList

    number = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    lists = [part for part in model.base_model.modules() if isinstance(part, ModuleList)]
    found = [part for part in lists if len(part) == number]
    return list(found[0]) if len(found) == 1 else []


def _close(one: "torch.Tensor", other: "torch.Tensor") -> bool:
    difference = (one.float() - other.float()).square().mean()
    return one.shape == other.shape and bool(difference <= TOLERANCE**2 * other.float().square().mean())


def bf16_products() -> Any:
    """A context in which matrices are multiplied in bf16 where the processor does that in hardware, else as they are."""
    import torch

    return torch.autocast("cpu", torch.bfloat16) if multiplies_bf16() else nullcontext()
