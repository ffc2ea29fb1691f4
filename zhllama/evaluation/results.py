"""The results of a judging run, from which JSON, terminal output and the HTML page are made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zhllama.evaluation.questions import Answers, Question
from zhllama.evaluation.reference_metrics import Agreement
from zhllama.evaluation.win_rates import ContestantScores, Duel, standings

INTERVALS = (
    "win rates: Wilson's score interval over questions, a tie counting half; means: percentile bootstrap "
    "over questions, 2,000 samples; both 95 %"
)


@dataclass(frozen=True)
class Results:
    """All results of a judging run; `judge` is the judge's model name or empty, `rows` are its single verdicts."""

    questions: Sequence[Question]
    contestants: Sequence[Answers]
    judge: str = ""
    duels: Sequence[Duel] = ()
    scores: Sequence[ContestantScores] = ()
    rewards: Sequence[ContestantScores] = ()
    reward_duels: Sequence[Duel] = ()  # who has the higher reward, per question
    agreements: Sequence[Agreement] = ()
    rows: Sequence[Mapping[str, Any]] = ()

    def figures(self) -> dict[str, Any]:
        """The JSON of results.json."""
        return {
            "questions": len(self.questions),
            "contestants": {contestant.name: len(contestant.texts) for contestant in self.contestants},
            "judge": self.judge,
            "intervals": INTERVALS,
            "standings": {name: round(rate, 4) for name, rate in standings(self.duels).items()},
            "duels": [duel.figures() for duel in self.duels],
            "scores": [scores.figures() for scores in self.scores],
            "rewards": [rewards.figures() for rewards in self.rewards],
            "reward_duels": [duel.figures() for duel in self.reward_duels],
            "references": [agreement.figures() for agreement in self.agreements],
        }
