"""The command `sft`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from zhllama.commands.shared import (
    AsJson,
    Config,
    Force,
    MaxLineBytes,
    MaybeModel,
    MaybeOut,
    Resume,
    Seed,
    check_torch,
    print_json,
    progress,
    warn,
)
from zhllama.commands.training_options import (
    LEARNING,
    LENGTH,
    Batch,
    Cache,
    DryRun,
    Epochs,
    EvalEvery,
    GradientCheckpointing,
    LoadIn4bit,
    LogEvery,
    LoraAlpha,
    LoraDropout,
    LoraRank,
    Lr,
    MicroBatch,
    Numbers,
    OldRows,
    PlannedIds,
    PlannedMachine,
    PlannedShape,
    Rows,
    SaveEvery,
    Steps,
    Warmup,
    WeightDecay,
    WhichMatrices,
    WhichSchedule,
    hooks_for,
    recorded_options,
    show_plan,
    show_result,
    steps_told,
)  # fmt: skip
from zhllama.errors import OptionError
from zhllama.io.files import LONGEST_LINE
from zhllama.run import Run
from zhllama.training.options import Lora, TrainingOptions

if TYPE_CHECKING:
    from zhllama.training.chat_model_info import ChatModelInfo
    from zhllama.training.mixture import WeightedSource
    from zhllama.training.plan import TrainingPlan


def sft(
    context: typer.Context,
    model: MaybeModel = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            help="FILE[:WEIGHT]: rows of Alpaca, BELLE, ShareGPT, Firefly, or messages; a list or one a line, .gz and .xz too.",
            show_default=False,
        ),
    ] = None,
    eval_data: Annotated[
        list[str] | None,
        typer.Option(
            "--eval-data", help="FILE whose answers are measured; else 1 % of the data.", show_default=False
        ),
    ] = None,
    out: MaybeOut = None,
    template: Annotated[
        str,
        typer.Option(
            "--template", help="alpaca, vicuna, chatml, llama3; own: the chat_template that the model has."
        ),
    ] = "alpaca",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave bad rows out, into rejected.jsonl, instead of stopping.")
    ] = False,
    max_line_bytes: MaxLineBytes = LONGEST_LINE,
    max_length: Annotated[
        int,
        typer.Option(
            "--max-length",
            help="Tokens of a conversation, and of a block; longer ones are cut at a turn.",
            rich_help_panel=LENGTH,
        ),
    ] = 512,
    steps: Steps = None,
    epochs: Epochs = 3.0,
    batch: Batch = 64,
    micro_batch: MicroBatch = 8,
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Train every weight, without adapters; for small models.", rich_help_panel=LEARNING
        ),
    ] = False,
    rows: Rows = "all",
    matrices: WhichMatrices = "both",
    old_rows: OldRows = None,
    lr: Lr = 1e-4,
    schedule: WhichSchedule = "cosine",
    warmup: Warmup = 0.03,
    weight_decay: WeightDecay = 0.0,
    lora_rank: LoraRank = 8,
    lora_alpha: LoraAlpha = 32,
    lora_dropout: LoraDropout = 0.05,
    lora_module: Annotated[
        list[str] | None,
        typer.Option(
            "--lora-module", help="Linear layers with adapters; all by default.", rich_help_panel=LEARNING
        ),
    ] = None,
    eval_every: EvalEvery = 500,
    save_every: SaveEvery = 500,
    log_every: LogEvery = 10,
    precision: Numbers = None,
    load_in_4bit: LoadIn4bit = False,
    gradient_checkpointing: GradientCheckpointing = "auto",
    cache: Cache = None,
    dry_run: DryRun = False,
    shape: PlannedShape = None,
    ids: PlannedIds = None,
    machine: PlannedMachine = None,
    seed: Seed = 0,
    resume: Resume = False,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Tune a model on conversations: only the answers are learnt, packed so that no sample sees another."""
    check_torch("sft")
    modules = tuple(lora_module or ()) or (() if full else _every_layer(model, shape))
    options = TrainingOptions(
        lora=None if full else Lora(lora_rank, lora_alpha, lora_dropout, modules),
        full=full, rows=rows, matrices=matrices, old_rows=old_rows, steps=steps, epochs=epochs, batch=batch,
        micro_batch=micro_batch, block_size=max_length, lr=lr, schedule=schedule, warmup=warmup,
        weight_decay=weight_decay, precision=precision, four_bit=load_in_4bit, checkpointing=gradient_checkpointing,
        eval_every=eval_every, save_every=save_every, log_every=log_every, seed=seed,
    )  # fmt: skip
    if dry_run:
        show_plan(_planned(options, model, template, shape, ids, machine), as_json)
        return
    if model is None:
        raise OptionError("--model", "is missing", "Give a folder, a hub name or a run; or --dry-run")
    if not data:
        raise OptionError("--data", "is missing", "Give a file of conversations, e.g. --data alpaca.json")
    if out is None:
        raise OptionError("--out", "is missing", "Give a folder for the run")
    from zhllama.io.text import find_files
    from zhllama.training.mixture import default_cache
    from zhllama.training.sft import ChatTuningJob
    from zhllama.training.train import train as train

    sources, validation = tuple(map(_source, data)), tuple(find_files(eval_data or []))
    with _surveyed(model, template, options) as found, progress("sft", None, "steps") as bar:
        recorded = recorded_options(context, found.info, out)
        files = [path for source in sources for path in source.files]
        run = Run(out, "sft", recorded, [*files, *validation, *found.info.inputs()], force, resume, seed)
        job = ChatTuningJob(
            sources, validation, found.encoder, cache or default_cache(), skip_bad=skip_bad, note=warn
        )  # fmt: skip
        manifest = train(job, options, found.info, run, hooks_for(bar, "encoding", as_json))
    if manifest is None:
        return
    figures = manifest["figures"]
    print_json(figures) if as_json else show_result(steps_told(out, figures), figures)


@contextmanager
def _surveyed(model: str, template: str, options: TrainingOptions) -> Iterator["ChatModelInfo"]:
    """What is known before anything is written; its tokenizer lives as long as the body runs."""
    from zhllama.training.chat_model_info import inspect_chat_model

    with TemporaryDirectory(prefix="zhllama-") as folder:
        yield inspect_chat_model(model, template, options, Path(folder))


def _source(given: str) -> "WeightedSource":
    from zhllama.io.text import find_files
    from zhllama.training.mixture import WeightedSource, parse_weight

    path, weight = parse_weight(given, "--data")
    return WeightedSource(Path(path).name, tuple(find_files([path])), weight)


def _every_layer(model: str | None, shape: str | None) -> tuple[str, ...]:
    """All projections, as the published tuning has them: q, k, v, o, gate, up and down of a LLaMA."""
    from zhllama.training.lora import linear_names
    from zhllama.training.model_info import read_shape

    if model is None and shape is None:
        raise OptionError("--model", "is missing", "Give a folder, a hub name or a run; or --shape llama-7b")
    return linear_names(read_shape(model, shape))


def _planned(
    options: TrainingOptions, model: str | None, template: str, shape: str | None, ids: int | None, machine: str | None
) -> "TrainingPlan":  # fmt: skip
    from zhllama.training.hardware import named_hardware, this_hardware
    from zhllama.training.model_info import read_shape, rows_to_plan
    from zhllama.training.plan import plan_training, shape_of

    if model is not None and ids is None:
        with _surveyed(model, template, options) as found:
            config, rows = found.info.config, found.info.rows
            n_old = found.info.old_rows() if options.rows in ("new", "used") else 0
    else:
        config = read_shape(model, shape)
        n_old, rows = rows_to_plan(None, None, config, ids, options)
    devices = named_hardware(machine) if machine else this_hardware()
    return plan_training(options, shape_of(config, options.lora, rows), n_old, devices)
