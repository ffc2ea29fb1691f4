"""What all generation methods share: the protocol, the size of rounds, and the steps from a reply to the task pool."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from zhllama.generation.parse_replies import Unreadable, strip_thinking
from zhllama.generation.task_pool import TaskOrigin, TaskPool
from zhllama.generation.tasks import Task
from zhllama.llm.journal import JournalRecord
from zhllama.llm.rounds import RequestPlan

ROUND = 128  # requests at most; at a concurrency of 32, few calls are idle at the end of a round
MAX_EMPTY_ROUNDS = 5  # consecutive rounds without an accepted task that end a run


class GenerationMethod(RequestPlan, Protocol):
    """A method that generates tasks."""

    pool: TaskPool

    def prompts_used(self) -> Sequence[str]:
        """Names of the prompts, which are checked before the first request is sent."""

    def finish(self) -> None:
        """Reject the candidates that the run left incomplete."""

    def products(self) -> dict[str, list[dict[str, Any]]]:
        """Output files besides the accepted tasks: file name -> rows."""


@dataclass
class RoundSizer:
    """Chooses the number of requests per round from the yield of the earlier ones."""

    max_tasks: int  # per request; the first estimate of the yield, since surplus tasks cost money
    max_requests: int
    requests: int = 0  # answered so far
    _accepted: int = 0
    _empty_rounds: int = -1

    def next(self, pool: TaskPool) -> int:
        """Requests of the next round; 0 if the pool is full or too many rounds brought no accepted task."""
        accepted = len(pool.accepted)
        self._empty_rounds = self._empty_rounds + 1 if accepted == self._accepted else 0
        self._accepted = accepted
        if pool.full or self._empty_rounds >= MAX_EMPTY_ROUNDS:
            return 0
        tasks_per_request = (accepted + self.max_tasks) / (self.requests + 1)
        needed = -(-(pool.wanted - accepted) // tasks_per_request)
        return int(min(needed, self.max_requests if self._empty_rounds == 0 else self.max_requests // 16))


def request_random(seed: int, round: int, index: int) -> Random:
    """The random generator of one request, independent of all other requests."""
    return Random(f"{seed}/{round}/{index}")


def text_or_reject(record: JournalRecord, pool: TaskPool, origin: TaskOrigin) -> str | None:
    """The text of a reply without the model's thinking; None after rejecting a refusal or an unreadable reply."""
    if record.reply.text is None:
        pool.reject(Unreadable("", ""), origin, "no reply", record.reply.refusal)
        return None
    text = strip_thinking(record.reply.text)
    if isinstance(text, Unreadable):
        pool.reject(text, origin, "format", text.reason)
        return None
    return text


def offer_parsed(
    pool: TaskPool,
    items: Sequence[Task | Unreadable],
    origins: Iterable[TaskOrigin],
    cut_off: bool,
    new: bool = True,
) -> None:
    """Offer all parsed tasks of a reply to the pool; the last one of a reply that was cut off is rejected."""
    for number, (item, origin) in enumerate(zip(items, origins, strict=False), 1):
        if cut_off and number == len(items) and "cut off" not in pool.options.without:
            pool.reject(item, origin, "cut off", "finish_reason is length")
        elif isinstance(item, Unreadable):
            pool.reject(item, origin, "format", item.reason)
        else:
            pool.offer(item, origin, new)
