"""LLM as a judge: pairwise comparison in both orders, or a score for each answer."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

from zhllama.errors import OptionError
from zhllama.evaluation.questions import Answers, Question
from zhllama.evaluation.read_verdict import Choice, read_choice, read_score
from zhllama.evaluation.win_rates import ContestantScores, Duel, Outcome, duel_from_scores
from zhllama.llm.journal import JournalRecord
from zhllama.llm.prompts import Prompts
from zhllama.llm.requests import Request, Sampling

ROUND = 1024  # requests; at a concurrency of 32, few calls are idle at the end of a round
References = Literal["exact", "all", "none"]
# Substrings of categories whose questions have one correct answer; MT-Bench shows the judge references in these.
EXACT_CATEGORIES = (
    "数学",
    "计算",
    "算术",
    "编程",
    "代码",
    "程序",
    "推理",
    "逻辑",
    "math",
    "cod",
    "program",
    "reason",
)
Pair = tuple[str, str]  # names, left and right


def reference_for(question: Question, references: References) -> str:
    """The reference answer that the judge sees; empty if it sees none."""
    exact = any(part in question.category.lower() for part in EXACT_CATEGORIES)
    return question.reference if references == "all" or (references == "exact" and exact) else ""


def pairs_of(names: Sequence[str], baseline: str | None) -> list[Pair]:
    """Every contestant against the baseline, or every pair. Errors: OptionError for an unknown baseline."""
    if baseline is None:
        return list(combinations(names, 2))
    if baseline not in names:
        raise OptionError(
            f"baseline {baseline}", "is not a contestant", f"Choose from: {', '.join(sorted(names))}"
        )
    return [(name, baseline) for name in names if name != baseline]


@dataclass(frozen=True)
class _Judgment:
    """The judge's reply to one request."""

    verdict: Choice | float | None  # None if unreadable or refused
    text: str  # of the reply, or the reason of the refusal
    refused: bool = False


def _read_judgment(record: JournalRecord) -> _Judgment:
    if record.reply.text is None:
        return _Judgment(None, record.reply.refusal, refused=True)
    text, complete = record.reply.text, record.reply.finish != "length"
    verdict = read_choice(text, complete) if record.kind == "judge" else read_score(text, complete)
    return _Judgment(verdict, text.strip())


@dataclass
class _JudgingPlan:
    """What both modes share: a fixed list of requests, whose prompts are rendered round by round."""

    prompts: Prompts
    questions: Sequence[Question]
    contestants: Sequence[Answers]
    sampling: Sampling
    references: References = "exact"
    pairs: Sequence[Pair] = ()
    watch: Callable[[], object] = lambda: None  # called after each verdict
    total: int = field(default=0, init=False)  # requests
    # By question id and the names of the contestants, in the order of presentation.
    _judgments: dict[tuple[str, ...], _Judgment] = field(default_factory=dict, init=False)

    def expected_calls(self) -> int:
        return self.total

    def accept(self, record: JournalRecord) -> None:
        self._judgments[record.about["id"], *record.about["shown"]] = _read_judgment(record)
        self.watch()

    def _request(
        self, round: int, index: int, kind: str, question: Question, shown: Sequence[str], **answers: str
    ) -> Request:
        reference = reference_for(question, self.references)
        prompt = self.prompts.render(kind, task=question.task, reference=reference, **answers)
        sampling = {"temperature": 0.0, "max_tokens": 1024, **self.sampling}
        if self.prompts.api == "completion":
            sampling["stop"] = ["【问题】"]  # a base model would continue with its own next question
        return Request(round, index, kind, prompt, {"id": question.id, "shown": list(shown)}, sampling)

    @property
    def _texts(self) -> dict[str, Mapping[str, str]]:
        return {contestant.name: contestant.texts for contestant in self.contestants}

    @property
    def _categories(self) -> dict[str, str]:
        return {question.id: question.category for question in self.questions}


@dataclass
class Pairwise(_JudgingPlan):
    """Two answers side by side, in both orders.

    An answer wins if both orders prefer it; otherwise the result is a tie. Identical answers tie without a request.
    """

    def __post_init__(self) -> None:
        texts = self._texts
        self._plan = [
            (pair, question, order)
            for pair in self.pairs
            for question in self.questions
            if question.id in texts[pair[0]] and question.id in texts[pair[1]]
            if texts[pair[0]][question.id] != texts[pair[1]][question.id]
            for order in (0, 1)
        ]
        self.total = len(self._plan)

    def requests(self, round: int) -> list[Request]:
        texts, requests = self._texts, []
        for index, (pair, question, order) in enumerate(self._plan[round * ROUND : (round + 1) * ROUND]):
            first, second = pair if order == 0 else pair[::-1]
            answers = {"first": texts[first][question.id], "second": texts[second][question.id]}
            requests.append(self._request(round, index, "judge", question, (first, second), **answers))
        return requests

    def scores(self) -> list[ContestantScores]:
        return []

    def duels(self) -> list[Duel]:
        return [self._duel(pair) for pair in self.pairs]

    def _duel(self, pair: Pair) -> Duel:
        outcomes: dict[str, Outcome] = {}
        missing: Counter[str] = Counter()
        unreadable = disagreements = for_first = 0
        for question in self.questions:
            result = self._result(question.id, pair)
            if result in ("win", "tie", "loss"):
                outcomes[question.id] = result  # type: ignore[assignment]
            elif result == "unreadable":
                unreadable += 1
            else:
                missing[result] += 1
            forward, reverse = self._both_orders(question.id, pair)
            if result == "tie" and forward and reverse and forward.verdict != _swapped(reverse.verdict):
                disagreements += 1
                for_first += forward.verdict == reverse.verdict == "first"
        return Duel(*pair, outcomes, self._categories, unreadable, missing, disagreements, for_first)

    def _both_orders(self, id: str, pair: Pair) -> tuple[_Judgment | None, _Judgment | None]:
        return self._judgments.get((id, *pair)), self._judgments.get((id, *pair[::-1]))

    def _result(self, id: str, pair: Pair) -> str:
        """An outcome, "unreadable", or the reason of a missing verdict."""
        left, right = (self._texts[name].get(id) for name in pair)
        if left is None or right is None:
            return "no answer"
        if left == right:
            return "tie"
        forward, reverse = self._both_orders(id, pair)
        if forward is None or reverse is None:
            return "not asked"
        if forward.refused or reverse.refused:
            return "no reply"
        if forward.verdict is None or reverse.verdict is None:
            return "unreadable"
        if forward.verdict == _swapped(reverse.verdict):
            return {"first": "win", "second": "loss", "tie": "tie"}[str(forward.verdict)]
        return "tie"

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "id": question.id,
                "left": pair[0],
                "right": pair[1],
                "result": self._result(question.id, pair),
                "orders": [
                    {"shown": list(shown), "verdict": judgment.verdict, "said": judgment.text}
                    for shown in (pair, pair[::-1])
                    if (judgment := self._judgments.get((question.id, *shown)))
                ],
            }
            for pair in self.pairs
            for question in self.questions
        ]


def _swapped(verdict: Choice | float | None) -> Choice | float | None:
    """The verdict for the opposite order of presentation."""
    return "second" if verdict == "first" else "first" if verdict == "second" else verdict


@dataclass
class Scoring(_JudgingPlan):
    """Each answer scored from 1 to 10; contestants are compared by their scores, question by question."""

    def __post_init__(self) -> None:
        self._plan = [
            (contestant, question)
            for contestant in self.contestants
            for question in self.questions
            if question.id in contestant.texts
        ]
        self.total = len(self._plan)

    def requests(self, round: int) -> list[Request]:
        requests = []
        for index, (contestant, question) in enumerate(self._plan[round * ROUND : (round + 1) * ROUND]):
            answer = contestant.texts[question.id]
            requests.append(
                self._request(round, index, "judge_score", question, (contestant.name,), answer=answer)
            )
        return requests

    def scores(self) -> list[ContestantScores]:
        return [self._contestant_scores(contestant) for contestant in self.contestants]

    def duels(self) -> list[Duel]:
        scores = {contestant.name: contestant for contestant in self.scores()}
        return [duel_from_scores(scores[left], scores[right]) for left, right in self.pairs]

    def _contestant_scores(self, contestant: Answers) -> ContestantScores:
        values: dict[str, float] = {}
        missing: Counter[str] = Counter()
        unreadable = 0
        for question in self.questions:
            judgment = self._judgments.get((question.id, contestant.name))
            if question.id not in contestant.texts:
                missing["no answer"] += 1
            elif judgment is None:
                missing["not asked"] += 1
            elif judgment.refused:
                missing["no reply"] += 1
            elif not isinstance(judgment.verdict, float):
                unreadable += 1
            else:
                values[question.id] = judgment.verdict
        return ContestantScores(contestant.name, values, self._categories, unreadable, missing)

    def rows(self) -> list[dict[str, Any]]:
        return [
            {"id": question.id, "of": contestant.name, "score": judgment.verdict, "said": judgment.text}
            for contestant in self.contestants
            for question in self.questions
            if (judgment := self._judgments.get((question.id, contestant.name)))
        ]


Judging = Pairwise | Scoring
