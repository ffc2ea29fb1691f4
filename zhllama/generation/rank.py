"""Answers existing tasks several times and ranks the answers: comparison data for reward models and DPO."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from zhllama.generation.broken_characters import broken_characters
from zhllama.generation.methods import ROUND
from zhllama.generation.parse_replies import parse_ranking
from zhllama.generation.rewrite import ANSWER_SAMPLING
from zhllama.generation.task_pool import TaskOrigin, TaskPool, origins
from zhllama.generation.tasks import SeedTask, Task
from zhllama.llm.journal import JournalRecord
from zhllama.llm.prompts import Prompts
from zhllama.llm.requests import Request, Sampling


@dataclass
class _RankedTask:
    """A task, its distinct answers, and their ranks in both orders of presentation."""

    task: Task
    answers: dict[int, str] = field(default_factory=dict)
    rankings: list[dict[int, int] | None] = field(default_factory=list)  # answer -> rank; None if unreadable
    replies: int = 0  # to the requests for answers, including refusals


@dataclass
class Rank:
    """Requests `answers` answers per input task and has the model rank them in both orders of presentation.

    The pairs on which both orders agree are comparison data. The best answer of each task is offered to the pool.
    """

    pool: TaskPool
    prompts: Prompts
    input_tasks: Sequence[SeedTask]
    sampling: Sampling = field(default_factory=dict)
    answers: int = 4
    _next: int = field(default=0, init=False)  # index of the first input task without a request
    _pending: dict[str, _RankedTask] = field(default_factory=dict, init=False)
    _comparisons: list[dict[str, Any]] = field(default_factory=list, init=False)

    def prompts_used(self) -> Sequence[str]:
        return ("answer", "rank")

    def requests(self, round: int) -> list[Request]:
        if self._pending:
            return [
                self._ranking_request(round, 2 * number + order, id, ranked, order)
                for number, (id, ranked) in enumerate(self._pending.items())
                for order in (0, 1)
            ]
        chunk = self.input_tasks[self._next : self._next + max(1, ROUND // self.answers)]
        self._next += len(chunk)
        return [
            self._answer_request(round, number * self.answers + answer, task, answer)
            for number, task in enumerate(chunk)
            for answer in range(self.answers)
        ]

    def _answer_request(self, round: int, index: int, input_task: SeedTask, answer: int) -> Request:
        about = {
            "id": input_task.id,
            "instruction": input_task.task.instruction,
            "input": input_task.task.input,
            "answer": answer,
            "of": self.answers,
        }
        prompt = self.prompts.render("answer", task=input_task.task)
        sampling = {**ANSWER_SAMPLING, "temperature": 1.0, **self.sampling}
        return Request(round, index, "answer", prompt, about, sampling)

    def _ranking_request(self, round: int, index: int, id: str, ranked: _RankedTask, order: int) -> Request:
        shown = sorted(ranked.answers, reverse=order == 1)
        prompt = self.prompts.render("rank", task=ranked.task, answers=[ranked.answers[n] for n in shown])
        about = {"id": id, "shown": shown}
        return Request(round, index, "rank", prompt, about, {"temperature": 0.0, "max_tokens": 64})

    def accept(self, record: JournalRecord) -> None:
        origin = next(origins(record))
        if record.kind == "answer":
            self._accept_answer(record, origin)
        elif record.about["id"] in self._pending:
            self._accept_ranking(record, origin)

    def _accept_answer(self, record: JournalRecord, origin: TaskOrigin) -> None:
        about = record.about
        empty = _RankedTask(Task(about["instruction"], about["input"]))
        ranked = self._pending.setdefault(about["id"], empty)
        ranked.replies += 1
        text = record.reply.text if record.reply.finish != "length" else None
        text = (text or "").strip()
        is_broken = "broken characters" not in self.pool.options.without and broken_characters(
            text, about=about["instruction"]
        )
        if text and not is_broken and text not in ranked.answers.values():
            ranked.answers[about["answer"]] = text
        if ranked.replies == about["of"] and len(ranked.answers) < 2:
            detail = f"{len(ranked.answers)} distinct answers of {about['of']}"
            self.pool.reject(ranked.task, origin, "too few answers", detail)
            del self._pending[about["id"]]

    def _accept_ranking(self, record: JournalRecord, origin: TaskOrigin) -> None:
        id, shown = record.about["id"], record.about["shown"]
        ranked = self._pending[id]
        ranks = parse_ranking(record.reply.text or "", len(shown))
        ranked.rankings.append(None if ranks is None else dict(zip(shown, ranks, strict=True)))
        if len(ranked.rankings) == 2:
            del self._pending[id]
            self._compare(ranked, origin)

    def _compare(self, ranked: _RankedTask, origin: TaskOrigin) -> None:
        """Offer the best answer and store the pairs on which both rankings agree."""
        first, second = ranked.rankings
        if first is None or second is None:
            self.pool.reject(ranked.task, origin, "format", "no ranking in the reply")
            return
        pairs = [(a, b) for a in first for b in first if first[a] < first[b] and second[a] < second[b]]
        if not pairs:
            self.pool.reject(ranked.task, origin, "orders disagree", f"{first} and {second}")
            return
        mean_rank = {answer: (first[answer] + second[answer]) / 2 for answer in first}
        best_first = sorted(mean_rank, key=lambda answer: (mean_rank[answer], answer))
        best = replace(ranked.task, output=ranked.answers[best_first[0]])
        if not self.pool.offer(best, origin, new=False):
            return
        task, worst_rank = ranked.task, max(mean_rank.values())
        self._comparisons.append(
            {
                "id": origin.about["id"],
                "user_input": f"{task.instruction}\n{task.input}".strip(),
                "instruction": task.instruction,
                "input": task.input,
                "responses_and_scores": [
                    {"response": ranked.answers[answer], "score": worst_rank - mean_rank[answer]}
                    for answer in best_first
                ],
                "pairs": [{"chosen": ranked.answers[a], "rejected": ranked.answers[b]} for a, b in pairs],
            }
        )

    def expected_calls(self) -> int:
        return len(self.input_tasks) * (self.answers + 2)

    def finish(self) -> None:
        for ranked in self._pending.values():
            origin = TaskOrigin(-1, 0, 0)
            self.pool.reject(ranked.task, origin, "never worked out", "no ranking in the journal")
        self._pending.clear()

    def products(self) -> dict[str, list[dict[str, Any]]]:
        return {"comparisons.json": self._comparisons}
