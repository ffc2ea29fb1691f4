"""Stanford Alpaca's method: one request generates several complete tasks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from zhllama.generation.methods import ROUND, RoundSizer, offer_parsed, request_random, text_or_reject
from zhllama.generation.parse_replies import parse_tasks
from zhllama.generation.task_pool import TaskPool, origins
from zhllama.llm.journal import JournalRecord
from zhllama.llm.prompts import Prompts
from zhllama.llm.requests import Request, Sampling


@dataclass
class Alpaca:
    """Shows `shots` seed tasks in each prompt and asks the model to continue the list up to `count` tasks.

    With `structured`, the server is asked for JSON that follows TASKS_SCHEMA.
    """

    pool: TaskPool
    prompts: Prompts
    seed: int
    sampling: Sampling = field(default_factory=dict)
    structured: bool = False
    shots: int = 3
    count: int = 20

    def __post_init__(self) -> None:
        self._round_sizer = RoundSizer(self.count - self.shots, ROUND)

    def prompts_used(self) -> Sequence[str]:
        return ("tasks",)

    def requests(self, round: int) -> list[Request]:
        return [self._request(round, index) for index in range(self._round_sizer.next(self.pool))]

    def _request(self, round: int, index: int) -> Request:
        seeds = self.pool.seeds
        shots = request_random(self.seed, round, index).sample(seeds, min(self.shots, len(seeds)))
        prompt = self.prompts.render(
            "tasks", shots=[shot.task for shot in shots], count=self.count, structured=self.structured
        )
        sampling = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 3072, **self.sampling}
        if self.structured:
            sampling["response_format"] = TASKS_SCHEMA
        return Request(round, index, "tasks", prompt, {"shots": [shot.id for shot in shots]}, sampling)

    def accept(self, record: JournalRecord) -> None:
        self._round_sizer.requests += 1
        if (text := text_or_reject(record, self.pool, next(origins(record)))) is None:
            return
        label_in_prompt = self.prompts.api == "completion" and not self.structured
        tasks = parse_tasks(text, label_in_prompt)
        offer_parsed(self.pool, tasks, origins(record), cut_off=record.reply.finish == "length")

    def expected_calls(self) -> int | None:
        accepted = len(self.pool.accepted)
        return -(-self.pool.wanted * self._round_sizer.requests // accepted) if accepted else None

    def finish(self) -> None:
        pass

    def products(self) -> dict[str, list[dict[str, Any]]]:
        return {}


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
