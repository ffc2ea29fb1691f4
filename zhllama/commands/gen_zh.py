"""The command `gen-zh`, which generates Chinese instruction data."""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import typer

from zhllama.commands.declare import command
from zhllama.commands.llm_requests import ask_all, say_spent, warn_of_end
from zhllama.commands.shared import AsJson, Config, Force, LineOptions, Out, Resume, print_json, say, warn
from zhllama.commands.translation import reason_shown
from zhllama.generation.options import GenerationFilters, GenerationOptions
from zhllama.io.files import JsonLines
from zhllama.llm.options import ModelServerOptions
from zhllama.options import recorded
from zhllama.run import Run


@command
def gen_zh(
    options: GenerationOptions,
    filters: GenerationFilters,
    reading: LineOptions,
    server: ModelServerOptions,
    out: Out,
    config: Config = None,
    resume: Resume = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Generate Chinese instruction data with a model behind any OpenAI-compatible server."""
    from zhllama.commands.gen_zh_screen import live
    from zhllama.generation.method_options import GenerationPlan
    from zhllama.generation.methods import MAX_EMPTY_ROUNDS
    from zhllama.generation.outputs import JOURNAL, REJECTED, generation_statistics, write_products
    from zhllama.generation.readability import ReadabilityCheck
    from zhllama.llm.journal import Journal

    settings = recorded(options, filters, server)
    plan = GenerationPlan.from_options(settings)
    connection, spending = server.connection(server.model), server.spending(server.model)
    seed, start = options.seed, time.monotonic()
    with Run(out, "gen-zh", settings, plan.inputs, force=force, resume=resume, seed=seed) as run:
        with Journal(out / JOURNAL) as journal, JsonLines(out / REJECTED) as rejects:
            method = plan.create_method(rejects.write)
            plan_of_rounds = ReadabilityCheck(method, options.max_unreadable, out / REJECTED, warn)
            finished, server_figures = ask_all(
                run,
                plan_of_rounds,
                journal,
                connection,
                spending,
                server,
                seed,
                partial(live, method),
            )
            method.finish()
            result = dict(generation_statistics(method, spending))
            write_products(run, method, result, rejects, seed)
        result |= {**server_figures, "finished": finished, "seconds": round(time.monotonic() - start, 2)}
        if finished:
            run.finish(result)
    if finished and not plan.input_tasks and result["kept"] < result["wanted"]:
        warn(
            f"generation stopped after {MAX_EMPTY_ROUNDS} rounds without an accepted task: see {out / REJECTED} for the reasons."
        )
    if not finished:
        warn_of_end(server)
    show_result(out, result, as_json)
    if finished and not result["kept"]:
        warn(f"no task was accepted: see {out / REJECTED} for the reasons.")
        raise typer.Exit(1)


def show_result(out: Path, result: Mapping[str, Any], as_json: bool) -> None:
    """Print accepted and rejected tasks, tokens and cost, and the reasons."""
    if as_json:
        print_json({"out": str(out), **result})
        return
    say(
        f"{out}: accepted {result['kept']:,} of {result['wanted']:,} requested tasks, rejected {result['rejected']:,}"
    )
    say_spent(result, "  ")
    for reason, count in result["reasons"].items():
        say(f"  {count:>7,}  {reason_shown(reason)}")
