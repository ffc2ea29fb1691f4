"""The options of every command that uses a server: connection, budget, and the loop over all replies."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from zhllama.commands.shared import warn
from zhllama.errors import OptionError
from zhllama.io.json import parse_row

if TYPE_CHECKING:
    from zhllama.llm.client import Client
    from zhllama.llm.connection import Connection
    from zhllama.llm.journal import Journal
    from zhllama.llm.rounds import RequestPlan, Rounds
    from zhllama.llm.spending import Spending
    from zhllama.run import Run

SERVER = "Server"
# Options that change neither what is asked nor what is made of it: a run may be resumed with others.
STEERING = {
    "out",
    "force",
    "resume",
    "config",
    "as_json",
    "base_url",
    "key_env",
    "concurrency",
    "timeout",
    "max_tokens",
    "max_cost",
    "prices",
    "batch",
}

BaseUrl = Annotated[
    list[str] | None,
    typer.Option(
        help="Server's URL, such as http://localhost:8000/v1; several share the load.",
        rich_help_panel=SERVER,
        show_default=False,
    ),
]
ServerModel = Annotated[str, typer.Option(help="The model's name on that server.", rich_help_panel=SERVER)]
AskedThrough = Annotated[
    Literal["chat", "completion"],
    typer.Option(help="What the model is asked through.", rich_help_panel=SERVER),
]
ByBatch = Annotated[
    bool,
    typer.Option("--batch", help="Send each round through the provider's Batch API.", rich_help_panel=SERVER),
]
KeyEnv = Annotated[
    str,
    typer.Option(help="Environment variable (or line of .env) that holds the key.", rich_help_panel=SERVER),
]
ExtraBody = Annotated[
    str | None,
    typer.Option(
        help="""More for each request, as JSON, e.g. '{"enable_thinking": false}'.""",
        rich_help_panel=SERVER,
        show_default=False,
    ),
]
Concurrency = Annotated[
    int, typer.Option(help="Calls under way at most, on all servers together.", rich_help_panel=SERVER)
]
Timeout = Annotated[float, typer.Option(help="Seconds for one whole call.", rich_help_panel=SERVER)]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        help="Stop before more tokens than these are used.", rich_help_panel=SERVER, show_default=False
    ),
]
MaxCost = Annotated[
    float | None,
    typer.Option(help="Stop before more than this is spent.", rich_help_panel=SERVER, show_default=False),
]
Prices = Annotated[
    Path | None,
    typer.Option(
        help="YAML table, per million tokens: `model: {input: 0.27, output: 1.10}`.",
        rich_help_panel=SERVER,
        show_default=False,
    ),
]


def connection_of(options: Mapping[str, Any]) -> "Connection":
    """Where to ask, from a command's options; OptionError for what cannot be."""
    from zhllama.llm.connection import Connection, read_api_key

    if not options["model"]:
        raise OptionError("--model", "is missing", "Give the model's name on that server")
    if options["concurrency"] < 1 or options["timeout"] <= 0:
        raise OptionError("--concurrency and --timeout", "are not both above 0", "Leave them out")
    urls = tuple(options["base_url"] or ())
    if options["batch"] and len(urls) > 1:
        raise OptionError("--batch", f"goes to one server and {len(urls)} are named", "Give one --base-url")
    return Connection(
        urls,
        options["model"],
        read_api_key(options["key_env"]),
        options["api"],
        options["concurrency"],
        options["timeout"],
        _object(options["extra_body"]),
    )


def spending_of(options: Mapping[str, Any]) -> "Spending":
    """What may be spent, from a command's options."""
    from zhllama.llm.spending import Spending, read_price

    prices = options["prices"]
    price = read_price(prices, options["model"], options["batch"]) if prices else None
    return Spending(price, options["max_tokens"], options["max_cost"])


def ask_all(
    run: "Run",
    asking: "RequestPlan",
    journal: "Journal",
    to: "Connection",
    spending: "Spending",
    batch: bool,
    seed: int,
    screen: Callable[["Rounds", "Client | None"], AbstractContextManager[None]],
) -> tuple[bool, dict[str, Any]]:
    """Ask until nothing is left (True) or the budget is (False), and tell of the servers; `screen` shows it meanwhile."""
    from zhllama.llm.batch import BATCHES, BatchClient
    from zhllama.llm.client import Client
    from zhllama.llm.connection import ServerError
    from zhllama.llm.rounds import Rounds

    async def work() -> tuple[bool, dict[str, Any]]:
        told: dict[str, Any] = {"servers": list(to.base_urls), "concurrency": to.concurrency}
        if batch:
            async with BatchClient(to, run.out / BATCHES) as batches:
                rounds = Rounds(asking, journal, batches, spending)
                with screen(rounds, None):
                    return await rounds.run(), told
        async with Client(to, Random(seed)) as client:
            rounds = Rounds(asking, journal, client, spending)
            with screen(rounds, client):
                whole = await rounds.run()
        return whole, {**told, "429s": client.rate_limited, "retries": client.retries}

    try:
        return asyncio.run(work())
    except BaseException as error:
        if not len(journal) and not (run.out / BATCHES).exists():
            run.resume = None  # nothing was paid for: the folder goes, and the command can be given as it was
            if isinstance(error, ServerError):
                raise error.without_resume() from error
        raise


def warn_of_budget() -> None:
    """What is said where the budget ended a run before its end."""
    warn("stopped by its budget. Go on with --resume and a larger one.")


def _object(text: str | None) -> Mapping[str, Any]:
    try:
        given = parse_row(text or "{}")
    except ValueError as error:
        raise OptionError(
            "--extra-body",
            f"is not JSON ({error})",
            """Give an object, such as '{"enable_thinking": false}'""",
        ) from error
    if not isinstance(given, dict):
        raise OptionError(
            "--extra-body", "is not a JSON object", """Give one such as '{"enable_thinking": false}'"""
        )
    return given
