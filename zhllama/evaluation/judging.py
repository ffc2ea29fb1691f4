"""What a judging model is asked, and what its replies come to: answers side by side in both orders, or each on its own."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

from zhllama.errors import OptionError
from zhllama.evaluation.questions import Answers, Question
from zhllama.evaluation.scores import Duel, Marks, Outcome, duel_of
from zhllama.evaluation.verdict import Choice, read_choice, read_score
from zhllama.generation.methods import Sampling
from zhllama.llm.journal import JournalRecord, Request
from zhllama.llm.prompts import Prompts

ROUND = 1024  # requests; with 32 under way, the end of a round leaves few of them idle
References = Literal["exact", "all", "none"]
# Parts of the names of categories whose questions have one right answer; MT-Bench hands references to the judge in these.
EXACT = ("数学", "计算", "算术", "编程", "代码", "程序", "推理", "逻辑", "math", "cod", "program", "reason")
Pair = tuple[str, str]  # names, left and right


def reference_for(question: Question, which: References) -> str:
    """The reference that the judge sees."""
    exact = any(part in question.category.lower() for part in EXACT)
    return question.reference if which == "all" or (which == "exact" and exact) else ""


def pairs_of(names: Sequence[str], baseline: str | None) -> list[Pair]:
    """Each against the baseline, or all against all; OptionError for a baseline that is no contestant."""
    if baseline is None:
        return list(combinations(names, 2))
    if baseline not in names:
        raise OptionError(
            f"baseline {baseline}", "is no contestant", f"Name one of: {', '.join(sorted(names))}"
        )
    return [(name, baseline) for name in names if name != baseline]


@dataclass(frozen=True)
class _Heard:
    """What the judge said of one showing, or why it said nothing."""

    verdict: Choice | float | None
    said: str
    reply: bool = True


def _hear(record: JournalRecord) -> _Heard:
    if record.reply.text is None:
        return _Heard(None, record.reply.refusal, reply=False)
    text, whole = record.reply.text, record.reply.finish != "length"
    verdict = read_choice(text, whole) if record.kind == "judge" else read_score(text, whole)
    return _Heard(verdict, text.strip())


@dataclass
class _Asked:
    """The requests of a way to judge, fixed from the first; each is rendered when its round comes."""

    prompts: Prompts
    questions: Sequence[Question]
    contestants: Sequence[Answers]
    sampling: Sampling
    references: References = "exact"
    pairs: Sequence[Pair] = ()
    watch: Callable[[], object] = lambda: None  # called after each verdict
    _heard: dict[tuple[str, ...], _Heard] = field(default_factory=dict, init=False)  # id, then who was shown

    def fold(self, record: JournalRecord) -> None:
        self._heard[record.about["id"], *record.about["shown"]] = _hear(record)
        self.watch()

    def _request(self, round: int, index: int, kind: str, question: Question, about: Mapping[str, Any], **shown: str) -> Request:  # fmt: skip
        reference = reference_for(question, self.references)
        prompt = self.prompts.render(kind, task=question.task, reference=reference, **shown)
        sampling = {"temperature": 0.0, "max_tokens": 1024, **self.sampling}
        if self.prompts.api == "completion":
            sampling["stop"] = ["【问题】"]  # a base model goes on with a question of its own
        return Request(round, index, kind, prompt, {"id": question.id, **about}, sampling)

    @property
    def _texts(self) -> dict[str, Mapping[str, str]]:
        return {contestant.name: contestant.texts for contestant in self.contestants}

    @property
    def _categories(self) -> dict[str, str]:
        return {question.id: question.category for question in self.questions}


@dataclass
class Pairwise(_Asked):
    """Both answers side by side, in both orders: what both prefer wins, all else is a tie; equal answers are not asked about."""

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
        texts, made = self._texts, []
        for index, (pair, question, order) in enumerate(self._plan[round * ROUND : (round + 1) * ROUND]):
            first, second = pair if order == 0 else pair[::-1]
            shown = {"first": texts[first][question.id], "second": texts[second][question.id]}
            made.append(self._request(round, index, "judge", question, {"shown": [first, second]}, **shown))
        return made

    def marks(self) -> list[Marks]:
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
            there, back = self._showings(question.id, pair)
            if result == "tie" and there and back and there.verdict != _turned(back.verdict):
                disagreements += 1
                for_first += there.verdict == back.verdict == "first"
        return Duel(*pair, outcomes, self._categories, unreadable, missing, disagreements, for_first)

    def _showings(self, id: str, pair: Pair) -> tuple[_Heard | None, _Heard | None]:
        return self._heard.get((id, *pair)), self._heard.get((id, *pair[::-1]))

    def _result(self, id: str, pair: Pair) -> str:
        """An outcome, `unreadable`, or why there is no verdict."""
        left, right = (self._texts[name].get(id) for name in pair)
        if left is None or right is None:
            return "no answer"
        if left == right:
            return "tie"
        there, back = self._showings(id, pair)
        if there is None or back is None:
            return "not asked"
        if not (there.reply and back.reply):
            return "no reply"
        if there.verdict is None or back.verdict is None:
            return "unreadable"
        if there.verdict == _turned(back.verdict):
            return {"first": "win", "second": "loss", "tie": "tie"}[str(there.verdict)]
        return "tie"

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "id": question.id,
                "left": pair[0],
                "right": pair[1],
                "result": self._result(question.id, pair),
                "orders": [
                    {"shown": list(shown), "verdict": heard.verdict, "said": heard.said}
                    for shown in (pair, pair[::-1])
                    if (heard := self._heard.get((question.id, *shown)))
                ],
            }
            for pair in self.pairs
            for question in self.questions
        ]


def _turned(verdict: Choice | float | None) -> Choice | float | None:
    """A verdict on the two answers as if they had been shown the other way round."""
    return "second" if verdict == "first" else "first" if verdict == "second" else verdict


@dataclass
class Scoring(_Asked):
    """Each answer on its own, from 1 to 10; contestants are then compared question by question by their scores."""

    def __post_init__(self) -> None:
        self._plan = [
            (contestant, question)
            for contestant in self.contestants
            for question in self.questions
            if question.id in contestant.texts
        ]
        self.total = len(self._plan)

    def requests(self, round: int) -> list[Request]:
        made = []
        for index, (contestant, question) in enumerate(self._plan[round * ROUND : (round + 1) * ROUND]):
            shown = {"answer": contestant.texts[question.id]}
            made.append(
                self._request(round, index, "judge_score", question, {"shown": [contestant.name]}, **shown)
            )
        return made

    def marks(self) -> list[Marks]:
        return [self._marks(contestant) for contestant in self.contestants]

    def duels(self) -> list[Duel]:
        marks = {m.name: m for m in self.marks()}
        return [duel_of(marks[left], marks[right]) for left, right in self.pairs]

    def _marks(self, contestant: Answers) -> Marks:
        values: dict[str, float] = {}
        missing: Counter[str] = Counter()
        unreadable = 0
        for question in self.questions:
            heard = self._heard.get((question.id, contestant.name))
            if question.id not in contestant.texts:
                missing["no answer"] += 1
            elif heard is None:
                missing["not asked"] += 1
            elif not heard.reply:
                missing["no reply"] += 1
            elif not isinstance(heard.verdict, float):
                unreadable += 1
            else:
                values[question.id] = heard.verdict
        return Marks(contestant.name, values, self._categories, unreadable, missing)

    def rows(self) -> list[dict[str, Any]]:
        return [
            {"id": question.id, "of": contestant.name, "score": heard.verdict, "said": heard.said}
            for contestant in self.contestants
            for question in self.questions
            if (heard := self._heard.get((question.id, contestant.name)))
        ]


Judging = Pairwise | Scoring
