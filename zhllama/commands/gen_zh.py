"""The commands `gen-zh` and `refilter`."""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from zhllama.commands.generate_options import (
    Blacklist,
    DropPersonal,
    KeepTraditional,
    MaxInput,
    MaxInstruction,
    MaxOutput,
    MaxRepeats,
    MinHan,
    MinInstruction,
    MinOutput,
    Threshold,
    Without,
)
from zhllama.commands.llm_options import (
    STEERING,
    AskedThrough,
    BaseUrl,
    ByBatch,
    Concurrency,
    ExtraBody,
    KeyEnv,
    MaxCost,
    MaxTokens,
    Prices,
    ServerModel,
    Timeout,
    ask_all,
    connection_of,
    spending_of,
    warn_of_budget,
)
from zhllama.commands.shared import (
    AsJson,
    Config,
    Force,
    Out,
    Resume,
    Seed,
    print_json,
    progress,
    say,
    warn,
)
from zhllama.errors import InputError
from zhllama.io.files import JsonLines
from zhllama.manifest import read_config
from zhllama.run import Run

MethodName = Literal["alpaca", "self-instruct", "translate", "rank", "evolve"]


def gen_zh(
    context: typer.Context,
    out: Out,
    n: Annotated[
        int | None,
        typer.Option(
            "--n",
            help="Tasks to keep; for given tasks (translate, rank, evolve) how many to take.",
            show_default="100, or all that are given",
        ),
    ] = None,
    base_url: BaseUrl = None,
    model: ServerModel = "",
    method: Annotated[MethodName, typer.Option(help="How tasks are made.")] = "alpaca",
    given: Annotated[
        Path | None,
        typer.Option(
            "--given", help="Tasks in Alpaca's form, for translate, rank and evolve.", show_default=False
        ),
    ] = None,
    seeds: Annotated[
        Path | None, typer.Option(help="Seed tasks, one JSON object a line.", show_default="the 175 shipped")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Folder of prompts.", show_default="the shipped prompts_zh")
    ] = None,
    api: AskedThrough = "chat",
    structured: Annotated[
        bool, typer.Option("--structured", help="Have the server enforce a JSON schema (alpaca only).")
    ] = False,
    answers: Annotated[int, typer.Option(help="Answers to each instruction (rank only).")] = 4,
    temperature: Annotated[
        float | None, typer.Option(help="Instead of each step's own.", show_default="the papers'")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Instead of each step's own.", show_default="the papers'")
    ] = None,
    reply_tokens: Annotated[
        int | None,
        typer.Option(help="Tokens of one reply at most, instead of each step's own.", show_default=False),
    ] = None,
    batch: ByBatch = False,
    key_env: KeyEnv = "OPENAI_API_KEY",
    extra_body: ExtraBody = None,
    concurrency: Concurrency = 32,
    timeout: Timeout = 120.0,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    prices: Prices = None,
    min_instruction: MinInstruction = 4,
    max_instruction: MaxInstruction = 500,
    max_input: MaxInput = 2000,
    min_output: MinOutput = 1,
    max_output: MaxOutput = 4000,
    min_han: MinHan = 0.3,
    max_repeats: MaxRepeats = 0.3,
    threshold: Threshold = 0.7,
    blacklist: Blacklist = None,
    keep_traditional: KeepTraditional = False,
    drop_personal: DropPersonal = False,
    without: Without = None,
    seed: Seed = 0,
    config: Config = None,
    resume: Resume = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Make Chinese instruction data with a model behind any OpenAI-compatible server."""
    from zhllama.commands.generate_screen import live
    from zhllama.generation.method_options import GenerationPlan
    from zhllama.generation.methods import MAX_EMPTY_ROUNDS
    from zhllama.generation.outputs import JOURNAL, REJECTED, generation_statistics, write_products
    from zhllama.llm.journal import Journal

    made = {key: value for key, value in context.params.items() if key not in STEERING}
    plan = GenerationPlan.from_options(made)
    connection = connection_of(context.params)
    spending = spending_of(context.params)
    began = time.monotonic()
    with Run(out, "gen-zh", made, plan.inputs, force=force, resume=resume, seed=seed) as run:
        with Journal(out / JOURNAL) as journal, JsonLines(out / REJECTED) as rejects:
            making = plan.create_method(rejects.write)

            whole, told = ask_all(
                run, making, journal, connection, spending, batch, seed, partial(live, making)
            )
            making.finish()
            result = dict(generation_statistics(making, spending))
            write_products(run, making, result, rejects, seed)
        result |= {
            **told,
            "finished": whole,
            "seconds": round(time.monotonic() - began, 2),
        }
        if whole:
            run.finish(result)
    if whole and not plan.input_tasks and result["kept"] < result["wanted"]:
        warn(f"no more was asked once {MAX_EMPTY_ROUNDS} rounds had kept nothing: {out / REJECTED} says why.")
    _tell(out, result, as_json)


def refilter(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="Folder of a gen-zh run, finished or not.")],
    out: Out,
    n: Annotated[int | None, typer.Option("--n", help="Tasks to keep.", show_default="the run's")] = None,
    min_instruction: MinInstruction = 4,
    max_instruction: MaxInstruction = 500,
    max_input: MaxInput = 2000,
    min_output: MinOutput = 1,
    max_output: MaxOutput = 4000,
    min_han: MinHan = 0.3,
    max_repeats: MaxRepeats = 0.3,
    threshold: Threshold = 0.7,
    blacklist: Blacklist = None,
    keep_traditional: KeepTraditional = False,
    drop_personal: DropPersonal = False,
    without: Without = None,
    config: Config = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Judge a gen-zh run's replies again by other filters; nothing is asked, nothing is paid.

    A filter option that is not given is the run's own.
    """
    from zhllama.generation.method_options import FILTER_OPTIONS, GenerationPlan
    from zhllama.generation.outputs import JOURNAL, REJECTED, generation_statistics, write_products
    from zhllama.llm.journal import Journal
    from zhllama.llm.rounds import replay
    from zhllama.llm.spending import Spending

    then = read_config(run)
    if then.get("command") != "gen-zh":
        raise InputError(run, "is not a run of gen-zh", "Name the folder of one")
    changed = {
        key: value
        for key, value in context.params.items()
        if key in FILTER_OPTIONS and _is_given(context, key)
    }
    plan = GenerationPlan.from_options(
        {key: value for key, value in {**then, **changed}.items() if key != "command"}
    )
    journal = run / JOURNAL
    began = time.monotonic()
    with (
        Journal(journal, write=False) as replies,
        Run(
            out,
            "refilter",
            {"run": run, **plan.options},
            [journal, *plan.inputs],
            force=force,
            seed=plan.options["seed"],
        ) as work,
        JsonLines(out / REJECTED) as rejects,
    ):
        method, spending = plan.create_method(rejects.write), Spending()
        with progress("refilter", total=len(replies), unit="replies") as bar:
            replay(method, replies, spending, bar)
        method.finish()
        result = {**generation_statistics(method, spending), "finished": True}
        write_products(work, method, result, rejects, plan.options["seed"])
        work.finish({**result, "seconds": round(time.monotonic() - began, 2)})
    _tell(out, result, as_json)


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _tell(out: Path, result: Mapping[str, Any], as_json: bool) -> None:
    if not result["finished"]:
        warn_of_budget()
    if as_json:
        print_json({"out": str(out), **result})
        return
    cost = "" if result["cost"] is None else f", cost {result['cost']:.4f}"
    say(f"{out}: kept {result['kept']:,} of {result['wanted']:,} asked for, rejected {result['rejected']:,}")
    say(
        f"  {result['replies']:,} replies, {result['prompt_tokens']:,} + {result['completion_tokens']:,} tokens{cost}"
    )
    for reason, count in result["reasons"].items():
        say(f"  {count:>7,}  {reason}")
