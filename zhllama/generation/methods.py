"""What every way to new tasks is made of, and the shortest of them: Alpaca's, where one call makes whole tasks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from zhllama.generation.parse_replies import Unreadable, read_tasks, without_thought
from zhllama.generation.task_pool import TaskOrigin, TaskPool, origins
from zhllama.generation.tasks import Task
from zhllama.llm.journal import JournalRecord, Request
from zhllama.llm.prompts import Prompts

ROUND = 128  # requests at most; with 32 under way, a round's end leaves few of them idle
DRY = 5  # rounds in a row that keep nothing end a run

Sampling = Mapping[str, Any]


class Asking(Protocol):
    """Asks in rounds and folds the replies; a request depends on the seed and on what earlier rounds kept, on nothing else."""

    def requests(self, round: int) -> list[Request]:
        """What to ask in this round; nothing once it has what it wants, or gives up."""

    def fold(self, record: JournalRecord) -> None:
        """Take one reply in; called in the order of requests."""


class Method(Asking, Protocol):
    """A way to new tasks."""

    shelf: TaskPool

    def prompts_used(self) -> Sequence[str]:
        """Names of the prompts, to be checked before anything is paid for."""

    def finish(self) -> None:
        """Account for what was begun and not finished."""

    def products(self) -> dict[str, list[dict[str, Any]]]:
        """What else is written than the tasks that the shelf keeps: file name to rows."""


@dataclass
class Pace:
    """How many calls a round has, from what calls brought so far; none after some rounds in a row that kept nothing."""

    hoped: int  # tasks from a call at best: the first guess, since a surplus would be paid for
    most: int
    calls: int = 0
    _kept: int = 0
    _dry: int = -1

    def next(self, shelf: TaskPool) -> int:
        """Calls of the next round."""
        self._dry = self._dry + 1 if len(shelf.kept) == self._kept else 0
        self._kept = len(shelf.kept)
        if shelf.full or self._dry >= DRY:
            return 0
        rate = (len(shelf.kept) + self.hoped) / (self.calls + 1)
        wanted = -(-(shelf.wanted - len(shelf.kept)) // rate)
        return int(min(wanted, self.most if self._dry == 0 else self.most // 16))


def draw_seeds(seed: int, round: int, index: int) -> Random:
    """The chance of one request: of its own, whatever happened to others."""
    return Random(f"{seed}/{round}/{index}")


def readable(record: JournalRecord, shelf: TaskPool, origin: TaskOrigin) -> str | None:
    """The text of a reply, or None once its refusal is put aside."""
    if record.reply.text is None:
        shelf.turn_away(Unreadable("", ""), origin, "no reply", record.reply.refusal)
        return None
    text = without_thought(record.reply.text)
    if isinstance(text, Unreadable):
        shelf.turn_away(text, origin, "format", text.why)
        return None
    return text


@dataclass
class Alpaca:
    """One call makes whole tasks: three seeds are shown, and all up to the twentieth asked for."""

    shelf: TaskPool
    prompts: Prompts
    seed: int
    sampling: Sampling = field(default_factory=dict)
    structured: bool = False
    shots: int = 3
    count: int = 20

    def __post_init__(self) -> None:
        self._pace = Pace(self.count - self.shots, ROUND)

    def prompts_used(self) -> Sequence[str]:
        return ("tasks",)

    def requests(self, round: int) -> list[Request]:
        return [self._request(round, index) for index in range(self._pace.next(self.shelf))]

    def _request(self, round: int, index: int) -> Request:
        shots = draw_seeds(self.seed, round, index).sample(
            self.shelf.seeds, min(self.shots, len(self.shelf.seeds))
        )
        prompt = self.prompts.render(
            "tasks", shots=[s.task for s in shots], count=self.count, structured=self.structured
        )
        sampling = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 3072, **self.sampling}
        if self.structured:
            sampling["response_format"] = TASKS_SCHEMA
        return Request(round, index, "tasks", prompt, {"shots": [s.id for s in shots]}, sampling)

    def fold(self, record: JournalRecord) -> None:
        self._pace.calls += 1
        places = origins(record)
        if (text := readable(record, self.shelf, next(places))) is None:
            return
        opened = self.prompts.api == "completion" and not self.structured
        offer_all(self.shelf, read_tasks(text, opened), origins(record), cut=record.reply.finish == "length")

    def finish(self) -> None:
        pass

    def products(self) -> dict[str, list[dict[str, Any]]]:
        return {}


def offer_all(
    shelf: TaskPool,
    pieces: Sequence[Task | Unreadable],
    places: Iterable[TaskOrigin],
    cut: bool,
    new: bool = True,
) -> None:
    """Offer every piece of a reply; of a reply that was cut off the last piece is not whole."""
    for number, (piece, origin) in enumerate(zip(pieces, places, strict=False), 1):
        if cut and number == len(pieces) and "cut off" not in shelf.rules.without:
            shelf.turn_away(piece, origin, "cut off", "finish_reason is length")
        elif isinstance(piece, Unreadable):
            shelf.turn_away(piece, origin, "format", piece.why)
        else:
            shelf.offer(piece, origin, new)


TASKS_SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "tasks",
        "strict": True,
        "schema": {
            "type": "object",
            "additionalProperties": False,
            "required": ["tasks"],
            "properties": {
                "tasks": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["instruction", "input", "output"],
                        "properties": {
                            name: {"type": "string"} for name in ("instruction", "input", "output")
                        },
                    },
                }
            },
        },
    },
}
