"""A training run on ranked pairs or labelled answers, shared by `reward`, `dpo` and `kto`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zhllama.commands.shared import note, print_json, progress
from zhllama.commands.training_screen import check_present, hardware_of, hooks_for, show_plan, show_result
from zhllama.commands.translation import translated
from zhllama.options import recorded
from zhllama.run import Run
from zhllama.training.data_options import LabelledData, PairData
from zhllama.training.options import PlanOptions, TrainingOptions

if TYPE_CHECKING:
    from zhllama.conversation.row_files import RowFiles
    from zhllama.training.examples import ExampleForm
    from zhllama.training.pair_training import PairModelInfo, PairTrainingJob
    from zhllama.training.plan import TrainingPlan
    from zhllama.training.train import Hooks

Train = Callable[["PairTrainingJob", TrainingOptions, "PairModelInfo", Run, "Hooks"], dict[str, Any] | None]

# The ranked or labelled answers in a run of gen-zh, review or sharegpt export.
RANKED = ("comparisons.json", "reviewed.jsonl", "pairs.jsonl")
LABELLED = ("labelled.jsonl", *RANKED)


@dataclass(frozen=True)
class PairRun:
    """The folder of a run and how it is started; `base` is the key under which it records the model.

    `data`, `validation`: the files as they were given, `option` the name of the first. `origin`: the model and adapters that
    were folded into the model, if there are any.
    """

    command: str
    base: str
    out: Path | None
    resume: bool
    force: bool
    as_json: bool
    option: str
    data: tuple[str, ...]
    validation: tuple[str, ...]
    origin: Mapping[str, Any]

    def files(self) -> tuple["RowFiles", "RowFiles", "RowFiles"]:
        """The files for training, for validation, and all."""
        from zhllama.conversation.row_files import find_row_files, joined

        outputs = RANKED if self.option == "pairs" else LABELLED
        training, validation = (find_row_files(names, outputs) for names in (self.data, self.validation))
        return training, validation, joined([training, validation])


def train_pairs(
    data: PairData | LabelledData, options: TrainingOptions, plan: PlanOptions, as_given: TrainingOptions, start: PairRun,
    form: "ExampleForm", train: Train,
) -> None:  # fmt: skip
    """Train and print the result; `as_given` are the options as config.yaml records them."""
    from zhllama.conversation.row_fields import parse_field_map
    from zhllama.conversation.template import template_chosen
    from zhllama.training.pair_training import PairTrainingJob, inspect_pair_model

    if plan.dry_run:
        show_plan(_plan(data, options, plan, start, form), start.as_json)
        return
    remedy = "Give a file of ranked answers" if form.noun == "pairs" else "Give a file of labelled answers"
    required = {start.option: remedy, "out": "Give a folder for the run"}
    check_present(required, {start.option: start.data, "out": start.out})
    assert data.model is not None and start.out is not None
    files, validation, every = start.files()
    field_map = parse_field_map(data.field_map)
    with inspect_pair_model(data.model, data.template, options) as info:
        note(template_chosen(info.encoder.template, data.template))
        chain = info.info.chain
        config = recorded(data, as_given, plan) | {
            "base_model": str(chain.base), start.base: str(chain.model)
        }  # fmt: skip
        if start.origin:
            config |= {start.base: start.origin["model"], "adapter": start.origin["adapter"]}
        inputs = [*every.inputs, *info.info.inputs()]
        run = Run(start.out, start.command, config, inputs, start.force, start.resume, options.seed)
        job = PairTrainingJob(
            files.files, validation.files, data.validation_share, data.skip_bad, field_map, every.forms
        )
        task = "reading pairs" if form.noun == "pairs" else "reading answers"
        with progress("reading", None, "bytes") as bar:
            manifest = train(job, options, info, run, hooks_for(bar, task, start.as_json))
    if manifest is None:
        return
    figures = manifest["figures"]
    print_json({"out": str(start.out), **figures}) if start.as_json else _show(start.out, figures, form.noun)


def _plan(
    data: PairData | LabelledData, options: TrainingOptions, plan: PlanOptions, start: PairRun, form: "ExampleForm"
) -> "TrainingPlan":  # fmt: skip
    """Plan a run; the number of steps is known only if data is given."""
    from zhllama.conversation.row_fields import parse_field_map
    from zhllama.training.examples import read_examples
    from zhllama.training.model_info import read_shape
    from zhllama.training.pair_training import inspect_pair_model, plan_pairs
    from zhllama.training.plan import shape_of

    count = None
    if data.model is not None and start.data:
        files, validation, every = start.files()
        with inspect_pair_model(data.model, data.template, options) as info:
            examples = read_examples(
                form, files.files, info.encoder, options.block_size, validation_share=data.validation_share,
                validation_files=validation.files, seed=options.seed, skip_bad=data.skip_bad,
                field_map=parse_field_map(data.field_map), forms=every.forms,
            )  # fmt: skip
            count = len(examples.training)
    shape = shape_of(read_shape(data.model, plan.shape), options.lora)
    return plan_pairs(options, shape, hardware_of(plan), count)


def _show(out: Path, figures: Mapping[str, Any], noun: Literal["pairs", "answers"]) -> None:
    steps, used, read = figures["steps"], figures[noun], figures[f"{noun}_read"]
    left_out, validation = figures[f"{noun}_left_out"], figures[f"validation_{noun}"]
    if noun == "pairs":
        summary = f"{steps:,} steps on {used:,} pairs of {read:,}, {left_out:,} left out: {out}"
        show_result(summary, figures, translated(f"on {validation:,} validation pairs"))
    else:
        summary = f"{steps:,} steps on {used:,} answers of {read:,}, {left_out:,} left out: {out}"
        show_result(summary, figures, translated(f"on {validation:,} validation answers"))
