"""Sends the requests of a command to its servers until all are answered or the budget is spent."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from random import Random
from typing import TYPE_CHECKING, Any

from zhllama.commands.shared import note, say, warn
from zhllama.commands.translation import translated

if TYPE_CHECKING:
    from zhllama.llm.client import Client
    from zhllama.llm.connection import Connection
    from zhllama.llm.journal import Journal
    from zhllama.llm.options import ServerOptions
    from zhllama.llm.rounds import RequestPlan, Rounds
    from zhllama.llm.spending import Spending
    from zhllama.run import Run


def ask_all(
    run: "Run",
    requests: "RequestPlan",
    journal: "Journal",
    connection: "Connection",
    spending: "Spending",
    server: "ServerOptions",
    seed: int,
    screen: Callable[["Rounds", "Client | None"], AbstractContextManager[None]],
) -> tuple[bool, dict[str, Any]]:
    """Send all requests; return whether they finished within the budget, and the figures of the servers.

    `screen` draws the progress meanwhile. A new run with a price begins with a trial, whose replies are kept; the
    estimate of its cost is reported on stderr and in the figures.
    """
    import asyncio

    from zhllama.llm.batch import BATCHES, BatchClient
    from zhllama.llm.client import Client
    from zhllama.llm.connection import ServerError
    from zhllama.llm.rounds import TRIAL, Rounds

    estimate: dict[str, Any] = {}

    def report() -> bool:
        estimate["estimate"] = _estimate(requests.expected_calls(), spending)
        return not server.trial

    async def work() -> tuple[bool, dict[str, Any]]:
        figures: dict[str, Any] = {
            "servers": list(connection.base_urls),
            "concurrency": connection.concurrency,
        }
        if server.batch_api:
            async with BatchClient(connection, run.out / BATCHES) as batches:
                rounds = Rounds(requests, journal, batches, spending)
                with screen(rounds, None):
                    return await rounds.run(), figures
        async with Client(connection, Random(seed), warn=warn) as client:
            is_new = len(journal) < TRIAL and spending.price is not None
            rounds = Rounds(requests, journal, client, spending, report if is_new or server.trial else None)
            with screen(rounds, client):
                finished = await rounds.run()
        return finished, {**figures, **estimate, "429s": client.rate_limited, "retries": client.retries}

    try:
        return asyncio.run(work())
    except BaseException as error:
        if not journal.has_completions() and not (run.out / BATCHES).exists():
            # Nothing was paid for: the folder is removed, and the same command can be given again.
            run.resume = None
            if isinstance(error, ServerError):
                raise error.without_resume() from error
        raise


def _estimate(calls: int | None, spending: "Spending") -> dict[str, Any]:
    """The expected calls, tokens and cost of a whole run, reported on stderr; None where the trial does not show them."""
    if calls is None:
        note(
            f"trial of {spending.replies} calls: none of their tasks was accepted, so that the cost of the run is unknown"
        )
        return {"calls": None, "tokens": None, "cost": None}
    tokens, cost = spending.estimate(calls)
    needs = (
        f"about {calls:,} calls, {tokens:,} tokens"
        if spending.estimated == 0
        else f"very roughly (tokens are estimated) {calls:,} calls, {tokens:,} tokens"
    )
    money = "" if cost is None else f", cost {cost:.4f}"
    limit = spending.max_cost
    stop = (
        f"; --max-cost {limit:g} stops it before"
        if limit is not None and cost is not None and cost > limit
        else ""
    )
    note(f"trial of {spending.replies} calls: the run needs {needs}{money}{stop}")
    return {"calls": calls, "tokens": tokens, "cost": cost}


def warn_of_end(server: "ServerOptions") -> None:
    """Report that the budget, or the trial, ended a run early."""
    if server.trial:
        warn("stopped after its trial. Continue with --resume and without --trial; the replies are kept.")
    else:
        warn("stopped by its budget. Continue with --resume and a larger budget.")


def say_spent(spent: Mapping[str, Any], indent: str = "") -> None:
    """Print replies, tokens and cost of a run, and for how many replies the tokens are estimated."""
    estimated, cost = spent["estimated_replies"], spent["cost"]
    told = translated(
        f"{spent['replies']:,} replies, {spent['prompt_tokens']:,} + {spent['completion_tokens']:,} tokens"
        f"{f' (estimated from characters for {estimated:,} replies)' if estimated else ''}"
        f"{'' if cost is None else f', cost {cost:.4f}'}"
    )
    say(f"{indent}{told}")
