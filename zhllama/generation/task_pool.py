"""The fold: candidates come in the order of their requests, and each is either kept or put aside with its reason."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from zhllama.generation.filters import Rules, in_simplified, personal_data, reason_against
from zhllama.generation.parse_replies import Unreadable
from zhllama.generation.similarity import Similarity
from zhllama.generation.tasks import SeedTask, Task
from zhllama.llm.journal import JournalRecord

EXCERPT = 400  # characters of what could not be read


@dataclass(frozen=True)
class TaskOrigin:
    """Where a candidate comes from: the request, the place in its reply, and what the request was about."""

    round: int
    index: int
    place: int
    model: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.round}.{self.index}.{self.place}"


def origins(record: JournalRecord) -> Iterator[TaskOrigin]:
    """The origins of the candidates in one reply, one after another."""
    place = 0
    while True:
        yield TaskOrigin(record.round, record.index, place, record.reply.model, record.about)
        place += 1


@dataclass(frozen=True)
class AcceptedTask:
    """A task that passed, with what it is flagged for."""

    task: Task
    origin: TaskOrigin
    flags: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        """One line of instructions.jsonl."""
        origin = self.origin
        return {
            "id": origin.about.get("id", origin.id),
            "instruction": self.task.instruction,
            "input": self.task.input,
            "output": self.task.output,
            "flags": list(self.flags),
            "from": {
                "round": origin.round,
                "request": origin.index,
                "place": origin.place,
                "model": origin.model,
                **{k: v for k, v in origin.about.items() if k in PROVENANCE},
            },
        }


PROVENANCE = ("shots", "way", "of", "is_classification", "instruction_from")


@dataclass
class TaskPool:
    """What was kept so far, why the rest was not, and how near a new instruction is to any of it.

    Each candidate is counted once: candidates == len(kept) + rejected. `put_aside` gets every reject as a row.
    """

    rules: Rules
    seeds: Sequence[SeedTask]
    wanted: int
    put_aside: Callable[[dict[str, Any]], None]
    kept: list[AcceptedTask] = field(default_factory=list, init=False)
    reasons: Counter[str] = field(default_factory=Counter, init=False)
    flags: Counter[str] = field(default_factory=Counter, init=False)
    scores: list[float] = field(default_factory=list, init=False)  # F of each near duplicate

    def __post_init__(self) -> None:
        self._outputs: dict[tuple[str, str], str] = {}
        self._near = Similarity(self.rules.threshold)
        self._names: list[str] = []
        for seed in self.seeds:
            self._outputs.setdefault((seed.task.instruction, seed.task.input), seed.task.output)
            self._known(seed.task.instruction, f"seed {seed.id}")

    @property
    def rejected(self) -> int:
        return self.reasons.total()

    @property
    def candidates(self) -> int:
        return len(self.kept) + self.rejected

    @property
    def full(self) -> bool:
        return len(self.kept) >= self.wanted

    def offer(self, task: Task, origin: TaskOrigin, new: bool = True) -> bool:
        """Keep a task or put it aside; `new` asks that its instruction be unlike all that is known."""
        task, flags = self.prepared(task)
        reason = self._against(task, flags, new)
        if reason is None and self.full:
            reason = "surplus", f"{self.wanted} are kept"
        if reason is not None:
            self.turn_away(task, origin, *reason)
            return False
        self.kept.append(AcceptedTask(task, origin, flags))
        self.flags.update(flags)
        self._outputs[task.instruction, task.input] = task.output
        if new:
            self._known(task.instruction, origin.id)
        return True

    def offer_instruction(self, instruction: str, origin: TaskOrigin) -> str | None:
        """An instruction that is not worked out yet: known from now on and returned, or put aside."""
        task, _ = self.prepared(Task(instruction))
        # An answer of the right length stands in for the one to come; input and output are judged once they are there.
        rules = replace(self.rules, min_output=0, without=self.rules.without | {"needs what is not there"})
        reason = reason_against(task, rules) or self._nearness(task)
        if reason is not None:
            self.turn_away(task, origin, *reason)
            return None
        self._known(task.instruction, origin.id)
        return task.instruction

    def prepared(self, task: Task) -> tuple[Task, tuple[str, ...]]:
        """A task in Simplified characters, and its flags."""
        if self.rules.keep_traditional or (turned := in_simplified(task)) == task:
            return task, tuple(personal_data(task))
        return turned, (*personal_data(turned), "was Traditional")

    def turn_away(self, what: Task | Unreadable, origin: TaskOrigin, reason: str, detail: str = "") -> None:
        """Put a candidate aside and count it."""
        self.reasons[reason] += 1
        if isinstance(what, Task):
            content = {"instruction": what.instruction, "input": what.input, "output": what.output}
        else:
            content = {"text": what.text[:EXCERPT]}
        self.put_aside(
            {"id": origin.id, "reason": reason, "detail": detail, **content, "model": origin.model}
        )

    def nearest(self, count: int) -> list[float]:
        """F of each of some instructions to its nearest other, spread evenly over seeds and kept."""
        total = len(self._near)
        return (
            [self._near.nearest(n) for n in sorted({i * total // count for i in range(min(count, total))})]
            if total
            else []
        )

    def _against(self, task: Task, flags: tuple[str, ...], new: bool) -> tuple[str, str] | None:
        if reason := reason_against(task, self.rules):
            return reason
        personal = [flag for flag in flags if flag != "was Traditional"]
        if personal and self.rules.drop_personal:
            return "personal data", ", ".join(personal)
        return self._nearness(task, new)

    def _nearness(self, task: Task, new: bool = True) -> tuple[str, str] | None:
        without = self.rules.without
        before = self._outputs.get((task.instruction, task.input))
        if before is not None:
            reason = "duplicate" if before == task.output or not task.output else "same input, other output"
            if reason not in without:
                return reason, ""
        if new and "near duplicate" not in without and (near := self._near.near(task.instruction)):
            self.scores.append(near.score)
            return "near duplicate", f"{near.score:.3f} to {self._names[near.number]}"
        return None

    def _known(self, instruction: str, name: str) -> None:
        self._near.add(instruction)
        self._names.append(name)
