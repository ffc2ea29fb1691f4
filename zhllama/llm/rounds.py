"""Runs a request plan round by round: stored replies come from the journal, the others from the server."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from zhllama.errors import InputError
from zhllama.llm.journal import Journal, JournalRecord
from zhllama.llm.read_reply import ErrorReply, UnreadableReply, read_reply
from zhllama.llm.requests import Key, Reply, Request
from zhllama.llm.spending import Spending
from zhllama.llm.usage import estimate_prompt

TRIAL = 3  # calls whose replies show what the whole run will cost


class RequestPlan(Protocol):
    """Plans requests in rounds and accepts the replies.

    A request depends on the seed and on the replies of earlier rounds only, so that a resumed run sends the same ones.
    """

    def requests(self, round: int) -> list[Request]:
        """The requests of a round; an empty list ends the run."""

    def accept(self, record: JournalRecord) -> None:
        """Process one reply; called in the order of the requests."""

    def expected_calls(self) -> int | None:
        """Calls of the whole run, judged by the replies so far; None if they do not show it."""


class ReplySource(Protocol):
    """Answers requests: a client, or a provider's Batch API."""

    async def ask(
        self,
        request: Request,
        is_allowed: Callable[[], Awaitable[bool]],
        store: Callable[[bytes], None],
    ) -> Reply | None:
        """The reply, or None if `is_allowed` forbids the call; `store` gets each response body before it is read."""


@dataclass
class Rounds:
    """Runs a request plan with a journal, a source of replies and a budget."""

    plan: RequestPlan
    journal: Journal
    source: ReplySource
    spending: Spending
    after_trial: Callable[[], bool] | None = None  # called after the first TRIAL replies; False ends the run
    new_replies: int = field(default=0, init=False)  # replies of this start, without those in the journal
    _in_flight: set[Key] = field(default_factory=set, init=False)
    _call_ended: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    async def run(self) -> bool:
        """Run all rounds; False if the budget ran out before the plan was complete."""
        for round in itertools.count():
            requests = self.plan.requests(round)
            if round == 0 and self.after_trial is not None:
                if not await self._run_round(requests[:TRIAL]) or not self.after_trial():
                    return False
                complete = await self._run_round(requests[TRIAL:])
            else:
                complete = not requests or await self._run_round(requests)
            self.journal.sync()
            if not requests or not complete:
                return complete
        raise AssertionError

    async def _run_round(self, requests: Sequence[Request]) -> bool:
        """Send all requests concurrently and accept the replies in order; False if some were not sent."""
        complete = True
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._answer(request)) for request in requests]
                for task in tasks:
                    if (record := await task) is None:
                        complete = False
                    else:
                        self.plan.accept(record)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return complete

    async def _answer(self, request: Request) -> JournalRecord | None:
        if (record := self.journal.get(request.key)) is not None:
            if record.fingerprint != request.fingerprint:
                raise InputError(
                    self.journal.path,
                    f"its reply {request.key} belongs to a different request",
                    "Restore the seeds, prompts and options of that run, or start over with `force`",
                )
            self.spending.count(record.reply)
            return record
        try:
            reply = self._stored_reply(request) or await self.source.ask(
                request,
                lambda: self._is_allowed(request),
                lambda body: self.journal.store(request, body),
            )
            if reply is None:
                return None
            reply = self._with_failed_attempts(request, reply)
            self.spending.count(reply)
            self.new_replies += 1
            return self.journal.append(request, reply)
        finally:
            self._in_flight.discard(request.key)
            self._call_ended.set()

    def _stored_reply(self, request: Request) -> Reply | None:
        """The reply in a body that was stored just before the run was killed; None if there is none."""
        for body in self.journal.bodies(request):
            try:
                return read_reply(body, request.prompt)
            except (UnreadableReply, ErrorReply):
                continue
        return None

    def _with_failed_attempts(self, request: Request, reply: Reply) -> Reply:
        """The reply with the tokens of the completions that could not be read added to its own: they were paid for."""
        bodies = self.journal.bodies(request)
        for body in bodies if len(bodies) > 1 or reply.text is None else ():
            try:
                read_reply(body, request.prompt)
            except UnreadableReply as error:
                reply = reply.with_usage(error.usage) if error.usage else reply
            except ErrorReply:
                continue
        return reply

    async def _is_allowed(self, request: Request) -> bool:
        """True if the budget covers the call; waits for calls in flight while their cost decides that."""
        worst = estimate_prompt(request.prompt) + int(request.sampling.get("max_tokens", 0))
        while request.key not in self._in_flight:
            if self.spending.allows(len(self._in_flight), worst):
                self._in_flight.add(request.key)
            elif not self._in_flight:
                return False
            else:
                self._call_ended.clear()
                await self._call_ended.wait()
        return True


def replay(
    plan: RequestPlan, journal: Journal, spending: Spending, progress: Callable[[], object] = lambda: None
) -> None:
    """Let a plan accept all records of a journal without sending any request."""
    for record in journal:
        spending.count(record.reply)
        plan.accept(record)
        progress()
