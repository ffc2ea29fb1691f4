"""The command `pretrain`, which trains new rows, then adapters and rows, on text."""

from typing import TYPE_CHECKING

from zhllama.commands.declare import command
from zhllama.commands.shared import (
    AsJson,
    Config,
    Force,
    MaybeOut,
    Resume,
    TextOptions,
    check_torch,
    print_json,
    progress,
    warn,
)
from zhllama.commands.training_screen import (
    check_present,
    fold_adapters,
    hardware_of,
    hooks_for,
    recorded_options,
    show_plan,
    show_result,
    steps_summary,
    with_default_layers,
)
from zhllama.run import Run
from zhllama.training.data_options import PretrainingData
from zhllama.training.options import PretrainingOptions, VocabularyPlanOptions

if TYPE_CHECKING:
    from zhllama.training.plan import TrainingPlan


@command
def pretrain(
    data: PretrainingData,
    options: PretrainingOptions,
    reading: TextOptions,
    plan: VocabularyPlanOptions,
    out: MaybeOut = None,
    resume: Resume = False,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Train new rows (stage 1), then adapters and rows (stage 2), on Chinese and English text."""
    if not plan.dry_run:
        check_torch("pretrain")
    data, origin = fold_adapters(data)
    as_given, options = options, with_default_layers(options, data.model, plan)
    if plan.dry_run:
        show_plan(_plan(data, options, plan), as_json)
        return
    required = {
        "model": "Give a folder, a hub name or a run; or --dry-run",
        "text": "Give LABEL=PATH, e.g. --text zh=corpus.txt",
        "out": "Give a folder for the run",
    }
    check_present(required, {"model": data.model, "text": data.text, "out": out})
    assert data.model is not None and out is not None
    from zhllama.io.cache import cache_folder
    from zhllama.training.mixture import WeightedSource
    from zhllama.training.model_info import inspect_model
    from zhllama.training.pretraining_job import PretrainingJob
    from zhllama.training.train import train

    job = PretrainingJob(
        data.model,
        data.tokenizer,
        tuple(WeightedSource.parse(value, "text") for value in data.text),
        tuple(WeightedSource.parse(value, "eval_text") for value in data.eval_text),
        data.cache or cache_folder("blocks"),
        data.stream,
        reading.field,
    )
    info = inspect_model(data.model, data.tokenizer, options)
    files = [path for source in (*job.sources, *job.validation) for path in source.files]
    inputs = [*files, *info.inputs(), *(info.tokenizer.files() if data.tokenizer else [])]
    recorded = recorded_options(info, out, data, as_given, reading, plan) | origin
    run = Run(out, "pretrain", recorded, list(dict.fromkeys(inputs)), force, resume, options.seed)
    with progress("reading", None, "bytes") as bar:
        manifest = train(job, options, info, run, hooks_for(bar, "encoding", as_json))
    if manifest is None:
        return
    figures = manifest["figures"]
    print_json(figures) if as_json else show_result(steps_summary(out, figures), figures)


def _plan(data: PretrainingData, options: PretrainingOptions, plan: VocabularyPlanOptions) -> "TrainingPlan":
    from zhllama.errors import OptionError
    from zhllama.training.model_info import read_shape, rows_to_plan
    from zhllama.training.model_shape import can_build
    from zhllama.training.plan import plan_training, shape_of

    if data.model is not None and not can_build():
        warn(
            "counted from the config alone: the model's files are checked only where torch and peft are installed"
        )
    if data.model is None and plan.shape is None:
        raise OptionError("model", "is missing", "Give a folder, a hub name or a run; or --shape llama-7b")
    config = read_shape(data.model, plan.shape)
    n_old, rows = rows_to_plan(data.model, data.tokenizer, config, plan.ids, options)
    return plan_training(options, shape_of(config, options.lora, rows), n_old, hardware_of(plan))
