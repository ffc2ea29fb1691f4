"""Self-Instruct (Wang et al., 2022): instructions, then their classification, then their instances."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from zhllama.generation.methods import ROUND, RoundSizer, offer_parsed, request_random, text_or_reject
from zhllama.generation.parse_replies import (
    Unreadable,
    parse_instances,
    parse_list,
    parse_yes_no,
    strip_thinking,
)
from zhllama.generation.task_pool import TaskOrigin, TaskPool, origins
from zhllama.generation.tasks import Task
from zhllama.llm.journal import JournalRecord
from zhllama.llm.prompts import Prompts
from zhllama.llm.requests import Request, Sampling


@dataclass
class SelfInstruct:
    """The three steps of the paper.

    1. New instructions, from six seed tasks and two accepted instructions as shots.
    2. Is each instruction a classification task?
    3. Its instances: label first for classification tasks, otherwise input first.
    """

    pool: TaskPool
    prompts: Prompts
    seed: int
    sampling: Sampling = field(default_factory=dict)
    seed_shots: int = 6
    generated_shots: int = 2
    count: int = 16
    # Instructions without instances, and of those the classified ones.
    _pending: dict[str, TaskOrigin] = field(default_factory=dict, init=False)
    _classified: dict[str, bool] = field(default_factory=dict, init=False)
    # Accepted instructions at the start of the round, from which the generated shots are drawn.
    _accepted_instructions: dict[str, TaskOrigin] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        # Each instruction needs two more requests: a round of ROUND / 8 leads to two rounds of about ROUND.
        shots = self.seed_shots + self.generated_shots
        self._round_sizer = RoundSizer(self.count - shots, ROUND // 8)

    def prompts_used(self) -> Sequence[str]:
        return ("instructions", "classify", "instances_input_first", "instances_output_first")

    def requests(self, round: int) -> list[Request]:
        if unclassified := [text for text in self._pending if text not in self._classified]:
            return [self._classify_request(round, index, text) for index, text in enumerate(unclassified)]
        if self._classified:
            return [
                self._instances_request(round, index, instruction, is_classification)
                for index, (instruction, is_classification) in enumerate(self._classified.items())
            ]
        self._accepted_instructions = {row.task.instruction: row.origin for row in self.pool.accepted}
        count = self._round_sizer.next(self.pool)
        return [self._instructions_request(round, index) for index in range(count)]

    def _instructions_request(self, round: int, index: int) -> Request:
        random = request_random(self.seed, round, index)
        seeds = random.sample(self.pool.seeds, min(self.seed_shots, len(self.pool.seeds)))
        accepted = list(self._accepted_instructions.items())
        generated = random.sample(accepted, min(self.generated_shots, len(accepted)))
        shots = [(seed.task, seed.id) for seed in seeds]
        shots += [(Task(instruction), f"kept {origin.id}") for instruction, origin in generated]
        random.shuffle(shots)
        about = {"shots": [id for _, id in shots]}
        prompt = self.prompts.render("instructions", shots=[task for task, _ in shots], count=self.count)
        sampling = {
            "temperature": 0.7,
            "top_p": 0.5,
            "presence_penalty": 2.0,
            "max_tokens": 1024,
            **self.sampling,
        }
        return Request(round, index, "instructions", prompt, about, sampling)

    def _classify_request(self, round: int, index: int, instruction: str) -> Request:
        prompt = self.prompts.render("classify", instruction=instruction)
        about = {"instruction": instruction, "instruction_from": self._pending[instruction].id}
        return Request(round, index, "classify", prompt, about, {"temperature": 0.0, "max_tokens": 8})

    def _instances_request(
        self, round: int, index: int, instruction: str, is_classification: bool
    ) -> Request:
        name = "instances_output_first" if is_classification else "instances_input_first"
        prompt = self.prompts.render(name, instruction=instruction)
        origin = self._pending[instruction]
        about = {
            "instruction": instruction,
            "instruction_from": origin.id,
            "is_classification": is_classification,
            "shots": list(origin.about["shots"]),
        }
        # The paper's 300 and 350 tokens are for short English answers; Chinese answers need more.
        sampling = {"temperature": 0.0, "presence_penalty": 1.5, "max_tokens": 1024, **self.sampling}
        return Request(round, index, "instances", prompt, about, sampling)

    def accept(self, record: JournalRecord) -> None:
        origin = next(origins(record))
        if record.kind == "instructions":
            self._round_sizer.requests += 1
            self._accept_instructions(record, origin)
        elif (instruction := record.about["instruction"]) not in self._pending:
            return  # refilter with stricter filters has already rejected the instruction
        elif record.kind == "classify":
            # A refusal or a reply without yes or no counts as the more frequent kind.
            text = strip_thinking(record.reply.text or "")
            self._classified[instruction] = isinstance(text, str) and parse_yes_no(text) is True
        else:
            self._accept_instances(record, origin, instruction)

    def _accept_instructions(self, record: JournalRecord, origin: TaskOrigin) -> None:
        if (text := text_or_reject(record, self.pool, origin)) is None:
            return
        items = parse_list(text, label_in_prompt=self.prompts.api == "completion")
        if not items:
            self.pool.reject(Unreadable(text, ""), origin, "format", "no numbered list in the reply")
        cut_off = record.reply.finish == "length" and "cut off" not in self.pool.options.without
        for number, (item, item_origin) in enumerate(zip(items, origins(record), strict=False), 1):
            if cut_off and number == len(items):
                candidate: Task | Unreadable = Task(item) if isinstance(item, str) else item
                self.pool.reject(candidate, item_origin, "cut off", "finish_reason is length")
            elif isinstance(item, Unreadable):
                self.pool.reject(item, item_origin, "format", item.reason)
            elif (instruction := self.pool.offer_instruction(item, item_origin)) is not None:
                self._pending[instruction] = item_origin

    def _accept_instances(self, record: JournalRecord, origin: TaskOrigin, instruction: str) -> None:
        del self._pending[instruction]
        self._classified.pop(instruction, None)
        if (text := text_or_reject(record, self.pool, origin)) is None:
            return
        label_first = bool(record.about["is_classification"])
        items = parse_instances(instruction, text, label_first, self.prompts.api == "completion")
        outputs: dict[str, set[str]] = {}
        for item in items:
            if isinstance(item, Task):
                outputs.setdefault(item.input, set()).add(item.output)
        if any(len(distinct) > 1 for distinct in outputs.values()):
            # It is unknown which output is right: as in the paper, all instances are rejected.
            for item, item_origin in zip(items, origins(record), strict=False):
                self.pool.reject(item, item_origin, "same input, other output", "within one reply")
        else:
            cut_off = record.reply.finish == "length"
            offer_parsed(self.pool, items, origins(record), cut_off, new=False)

    def expected_calls(self) -> int | None:
        # Each instruction is classified, then gets instances.
        instructions = len(self._pending) + len(self.pool.accepted)
        if not instructions:
            return None
        return 2 * self.pool.wanted + -(-self.pool.wanted * self._round_sizer.requests // instructions)

    def finish(self) -> None:
        for instruction, origin in self._pending.items():
            self.pool.reject(Task(instruction), origin, "never worked out", "no reply in the journal")
        self._pending.clear()

    def products(self) -> dict[str, list[dict[str, Any]]]:
        return {}
