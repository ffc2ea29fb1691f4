"""pretrain, pack."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from zhllama.commands.common import (
    AsJson,
    Bar,
    Config,
    Force,
    Out,
    Resume,
    Seed,
    notes,
    options_of,
    print_json,
    progress,
    screen,
)
from zhllama.errors import MissingPackage, OptionError
from zhllama.run import Run
from zhllama.training.options import (
    Checkpointing,
    Fit,
    Lora,
    Matrices,
    Options,
    Precision,
    Schedule,
    WhichRows,
)

if TYPE_CHECKING:
    from zhllama.training.plan import Plan

LENGTH = "Length"
LEARNING = "What learns, and how"
WATCHING = "Watching"
MACHINE = "The machine"


def pretrain(
    context: typer.Context,
    stage: Annotated[int, typer.Option("--stage", min=1, max=2, help="1: rows alone. 2: adapters and rows.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Folder, hub name or run.", show_default=False)
    ] = None,
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
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the run.", show_default=False)
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Steps, instead of --epochs.", rich_help_panel=LENGTH)
    ] = None,
    epochs: Annotated[
        float, typer.Option("--epochs", help="Times round the text.", rich_help_panel=LENGTH)
    ] = 1.0,
    batch: Annotated[
        int, typer.Option("--batch", help="Blocks a step, all processes together.", rich_help_panel=LENGTH)
    ] = 64,
    micro_batch: Annotated[
        int, typer.Option("--micro-batch", help="Blocks that a device takes at once.", rich_help_panel=LENGTH)
    ] = 8,
    block_size: Annotated[
        int, typer.Option("--block-size", help="Tokens of a block.", rich_help_panel=LENGTH)
    ] = 512,
    stream: Annotated[
        bool,
        typer.Option("--stream", help="Encode as it goes, keep no packed blocks.", rich_help_panel=LENGTH),
    ] = False,
    field: Annotated[
        str, typer.Option("--field", help="Of JSON lines or Parquet.", rich_help_panel=LENGTH)
    ] = "text",
    rows: Annotated[
        WhichRows,
        typer.Option(
            "--rows",
            help="used: new ones, and old ones frequent in the text. none: adapters alone.",
            rich_help_panel=LEARNING,
        ),
    ] = "new",
    matrices: Annotated[
        Matrices,
        typer.Option("--matrices", help="input leaves an untied head as it is.", rich_help_panel=LEARNING),
    ] = "both",
    old_rows: Annotated[
        int | None,
        typer.Option(
            "--old-rows", help="Rows before the model grew, if not by us.", rich_help_panel=LEARNING
        ),
    ] = None,
    lr: Annotated[
        float, typer.Option("--lr", help="Highest learning rate.", rich_help_panel=LEARNING)
    ] = 2e-4,
    schedule: Annotated[Schedule, typer.Option("--schedule", rich_help_panel=LEARNING)] = "cosine",
    warmup: Annotated[
        float, typer.Option("--warmup", help="Share of the steps.", rich_help_panel=LEARNING)
    ] = 0.05,
    weight_decay: Annotated[float, typer.Option("--weight-decay", rich_help_panel=LEARNING)] = 0.01,
    lora_rank: Annotated[int, typer.Option("--lora-rank", rich_help_panel=LEARNING)] = 8,
    lora_alpha: Annotated[int, typer.Option("--lora-alpha", rich_help_panel=LEARNING)] = 32,
    lora_dropout: Annotated[float, typer.Option("--lora-dropout", rich_help_panel=LEARNING)] = 0.05,
    lora_module: Annotated[
        list[str] | None,
        typer.Option(
            "--lora-module",
            help="Linear layers with adapters; q, k, v, o_proj by default.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    eval_every: Annotated[int, typer.Option("--eval-every", help="Steps.", rich_help_panel=WATCHING)] = 500,
    save_every: Annotated[int, typer.Option("--save-every", help="Steps.", rich_help_panel=WATCHING)] = 500,
    log_every: Annotated[int, typer.Option("--log-every", help="Steps.", rich_help_panel=WATCHING)] = 10,
    english_limit: Annotated[
        float,
        typer.Option(
            "--english-limit", help="Share by which bits of English may rise.", rich_help_panel=WATCHING
        ),
    ] = 0.02,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the limit.", rich_help_panel=WATCHING)
    ] = False,
    precision: Annotated[
        Precision | None,
        typer.Option("--precision", help="By the machine, by default.", rich_help_panel=MACHINE),
    ] = None,
    gradient_checkpointing: Annotated[
        Checkpointing, typer.Option("--gradient-checkpointing", rich_help_panel=MACHINE)
    ] = "auto",
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Where packed blocks lie.", rich_help_panel=MACHINE)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and stop.", rich_help_panel=MACHINE)
    ] = False,
    shape: Annotated[
        str | None,
        typer.Option(
            "--shape", help="To plan without a model: a config.json, or llama-7b ...", rich_help_panel=MACHINE
        ),
    ] = None,
    ids: Annotated[
        int | None,
        typer.Option("--ids", help="To plan without a tokenizer: its size.", rich_help_panel=MACHINE),
    ] = None,
    machine: Annotated[
        str | None,
        typer.Option("--machine", help="To plan for another machine, e.g. 8xA100.", rich_help_panel=MACHINE),
    ] = None,
    seed: Seed = 0,
    resume: Resume = False,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Train new rows (stage 1), then adapters and rows (stage 2), on Chinese and English text."""
    _check_torch()
    modules = tuple(lora_module) if lora_module else Lora().modules
    options = Options(
        lora=Lora(lora_rank, lora_alpha, lora_dropout, modules) if stage == 2 else None,
        rows=rows, matrices=matrices, old_rows=old_rows, steps=steps, epochs=epochs, batch=batch,
        micro_batch=micro_batch, block_size=block_size, lr=lr, schedule=schedule, warmup=warmup,
        weight_decay=weight_decay, precision=precision, checkpointing=gradient_checkpointing,
        eval_every=eval_every, save_every=save_every, log_every=log_every, english_limit=english_limit,
        strict=strict, seed=seed,
    )  # fmt: skip
    if dry_run:
        _show_plan(_dry_plan(options, model, tokenizer, shape, ids, machine), as_json)
        return
    if model is None:
        raise OptionError("--model", "is missing", "Give a folder, a hub name or a run; or --dry-run")
    if not text:
        raise OptionError("--text", "is missing", "Give LABEL=PATH, e.g. --text zh=corpus.txt")
    if out is None:
        raise OptionError("--out", "is missing", "Give a folder for the run")
    from zhllama.training.ground import Job, survey
    from zhllama.training.mixture import Source, default_cache
    from zhllama.training.pretrain import Hooks
    from zhllama.training.pretrain import pretrain as train

    job = Job(
        model, tokenizer, tuple(map(Source.parse, text)), tuple(map(Source.parse, eval_text or [])),
        cache or default_cache(), stream, field,
    )  # fmt: skip
    ground = survey(job, options)
    chain = ground.chain
    recorded = {**options_of(context), "model": str(chain.runs[-1] if chain.runs else chain.base)}
    for name in ("dry_run", "shape", "ids", "machine", "cache"):  # they do not change what is trained
        recorded.pop(name, None)
    recorded["base_model"] = str(out.resolve() / "grown" if ground.grows else chain.base)
    files = [path for source in (*job.sources, *job.heldout) for path in source.files]
    run = Run(out, "pretrain", recorded, [*files, *ground.inputs()], force, resume, seed)
    with progress(f"stage {stage}", None, "steps") as bar:
        hooks = Hooks(
            planned=lambda plan: None if as_json else _show_plan(plan, as_json, to_notes=True),
            step=lambda line: _show_step(bar, line),
            note=lambda told: notes.print(f"zhllama: {told}", style="yellow", soft_wrap=True),
            read=lambda count: bar.note("encoding"),
        )
        manifest = train(job, options, ground, run, hooks)
    if manifest is None:
        return
    print_json(manifest["figures"]) if as_json else _show_result(out, manifest["figures"])


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
    field: Annotated[str, typer.Option("--field", help="Of JSON lines or Parquet.")] = "text",
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Encode documents into memory-mapped blocks of one length, an end of text after each."""
    from zhllama.text import find_files
    from zhllama.training.blocks import Origin
    from zhllama.training.mixture import Source, pack_source
    from zhllama.training.tokens import Tokens

    if block_size < 8:
        raise OptionError("--block-size", "is below 8 tokens", "Give 512 or so")
    source = Source("text", tuple(find_files(text)))
    tokens = Tokens.open(tokenizer)
    with (
        Run(out, "pack", options_of(context), source.files, force) as run,
        progress("pack", sum(path.stat().st_size for path in source.files)) as bar,
    ):
        origin = Origin(source.hash(), tokens.hash, block_size, fit, kept_aside=False)
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
        screen.print(f"{told}, {100 * meta.filled:.1f} % of positions used\n{out / 'blocks'}")


def _check_torch() -> None:
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError:
        raise MissingPackage("pretrain", "torch", "train") from None


def _dry_plan(
    options: Options,
    model: str | None,
    tokenizer: Path | None,
    shape: str | None,
    ids: int | None,
    machine: str | None,
) -> "Plan":
    from zhllama.training.ground import read_shape, rows_to_plan
    from zhllama.training.machine import named_machine, this_machine
    from zhllama.training.plan import plan, shape_of

    if model is None and shape is None:
        raise OptionError("--model", "is missing", "Give a folder, a hub name or a run; or --shape llama-7b")
    config = read_shape(model, shape)
    n_old, rows = rows_to_plan(model, tokenizer, config, ids, options)
    devices = named_machine(machine) if machine else this_machine()
    return plan(options, shape_of(config, options.lora, rows), n_old, devices)


def _show_plan(plan: "Plan", as_json: bool, to_notes: bool = False) -> None:
    if as_json:
        print_json(plan.figures())
        return
    drawn = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    drawn.add_row("learns", f"{plan.trained:,} of {plan.shape.total:,} parameters, {plan.share:.2f} %")
    drawn.add_row("machine", f"{plan.machine.told}, {plan.precision}")
    memory = ", ".join(f"{name} {_size(size)}" for name, size in plan.memory.items() if size)
    drawn.add_row("memory", f"{_size(plan.peak)} a device: {memory}")
    drawn.add_row("checkpointing", "on" if plan.checkpointing else "off")
    if plan.steps is not None and plan.tokens is not None and plan.seconds is not None:
        drawn.add_row(
            "length", f"{plan.steps:,} steps, {plan.tokens:,} tokens, about {_duration(plan.seconds)}"
        )
    for note in plan.notes:
        drawn.add_row("note", note)
    (notes if to_notes else screen).print(drawn)


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def _show_step(bar: Bar, line: dict[str, Any]) -> None:
    bar.at(line["step"], line["steps"])
    if "loss" in line:
        bar.note(f"loss {line['loss']:.4f}, {line['tokens_per_second']:,.0f} tokens/s")
    elif any("_bits_per_" in key for key in line):
        told = ", ".join(f"{_bits_name(k)} {v:.4f}" for k, v in line.items() if "_bits_per_" in k)
        notes.print(f"step {line['step']:,}: {told}", soft_wrap=True)


def _bits_name(key: str) -> str:
    label, _, unit = key.partition("_bits_per_")
    return f"{label} bits/{'char' if unit == 'character' else unit}"


def _show_result(out: Path, figures: dict[str, Any]) -> None:
    drawn = Table("", "before", "after", box=None, padding=(0, 2, 0, 0))
    for key, value in figures.items():
        if "_bits_per_" in key:
            drawn.add_row(_bits_name(key), f"{value['before']:.4f}", f"{value['after']:.4f}")
    if drawn.row_count:
        screen.print(drawn)
    screen.print(f"{figures['steps']:,} steps, {figures['tokens']:,} tokens: {out}")
