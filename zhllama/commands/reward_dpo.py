"""The commands `reward` and `dpo`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zhllama.commands.shared import (
    AsJson,
    Config,
    Force,
    MaybeModel,
    MaybeOut,
    Resume,
    Seed,
    check_torch,
    options_of,
    print_json,
    progress,
)
from zhllama.commands.training_options import (
    LEARNING,
    LENGTH,
    WATCHING,
    DryRun,
    EvalEvery,
    GradientCheckpointing,
    LogEvery,
    LoraAlpha,
    LoraRank,
    Lr,
    Numbers,
    PlannedMachine,
    PlannedShape,
    SaveEvery,
    Steps,
    Warmup,
    WeightDecay,
    WhichSchedule,
    hooks_for,
    show_plan,
    show_result,
)
from zhllama.errors import OptionError
from zhllama.run import Run
from zhllama.training.options import Lora, TrainingOptions

if TYPE_CHECKING:
    from zhllama.training.pair_training import PairModelInfo, PairTrainingJob
    from zhllama.training.plan import TrainingPlan
    from zhllama.training.train import Hooks

Work = Callable[["PairTrainingJob", TrainingOptions, "PairModelInfo", Run, "Hooks"], dict[str, Any] | None]

RANKED = ("comparisons.json",)  # what of a gen-zh run is ranked
PairFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--pairs",
        help="Ranked answers: chosen and rejected, ranked_outputs, responses_and_scores, completion_a and _b; .gz, .xz too.",
        show_default=False,
    ),
]
EvalPairs = Annotated[
    list[str] | None,
    typer.Option("--eval-pairs", help="FILE to measure on, instead of --aside.", rich_help_panel=WATCHING),
]
Aside = Annotated[
    float,
    typer.Option(
        "--aside", help="Share of the prompts kept aside and measured, 200 at most.", rich_help_panel=WATCHING
    ),
]
Template = Annotated[
    str | None,
    typer.Option(
        "--template", help="alpaca, vicuna, chatml, llama3 or own.", show_default="own; alpaca without one"
    ),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave bad rows out, into rejected.jsonl, instead of stopping.")
]
MaxLength = Annotated[
    int,
    typer.Option(
        "--max-length",
        help="Tokens of a prompt with its answer; longer pairs are left out.",
        rich_help_panel=LENGTH,
    ),
]
PairEpochs = Annotated[float, typer.Option("--epochs", help="Times round the pairs.", rich_help_panel=LENGTH)]
PairBatch = Annotated[int, typer.Option("--batch", help="Pairs a step.", rich_help_panel=LENGTH)]
PairMicroBatch = Annotated[
    int, typer.Option("--micro-batch", help="Pairs that the device takes at once.", rich_help_panel=LENGTH)
]
LoraModules = Annotated[
    list[str] | None,
    typer.Option(
        "--lora-module", help="Linear layers with adapters; all by default.", rich_help_panel=LEARNING
    ),
]


def reward(
    context: typer.Context,
    model: MaybeModel = None,
    pairs: PairFiles = None,
    out: MaybeOut = None,
    eval_pairs: EvalPairs = None,
    aside: Aside = 0.1,
    template: Template = None,
    skip_bad: SkipBad = False,
    max_length: MaxLength = 1024,
    steps: Steps = None,
    epochs: PairEpochs = 1.0,
    batch: PairBatch = 32,
    micro_batch: PairMicroBatch = 4,
    lr: Lr = 1e-4,
    schedule: WhichSchedule = "cosine",
    warmup: Warmup = 0.03,
    weight_decay: WeightDecay = 0.0,
    lora_rank: LoraRank = 8,
    lora_alpha: LoraAlpha = 32,
    lora_module: LoraModules = None,
    eval_every: EvalEvery = 500,
    save_every: SaveEvery = 500,
    log_every: LogEvery = 10,
    precision: Numbers = None,
    gradient_checkpointing: GradientCheckpointing = "auto",
    dry_run: DryRun = False,
    shape: PlannedShape = None,
    machine: PlannedMachine = None,
    seed: Seed = 0,
    resume: Resume = False,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Teach a reward model which of two answers is better; zhllama judge --reward scores with it."""
    check_torch("reward")

    def work(
        task: "PairTrainingJob", options: TrainingOptions, found: "PairModelInfo", run: Run, hooks: "Hooks"
    ) -> dict[str, Any] | None:
        from zhllama.training.reward import reward as train

        return train(task, options, found, run, hooks)

    # Not as `model`, by which a run names what it goes on from: a reward model does not talk.
    _align(context, "reward", "base", _options(context.params, False), work)


def dpo(
    context: typer.Context,
    model: MaybeModel = None,
    pairs: PairFiles = None,
    out: MaybeOut = None,
    beta: Annotated[
        float,
        typer.Option(
            "--beta", help="How dear it is to leave the model begun with.", rich_help_panel=LEARNING
        ),
    ] = 0.1,
    label_smoothing: Annotated[
        float,
        typer.Option(
            "--label-smoothing", help="Share of the pairs taken to be wrong.", rich_help_panel=LEARNING
        ),
    ] = 0.0,
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Train every weight, without adapters; for small models.", rich_help_panel=LEARNING
        ),
    ] = False,
    eval_pairs: EvalPairs = None,
    aside: Aside = 0.1,
    template: Template = None,
    skip_bad: SkipBad = False,
    max_length: MaxLength = 1024,
    steps: Steps = None,
    epochs: PairEpochs = 1.0,
    batch: PairBatch = 32,
    micro_batch: PairMicroBatch = 4,
    lr: Annotated[
        float | None,
        typer.Option(
            "--lr",
            help="Highest learning rate.",
            rich_help_panel=LEARNING,
            show_default="5e-5; 1e-6 with --full",
        ),
    ] = None,
    schedule: WhichSchedule = "cosine",
    warmup: Warmup = 0.1,
    weight_decay: WeightDecay = 0.0,
    lora_rank: LoraRank = 8,
    lora_alpha: LoraAlpha = 32,
    lora_module: LoraModules = None,
    eval_every: EvalEvery = 500,
    save_every: SaveEvery = 500,
    log_every: LogEvery = 10,
    precision: Numbers = None,
    gradient_checkpointing: GradientCheckpointing = "auto",
    dry_run: DryRun = False,
    shape: PlannedShape = None,
    machine: PlannedMachine = None,
    seed: Seed = 0,
    resume: Resume = False,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Teach a model to prefer the better answers (direct preference optimisation)."""
    check_torch("dpo")
    rate = lr if lr is not None else 1e-6 if full else 5e-5

    def work(
        task: "PairTrainingJob", options: TrainingOptions, found: "PairModelInfo", run: Run, hooks: "Hooks"
    ) -> dict[str, Any] | None:
        from zhllama.training.dpo import Preference
        from zhllama.training.dpo import dpo as train

        return train(task, options, Preference(beta, label_smoothing), found, run, hooks)

    _align(context, "dpo", "model", _options({**context.params, "lr": rate}, full), work)


def _options(given: Mapping[str, Any], full: bool) -> TrainingOptions:
    from zhllama.training.lora import linear_names
    from zhllama.training.model_info import read_shape

    if given["model"] is None and not (given["dry_run"] and given["shape"]):
        raise OptionError(
            "--model", "is missing", "Give a folder, a hub name or a run; or --dry-run --shape llama-7b"
        )
    modules = tuple(given["lora_module"] or ())
    if not full and not modules:
        modules = linear_names(read_shape(given["model"], given["shape"]))
    return TrainingOptions(
        lora=None if full else Lora(given["lora_rank"], given["lora_alpha"], 0.0, modules),
        full=full, rows="all" if full else "none", steps=given["steps"], epochs=given["epochs"], batch=given["batch"],
        micro_batch=given["micro_batch"], block_size=given["max_length"], lr=given["lr"], schedule=given["schedule"],
        warmup=given["warmup"], weight_decay=given["weight_decay"], precision=given["precision"],
        checkpointing=given["gradient_checkpointing"], eval_every=given["eval_every"], save_every=given["save_every"],
        log_every=given["log_every"], seed=given["seed"],
    )  # fmt: skip


def _align(context: typer.Context, command: str, base: str, options: TrainingOptions, work: Work) -> None:
    """One run from its options to what is drawn; `base` is the name under which it records the model."""
    from zhllama.io.text import find_files
    from zhllama.training.pair_training import PairTrainingJob, inspect_pair_model

    given = context.params
    if given["dry_run"]:
        show_plan(_planned(given, options), given["as_json"])
        return
    for name, example in (("pairs", "a file of ranked answers"), ("out", "a folder for the run")):
        if not given[name]:
            raise OptionError(f"--{name}", "is missing", f"Give {example}")
    files, validation = (find_files(named or [], RANKED) for named in (given["pairs"], given["eval_pairs"]))
    with inspect_pair_model(given["model"], given["template"], given["max_length"]) as found:
        chain = found.info.chain
        planning = ("model", "dry_run", "shape", "machine")
        recorded = {key: value for key, value in options_of(context).items() if key not in planning}
        recorded["base_model"] = str(chain.base)
        recorded[base] = str(chain.runs[-1] if chain.runs else chain.base)
        inputs = [*files, *validation, *found.info.inputs()]
        run = Run(given["out"], command, recorded, inputs, given["force"], given["resume"], given["seed"])
        task = PairTrainingJob(tuple(files), tuple(validation), given["aside"], given["skip_bad"])
        with progress(command, None, "steps") as bar:
            manifest = work(task, options, found, run, hooks_for(bar, "reading pairs", given["as_json"]))
    if manifest is None:
        return
    figures = manifest["figures"]
    print_json({"out": str(given["out"]), **figures}) if given["as_json"] else _show(given["out"], figures)


def _planned(given: Mapping[str, Any], options: TrainingOptions) -> "TrainingPlan":
    """The plan alone; with pairs it tells how many steps they are."""
    from zhllama.io.text import find_files
    from zhllama.training.hardware import named_hardware, this_hardware
    from zhllama.training.model_info import read_shape
    from zhllama.training.pair_training import inspect_pair_model, plan_pairs
    from zhllama.training.plan import shape_of
    from zhllama.training.preference_pairs import read_pairs

    count = None
    if given["model"] is not None and given["pairs"]:
        aside = find_files(given["eval_pairs"] or [], RANKED)
        with inspect_pair_model(given["model"], given["template"], given["max_length"]) as found:
            count = len(read_pairs(
                find_files(given["pairs"], RANKED), found.encoder, given["max_length"], validation_share=given["aside"],
                validation_files=aside, seed=given["seed"], skip_bad=given["skip_bad"],
            ).training)  # fmt: skip
    devices = named_hardware(given["machine"]) if given["machine"] else this_hardware()
    config = read_shape(given["model"], given["shape"])
    return plan_pairs(options, shape_of(config, options.lora), devices, count)


def _show(out: Path, figures: Mapping[str, Any]) -> None:
    read, left_out = figures["pairs_read"], figures["pairs_left_out"]
    told = (
        f"{figures['steps']:,} steps on {figures['pairs']:,} pairs of {read:,}, {left_out:,} left out: {out}"
    )
    show_result(told, figures, f"on {figures['pairs_aside']:,} pairs kept aside")
