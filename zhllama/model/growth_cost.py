"""What growing a model would write, train and need in memory, from its plan alone."""

import math
from dataclasses import dataclass

from zhllama.model.growth_plan import GrowthPlan
from zhllama.model.row_init import RowInit
from zhllama.model.row_init_distilled import Distillation
from zhllama.model.row_init_taught import Teaching
from zhllama.pretrained import LAYER

# Initializations that open the whole model; all others read its embedding and LM head alone.
OPENING = ("fitted", "shared", "distill", "taught")
LEARNING = (
    16  # bytes of a parameter that learns, besides its own: float32 value, gradient and Adam's two moments
)


@dataclass(frozen=True)
class GrowthCost:
    """Rows, parameters, and bytes on disk and in memory; `steps`, `taught_layers` and `learning` are 0 without training.

    `learning`: the parameters of new rows and first layers that `distill` and `taught` train.
    """

    n_old: int
    n_new: int
    rows: int
    tied: bool
    init: RowInit
    parameters: int
    parameters_before: int
    disk: int
    memory: int
    steps: int
    taught_layers: int
    learning: int


def growth_cost(
    plan: GrowthPlan, init: RowInit, distillation: Distillation, teaching: Teaching
) -> GrowthCost:
    """The cost of growing by `init`; the memory is that of rows, of the model where it is opened, and of what learns."""
    weights = plan.weights
    before = {name: math.prod(stored.shape) for name, stored in weights.tensors.items()}
    bytes_before = {name: weights.size(name) for name in before}
    new, matrices = 0, 0
    disk = sum(bytes_before.values())
    for name in (*plan.names, *plan.matrices.biases):
        source = plan.stored_as(name)
        old_rows = weights.tensors[source].shape[0]
        whole = plan.rows * (before[source] // old_rows)
        bytes_whole = plan.rows * (bytes_before[source] // old_rows)
        new += whole - before.get(name, 0)
        disk += bytes_whole - bytes_before.get(name, 0)
        matrices = max(matrices, bytes_whole + bytes_before[source])
    layers = teaching.learning(plan.stored.model.config.get_text_config().num_hidden_layers) if init == "taught" else 0  # fmt: skip
    learning = 0
    if init in ("distill", "taught"):
        # `taught` trains input rows alone, `distill` those of both matrices.
        learning = plan.n_new * plan.width * (1 if init == "taught" or plan.matrices.output is None else 2)
        learning += sum(
            n for name, n in before.items() if (found := LAYER.match(name)) and int(found[2]) < layers
        )
    return GrowthCost(
        n_old=plan.n_old,
        n_new=plan.n_new,
        rows=plan.rows,
        tied=plan.matrices.output is None,
        init=init,
        parameters=sum(before.values()) + new,
        parameters_before=sum(before.values()),
        disk=disk,
        memory=matrices + (sum(bytes_before.values()) if init in OPENING else 0) + LEARNING * learning,
        steps={"distill": distillation.steps, "taught": teaching.steps}.get(init, 0),
        taught_layers=layers,
        learning=learning,
    )
