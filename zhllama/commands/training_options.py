"""The options that training commands share, and how plan, steps and results are printed."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from zhllama.commands.shared import Bar, note, notes, options_of, print_json, say, screen, warn
from zhllama.training import options as training

if TYPE_CHECKING:
    from zhllama.training.model_info import ModelInfo
    from zhllama.training.plan import TrainingPlan
    from zhllama.training.train import Hooks

LENGTH = "Length"
LEARNING = "What learns, and how"
WATCHING = "Watching"
MACHINE = "The machine"

Steps = Annotated[
    int | None, typer.Option("--steps", help="Steps, instead of --epochs.", rich_help_panel=LENGTH)
]
Epochs = Annotated[float, typer.Option("--epochs", help="Times round the text.", rich_help_panel=LENGTH)]
Batch = Annotated[
    int, typer.Option("--batch", help="Blocks a step, all processes together.", rich_help_panel=LENGTH)
]
MicroBatch = Annotated[
    int, typer.Option("--micro-batch", help="Blocks that a device takes at once.", rich_help_panel=LENGTH)
]
Rows = Annotated[
    training.WhichRows,
    typer.Option(
        "--rows",
        help="used: new ones, and old ones frequent in the text. none: adapters alone.",
        rich_help_panel=LEARNING,
    ),
]
WhichMatrices = Annotated[
    training.WhichMatrices,
    typer.Option("--matrices", help="input leaves an untied head as it is.", rich_help_panel=LEARNING),
]
OldRows = Annotated[
    int | None,
    typer.Option("--old-rows", help="Rows before the model grew, if not by us.", rich_help_panel=LEARNING),
]
Lr = Annotated[float, typer.Option("--lr", help="Highest learning rate.", rich_help_panel=LEARNING)]
WhichSchedule = Annotated[training.Schedule, typer.Option("--schedule", rich_help_panel=LEARNING)]
Warmup = Annotated[float, typer.Option("--warmup", help="Share of the steps.", rich_help_panel=LEARNING)]
WeightDecay = Annotated[float, typer.Option("--weight-decay", rich_help_panel=LEARNING)]
LoraRank = Annotated[int, typer.Option("--lora-rank", rich_help_panel=LEARNING)]
LoraAlpha = Annotated[int, typer.Option("--lora-alpha", rich_help_panel=LEARNING)]
LoraDropout = Annotated[float, typer.Option("--lora-dropout", rich_help_panel=LEARNING)]
EvalEvery = Annotated[int, typer.Option("--eval-every", help="Steps.", rich_help_panel=WATCHING)]
SaveEvery = Annotated[int, typer.Option("--save-every", help="Steps.", rich_help_panel=WATCHING)]
LogEvery = Annotated[int, typer.Option("--log-every", help="Steps.", rich_help_panel=WATCHING)]
Numbers = Annotated[
    training.Precision | None,
    typer.Option("--precision", help="By the machine, by default.", rich_help_panel=MACHINE),
]
LoadIn4bit = Annotated[
    bool,
    typer.Option(
        "--load-in-4bit",
        help="The frozen layers in 4 bits, beside adapters; needs a CUDA GPU and the extra cuda.",
        rich_help_panel=MACHINE,
    ),
]
GradientCheckpointing = Annotated[
    training.Checkpointing, typer.Option("--gradient-checkpointing", rich_help_panel=MACHINE)
]
Cache = Annotated[
    Path | None, typer.Option("--cache", help="Where packed blocks lie.", rich_help_panel=MACHINE)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.", rich_help_panel=MACHINE)]
PlannedShape = Annotated[
    str | None,
    typer.Option(
        "--shape", help="To plan without a model: a config.json, or llama-7b ...", rich_help_panel=MACHINE
    ),
]
PlannedIds = Annotated[
    int | None, typer.Option("--ids", help="To plan without a tokenizer: its size.", rich_help_panel=MACHINE)
]
PlannedMachine = Annotated[
    str | None,
    typer.Option("--machine", help="To plan for another machine, e.g. 8xA100.", rich_help_panel=MACHINE),
]


def recorded_options(context: typer.Context, info: "ModelInfo", out: Path) -> dict[str, Any]:
    """What a training run's config and manifest say: the options that change what is trained, and the model's own place."""
    chain = info.chain
    recorded = {
        k: v
        for k, v in options_of(context).items()
        if k not in ("dry_run", "shape", "ids", "machine", "cache")
    }
    recorded["model"] = str(chain.runs[-1] if chain.runs else chain.base)
    recorded["base_model"] = str(out.resolve() / "grown" if info.grows else chain.base)
    return recorded


def hooks_for(bar: Bar, reading: str, as_json: bool) -> "Hooks":
    """What a run tells while it works: its plan, each step, what is to be known; `reading` says what comes first."""
    from zhllama.training.train import Hooks

    return Hooks(
        planned=lambda plan: None if as_json else show_plan(plan, as_json, to_notes=True),
        step=lambda line: show_step(bar, line),
        note=warn,
        read=lambda count: bar.note(reading),
    )


def show_plan(plan: "TrainingPlan", as_json: bool, to_notes: bool = False) -> None:
    """Print the plan: trained parameters, memory, steps, tokens, FLOPs, and the time if the hardware's speed is known."""
    if as_json:
        print_json(plan.figures())
        return
    drawn = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    drawn.add_row("learns", f"{plan.trained:,} of {plan.shape.total:,} parameters, {plan.share:.2f} %")
    drawn.add_row("machine", f"{plan.hardware.label}, {plan.precision}")
    memory = ", ".join(f"{name} {_size(size)}" for name, size in plan.memory.items() if size)
    drawn.add_row("memory", f"{_size(plan.peak)} a device: {memory}")
    drawn.add_row("checkpointing", "on" if plan.checkpointing else "off")
    if plan.steps is not None and plan.tokens is not None and plan.flops is not None:
        time = "" if plan.seconds is None else f", about {_duration(plan.seconds)}"
        drawn.add_row("length", f"{plan.steps:,} steps, {plan.tokens:,} tokens, {plan.flops:.1e} FLOPs{time}")
    for told in plan.notes:
        drawn.add_row("note", told)
    (notes if to_notes else screen).print(drawn)


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def show_step(bar: Bar, line: Mapping[str, Any]) -> None:
    """A step done, a loss, or what was measured on what is kept aside."""
    bar.at(line["step"], line["steps"])
    if "loss" in line:
        bar.note(f"loss {line['loss']:.4f}, {line['tokens_per_second']:,.0f} tokens/s")
    elif told := ", ".join(f"{name} {v:.4f}" for k, v in line.items() if (name := measured_name(k))):
        note(f"step {line['step']:,}: {told}")


def measured_name(key: str) -> str | None:
    """How a figure on text or pairs kept aside is called on the screen; None for other figures."""
    label, found, unit = key.partition("_bits_per_")
    if found:
        return f"{label} bits/{'char' if unit == 'character' else unit}"
    return key.removesuffix("_aside") if key.endswith("_aside") else None


def show_result(told: str, figures: Mapping[str, Any], head: str = "") -> None:
    """What was measured, before and after, and a last line."""
    drawn = Table(head, "before", "after", box=None, padding=(0, 2, 0, 0))
    for key, value in figures.items():
        if isinstance(value, Mapping) and "before" in value and (name := measured_name(key)):
            drawn.add_row(name, f"{value['before']:.4f}", f"{value['after']:.4f}")
    if drawn.row_count:
        screen.print(drawn)
    say(told)


def steps_told(out: Path, figures: Mapping[str, Any]) -> str:
    """How much was trained, and where it is."""
    return f"{figures['steps']:,} steps, {figures['tokens']:,} tokens: {out}"
