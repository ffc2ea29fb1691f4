"""Self-Instruct step by step: instructions, whether each is a classification task, and then its instances."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from zhllama.generation.methods import ROUND, Pace, Sampling, draw_seeds, offer_all, readable
from zhllama.generation.parse_replies import Unreadable, read_instances, read_list, read_yes, without_thought
from zhllama.generation.task_pool import TaskOrigin, TaskPool, origins
from zhllama.generation.tasks import Task
from zhllama.llm.journal import JournalRecord, Request
from zhllama.llm.prompts import Prompts


@dataclass
class SelfInstruct:
    """The paper's steps: instructions from six human shots and two made ones; whether each is a classification task; then
    its instances, the label first for a classification, else the input first. The kept join the pool of made shots."""

    shelf: TaskPool
    prompts: Prompts
    seed: int
    sampling: Sampling = field(default_factory=dict)
    human: int = 6
    made: int = 2
    count: int = 16
    _pending: dict[str, TaskOrigin] = field(
        default_factory=dict, init=False
    )  # instruction -> where it came from
    _classified: dict[str, bool] = field(default_factory=dict, init=False)
    _pool: dict[str, TaskOrigin] = field(
        default_factory=dict, init=False
    )  # kept instructions: the made shots

    def __post_init__(self) -> None:
        # An instruction costs two more calls: a round of ROUND / 8 makes two of about ROUND.
        self._pace = Pace(self.count - self.human - self.made, ROUND // 8)

    def prompts_used(self) -> Sequence[str]:
        return ("instructions", "classify", "instances_input_first", "instances_output_first")

    def requests(self, round: int) -> list[Request]:
        if unsorted := [i for i in self._pending if i not in self._classified]:
            return [self._classify(round, index, i) for index, i in enumerate(unsorted)]
        if self._classified:
            return [
                self._instances(round, index, i, c) for index, (i, c) in enumerate(self._classified.items())
            ]
        self._pool = {k.task.instruction: k.origin for k in self.shelf.kept}
        return [self._instructions(round, index) for index in range(self._pace.next(self.shelf))]

    def _instructions(self, round: int, index: int) -> Request:
        chance = draw_seeds(self.seed, round, index)
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

    def fold(self, record: JournalRecord) -> None:
        origin = next(origins(record))
        if record.kind == "instructions":
            self._pace.calls += 1
            self._take_instructions(record, origin)
        elif (instruction := record.about["instruction"]) not in self._pending:
            # By other filters than it was asked under, the instruction is already put aside.
            return
        elif record.kind == "classify":
            # A refusal or a reply that says neither leaves the commoner kind.
            self._classified[instruction] = read_yes(_said(record)) or False
        else:
            self._take_instances(record, origin, instruction)

    def _take_instructions(self, record: JournalRecord, origin: TaskOrigin) -> None:
        if (text := readable(record, self.shelf, origin)) is None:
            return
        items = read_list(text, opened=self.prompts.api == "completion")
        if not items:
            self.shelf.turn_away(Unreadable(text, ""), origin, "format", "no numbered list in the reply")
        cut = record.reply.finish == "length" and "cut off" not in self.shelf.rules.without
        for number, (item, place) in enumerate(zip(items, origins(record), strict=False), 1):
            if cut and number == len(items):
                self.shelf.turn_away(Task(item), place, "cut off", "finish_reason is length")
            elif (instruction := self.shelf.offer_instruction(item, place)) is not None:
                self._pending[instruction] = place

    def _take_instances(self, record: JournalRecord, origin: TaskOrigin, instruction: str) -> None:
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


def _said(record: JournalRecord) -> str:
    text = without_thought(record.reply.text or "")
    return text if isinstance(text, str) else ""
