"""The pool of a run: every generated candidate is either accepted or rejected with a reason."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from zhllama.generation.contrasts import contrasts
from zhllama.generation.filters import FilterOptions, convert_to_simplified, personal_data, rejection_reason
from zhllama.generation.near_duplicates import NearDuplicateIndex
from zhllama.generation.parse_replies import Unreadable
from zhllama.generation.tasks import SeedTask, Task
from zhllama.llm.journal import JournalRecord

EXCERPT = 400  # characters of an unreadable reply in rejected.jsonl


@dataclass(frozen=True)
class TaskOrigin:
    """Where a candidate comes from: the request, the position in its reply, and the metadata of the request."""

    round: int
    index: int
    position: int
    model: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.round}.{self.index}.{self.position}"


def origins(record: JournalRecord) -> Iterator[TaskOrigin]:
    """The origins of the candidates in one reply, in order, without end."""
    position = 0
    while True:
        yield TaskOrigin(record.round, record.index, position, record.reply.model, record.about)
        position += 1


@dataclass(frozen=True)
class AcceptedTask:
    """An accepted task with its flags, such as "e-mail" or "was Traditional"."""

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
                "place": origin.position,
                "model": origin.model,
                **{key: value for key, value in origin.about.items() if key in PROVENANCE},
            },
        }


# Keys of the request metadata that instructions.jsonl contains.
PROVENANCE = ("shots", "way", "of", "is_classification", "instruction_from")


@dataclass
class TaskPool:
    """Accepted tasks, counts of reject reasons, and an index of all instructions for near-duplicate detection.

    Each candidate is counted once: candidates == len(accepted) + rejected. `write_reject` receives each reject as a row.
    """

    options: FilterOptions
    seeds: Sequence[SeedTask]
    wanted: int
    write_reject: Callable[[dict[str, Any]], None]
    accepted: list[AcceptedTask] = field(default_factory=list, init=False)
    reasons: Counter[str] = field(default_factory=Counter, init=False)
    flags: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        self._outputs: dict[tuple[str, str], str] = {}
        self._index = NearDuplicateIndex(self.options.threshold)
        self._indexed: list[tuple[str, str]] = []  # id and instruction by number in the index
        for seed in self.seeds:
            self._outputs.setdefault((seed.task.instruction, seed.task.input), seed.task.output)
            self._index_instruction(seed.task.instruction, f"seed {seed.id}")

    @property
    def rejected(self) -> int:
        return self.reasons.total()

    @property
    def candidates(self) -> int:
        return len(self.accepted) + self.rejected

    @property
    def full(self) -> bool:
        return len(self.accepted) >= self.wanted

    def offer(self, task: Task, origin: TaskOrigin, new: bool = True) -> bool:
        """Accept or reject a task; with `new`, its instruction must not be a near duplicate of a known one."""
        task, flags = self.prepare(task)
        reason = self._find_reason(task, flags, new)
        if reason is None and self.full:
            reason = "surplus", f"{self.wanted} are accepted"
        if reason is not None:
            self.reject(task, origin, *reason)
            return False
        self.accepted.append(AcceptedTask(task, origin, flags))
        self.flags.update(flags)
        self._outputs[task.instruction, task.input] = task.output
        if new:
            self._index_instruction(task.instruction, origin.id)
        return True

    def offer_instruction(self, instruction: str, origin: TaskOrigin) -> str | None:
        """Filter an instruction without input and output; returns it in Simplified characters, or None if rejected.

        An accepted instruction is indexed, so that later near duplicates are rejected.
        """
        task, _ = self.prepare(Task(instruction))
        # The filters that need an input or output run later, when the instances are known.
        options = replace(
            self.options, min_output=0, without=self.options.without | {"needs what is not there"}
        )
        reason = rejection_reason(task, options) or self._duplicate_reason(task)
        if reason is not None:
            self.reject(task, origin, *reason)
            return None
        self._index_instruction(task.instruction, origin.id)
        return task.instruction

    def prepare(self, task: Task) -> tuple[Task, tuple[str, ...]]:
        """A task in Simplified characters, and its flags."""
        if self.options.keep_traditional or (converted := convert_to_simplified(task)) == task:
            return task, tuple(personal_data(task))
        return converted, (*personal_data(converted), "was Traditional")

    def reject(self, candidate: Task | Unreadable, origin: TaskOrigin, reason: str, detail: str = "") -> None:
        """Write a candidate to the rejects and count its reason."""
        self.reasons[reason] += 1
        if isinstance(candidate, Task):
            content = {
                "instruction": candidate.instruction,
                "input": candidate.input,
                "output": candidate.output,
            }
        else:
            content = {"text": candidate.text[:EXCERPT]}
        self.write_reject(
            {"id": origin.id, "reason": reason, "detail": detail, **content, "model": origin.model}
        )

    def nearest(self, count: int) -> list[float]:
        """ROUGE-L F of `count` instructions, spread evenly over seeds and accepted tasks, to their nearest neighbors."""
        total = len(self._index)
        numbers = sorted({i * total // count for i in range(min(count, total))})
        return [self._index.nearest(number) for number in numbers]

    def _find_reason(self, task: Task, flags: tuple[str, ...], new: bool) -> tuple[str, str] | None:
        if reason := rejection_reason(task, self.options):
            return reason
        personal = [flag for flag in flags if flag != "was Traditional"]
        if personal and self.options.drop_personal:
            return "personal data", ", ".join(personal)
        return self._duplicate_reason(task, new)

    def _duplicate_reason(self, task: Task, new: bool = True) -> tuple[str, str] | None:
        without = self.options.without
        known_output = self._outputs.get((task.instruction, task.input))
        if known_output is not None:
            reason = "duplicate" if task.output in (known_output, "") else "same input, other output"
            if reason not in without:
                return reason, ""
        if new and "near duplicate" not in without:
            for near in self._index.matches(task.instruction):
                id, instruction = self._indexed[near.number]
                if not contrasts(task.instruction, instruction):
                    return "near duplicate", f"{near.score:.3f} to {id}"
        return None

    def _index_instruction(self, instruction: str, id: str) -> None:
        self._index.add(instruction)
        self._indexed.append((id, instruction))
