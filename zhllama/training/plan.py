"""What a run will train, hold and take, worked out from the model's config before a weight is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from zhllama.errors import InputError, OptionError
from zhllama.pretrained import build_causal
from zhllama.training.four_bit import BYTES_A_WEIGHT
from zhllama.training.hardware import Hardware
from zhllama.training.loss import CHUNK, kernel
from zhllama.training.options import Lora, Precision, TrainingOptions

BYTES: dict[Precision, int] = {"fp32": 4, "bf16": 2, "fp16": 2}
ROOM = 0.9  # of a device's memory may be planned for; allocators and kernels take their share


@dataclass(frozen=True)
class ModelShape:
    """What the config says of the model: parameters, not bytes."""

    body: int  # everything but the two matrices
    rows: int
    width: int
    tied: bool
    layers: int
    heads: int
    inner: int  # width of the feed-forward
    keys: int  # width of keys or values of a layer
    lora: int  # parameters of the adapters
    adapted: int  # inputs of all adapted layers of one block, in numbers a token
    linear: int  # of the body, the parameters of linear layers

    @property
    def matrix(self) -> int:
        return self.rows * self.width

    @property
    def total(self) -> int:
        """All parameters, adapters included."""
        return self.body + self.matrix * (1 if self.tied else 2) + self.lora


def shape_of(config: Any, lora: Lora | None = None, rows: int | None = None) -> ModelShape:
    """Builds the model without memory and counts; `rows` replaces the config's vocabulary.

    Errors: OptionError for adapter modules that the model does not have.
    """
    text = config.get_text_config()
    with torch.device("meta"):
        model = build_causal(config)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None:
        raise InputError(config.model_type, "has no language model head", "Name a causal language model")
    tied = head.weight is embedding.weight or bool(config.tie_word_embeddings)
    held, width = embedding.weight.shape
    layers = int(text.num_hidden_layers)
    adapted = adapted_layers(model, lora.modules) if lora else []
    every = sum(p.numel() for p in model.parameters())
    heads = int(text.num_attention_heads)
    per_head = int(getattr(text, "head_dim", None) or width // heads)
    return ModelShape(
        body=every - held * width * (1 if head.weight is embedding.weight else 2),
        rows=rows or held,
        width=width,
        tied=tied,
        layers=layers,
        heads=heads,
        inner=int(getattr(text, "intermediate_size", None) or 4 * width),
        keys=per_head * int(getattr(text, "num_key_value_heads", None) or heads),
        lora=sum(lora.rank * sum(module.weight.shape) for module in adapted) if lora else 0,
        adapted=sum(module.weight.shape[1] for module in adapted) // layers,
        linear=sum(module.weight.numel() for module in linear_layers(model).values()),
    )


def adapted_layers(model: Any, modules: Sequence[str]) -> list[Any]:
    """The linear layers that carry an adapter; OptionError for a name that no linear layer of the model has."""
    linear = linear_layers(model)
    known = {name.rpartition(".")[2] for name in linear}
    unknown = sorted(set(modules) - known)
    if unknown:
        told = f"the model has no linear layer {unknown[0]!r}"
        raise OptionError("lora_module", told, f"Its layers are {', '.join(sorted(known))}")
    return [module for name, module in linear.items() if name.rpartition(".")[2] in modules]


def linear_names(config: Any) -> tuple[str, ...]:
    """The last names of the linear layers that a model of this config has: q_proj and the others of LLaMA's."""
    with torch.device("meta"):
        model = build_causal(config)
    return tuple(dict.fromkeys(name.rpartition(".")[2] for name in linear_layers(model)))


def linear_layers(model: Any) -> dict[str, Any]:
    """The linear layers of the body, by name."""
    head = model.get_output_embeddings()
    return {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not head}


@dataclass(frozen=True)
class TrainingPlan:
    """A run before it begins. Memory in bytes of one device; `steps`, `tokens` and `seconds` None where unknown."""

    shape: ModelShape
    machine: Hardware
    precision: Precision
    checkpointing: bool
    trained: int
    memory: dict[str, int]
    steps: int | None
    tokens: int | None
    seconds: float | None
    notes: tuple[str, ...]

    @property
    def share(self) -> float:
        """Of all parameters, adapters included, those that learn; in percent."""
        return 100 * self.trained / self.shape.total

    @property
    def peak(self) -> int:
        return sum(self.memory.values())

    def figures(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "parameters": self.shape.total, "trained": self.trained, "trained_percent": round(self.share, 2),
            "memory_bytes": self.memory, "memory_total_bytes": self.peak, "steps": self.steps,
            "tokens": self.tokens, "seconds": None if self.seconds is None else round(self.seconds),
            "machine": self.machine.told, "precision": self.precision, "gradient_checkpointing": self.checkpointing,
            "notes": list(self.notes),
        }  # fmt: skip


def plan_training(
    options: TrainingOptions, shape: ModelShape, n_old: int, machine: Hardware, *, learning: int | None = None,
    blocks: float | None = None, sharded: bool = False,
) -> TrainingPlan:  # fmt: skip
    """Plans a run of `options`; `learning` rows where `--rows used` has counted them, `blocks` of text where known."""
    rows = {"new": shape.rows - n_old, "all": shape.rows, "used": learning or shape.rows, "none": 0}[
        options.rows
    ]
    matrices = 0 if rows == 0 else 1 if shape.tied or options.matrices == "input" else 2
    trained = rows * shape.width * matrices + shape.lora + (shape.body if options.full else 0)
    precision = options.precision or machine.precision
    steps = options.steps
    if steps is None and blocks is not None:
        steps = max(1, -int(-blocks * options.epochs // options.batch))
    tokens = None if steps is None else steps * options.batch * options.block_size
    fixed = _fixed_memory(options, shape, rows, matrices, trained, precision, sharded)
    on_cpu = machine.name == "CPU"
    plain = _activations(options, shape, precision, False, on_cpu)
    checkpointing = options.gradient_checkpointing == "on" or (
        options.gradient_checkpointing == "auto" and sum(fixed.values()) + plain > ROOM * machine.memory
    )
    memory = {
        **fixed,
        "activations": _activations(options, shape, precision, True, on_cpu) if checkpointing else plain,
    }
    seconds = None
    if tokens is not None:
        a_token = _operations(options, shape, rows, matrices, checkpointing) / machine.products(precision)
        if (softmax := machine.softmax()) is not None:
            a_token += _walked(options, shape, trained, precision, checkpointing) / softmax
        seconds = tokens * a_token
    notes = []
    if sum(memory.values()) > ROOM * machine.memory:
        notes.append(
            f"more than {machine.told} has ({machine.memory / 2**30:.0f} GiB): "
            "lower --micro-batch, or shard the model (scripts/launch/fsdp.yaml)"
        )
    if not on_cpu and kernel("cuda") is not None:
        notes.append("the loss by Liger's kernel")
    if sharded and options.rows in ("new", "used"):
        notes.append("sharded: whole matrices with the gradient of old rows masked, no view (more memory)")
    return TrainingPlan(
        shape, machine, precision, checkpointing, trained, memory, steps, tokens, seconds, tuple(notes)
    )


def _fixed_memory(
    options: TrainingOptions,
    shape: ModelShape,
    rows: int,
    matrices: int,
    trained: int,
    precision: Precision,
    sharded: bool,
) -> dict[str, int]:
    """Trained matrices are fp32 whatever the precision of the rest: small steps would vanish in 8 bits of mantissa."""
    width = BYTES[precision]
    held = trained
    if sharded:
        held += (shape.rows - rows) * shape.width * matrices
    frozen: float = (shape.body + shape.matrix * ((1 if shape.tied else 2) - matrices)) * (
        4 if options.full else width
    )
    if options.load_in_4bit:
        frozen += shape.linear * (BYTES_A_WEIGHT - width)
    cast = shape.matrix * width if width != 4 else 0
    return {
        "frozen": round(frozen),
        "restored": shape.inner * shape.width * width
        if options.load_in_4bit
        else 0,  # one layer's, for its product
        "matrices": shape.matrix * 4 * matrices,
        "adapters": shape.lora * 4,
        "gradients": held * 4,
        "optimiser": held * 8,
        "loss": cast
        + 2 * CHUNK * shape.rows * 4
        + 2 * options.micro_batch * options.block_size * shape.width * width,
    }


def _activations(
    options: TrainingOptions, shape: ModelShape, precision: Precision, checkpointing: bool, on_cpu: bool
) -> int:
    """What the layers keep for their backward pass, and the gradients of one layer on their way.

    In a LLaMA's layer: two inputs of norms, queries, keys, values, attention, the mask that keeps documents apart, and
    three of the feed-forward; where adapters are, their dropped-out inputs besides, with a mask each of bytes, or on
    processors of numbers.
    """
    tokens = options.micro_batch * options.block_size
    width = BYTES[precision]
    norms = 2 * shape.width * (4 if width == 4 else 8)
    a_token = norms + (2 * shape.width + 2 * shape.keys + 3 * shape.inner) * width
    a_token += options.block_size * width
    if options.lora is not None:
        dropped = width + (width if on_cpu else 1) if options.lora.dropout else 0
        a_token += shape.adapted * dropped + 2 * shape.width * width
    gradients = (4 * shape.width + 3 * shape.inner) * width
    if checkpointing:
        return tokens * (shape.layers * shape.width * 4 + a_token + gradients)
    return tokens * (shape.layers * a_token + gradients)


def _operations(
    options: TrainingOptions, shape: ModelShape, rows: int, matrices: int, checkpointing: bool
) -> float:
    """A token's: the body forward and back to its inputs, again where recomputed; attention; the head's products."""
    passes = 3 if checkpointing else 2
    body = 2 * passes * shape.body
    attention = passes * 2 * 2 * options.block_size * shape.width * shape.layers
    head = 4 * shape.matrix + (2 * rows * shape.width if matrices == 2 or shape.tied else 0)
    return float(body + attention + head + 6 * shape.lora)


# What a number costs that a processor only walks through, beside one of log_softmax and exp (1.5 ns on one AVX-512 core),
# forward and back; fitted to runs of three shapes, of 5 to 135 million parameters, within a tenth in fp32 [measured:
# tests/test_training_plan_measured.py]. A logit, whose product is narrow besides. In a layer: each score of attention; each
# inner number of the feed-forward (SiLU and two products); each number of its width (norms, rotations, residuals, copies)
# and of its keys; each input of an adapter, and the dice where it is dropped out. In a step: each number that learns.
LOGIT, SCORE, INNER, WIDTH, KEY, ADAPTED, DROPPED, LEARNING = 7.0, 2.0, 2.7, 7.6, 1.7, 1.6, 5.0, 0.5
SHORT = 1.5  # times as much in 16 bits, for all that is turned into 32 and back


def _walked(
    options: TrainingOptions, shape: ModelShape, trained: int, precision: Precision, checkpointing: bool
) -> float:
    """Numbers of a token that a processor walks through besides its products, in those of a softmax; a fifth of the time, or half."""
    layer = SCORE * shape.heads * options.block_size + INNER * shape.inner
    layer += WIDTH * shape.width + KEY * shape.keys
    if options.lora is not None:
        layer += shape.adapted * (ADAPTED + (DROPPED if options.lora.dropout else 0))
    again = 4 / 3 if checkpointing else 1  # the forward pass, a third of it, is made twice
    learning = LEARNING * trained / (options.batch * options.block_size)
    walked = LOGIT * shape.rows + again * shape.layers * layer + learning
    return walked * (1 if precision == "fp32" else SHORT)
