"""LoRA adapters (arXiv:2106.09685): which linear layers get one, PEFT's config, and a model with adapters in place."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from zhllama.errors import MissingPackage, OptionError
from zhllama.pretrained import build_causal, renamed_layers
from zhllama.training.options import Lora


def linear_layers(model: Any) -> dict[str, Any]:
    """Return the linear layers of the model, without the LM head, by name: those of PEFT's `all-linear`.

    Routers that are a Linear with a forward pass of their own, which returns more than a product, are left out.
    """
    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head and _only_multiplies(module)
    }


def _only_multiplies(layer: Any) -> bool:
    """Whether a layer whose forward pass the model's own code redefines still returns one product, as Falcon's does."""
    if not str(type(layer).forward.__module__).startswith("transformers.models."):
        return True
    given = torch.zeros(1, 1, layer.in_features, dtype=layer.weight.dtype, device=layer.weight.device)
    try:
        with torch.no_grad():
            result = layer(given)
    except Exception:  # whatever a layer of another shape raises
        return False
    return isinstance(result, torch.Tensor) and result.shape == (1, 1, layer.out_features)


def linear_names(config: Any) -> tuple[str, ...]:
    """Return the last names of the linear layers that a model of this config has: for a LLaMA q_proj and six others.

    Names are left out that PEFT takes for the experts of a mixture, which are no layers of their own in transformers.
    """
    with torch.device("meta"):
        model = build_causal(config)
    layers = linear_layers(model)
    lost = {name.rpartition(".")[2] for name in renamed_layers(model, layers)}
    names = tuple(dict.fromkeys(n for name in layers if (n := name.rpartition(".")[2]) not in lost))
    try:
        adapted = {name.rpartition(".")[2] for name in adapted_modules(config, Lora(rank=1, modules=names))}
    except (
        OptionError
    ):  # PEFT refuses some layers by name, such as out_proj of Mamba and the routers of some mixtures
        adapted = {name for name in names if _is_adapted(config, name)}
    return tuple(name for name in names if name in adapted)


def _is_adapted(config: Any, name: str) -> bool:
    try:
        return bool(adapted_modules(config, Lora(rank=1, modules=(name,))))
    except OptionError:
        return False


def adapted_modules(config: Any, lora: Lora) -> list[str]:
    """Return the paths of the modules to which PEFT adds these adapters; OptionError where it refuses them."""
    with torch.device("meta"):
        model = build_causal(config)
    adapted_layers(model, lora.modules)
    try:
        with warnings.catch_warnings(action="ignore"):  # the training run itself shows them
            wrapped = _with_adapters(model, lora)
    except ValueError as error:
        message = f"does not fit the model ({' '.join(str(error).split())[:200]})"
        raise OptionError("lora_module", message, "Give other layers") from error
    prefix = "base_model.model."
    paths = [
        name.removeprefix(prefix) for name, module in wrapped.named_modules() if hasattr(module, "lora_A")
    ]
    return [path for path in paths if path]


def adapted_layers(model: Any, modules: Sequence[str]) -> list[Any]:
    """Return the linear layers that get an adapter; OptionError for a name that no linear layer of the model has."""
    linear = linear_layers(model)
    names = {name.rpartition(".")[2] for name in linear}
    unknown = sorted(set(modules) - names)
    if unknown:
        message = f"the model has no linear layer {unknown[0]!r}"
        raise OptionError("lora_module", message, f"Its layers are {', '.join(sorted(names))}")
    return [module for name, module in linear.items() if name.rpartition(".")[2] in modules]


def add_adapters(model: Any, lora: Lora) -> Any:
    """Wrap `model` in a PEFT model whose adapters alone are trainable; OptionError for modules that it does not have."""
    adapted_layers(model, lora.modules)
    return _with_adapters(model, lora)


def _with_adapters(model: Any, lora: Lora) -> Any:
    config = lora_config(lora, "CAUSAL_LM")
    from peft import get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft calls transformers 5.23 by names that v6 drops
        warnings.filterwarnings("ignore", "fan_in_fan_out")  # PEFT sets it itself for GPT-2's layers
        return get_peft_model(model, config)


def lora_config(lora: Lora, task_type: str, **more: Any) -> Any:
    """Return PEFT's config of the adapters; MissingPackage."""
    try:
        from peft import LoraConfig
    except ImportError:
        raise MissingPackage("training adapters", "peft", "train") from None
    return LoraConfig(
        task_type=task_type, r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout,
        target_modules=list(lora.modules), **more,
    )  # fmt: skip
