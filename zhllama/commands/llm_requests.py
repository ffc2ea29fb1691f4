"""Sends the requests of a command to its servers until all are answered or the budget is spent."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from random import Random
from typing import TYPE_CHECKING, Any

from zhllama.commands.shared import warn

if TYPE_CHECKING:
    from zhllama.llm.client import Client
    from zhllama.llm.connection import Connection
    from zhllama.llm.journal import Journal
    from zhllama.llm.rounds import RequestPlan, Rounds
    from zhllama.llm.spending import Spending
    from zhllama.run import Run


def ask_all(
    run: "Run",
    requests: "RequestPlan",
    journal: "Journal",
    connection: "Connection",
    spending: "Spending",
    batch_api: bool,
    seed: int,
    screen: Callable[["Rounds", "Client | None"], AbstractContextManager[None]],
) -> tuple[bool, dict[str, Any]]:
    """Send all requests; return whether they finished within the budget, and the figures of the servers.

    `screen` draws the progress meanwhile.
    """
    import asyncio

    from zhllama.llm.batch import BATCHES, BatchClient
    from zhllama.llm.client import Client
    from zhllama.llm.connection import ServerError
    from zhllama.llm.rounds import Rounds

    async def work() -> tuple[bool, dict[str, Any]]:
        figures: dict[str, Any] = {
            "servers": list(connection.base_urls),
            "concurrency": connection.concurrency,
        }
        if batch_api:
            async with BatchClient(connection, run.out / BATCHES) as batches:
                rounds = Rounds(requests, journal, batches, spending)
                with screen(rounds, None):
                    return await rounds.run(), figures
        async with Client(connection, Random(seed), warn=warn) as client:
            rounds = Rounds(requests, journal, client, spending)
            with screen(rounds, client):
                finished = await rounds.run()
        return finished, {**figures, "429s": client.rate_limited, "retries": client.retries}

    try:
        return asyncio.run(work())
    except BaseException as error:
        if not journal.has_completions() and not (run.out / BATCHES).exists():
            # Nothing was paid for: the folder is removed, and the same command can be given again.
            run.resume = None
            if isinstance(error, ServerError):
                raise error.without_resume() from error
        raise


def warn_of_budget() -> None:
    """Report that the budget ended a run early."""
    warn("stopped by its budget. Continue with --resume and a larger budget.")


def estimated_note(replies: int) -> str:
    """What follows a count of tokens if those of some replies are estimated."""
    return f" (estimated from characters for {replies:,} replies)" if replies else ""
