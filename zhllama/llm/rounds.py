"""The rounds of a run: replies that the journal has are taken from there, the others are asked for, and all are folded in order."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError

from zhllama.errors import InputError, OptionError
from zhllama.generation.methods import Asking, Method
from zhllama.io.yaml import read_yaml
from zhllama.llm.journal import Journal, JournalRecord, Key, Reply, Request


class Asker(Protocol):
    """What answers requests: a client, or a provider's Batch API."""

    async def ask(self, request: Request, may: Callable[[], Awaitable[bool]]) -> Reply | None:
        """The reply, or None where `may` said no before it was sent."""


class Price(BaseModel, frozen=True):
    """What a model costs, per million tokens, in whatever currency."""

    input: float
    output: float
    batch: float = 0.5  # what a batch costs of that


@dataclass
class Spending:
    """Tokens and money of all replies in the journal, and how much may be spent."""

    price: Price | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    replies: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    models: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if self.max_cost is not None and self.price is None:
            raise OptionError(
                "max_cost", "needs to know what the model costs", "Give `prices` FILE.yaml with its name"
            )

    def count(self, reply: Reply) -> None:
        self.replies += 1
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens
        self.models[reply.model] += 1

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def cost(self) -> float | None:
        if self.price is None:
            return None
        return (self.prompt_tokens * self.price.input + self.completion_tokens * self.price.output) / 1e6

    def figures(self) -> dict[str, Any]:
        """As a manifest tells it."""
        return {
            "replies": self.replies,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cost": self.cost,
            "models": dict(self.models.most_common()),
        }

    def allows(self, in_flight: int, worst: int) -> bool:
        """Whether one more call fits, if those under way turn out like the mean so far; the first ones like the `worst`."""
        mean = self.tokens / self.replies if self.replies else worst
        share = (in_flight + 1) * mean / max(1, self.tokens)
        if self.max_tokens is not None and self.tokens + (in_flight + 1) * mean > self.max_tokens:
            return False
        if self.max_cost is None or self.price is None:
            return True
        dearest = max(self.price.input, self.price.output) / 1e6
        more = (self.cost or 0.0) * share if self.replies else (in_flight + 1) * worst * dearest
        return (self.cost or 0.0) + more <= self.max_cost


def read_price(path: Path, model: str, batch: bool = False) -> Price:
    """The price of a model from a YAML table: `model: {input: 0.27, output: 1.10}`, per million tokens; in batches, if so."""
    table = read_yaml(path, "a table of prices")
    if model not in table:
        raise InputError(
            path, f"has no price for {model!r}", "Add a line such as `model: {input: 0.27, output: 1.10}`"
        )
    try:
        price = Price.model_validate(table[model])
    except ValidationError as error:
        raise InputError(
            path,
            f"{model}: {error.errors()[0]['msg'].lower()}",
            "Give `input` and `output` per million tokens",
        ) from error
    share = price.batch if batch else 1.0
    return Price(input=price.input * share, output=price.output * share)


@dataclass
class Rounds:
    """Drives what asks over a journal."""

    method: Asking
    journal: Journal
    asker: Asker
    spending: Spending
    asked: int = field(
        default=0, init=False
    )  # calls that came back now, those of an earlier start not among them
    _flying: set[Key] = field(default_factory=set, init=False)
    _landed: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    async def run(self) -> bool:
        """Ask and fold until the method has what it wants (True) or nothing more may be spent (False)."""
        for round in itertools.count():
            requests = self.method.requests(round)
            whole = not requests or await self._round(requests)
            self.journal.sync()
            if not requests or not whole:
                return whole
        raise AssertionError

    async def _round(self, requests: Sequence[Request]) -> bool:
        """Ask all at once, fold each as soon as those before it are folded; False where some were not sent."""
        whole = True
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._answer(request)) for request in requests]
                for task in tasks:
                    if (record := await task) is None:
                        whole = False
                    else:
                        self.method.fold(record)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return whole

    async def _answer(self, request: Request) -> JournalRecord | None:
        if (record := self.journal.get(request.key)) is not None:
            if record.print != request.print:
                raise InputError(
                    self.journal.path,
                    f"answers another question than request {request.key} asks now",
                    "Seeds, prompts or options changed: put them back, or start over with --force",
                )
            self.spending.count(record.reply)
            return record
        try:
            reply = await self.asker.ask(request, lambda: self._may(request))
            if reply is None:
                return None
            self.spending.count(reply)
            self.asked += 1
            return self.journal.append(request, reply)
        finally:
            self._flying.discard(request.key)
            self._landed.set()

    async def _may(self, request: Request) -> bool:
        """Whether the budget allows a call; where that hangs on what those under way will cost, they are waited for."""
        worst = len(request.prompt) + int(request.sampling.get("max_tokens", 0))
        while request.key not in self._flying:
            if self.spending.allows(len(self._flying), worst):
                self._flying.add(request.key)
            elif not self._flying:
                return False
            else:
                self._landed.clear()
                await self._landed.wait()
        return True


def replay(
    method: Method, journal: Journal, spending: Spending, watch: Callable[[], object] = lambda: None
) -> None:
    """Fold all that a journal holds, whatever is missing, and ask nothing."""
    for record in journal:
        spending.count(record.reply)
        method.fold(record)
        watch()


def figures(method: Method, spending: Spending) -> Mapping[str, Any]:
    """What a run came to, as its manifest and the report tell it."""
    shelf = method.shelf
    return {
        "wanted": shelf.wanted,
        "kept": len(shelf.kept),
        "rejected": shelf.rejected,
        "candidates": shelf.candidates,
        "reasons": dict(shelf.reasons.most_common()),
        "flags": dict(shelf.flags.most_common()),
        **spending.figures(),
    }
