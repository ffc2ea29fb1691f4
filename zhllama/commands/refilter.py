"""The command `refilter`, which applies other filters to the replies of a gen-zh run."""

import time
from pathlib import Path
from typing import Annotated

import typer

from zhllama.commands.declare import command
from zhllama.commands.gen_zh import show_result
from zhllama.commands.shared import AsJson, Config, Force, LineOptions, Out, progress
from zhllama.errors import InputError
from zhllama.generation.options import RefilterOptions
from zhllama.io.files import JsonLines
from zhllama.manifest import read_config
from zhllama.options import recorded
from zhllama.run import Run


@command
def refilter(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="Folder of a gen-zh run, finished or not.", readable=False)],
    options: RefilterOptions,
    reading: LineOptions,
    out: Out,
    config: Config = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Apply other filters to the replies of a gen-zh run, without a request to a server.

    A filter that is not set keeps the value of that run.
    """
    from zhllama.generation.method_options import GenerationPlan
    from zhllama.generation.outputs import JOURNAL, REJECTED, generation_statistics, write_products
    from zhllama.llm.journal import Journal
    from zhllama.llm.rounds import replay
    from zhllama.llm.spending import Spending

    run_config = read_config(run)
    if run_config.pop("command", None) != "gen-zh":
        raise InputError(run, "is not a run of gen-zh", "Name the folder of one")
    changed = {key: value for key, value in recorded(options).items() if _is_set_by_user(context, key)}
    plan = GenerationPlan.from_options({**run_config, **changed})
    journal, seed, start = run / JOURNAL, plan.options["seed"], time.monotonic()
    settings = {"run": run, **plan.options}
    with (
        Journal(journal, write=False) as replies,
        Run(out, "refilter", settings, [journal, *plan.inputs], force=force, seed=seed) as output,
        JsonLines(out / REJECTED) as rejects,
    ):
        method, spending = plan.create_method(rejects.write), Spending()
        with progress("refilter", total=len(replies), unit="replies") as bar:
            replay(method, replies, spending, bar)
        method.finish()
        result = {**generation_statistics(method, spending), "finished": True}
        write_products(output, method, result, rejects, seed)
        output.finish({**result, "seconds": round(time.monotonic() - start, 2)})
    show_result(out, result, as_json)


def _is_set_by_user(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"
