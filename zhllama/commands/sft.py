"""The command `sft`, which fine-tunes a model on conversations."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from zhllama.commands.declare import command
from zhllama.commands.shared import (
    AsJson,
    Config,
    Force,
    LineOptions,
    MaybeOut,
    Resume,
    check_torch,
    note,
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
    with_all_layers,
)
from zhllama.errors import OptionError
from zhllama.run import Run
from zhllama.training.data_options import ChatTuningData
from zhllama.training.options import ChatTuningOptions, VocabularyPlanOptions

if TYPE_CHECKING:
    from zhllama.conversation.row_files import RowFiles
    from zhllama.training.chat_model_info import ChatModelInfo
    from zhllama.training.mixture import WeightedSource
    from zhllama.training.plan import TrainingPlan


@command
def sft(
    data: ChatTuningData,
    options: ChatTuningOptions,
    reading: LineOptions,
    plan: VocabularyPlanOptions,
    out: MaybeOut = None,
    resume: Resume = False,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Tune a model on conversations: the loss covers the answers alone, and packed samples do not attend to each other."""
    if not (plan.dry_run and data.model is None):
        check_torch("sft")
    if data.model is None and plan.shape is None and not (options.full or options.lora_module):
        raise OptionError("model", "is missing", "Give a folder, a hub name or a run; or --shape llama-7b")
    data, origin = fold_adapters(data)
    as_given, options = options, with_all_layers(options, data.model, plan)
    if plan.dry_run:
        show_plan(_plan(data, options, plan), as_json)
        return
    required = {
        "model": "Give a folder, a hub name or a run; or --dry-run",
        "data": "Give a file of conversations, e.g. --data alpaca.json",
        "out": "Give a folder for the run",
    }
    check_present(required, {"model": data.model, "data": data.data, "out": out})
    assert data.model is not None and out is not None
    from zhllama.conversation.row_fields import parse_field_map
    from zhllama.conversation.row_files import find_row_files, joined
    from zhllama.conversation.template import template_chosen
    from zhllama.io.cache import cache_folder
    from zhllama.training.sft import ChatTuningJob
    from zhllama.training.train import train

    sources, found = zip(*map(_source, data.data), strict=True)
    validation = find_row_files(data.eval_data)
    every = joined([*found, validation])
    with _inspected(data, options) as info, progress("reading", None, "bytes") as bar:
        files = [path for source in sources for path in source.files]
        inputs = [*files, *validation.files, *every.descriptions, *info.info.inputs()]
        recorded = recorded_options(info.info, out, data, as_given, reading, plan) | origin
        run = Run(out, "sft", recorded, inputs, force, resume, options.seed)
        job = ChatTuningJob(
            sources, validation.files, info.encoder, data.cache or cache_folder("blocks"), skip_bad=data.skip_bad,
            field_map=parse_field_map(data.field_map), forms=every.forms, note=warn,
        )  # fmt: skip
        note(template_chosen(info.encoder.template, data.template))
        manifest = train(job, options, info.info, run, hooks_for(bar, "encoding", as_json))
    if manifest is None:
        return
    figures = manifest["figures"]
    print_json(figures) if as_json else show_result(steps_summary(out, figures), figures)


@contextmanager
def _inspected(data: ChatTuningData, options: ChatTuningOptions) -> Iterator["ChatModelInfo"]:
    """Inspect the model before anything is written; its tokenizer folder exists while the body runs."""
    from zhllama.training.chat_model_info import inspect_chat_model

    with TemporaryDirectory(prefix="zhllama-") as folder:
        assert data.model is not None
        yield inspect_chat_model(data.model, data.template, options, Path(folder), data.thoughts)


def _source(value: str) -> tuple["WeightedSource", "RowFiles"]:
    from zhllama.conversation.row_files import find_row_files
    from zhllama.training.mixture import WeightedSource, parse_weight

    path, weight = parse_weight(value, "data")
    found = find_row_files([path])
    return WeightedSource(Path(path).name, found.files, weight), found


def _plan(data: ChatTuningData, options: ChatTuningOptions, plan: VocabularyPlanOptions) -> "TrainingPlan":
    from zhllama.training.model_info import read_shape, rows_to_plan
    from zhllama.training.plan import plan_training, shape_of

    if data.model is not None and plan.ids is None:
        with _inspected(data, options) as info:
            config, rows = info.info.config, info.info.rows
            n_old = info.info.old_rows() if options.rows in ("new", "used") else 0
    else:
        config = read_shape(data.model, plan.shape)
        n_old, rows = rows_to_plan(None, None, config, plan.ids, options)
    return plan_training(options, shape_of(config, options.lora, rows), n_old, hardware_of(plan))
