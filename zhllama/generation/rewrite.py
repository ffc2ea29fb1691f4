"""Translates or evolves existing tasks, then answers the rewritten ones."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from zhllama.generation.filters import rejection_reason
from zhllama.generation.methods import ROUND, request_random, text_or_reject
from zhllama.generation.parse_replies import Unreadable, parse_question
from zhllama.generation.task_pool import TaskOrigin, TaskPool, origins
from zhllama.generation.tasks import SeedTask, Task
from zhllama.llm.journal import JournalRecord
from zhllama.llm.prompts import Prompts
from zhllama.llm.requests import Request, Sampling

# In-depth evolution with five operations as in WizardLM, in our own wording.
DEEPENING_OPERATIONS = (
    "加上一个具体的限制条件",
    "把笼统的概念换成更具体的情形",
    "要求说明理由或者写出推理过程",
    "让问题牵涉到两件互相影响的事",
    "换用更复杂的材料，例如表格、对话或者一段代码",
)
ANSWER_SAMPLING = {"temperature": 0.7, "max_tokens": 2048}


@dataclass
class Rewrite:
    """Translates each input task (as GPT-4-LLM does) or evolves it in depth or breadth (WizardLM), then answers it.

    A translated task keeps the id of its original.
    """

    pool: TaskPool
    prompts: Prompts
    seed: int
    input_tasks: Sequence[SeedTask]
    mode: Literal["translate", "evolve"]
    sampling: Sampling = field(default_factory=dict)
    _next: int = field(default=0, init=False)  # index of the first input task without a request
    # Rewritten tasks without an answer, by id.
    _pending: dict[str, tuple[Task, TaskOrigin]] = field(default_factory=dict, init=False)

    def prompts_used(self) -> Sequence[str]:
        return ("translate", "answer") if self.mode == "translate" else ("deepen", "widen", "answer")

    def requests(self, round: int) -> list[Request]:
        if self._pending:
            return [self._answer_request(round, index, id) for index, id in enumerate(self._pending)]
        chunk = self.input_tasks[self._next : self._next + ROUND]
        self._next += len(chunk)
        return [self._rewrite_request(round, index, task) for index, task in enumerate(chunk)]

    def _rewrite_request(self, round: int, index: int, original: SeedTask) -> Request:
        if self.mode == "translate":
            prompt = self.prompts.render("translate", task=original.task)
            about = {"id": original.id, "way": "translate"}
            sampling = {"temperature": 0.0, "max_tokens": 1024, **self.sampling}
            return Request(round, index, "rewrite", prompt, about, sampling)
        # In breadth as often as by each single deepening operation.
        operation = request_random(self.seed, round, index).choice((*DEEPENING_OPERATIONS, None))
        if operation is None:
            prompt = self.prompts.render("widen", task=original.task)
        else:
            prompt = self.prompts.render("deepen", task=original.task, way=operation)
        about = {"id": f"{original.id}+", "of": original.id, "way": operation or "widen"}
        sampling = {"temperature": 1.0, "max_tokens": 1024, **self.sampling}
        return Request(round, index, "rewrite", prompt, about, sampling)

    def _answer_request(self, round: int, index: int, id: str) -> Request:
        task, origin = self._pending[id]
        about = {**origin.about, "instruction": task.instruction, "input": task.input}
        prompt = self.prompts.render("answer", task=task)
        return Request(round, index, "answer", prompt, about, {**ANSWER_SAMPLING, **self.sampling})

    def accept(self, record: JournalRecord) -> None:
        origin = next(origins(record))
        if record.kind == "rewrite":
            self._accept_rewritten(record, origin)
        elif record.about["id"] in self._pending:
            task, _ = self._pending.pop(record.about["id"])
            self._accept_answer(record, origin, task)

    def _accept_rewritten(self, record: JournalRecord, origin: TaskOrigin) -> None:
        if (text := text_or_reject(record, self.pool, origin)) is None:
            return
        question = parse_question(text, label_in_prompt=self.prompts.api == "completion")
        if isinstance(question, Unreadable):
            self.pool.reject(question, origin, "format", question.reason)
            return
        question, _ = self.pool.prepare(question)
        options = replace(self.pool.options, min_output=0)
        if reason := rejection_reason(question, options):
            self.pool.reject(question, origin, *reason)
        else:
            self._pending[record.about["id"]] = question, origin

    def _accept_answer(self, record: JournalRecord, origin: TaskOrigin, task: Task) -> None:
        if (text := text_or_reject(record, self.pool, origin)) is None:
            return
        task = replace(task, output=text)
        if record.reply.finish == "length" and "cut off" not in self.pool.options.without:
            self.pool.reject(task, origin, "cut off", "finish_reason is length")
        elif not text:
            self.pool.reject(task, origin, "format", "no output")
        else:
            self.pool.offer(task, origin, new=self.mode == "evolve")

    def expected_calls(self) -> int:
        return 2 * len(self.input_tasks)

    def finish(self) -> None:
        for task, origin in self._pending.values():
            self.pool.reject(task, origin, "never worked out", "no reply in the journal")
        self._pending.clear()

    def products(self) -> dict[str, list[dict[str, Any]]]:
        return {}
