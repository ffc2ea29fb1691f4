"""The ways to new tasks: Alpaca's, one call for whole tasks, and Self-Instruct's, step by step."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from zhllama.generate.journal import Record, Request
from zhllama.generate.parse import (
    Unreadable,
    read_instances,
    read_list,
    read_tasks,
    read_yes,
    without_thought,
)
from zhllama.generate.prompts import Prompts
from zhllama.generate.shelf import Origin, Shelf, origins
from zhllama.generate.tasks import Task

ROUND = 128  # requests at most; with 32 under way, a round's end leaves few of them idle
DRY = 5  # rounds in a row that keep nothing end a run

Sampling = Mapping[str, Any]


class Method(Protocol):
    """Asks in rounds and folds the replies; a request depends on the seed and on what earlier rounds kept, on nothing else."""

    shelf: Shelf

    def prompts_used(self) -> Sequence[str]:
        """Names of the prompts, to be checked before anything is paid for."""

    def requests(self, round: int) -> list[Request]:
        """What to ask in this round; nothing once the method has what it wants, or gives up."""

    def fold(self, record: Record) -> None:
        """Take one reply in; called in the order of requests."""

    def finish(self) -> None:
        """Account for what was begun and not finished."""

    def products(self) -> dict[str, list[dict[str, Any]]]:
        """What else is written than the tasks that the shelf keeps: file name to rows."""


@dataclass
class Dryness:
    """Counts the rounds in a row that kept nothing."""

    kept: int = 0
    rounds: int = 0

    def after(self, kept: int) -> bool:
        """Whether it is time to give up."""
        self.rounds = self.rounds + 1 if kept == self.kept else 0
        self.kept = kept
        return self.rounds >= DRY


def draw(seed: int, round: int, index: int) -> Random:
    """The chance of one request: of its own, whatever happened to others."""
    return Random(f"{seed}/{round}/{index}")


def readable(record: Record, shelf: Shelf, origin: Origin) -> str | None:
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

    shelf: Shelf
    prompts: Prompts
    seed: int
    sampling: Sampling = field(default_factory=dict)
    structured: bool = False
    shots: int = 3
    count: int = 20
    _folded: int = field(default=0, init=False)
    _dry: Dryness = field(default_factory=Dryness, init=False)

    def prompts_used(self) -> Sequence[str]:
        return ("tasks",)

    def requests(self, round: int) -> list[Request]:
        if self.shelf.full or (round and self._dry.after(len(self.shelf.kept))):
            return []
        rate = yield_of_a_call(self.shelf, self._folded, self.count - self.shots)
        missing = self.shelf.wanted - len(self.shelf.kept)
        return [self._request(round, index) for index in range(min(ROUND, max(1, round_up(missing / rate))))]

    def _request(self, round: int, index: int) -> Request:
        shots = draw(self.seed, round, index).sample(self.shelf.seeds, min(self.shots, len(self.shelf.seeds)))
        prompt = self.prompts.render(
            "tasks", shots=[s.task for s in shots], count=self.count, structured=self.structured
        )
        sampling = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 3072, **self.sampling}
        if self.structured:
            sampling["response_format"] = TASKS_SCHEMA
        return Request(round, index, "tasks", prompt, {"shots": [s.id for s in shots]}, sampling)

    def fold(self, record: Record) -> None:
        self._folded += 1
        places = origins(record)
        if (text := readable(record, self.shelf, next(places))) is None:
            return
        opened = self.prompts.api == "completion" and not self.structured
        offer_all(self.shelf, read_tasks(text, opened), origins(record), cut=record.reply.finish == "length")

    def finish(self) -> None:
        pass

    def products(self) -> dict[str, list[dict[str, Any]]]:
        return {}


def yield_of_a_call(shelf: Shelf, calls: int, hoped: int) -> float:
    """Tasks that a call has brought so far; the first guess is all it may bring, since a surplus would be paid for."""
    return (len(shelf.kept) + hoped) / (calls + 1)


def offer_all(
    shelf: Shelf, pieces: Sequence[Task | Unreadable], places: Iterable[Origin], cut: bool, new: bool = True
) -> None:
    """Offer every piece of a reply; of a reply that was cut off the last piece is not whole."""
    for number, (piece, origin) in enumerate(zip(pieces, places, strict=False), 1):
        if cut and number == len(pieces) and "cut off" not in shelf.rules.without:
            shelf.turn_away(piece, origin, "cut off", "finish_reason is length")
        elif isinstance(piece, Unreadable):
            shelf.turn_away(piece, origin, "format", piece.why)
        else:
            shelf.offer(piece, origin, new)


def round_up(number: float) -> int:
    return int(-(-number // 1))


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


@dataclass
class SelfInstruct:
    """The paper's steps: instructions from six human shots and two made ones; whether each is a classification task; then
    its instances, the label first for a classification, else the input first. The kept join the pool of made shots."""

    shelf: Shelf
    prompts: Prompts
    seed: int
    sampling: Sampling = field(default_factory=dict)
    human: int = 6
    made: int = 2
    count: int = 16
    _pending: dict[str, Origin] = field(default_factory=dict, init=False)  # instruction -> where it came from
    _classified: dict[str, bool] = field(default_factory=dict, init=False)
    _folded: int = field(default=0, init=False)
    _pool: dict[str, Origin] = field(default_factory=dict, init=False)  # kept instructions: the made shots
    _dry: Dryness = field(default_factory=Dryness, init=False)

    def prompts_used(self) -> Sequence[str]:
        return ("instructions", "classify", "instances_input_first", "instances_output_first")

    def requests(self, round: int) -> list[Request]:
        if unsorted := [i for i in self._pending if i not in self._classified]:
            return [self._classify(round, index, i) for index, i in enumerate(unsorted)]
        if self._classified:
            return [
                self._instances(round, index, i, c) for index, (i, c) in enumerate(self._classified.items())
            ]
        if self.shelf.full or (round and self._dry.after(len(self.shelf.kept))):
            return []
        self._pool = {k.task.instruction: k.origin for k in self.shelf.kept}
        rate = yield_of_a_call(self.shelf, self._folded, self.count - self.human - self.made)
        missing = self.shelf.wanted - len(self.shelf.kept)
        # An instruction costs two more requests, so that a round of ROUND / 8 makes one of about ROUND.
        return [
            self._instructions(round, index)
            for index in range(min(ROUND // 8, max(1, round_up(missing / rate))))
        ]

    def _instructions(self, round: int, index: int) -> Request:
        chance = draw(self.seed, round, index)
        human = chance.sample(self.shelf.seeds, min(self.human, len(self.shelf.seeds)))
        made = chance.sample(list(self._pool.items()), min(self.made, len(self._pool)))
        shots = [(s.task, s.id) for s in human] + [(Task(text), f"kept {origin.id}") for text, origin in made]
        chance.shuffle(shots)
        about = {"shots": [name for _, name in shots]}
        prompt = self.prompts.render("instructions", shots=[task for task, _ in shots], count=self.count)
        sampling = {
            "temperature": 0.7,
            "top_p": 0.5,
            "presence_penalty": 2.0,
            "max_tokens": 1024,
            **self.sampling,
        }
        return Request(round, index, "instructions", prompt, about, sampling)

    def _classify(self, round: int, index: int, instruction: str) -> Request:
        prompt = self.prompts.render("classify", instruction=instruction)
        about = {"instruction": instruction, "instruction_from": self._pending[instruction].id}
        return Request(round, index, "classify", prompt, about, {"temperature": 0.0, "max_tokens": 8})

    def _instances(self, round: int, index: int, instruction: str, classification: bool) -> Request:
        name = "instances_output_first" if classification else "instances_input_first"
        origin = self._pending[instruction]
        about = {
            "instruction": instruction,
            "instruction_from": origin.id,
            "is_classification": classification,
            "shots": list(origin.about["shots"]),
        }
        # The paper's 300 and 350 tokens are English ones of short answers; Chinese ones need more.
        sampling = {"temperature": 0.0, "presence_penalty": 1.5, "max_tokens": 1024, **self.sampling}
        return Request(
            round, index, "instances", self.prompts.render(name, instruction=instruction), about, sampling
        )

    def fold(self, record: Record) -> None:
        origin = next(origins(record))
        if record.kind == "instructions":
            self._folded += 1
            self._take_instructions(record, origin)
        elif (instruction := record.about["instruction"]) not in self._pending:
            # By other filters than it was asked under, the instruction is already put aside.
            return
        elif record.kind == "classify":
            # A refusal or a reply that says neither leaves the commoner kind.
            self._classified[instruction] = read_yes(_said(record)) or False
        else:
            self._take_instances(record, origin, instruction)

    def _take_instructions(self, record: Record, origin: Origin) -> None:
        if (text := readable(record, self.shelf, origin)) is None:
            return
        items = read_list(text, opened=self.prompts.api == "completion")
        if not items:
            self.shelf.turn_away(Unreadable(text, ""), origin, "format", "no numbered list in the reply")
        for number, (item, place) in enumerate(zip(items, origins(record), strict=False), 1):
            if record.reply.finish == "length" and number == len(items):
                self.shelf.turn_away(Task(item), place, "cut off", "finish_reason is length")
            elif (instruction := self.shelf.offer_instruction(item, place)) is not None:
                self._pending[instruction] = place

    def _take_instances(self, record: Record, origin: Origin, instruction: str) -> None:
        del self._pending[instruction]
        self._classified.pop(instruction, None)
        if (text := readable(record, self.shelf, origin)) is None:
            return
        label_first = bool(record.about["is_classification"])
        pieces = read_instances(instruction, text, label_first, opened=self.prompts.api == "completion")
        outputs: dict[str, set[str]] = {}
        for piece in pieces:
            if isinstance(piece, Task):
                outputs.setdefault(piece.input, set()).add(piece.output)
        if any(len(unlike) > 1 for unlike in outputs.values()):
            # Nobody knows which is right: as in the paper, the whole task goes.
            for piece, place in zip(pieces, origins(record), strict=False):
                self.shelf.turn_away(piece, place, "same input, other output", "within one reply")
        else:
            offer_all(self.shelf, pieces, origins(record), cut=record.reply.finish == "length", new=False)

    def finish(self) -> None:
        for instruction, origin in self._pending.items():
            self.shelf.turn_away(Task(instruction), origin, "never worked out", "no reply in the journal")
        self._pending.clear()

    def products(self) -> dict[str, list[dict[str, Any]]]:
        return {}


def _said(record: Record) -> str:
    text = without_thought(record.reply.text or "")
    return text if isinstance(text, str) else ""
