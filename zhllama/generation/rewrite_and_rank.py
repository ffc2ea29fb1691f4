"""The ways from given tasks: translated or evolved, then answered; or answered several times and ranked."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from zhllama.generation.filters import reason_against
from zhllama.generation.methods import ROUND, Sampling, draw_seeds, readable
from zhllama.generation.parse_replies import Unreadable, read_question, read_ranking
from zhllama.generation.task_pool import TaskOrigin, TaskPool, origins
from zhllama.generation.tasks import SeedTask, Task
from zhllama.llm.journal import JournalRecord, Request
from zhllama.llm.prompts import Prompts

# Evolution in depth after WizardLM's five ways, in words of our own.
DEEPER = (
    "加上一个具体的限制条件",
    "把笼统的概念换成更具体的情形",
    "要求说明理由或者写出推理过程",
    "让问题牵涉到两件互相影响的事",
    "换用更复杂的材料，例如表格、对话或者一段代码",
)
ANSWER = {"temperature": 0.7, "max_tokens": 2048}


@dataclass
class Rewrite:
    """Each given task is translated (GPT-4-LLM's way) or evolved (deepened or widened), and the result answered; the id of
    a translation stays that of its original through both steps."""

    shelf: TaskPool
    prompts: Prompts
    seed: int
    given: Sequence[SeedTask]
    way: Literal["translate", "evolve"]
    sampling: Sampling = field(default_factory=dict)
    _next: int = field(default=0, init=False)
    _pending: dict[str, tuple[Task, TaskOrigin]] = field(
        default_factory=dict, init=False
    )  # id -> what is to be answered

    def prompts_used(self) -> Sequence[str]:
        return ("translate", "answer") if self.way == "translate" else ("deepen", "widen", "answer")

    def requests(self, round: int) -> list[Request]:
        if self._pending:
            return [self._answer(round, index, name) for index, name in enumerate(self._pending)]
        chunk = self.given[self._next : self._next + ROUND]
        self._next += len(chunk)
        return [self._rewrite(round, index, given) for index, given in enumerate(chunk)]

    def _rewrite(self, round: int, index: int, given: SeedTask) -> Request:
        about = {"id": given.id, "way": "translate"}
        sampling = {
            "temperature": 0.0 if self.way == "translate" else 1.0,
            "max_tokens": 1024,
            **self.sampling,
        }
        if self.way == "translate":
            return Request(
                round, index, "rewrite", self.prompts.render("translate", task=given.task), about, sampling
            )
        chance = draw_seeds(self.seed, round, index)
        about = {"id": f"{given.id}+", "of": given.id}
        # As often wider as any one way deeper.
        if (way := chance.choice((*DEEPER, None))) is None:
            prompt = self.prompts.render("widen", task=given.task)
            return Request(round, index, "rewrite", prompt, {**about, "way": "widen"}, sampling)
        prompt = self.prompts.render("deepen", task=given.task, way=way)
        return Request(round, index, "rewrite", prompt, {**about, "way": way}, sampling)

    def _answer(self, round: int, index: int, name: str) -> Request:
        task, origin = self._pending[name]
        about = {**origin.about, "instruction": task.instruction, "input": task.input}
        prompt = self.prompts.render("answer", task=task)
        return Request(round, index, "answer", prompt, about, {**ANSWER, **self.sampling})

    def fold(self, record: JournalRecord) -> None:
        origin = next(origins(record))
        if record.kind == "rewrite":
            self._take_question(record, origin)
        elif record.about["id"] in self._pending:
            task, _ = self._pending.pop(record.about["id"])
            if (text := readable(record, self.shelf, origin)) is None:
                return
            task = replace(task, output=text)
            if record.reply.finish == "length" and "cut off" not in self.shelf.rules.without:
                self.shelf.turn_away(task, origin, "cut off", "finish_reason is length")
            elif not text:
                self.shelf.turn_away(task, origin, "format", "no output")
            else:
                self.shelf.offer(task, origin, new=self.way == "evolve")

    def _take_question(self, record: JournalRecord, origin: TaskOrigin) -> None:
        if (text := readable(record, self.shelf, origin)) is None:
            return
        question = read_question(text, opened=self.prompts.api == "completion")
        if isinstance(question, Unreadable):
            self.shelf.turn_away(question, origin, "format", question.why)
            return
        question, _ = self.shelf.prepared(question)
        rules = replace(self.shelf.rules, min_output=0)
        if reason := reason_against(question, rules):
            self.shelf.turn_away(question, origin, *reason)
        else:
            self._pending[record.about["id"]] = question, origin

    def finish(self) -> None:
        for task, origin in self._pending.values():
            self.shelf.turn_away(task, origin, "never worked out", "no reply in the journal")
        self._pending.clear()

    def products(self) -> dict[str, list[dict[str, Any]]]:
        return {}


@dataclass
class _Contest:
    """One task with its answers, and their ranks as they were shown and in reverse."""

    task: Task
    answers: dict[int, str] = field(default_factory=dict)
    ranks: list[dict[int, int] | None] = field(default_factory=list)
    heard: int = 0


@dataclass
class Rank:
    """K answers to each given task, ranked in both orders: what both orders agree on is comparison data.

    The best answer of each is kept as a task of its own.
    """

    shelf: TaskPool
    prompts: Prompts
    given: Sequence[SeedTask]
    sampling: Sampling = field(default_factory=dict)
    answers: int = 4
    _next: int = field(default=0, init=False)
    _open: dict[str, _Contest] = field(default_factory=dict, init=False)
    _comparisons: list[dict[str, Any]] = field(default_factory=list, init=False)

    def prompts_used(self) -> Sequence[str]:
        return ("answer", "rank")

    def requests(self, round: int) -> list[Request]:
        if self._open:
            return [
                self._ranking(round, 2 * n + order, name, contest, order)
                for n, (name, contest) in enumerate(self._open.items())
                for order in (0, 1)
            ]
        chunk = self.given[self._next : self._next + max(1, ROUND // self.answers)]
        self._next += len(chunk)
        return [
            self._answer(round, n * self.answers + k, given, k)
            for n, given in enumerate(chunk)
            for k in range(self.answers)
        ]

    def _answer(self, round: int, index: int, given: SeedTask, number: int) -> Request:
        about = {
            "id": given.id,
            "instruction": given.task.instruction,
            "input": given.task.input,
            "answer": number,
            "of": self.answers,
        }
        sampling = {**ANSWER, "temperature": 1.0, **self.sampling}
        return Request(
            round, index, "answer", self.prompts.render("answer", task=given.task), about, sampling
        )

    def _ranking(self, round: int, index: int, name: str, contest: _Contest, order: int) -> Request:
        shown = sorted(contest.answers, reverse=order == 1)
        prompt = self.prompts.render("rank", task=contest.task, answers=[contest.answers[n] for n in shown])
        about = {"id": name, "shown": shown}
        return Request(round, index, "rank", prompt, about, {"temperature": 0.0, "max_tokens": 64})

    def fold(self, record: JournalRecord) -> None:
        about, name = record.about, record.about["id"]
        origin = next(origins(record))
        if record.kind == "answer":
            contest = self._open.setdefault(name, _Contest(Task(about["instruction"], about["input"])))
            contest.heard += 1
            text = record.reply.text if record.reply.finish != "length" else None
            if text and text.strip() and text.strip() not in contest.answers.values():
                contest.answers[about["answer"]] = text.strip()
            if contest.heard == about["of"] and len(contest.answers) < 2:
                self.shelf.turn_away(
                    contest.task,
                    origin,
                    "too few answers",
                    f"{len(contest.answers)} unlike ones of {about['of']}",
                )
                del self._open[name]
        elif name in self._open:
            contest = self._open[name]
            found = read_ranking(record.reply.text or "", len(about["shown"]))
            contest.ranks.append(None if found is None else dict(zip(about["shown"], found, strict=True)))
            if len(contest.ranks) == 2:
                del self._open[name]
                self._compare(contest, origin)

    def _compare(self, contest: _Contest, origin: TaskOrigin) -> None:
        one, other = contest.ranks
        if one is None or other is None:
            self.shelf.turn_away(contest.task, origin, "format", "no ranking in the reply")
            return
        agreed = [(a, b) for a in one for b in one if one[a] < one[b] and other[a] < other[b]]
        if not agreed:
            self.shelf.turn_away(contest.task, origin, "orders disagree", f"{one} and {other}")
            return
        mean = {n: (one[n] + other[n]) / 2 for n in one}
        best = min(mean, key=lambda n: (mean[n], n))
        if not self.shelf.offer(replace(contest.task, output=contest.answers[best]), origin, new=False):
            return
        task, highest = contest.task, max(mean.values())
        self._comparisons.append(
            {
                "id": origin.about["id"],
                "user_input": f"{task.instruction}\n{task.input}".strip(),
                "instruction": task.instruction,
                "input": task.input,
                "responses_and_scores": [
                    {"response": contest.answers[n], "score": highest - mean[n]}
                    for n in sorted(mean, key=lambda n: (mean[n], n))
                ],
                "pairs": [{"chosen": contest.answers[a], "rejected": contest.answers[b]} for a, b in agreed],
            }
        )

    def finish(self) -> None:
        for contest in self._open.values():
            origin = TaskOrigin(-1, 0, 0)
            self.shelf.turn_away(contest.task, origin, "never worked out", "no ranking in the journal")
        self._open.clear()

    def products(self) -> dict[str, list[dict[str, Any]]]:
        return {"comparisons.json": self._comparisons}
