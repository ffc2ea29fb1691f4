"""The sizes of a model by its config: from the model built without memory, or, without torch, by the formulas of LLaMA's family."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from zhllama.errors import InputError, MissingPackage, OptionError
from zhllama.training.options import Lora

FAMILY = ("llama", "mistral", "qwen2", "qwen3")  # model types whose blocks are LLaMA's


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model by its config, in numbers, not bytes."""

    body: int  # parameters outside the embedding matrix and the LM head
    rows: int
    width: int
    tied: bool
    layers: int
    inner: int  # width of the feed-forward
    keys: int  # width of the keys, or values, of one layer
    lora: int  # parameters of the adapters
    adapted: int  # summed input widths of the layers of one block that have adapters
    linear: int  # parameters of the linear layers, part of the body

    @property
    def matrix(self) -> int:
        return self.rows * self.width

    @property
    def total(self) -> int:
        """All parameters, adapters included."""
        return self.body + self.matrix * (1 if self.tied else 2) + self.lora


def shape_of(config: Any, lora: Lora | None = None, rows: int | None = None) -> ModelShape:
    """Build the model without memory and count; `rows` replaces the config's vocabulary size.

    Errors: InputError for a model without an LM head, OptionError for adapter modules that the model does not have;
    MissingPackage where torch is not installed and the model is not of LLaMA's family.
    """
    if not can_build():
        return shape_by_formula(config, lora, rows)
    import torch

    from zhllama.pretrained import build_causal
    from zhllama.training.lora import adapted_layers, linear_layers

    text = config.get_text_config()
    with torch.device("meta"):
        model = build_causal(config)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None:
        raise InputError(config.model_type, "has no language model head", "Name a causal language model")
    shared = head.weight is embedding.weight
    vocabulary, width = embedding.weight.shape
    layers = int(text.num_hidden_layers)
    heads = _size(text, "num_attention_heads") or 1  # models without attention, such as Mamba, have no heads
    head_width = _size(text, "head_dim") or width // heads
    adapted = adapted_layers(model, lora.modules) if lora else []
    parameters = sum(p.numel() for p in model.parameters())
    return ModelShape(
        body=parameters - vocabulary * width * (1 if shared else 2),
        rows=rows or vocabulary,
        width=width,
        tied=shared or bool(getattr(config, "tie_word_embeddings", False)),
        layers=layers,
        inner=_size(text, "intermediate_size") or 4 * width,
        keys=head_width * (_size(text, "num_key_value_heads") or heads),
        lora=sum(lora.rank * sum(module.weight.shape) for module in adapted) if lora else 0,
        adapted=sum(module.weight.shape[1] for module in adapted) // layers,
        linear=sum(module.weight.numel() for module in linear_layers(model).values()),
    )


def _size(config: Any, name: str) -> int | None:
    """A size by its name in a config; the largest where it differs by layer, None where the config has none."""
    try:
        value = getattr(config, name, None)
    except Exception:  # transformers' own error for a size that differs by layer is no AttributeError
        return None
    if isinstance(value, list | tuple):
        value = max((item for item in value if isinstance(item, int)), default=None)
    return int(value) if isinstance(value, int | float) and value else None


def shape_by_formula(config: Any, lora: Lora | None = None, rows: int | None = None) -> ModelShape:
    """The same for a model of LLaMA's family, without torch. Errors: MissingPackage for other models, OptionError."""
    linear = block_layers(config)
    width, layers = int(config.hidden_size), int(config.num_hidden_layers)
    for name in lora.modules if lora else ():
        if name not in linear:
            message = f"the model has no linear layer {name!r}"
            raise OptionError("lora_module", message, f"Its layers are {', '.join(sorted(linear))}")
    adapted = [linear[name] for name in lora.modules] if lora else []
    weights = layers * sum(into * out for into, out in linear.values())
    return ModelShape(
        body=weights + layers * _block_vectors(config, linear) + width,
        rows=rows or int(config.vocab_size),
        width=width,
        tied=bool(config.tie_word_embeddings),
        layers=layers,
        inner=int(config.intermediate_size),
        keys=linear["k_proj"][1],
        lora=layers * sum(lora.rank * (into + out) for into, out in adapted) if lora else 0,
        adapted=sum(into for into, _ in adapted),
        linear=weights,
    )


def block_layers(config: Any) -> Mapping[str, tuple[int, int]]:
    """The linear layers of one block of LLaMA's family, each with its input and output width; MissingPackage for others."""
    if config.model_type not in FAMILY:
        raise MissingPackage(f"the plan of a {config.model_type} model", "torch", "train")
    width, inner = int(config.hidden_size), int(config.intermediate_size)
    heads = int(config.num_attention_heads)
    head = int(getattr(config, "head_dim", None) or width // heads)
    keys = head * int(getattr(config, "num_key_value_heads", None) or heads)
    return {
        "q_proj": (width, heads * head), "k_proj": (width, keys), "v_proj": (width, keys), "o_proj": (heads * head, width),
        "gate_proj": (width, inner), "up_proj": (width, inner), "down_proj": (inner, width),
    }  # fmt: skip


def _block_vectors(config: Any, linear: Mapping[str, tuple[int, int]]) -> int:
    """Parameters of one block outside its matrices: norms and biases."""
    attention, keys = ("q_proj", "k_proj", "v_proj", "o_proj"), ("q_proj", "k_proj", "v_proj")
    biased: tuple[str, ...] = ()
    if config.model_type == "qwen2":
        biased = keys
    elif getattr(config, "attention_bias", False):
        biased = attention
    if getattr(config, "mlp_bias", False):
        biased += ("gate_proj", "up_proj", "down_proj")
    norms = 2 * int(config.hidden_size)
    if config.model_type == "qwen3":  # a norm of the queries and one of the keys, each of a head's width
        norms += 2 * int(config.head_dim)
    return norms + sum(linear[name][1] for name in biased)


def all_linear(config: Any) -> tuple[str, ...]:
    """The names of all linear layers that can get an adapter; MissingPackage as in `shape_of`."""
    if not can_build():
        return tuple(block_layers(config))
    from zhllama.training.lora import linear_names

    return linear_names(config)


def default_modules(config: Any) -> tuple[str, ...]:
    """The layers that get adapters by default: those of Chinese-LLaMA, or all where the model has other names."""
    names = all_linear(config)
    return Lora.modules if set(Lora.modules) <= set(names) else names


def can_build() -> bool:
    """Whether torch is installed, and PEFT, which decides which layers can have adapters."""
    return find_spec("torch") is not None and find_spec("peft") is not None
