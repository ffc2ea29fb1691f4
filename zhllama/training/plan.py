"""The plan of a run, from the model's config alone: trained parameters, memory, steps, tokens, FLOPs."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from zhllama.training.four_bit import BYTES_PER_WEIGHT
from zhllama.training.hardware import Hardware
from zhllama.training.model_shape import ModelShape, shape_of
from zhllama.training.options import LOSS_CHUNK, Precision, TrainingOptions

__all__ = ["ModelShape", "TrainingPlan", "plan_training", "shape_of"]

BYTES: dict[Precision, int] = {"fp32": 4, "bf16": 2, "fp16": 2}
USABLE = 0.9  # share of a device's memory that a plan may use; allocators and kernels take the rest


@dataclass(frozen=True)
class TrainingPlan:
    """What a run will need. Memory in bytes of one device; `steps`, `tokens`, `flops` and `seconds` None if unknown."""

    shape: ModelShape
    hardware: Hardware
    precision: Precision
    checkpointing: bool
    dense_mask: bool
    trained: int
    memory: dict[str, int]
    steps: int | None
    tokens: int | None
    flops: float | None
    seconds: float | None
    notes: tuple[str, ...]

    @property
    def share(self) -> float:
        """Percentage of all parameters, adapters included, that are trained."""
        return 100 * self.trained / self.shape.total

    @property
    def peak(self) -> int:
        """Memory of one device in bytes."""
        return sum(self.memory.values())

    def figures(self) -> dict[str, Any]:
        """Return the plan as JSON."""
        return {
            "parameters": self.shape.total, "trained": self.trained, "trained_percent": round(self.share, 2),
            "memory_bytes": self.memory, "memory_total_bytes": self.peak, "steps": self.steps,
            "tokens": self.tokens, "flops": self.flops,
            "seconds": None if self.seconds is None else round(self.seconds),
            "machine": self.hardware.label, "precision": self.precision, "gradient_checkpointing": self.checkpointing,
            "notes": list(self.notes),
        }  # fmt: skip


def plan_training(
    options: TrainingOptions, shape: ModelShape, n_old: int, hardware: Hardware, *, trainable_rows: int | None = None,
    blocks: float | None = None, sharded: bool = False, dense_mask: bool | None = None, reference: bool = False,
) -> TrainingPlan:  # fmt: skip
    """Plan a run of `options`: `trainable_rows` and `blocks` of text as counted, None if unknown.

    `dense_mask`: whether a mask over whole blocks separates the documents; None: as is likely on this hardware.
    `reference`: whether a second, frozen copy of the model is in memory.
    """
    rows = trainable_rows
    if rows is None:
        rows = {"new": shape.rows - n_old, "all": shape.rows, "used": shape.rows, "none": 0}[options.rows]
    matrices = 0 if rows == 0 else 1 if shape.tied or options.matrices == "input" else 2
    trained = rows * shape.width * matrices + shape.lora + (shape.body if options.full else 0)
    precision = options.precision or hardware.precision
    steps = options.steps
    if steps is None and blocks is not None:
        steps = max(1, -int(-blocks * options.epochs // options.batch))
    tokens = None if steps is None else steps * options.batch * options.block_size
    fixed = _fixed_memory(options, shape, rows, matrices, trained, precision, sharded)
    fixed["reference"] = 4 * shape.total if reference else 0
    on_cpu = hardware.name == "CPU"
    if dense_mask is None:
        dense_mask = _likely_dense_mask(options, hardware)
    activations = _activations(options, shape, precision, False, on_cpu)
    masks = _masks(options, shape, precision, False) if dense_mask else 0
    checkpointing = options.gradient_checkpointing == "on" or (
        options.gradient_checkpointing == "auto"
        and sum(fixed.values()) + activations + masks > USABLE * hardware.memory
    )
    if checkpointing:
        activations = _activations(options, shape, precision, True, on_cpu)
        masks = _masks(options, shape, precision, True) if dense_mask else 0
    memory = {**fixed, "activations": activations, "masks": masks}
    flops = (
        None if tokens is None else tokens * _flops_per_token(options, shape, rows, matrices, checkpointing)
    )
    speed = hardware.flops_per_second(precision)
    seconds = None if flops is None or speed is None else flops / speed
    notes = []
    if sum(memory.values()) > USABLE * hardware.memory:
        notes.append(
            f"more than {hardware.label} has ({hardware.memory / 2**30:.0f} GiB): "
            "lower the micro-batch, or shard the model (scripts/launch/fsdp.yaml)"
        )
    if not on_cpu and find_spec("liger_kernel") is not None:
        notes.append("the loss by Liger's kernel")
    if sharded and options.rows in ("new", "used"):
        notes.append("sharded: whole matrices with the gradient of old rows masked, no view (more memory)")
    return TrainingPlan(
        shape,
        hardware,
        precision,
        checkpointing,
        dense_mask,
        trained,
        memory,
        steps,
        tokens,
        flops,
        seconds,
        tuple(notes),
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
    """Return the memory that does not depend on the number of layers in flight, by its use.

    Trained matrices are fp32 whatever the precision of the rest: small updates would vanish in 8 bits of mantissa.
    """
    width = BYTES[precision]
    with_state = trained
    if sharded:
        with_state += (shape.rows - rows) * shape.width * matrices
    frozen: float = (shape.body + shape.matrix * ((1 if shape.tied else 2) - matrices)) * (
        4 if options.full else width
    )
    if options.load_in_4bit:
        frozen += shape.linear * (BYTES_PER_WEIGHT - width)
    dequantized = shape.inner * shape.width * width if options.load_in_4bit else 0  # one layer at a time
    cast_head = shape.matrix * width if width != 4 else 0
    block = options.micro_batch * options.block_size
    logits = (options.logits_kept * block or 2 * LOSS_CHUNK) * shape.rows * 4
    hidden = 2 * block * shape.width * width
    return {
        "frozen": round(frozen),
        "dequantized": dequantized,
        "matrices": shape.matrix * 4 * matrices,
        "adapters": shape.lora * 4,
        "gradients": with_state * 4,
        "optimizer": with_state * 8,
        "loss": cast_head + logits + hidden,
    }


def _activations(
    options: TrainingOptions, shape: ModelShape, precision: Precision, checkpointing: bool, on_cpu: bool
) -> int:
    """Return the memory that the layers keep for the backward pass, and the gradients of one layer.

    A LLaMA layer keeps two inputs of norms, queries, keys, values, attention, and three feed-forward tensors. Adapters add their inputs after dropout with a mask, of bytes on GPUs, of numbers on CPUs.
    """
    tokens = options.micro_batch * options.block_size
    width = BYTES[precision]
    norms = 2 * shape.width * (4 if width == 4 else 8)
    per_token = norms + (2 * shape.width + 2 * shape.keys + 3 * shape.inner) * width
    if options.lora is not None:
        dropout = width + (width if on_cpu else 1) if options.lora.dropout else 0
        per_token += shape.adapted * dropout + 2 * shape.width * width
    gradients = (4 * shape.width + 3 * shape.inner) * width
    if checkpointing:
        return tokens * (shape.layers * shape.width * 4 + per_token + gradients)
    return tokens * (shape.layers * per_token + gradients)


def _likely_dense_mask(options: TrainingOptions, hardware: Hardware) -> bool:
    """Return whether `auto` will probably find no kernel without a mask.

    GPUs that compute in bf16 have FlashAttention; with fp32 weights flex_attention is left, which needs Triton alone.
    """
    if options.attention != "auto":
        return options.attention == "sdpa"
    # On CPUs the figure stands for what attention per document keeps of its parts.
    return hardware.name == "CPU" or hardware.precision != "bf16"


def _masks(options: TrainingOptions, shape: ModelShape, precision: Precision, checkpointing: bool) -> int:
    """Return the memory of the masks over whole blocks, which SDPA converts to numbers in each layer and keeps."""
    tokens = options.micro_batch * options.block_size
    return tokens * options.block_size * BYTES[precision] * (1 if checkpointing else shape.layers)


def _flops_per_token(
    options: TrainingOptions, shape: ModelShape, rows: int, matrices: int, checkpointing: bool
) -> float:
    """Return the FLOPs of one token.

    The body forward, backward to its inputs, again forward with checkpointing, and backward to its weights if they are
    trained; attention; the head; the adapters.
    """
    passes = 3 if checkpointing else 2
    body = 2 * passes * shape.body + (2 * shape.body if options.full else 0)
    attention = passes * 2 * 2 * options.block_size * shape.width * shape.layers
    head = 4 * shape.matrix + (2 * rows * shape.width if matrices == 2 or shape.tied else 0)
    return float(body + attention + head + 6 * shape.lora)
