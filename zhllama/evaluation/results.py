"""All that a judging run found, as one value: what its JSON, its screen and its page show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zhllama.evaluation.questions import Answers, Question
from zhllama.evaluation.references import Agreement
from zhllama.evaluation.scores import Duel, Marks, standings

INTERVALS = (
    "win rates: Wilson's score interval over questions, a tie counting half; means: percentile bootstrap "
    "over questions, 2,000 samples; both 95 %"
)


@dataclass(frozen=True)
class Results:
    """`by` says who judged: a model's name, or nobody; `rows` are the judge's verdicts, one by one."""

    questions: Sequence[Question]
    contestants: Sequence[Answers]
    by: str = ""
    duels: Sequence[Duel] = ()
    marks: Sequence[Marks] = ()
    rewards: Sequence[Marks] = ()
    reward_duels: Sequence[Duel] = ()  # who has the higher reward, question by question
    agreements: Sequence[Agreement] = ()
    rows: Sequence[Mapping[str, Any]] = ()

    def figures(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "questions": len(self.questions),
            "contestants": {c.name: len(c.texts) for c in self.contestants},
            "judge": self.by,
            "intervals": INTERVALS,
            "standings": {name: round(rate, 4) for name, rate in standings(self.duels).items()},
            "duels": [duel.figures() for duel in self.duels],
            "scores": [marks.figures() for marks in self.marks],
            "rewards": [marks.figures() for marks in self.rewards],
            "reward_duels": [duel.figures() for duel in self.reward_duels],
            "references": [agreement.figures() for agreement in self.agreements],
        }
