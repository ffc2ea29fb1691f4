"""What training commands share: checks of their options, and the plan, steps and results on the screen."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.cells import cell_len
from rich.table import Table

from zhllama.commands.progress import Bar
from zhllama.commands.shared import check_torch, headings, note, notes, print_json, say, screen, warn
from zhllama.commands.translation import chinese, comma, in_unit, translated
from zhllama.errors import OptionError
from zhllama.options import recorded
from zhllama.training.data_options import ChatTuningData, LabelledData, PairData, PretrainingData
from zhllama.training.options import PlanOptions, TrainingOptions

if TYPE_CHECKING:
    from zhllama.training.hardware import Hardware
    from zhllama.training.model_info import ModelInfo
    from zhllama.training.plan import TrainingPlan
    from zhllama.training.train import Hooks

LABELS = 17  # columns of the names in a plan
ANSWERS = "answers"  # the label of fine-tuning's figures; others are the user's
Options = TypeVar("Options", bound=TrainingOptions)
Data = TypeVar("Data", PretrainingData, ChatTuningData, PairData, LabelledData)


def check_present(example: Mapping[str, str], options: Mapping[str, Any]) -> None:
    """Raise OptionError for the first option without a value; `example` is the remedy of each."""
    for name, remedy in example.items():
        if not options[name]:
            raise OptionError(f"--{name}", "is missing", remedy)


def check_model(model: str | None, plan: PlanOptions) -> None:
    """Raise OptionError without a model; a plan needs a model or a shape."""
    if model is None and not (plan.dry_run and plan.shape):
        raise OptionError(
            "--model", "is missing", "Give a folder, a hub name or a run; or --dry-run --shape llama-7b"
        )


def fold_adapters(data: Data) -> tuple[Data, dict[str, Any]]:
    """The data with the folder of the model that its adapters are folded into, and what config.yaml records of both."""
    if not data.adapter:
        return data, {}
    check_present({"model": "Give the base of the adapters"}, {"model": data.model})
    check_torch("adapters")
    from zhllama.model.folded_models import recorded_adapters, with_adapters

    assert data.model is not None
    folded = replace(data, model=with_adapters(data.model, data.adapter))
    return folded, recorded_adapters(data.model, data.adapter)


def with_all_layers(options: Options, model: str | None, plan: PlanOptions) -> Options:
    """The options with adapters on every linear layer of the model, unless the user named layers."""
    from zhllama.training.model_info import read_shape
    from zhllama.training.model_shape import all_linear

    if options.full or options.lora_module:
        return options
    return replace(options, lora_module=all_linear(read_shape(model, plan.shape)))


def with_default_layers(options: Options, model: str | None, plan: PlanOptions) -> Options:
    """The options with adapters on the attention layers, or all linear layers of a model that names them otherwise."""
    from zhllama.training.model_info import read_shape
    from zhllama.training.model_shape import default_modules

    if options.lora is None or options.lora_module or (model is None and plan.shape is None):
        return options
    return replace(options, lora_module=default_modules(read_shape(model, plan.shape)))


def hardware_of(plan: PlanOptions) -> "Hardware":
    """The hardware to plan for."""
    from zhllama.training.hardware import named_hardware, this_hardware

    return named_hardware(plan.machine) if plan.machine else this_hardware()


def recorded_options(info: "ModelInfo", out: Path, *groups: Any) -> dict[str, Any]:
    """What config.yaml and the manifest of a training run record: its options, and the model's resolved location."""
    chain = info.chain
    return recorded(*groups) | {
        "model": str(chain.model),
        "base_model": str(out.resolve() / "grown" if info.grows else chain.base),
    }


def hooks_for(bar: Bar, reading: str, as_json: bool) -> "Hooks":
    """Show the plan, the steps and the warnings of a run; `reading` names the work before the first step."""
    from zhllama.training.train import Hooks

    def planned(plan: "TrainingPlan") -> None:
        if not as_json:
            show_plan(plan, as_json, to_notes=True)
        bar.stage("opening the model")

    def read(count: int) -> None:
        bar.stage(reading, None, "bytes")
        bar(count)

    return Hooks(planned=planned, step=lambda line: show_step(bar, line), note=warn, read=read)


def show_plan(plan: "TrainingPlan", as_json: bool, to_notes: bool = False) -> None:
    """Print the plan: trained parameters, memory, steps, tokens, FLOPs, and the time if the hardware's speed is known."""
    if as_json:
        print_json(plan.figures())
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    share = f"{plan.trained:,} of {plan.shape.total:,} parameters, {plan.share:.2f} %"
    table.add_row(*headings("trained", share))
    table.add_row(translated("machine"), f"{plan.hardware.label}, {plan.precision}")
    console = notes if to_notes else screen
    gap = "" if chinese() else " "
    parts = [f"{translated(name)}{gap}{size_of(size)}" for name, size in plan.memory.items() if size]
    memory = [translated(f"{size_of(plan.peak)} a device:"), *lines_of(parts, console.width - LABELS)]
    table.add_row(translated("memory"), "\n".join(memory))
    table.add_row(*headings("checkpointing", "on" if plan.checkpointing else "off"))
    if plan.steps is not None and plan.tokens is not None and plan.flops is not None:
        time = "" if plan.seconds is None else f", about {_duration(plan.seconds)}"
        length = f"{plan.steps:,} steps, {plan.tokens:,} tokens, {plan.flops:.1e} FLOPs{time}"
        table.add_row(*headings("length", length))
    else:
        table.add_row(*headings("length", "known once the text is encoded, or set by --steps"))
    for text in plan.notes:
        table.add_row(translated("note"), translated(text))
    console.print(table)


def lines_of(parts: Sequence[str], width: int) -> list[str]:
    """The parts of a list on lines of at most `width` columns, so that no figure is torn from its unit."""
    lines = [""]
    for number, part in enumerate(parts):
        told = part + comma().rstrip() * (number < len(parts) - 1)
        joined = f"{lines[-1]}{'' if chinese() else ' '}{told}".lstrip()
        if cell_len(joined) <= width or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(told)
    return [line for line in lines if line]


def size_of(count: float) -> str:
    """A number of bytes in MiB or GiB."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return in_unit(f"{seconds / length:.1f}", unit)
    return in_unit(f"{seconds:.0f}", "s")


def show_step(bar: Bar, line: Mapping[str, Any]) -> None:
    """Show one event of a run: a finished step, a loss, or figures on the validation split."""
    bar.stage("training", line["steps"], "steps", max(0, line["step"] - 1))
    bar.at(line["step"], line["steps"])
    if "loss" in line:
        bar.note(f"loss {line['loss']:.4f}, {line['tokens_per_second']:,.0f} tokens/s")
    elif each := [f"{name} {v:.4f}" for k, v in line.items() if (name := measured_name(k))]:
        figures = comma().join(each)
        head = translated(f"step {line['step']:,}: {figures}").removesuffix(figures)
        rows = lines_of(each, notes.width - cell_len(head)) if notes.is_terminal else [figures]
        note(head + f"\n{' ' * cell_len(head)}".join(rows))


def measured_name(key: str) -> str | None:
    """The name on the screen of a figure on the validation split; None for other figures."""
    label, separator, unit = key.partition("_bits_per_")
    if separator:
        if chinese():
            label = "回答" if label == ANSWERS else label
            return label + translated("bits/character" if unit == "character" else "bits/byte")
        return f"{label} bits/{'char' if unit == 'character' else unit}"
    return translated(key.removesuffix("_validation")) if key.endswith("_validation") else None


def show_result(summary: str, figures: Mapping[str, Any], head: str = "") -> None:
    """Print the figures on the validation split before and after training, and a summary."""
    table = Table(head, *headings("before", "after"), box=None, padding=(0, 2, 0, 0))
    for key, value in figures.items():
        if isinstance(value, Mapping) and "before" in value and (name := measured_name(key)):
            table.add_row(name, f"{value['before']:.4f}", f"{value['after']:.4f}")
    if table.row_count:
        screen.print(table)
    say(summary)


def steps_summary(out: Path, figures: Mapping[str, Any]) -> str:
    """Steps and tokens of a run, and its folder."""
    return f"{figures['steps']:,} steps, {figures['tokens']:,} tokens: {out}"
