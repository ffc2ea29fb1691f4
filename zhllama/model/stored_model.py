"""Which stored tensor each parameter of a model is loaded from, by transformers' own renaming of stored names."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from zhllama.errors import InputError, ZhllamaError
from zhllama.model.load import read_model_config, refuse_uncounted
from zhllama.model.quantized import refuse_quantized, refuse_quantized_tensors
from zhllama.model.weight_files import Weights, read_weights
from zhllama.pretrained import build_causal, split_parameter, stored_names, unstored_parameters


@dataclass(frozen=True)
class StoredLayer:
    """The stored weight of a linear layer, [out, in] or, if `transposed`, [in, out]."""

    name: str
    transposed: bool


@dataclass(frozen=True)
class StoredModel:
    """The weights of a plain folder, and the model that transformers builds of it, on the meta device.

    `names`: the stored name of each parameter that is stored as one tensor of its own shape. Others, such as experts that
    transformers stacks into one parameter, are absent.
    """

    weights: Weights
    model: Any
    names: Mapping[str, str]

    @property
    def folder(self) -> Path:
        return self.weights.folder

    @cached_property
    def layers(self) -> dict[str, StoredLayer]:
        """The linear layers that can take a merged adapter, by their path in the model."""
        from torch.nn import Linear
        from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer, whose weight is [in, out]

        return {
            path: StoredLayer(self.names[f"{path}.weight"], isinstance(module, Conv1D))
            for path, module in self.model.named_modules()
            if isinstance(module, Linear | Conv1D) and f"{path}.weight" in self.names
        }

    @cached_property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """The stored tensors of each parameter that is stored as several, such as the experts of a mixture."""
        parts = {}
        for name, parameter in self._not_stored_alone:
            split = split_parameter(self.model, name, parameter)
            if split and all(
                n in self.weights.tensors and self.weights.tensors[n].shape == tuple(t.shape)
                for n, t in split.items()
            ):
                parts[name] = tuple(split)
        return parts

    @property
    def not_stored(self) -> list[str]:
        """The parameters that are stored neither as one tensor nor as parts that transformers can make of it."""
        return [name for name, _ in self._not_stored_alone if name not in self.parts]

    @cached_property
    def _not_stored_alone(self) -> list[tuple[str, Any]]:
        """The parameters that are not stored as one tensor, without those tied to one that is."""
        parameters = list(self.model.named_parameters(remove_duplicate=False))
        stored = {id(parameter) for name, parameter in parameters if name in self.names}
        return [(name, parameter) for name, parameter in parameters if id(parameter) not in stored]


def read_stored_model(folder: Path) -> StoredModel:
    """Read the headers of a folder's weights and build its model without memory.

    Errors: InputError for a model that is not a causal language model, for quantized weights, and for a parameter that
    is stored twice or not at all.
    """
    import torch

    config = read_model_config(folder)
    refuse_quantized(folder, config)
    weights = read_weights(folder)
    try:
        with torch.device("meta"):
            model = build_causal(config)
    except ZhllamaError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            folder, f"is not a causal language model ({reason})", "Name another model"
        ) from error
    shapes = {n: tuple(p.shape) for n, p in model.named_parameters(remove_duplicate=False)}
    names: dict[str, str] = {}
    for stored, name in stored_names(model, weights.tensors).items():
        if name in names:
            raise InputError(
                folder, f"stores {name} twice, as {names[name]} and {stored}", "Remove one of the two"
            )
        names[name] = stored
    _refuse_lacking(folder, model, weights)
    refuse_uncounted(folder, model, weights.tensors)
    state = model.state_dict()
    refuse_quantized_tensors(weights, [n for name, n in names.items() if state[name].is_floating_point()])
    for name, stored in names.items():
        if name in shapes and shapes[name] != weights.tensors[stored].shape:
            message = (
                f"stores {stored} as {weights.tensors[stored].shape}, and by its config it is {shapes[name]}"
            )
            raise InputError(folder, message, "Correct config.json, or download the model again")
    return StoredModel(weights, model, names)


def _refuse_lacking(folder: Path, model: Any, weights: Weights) -> None:
    """Raise InputError for weights from which a parameter of the model is missing, before any of them are read."""
    lacking = unstored_parameters(model, weights.tensors)
    if not lacking:
        return
    stored = next((key for key in weights.tensors for name in lacking if key.endswith(f".{name}")), None)
    if stored is not None:
        name = next(name for name in lacking if stored.endswith(f".{name}"))
        message = f"stores {name} as {stored}, a name that transformers does not know"
        raise InputError(folder, message, f"Remove {stored.removesuffix(name)} from the names of its weights")
    raise InputError(
        folder, f"lacks the weights {', '.join(sorted(lacking)[:3])}", "Download the model again"
    )
