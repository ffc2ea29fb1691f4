"""The commands `pretrain` and `pack`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zhllama.commands.shared import (
    AsJson,
    Config,
    Field,
    Force,
    MaxLineBytes,
    MaybeModel,
    MaybeOut,
    Out,
    Resume,
    Seed,
    check_torch,
    options_of,
    print_json,
    progress,
    say,
)
from zhllama.commands.training_options import (
    LEARNING,
    LENGTH,
    WATCHING,
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
from zhllama.training.options import Fit, Lora, TrainingOptions

if TYPE_CHECKING:
    from zhllama.training.plan import TrainingPlan


def pretrain(
    context: typer.Context,
    stage: Annotated[int, typer.Option("--stage", min=1, max=2, help="1: rows alone. 2: adapters and rows.")],
    model: MaybeModel = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            "--tokenizer", "-t", help="Its folder; the model's own by default. A larger one grows it."
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", help="LABEL=PATH[:WEIGHT], e.g. zh=corpus.txt:9.", show_default=False),
    ] = None,
    eval_text: Annotated[
        list[str] | None,
        typer.Option(
            "--eval-text", help="LABEL=PATH to measure; else 1 % of the text, or the shipped sample."
        ),
    ] = None,
    out: MaybeOut = None,
    steps: Steps = None,
    epochs: Epochs = 1.0,
    batch: Batch = 64,
    micro_batch: MicroBatch = 8,
    block_size: Annotated[
        int, typer.Option("--block-size", help="Tokens of a block.", rich_help_panel=LENGTH)
    ] = 512,
    stream: Annotated[
        bool,
        typer.Option("--stream", help="Encode as it goes, keep no packed blocks.", rich_help_panel=LENGTH),
    ] = False,
    field: Field = "text",
    max_line_bytes: MaxLineBytes = LONGEST_LINE,
    rows: Rows = "new",
    matrices: WhichMatrices = "both",
    old_rows: OldRows = None,
    lr: Lr = 2e-4,
    schedule: WhichSchedule = "cosine",
    warmup: Warmup = 0.05,
    weight_decay: WeightDecay = 0.01,
    lora_rank: LoraRank = 8,
    lora_alpha: LoraAlpha = 32,
    lora_dropout: LoraDropout = 0.05,
    lora_module: Annotated[
        list[str] | None,
        typer.Option(
            "--lora-module",
            help="Linear layers with adapters; q, k, v, o_proj by default.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    eval_every: EvalEvery = 500,
    save_every: SaveEvery = 500,
    log_every: LogEvery = 10,
    english_limit: Annotated[
        float,
        typer.Option(
            "--english-limit", help="Share by which bits of English may rise.", rich_help_panel=WATCHING
        ),
    ] = 0.02,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the limit.", rich_help_panel=WATCHING)
    ] = False,
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
    """Train new rows (stage 1), then adapters and rows (stage 2), on Chinese and English text."""
    check_torch("pretrain")
    modules = tuple(lora_module) if lora_module else Lora().modules
    options = TrainingOptions(
        lora=Lora(lora_rank, lora_alpha, lora_dropout, modules) if stage == 2 else None,
        rows=rows, matrices=matrices, old_rows=old_rows, steps=steps, epochs=epochs, batch=batch,
        micro_batch=micro_batch, block_size=block_size, lr=lr, schedule=schedule, warmup=warmup,
        weight_decay=weight_decay, precision=precision, four_bit=load_in_4bit, checkpointing=gradient_checkpointing,
        eval_every=eval_every, save_every=save_every, log_every=log_every, english_limit=english_limit,
        strict=strict, seed=seed,
    )  # fmt: skip
    if dry_run:
        show_plan(_planned(options, model, tokenizer, shape, ids, machine), as_json)
        return
    if model is None:
        raise OptionError("--model", "is missing", "Give a folder, a hub name or a run; or --dry-run")
    if not text:
        raise OptionError("--text", "is missing", "Give LABEL=PATH, e.g. --text zh=corpus.txt")
    if out is None:
        raise OptionError("--out", "is missing", "Give a folder for the run")
    from zhllama.training.mixture import WeightedSource, default_cache
    from zhllama.training.model_info import inspect_model
    from zhllama.training.pretraining_job import PretrainingJob
    from zhllama.training.train import train as train

    job = PretrainingJob(
        model, tokenizer, tuple(map(WeightedSource.parse, text)), tuple(map(WeightedSource.parse, eval_text or [])),
        cache or default_cache(), stream, field,
    )  # fmt: skip
    info = inspect_model(model, tokenizer, options)
    recorded = recorded_options(context, info, out)
    files = [path for source in (*job.sources, *job.validation) for path in source.files]
    read = [*files, *info.inputs(), *(info.tokenizer.files() if tokenizer else [])]
    run = Run(out, "pretrain", recorded, list(dict.fromkeys(read)), force, resume, seed)
    with progress(f"stage {stage}", None, "steps") as bar:
        manifest = train(job, options, info, run, hooks_for(bar, "encoding", as_json))
    if manifest is None:
        return
    figures = manifest["figures"]
    print_json(figures) if as_json else show_result(steps_told(out, figures), figures)


def pack(
    text: Annotated[list[Path], typer.Option("--text", help="Files, folders or globs.", show_default=False)],
    tokenizer: Annotated[
        Path, typer.Option("--tokenizer", "-t", help="Folder, .model or tokenizer.json.", show_default=False)
    ],
    out: Out,
    context: typer.Context,
    block_size: Annotated[int, typer.Option("--block-size", help="Tokens of a block.")] = 512,
    fit: Annotated[
        Fit, typer.Option("--fit", help="concatenate cuts documents; best-fit keeps them whole, for tuning.")
    ] = "concatenate",
    field: Field = "text",
    max_line_bytes: MaxLineBytes = LONGEST_LINE,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Encode documents into memory-mapped blocks of one length, an end of text after each."""
    from zhllama.io.text import find_files
    from zhllama.training.document_tokenizer import DocumentTokenizer
    from zhllama.training.mixture import WeightedSource, pack_source
    from zhllama.training.packed_blocks import BlocksOrigin

    if block_size < 8:
        raise OptionError("--block-size", "is below 8 tokens", "Give 512 or so")
    source = WeightedSource("text", tuple(find_files(text)))
    tokens = DocumentTokenizer.open(tokenizer)
    with (
        Run(out, "pack", options_of(context), [*source.files, *tokens.files()], force) as run,
        progress("pack", sum(path.stat().st_size for path in source.files)) as bar,
    ):
        origin = BlocksOrigin(source.hash(), tokens.hash, block_size, fit, validation_split=False)
        blocks = pack_source(source, tokens, origin, run.out / "blocks", field=field, advance=bar)
        meta = blocks.meta
        figures = {
            "blocks": meta.blocks, "block_size": meta.size, "tokens": meta.tokens, "filled": round(meta.filled, 4),
            "documents": meta.documents, "characters": meta.characters,
        }  # fmt: skip
        run.finish(figures)
    if as_json:
        print_json(figures)
    else:
        told = f"{meta.blocks:,} blocks of {meta.size}: {meta.documents:,} documents, {meta.tokens:,} tokens"
        say(f"{told}, {100 * meta.filled:.1f} % of positions used\n{out / 'blocks'}")


def _planned(
    options: TrainingOptions,
    model: str | None,
    tokenizer: Path | None,
    shape: str | None,
    ids: int | None,
    machine: str | None,
) -> "TrainingPlan":
    from zhllama.training.hardware import named_hardware, this_hardware
    from zhllama.training.model_info import read_shape, rows_to_plan
    from zhllama.training.plan import plan_training, shape_of

    if model is None and shape is None:
        raise OptionError("--model", "is missing", "Give a folder, a hub name or a run; or --shape llama-7b")
    config = read_shape(model, shape)
    n_old, rows = rows_to_plan(model, tokenizer, config, ids, options)
    devices = named_hardware(machine) if machine else this_hardware()
    return plan_training(options, shape_of(config, options.lora, rows), n_old, devices)
