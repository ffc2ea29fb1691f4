"""Agreement of reviewers: the share of equal verdicts, and Cohen's kappa, which corrects it for chance."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

Verdicts = Mapping[int, str]  # by row


@dataclass(frozen=True)
class ReviewerAgreement:
    """Two raters on the rows that both decided: `kappa` is None without such rows, or if both used one same verdict alone."""

    first: str
    second: str
    rows: int
    agreed: int
    kappa: float | None

    def figures(self) -> dict[str, Any]:
        """The JSON of agreement.json."""
        kappa = None if self.kappa is None else round(self.kappa, 4)
        return {"first": self.first, "second": self.second, "rows": self.rows, "agreed": self.agreed, "kappa": kappa}  # fmt: skip


def agreement(first: str, second: str, ours: Verdicts, theirs: Verdicts) -> ReviewerAgreement:
    """The agreement of two raters (Cohen 1960): kappa = (observed - expected) / (1 - expected)."""
    rows = ours.keys() & theirs.keys()
    total = len(rows)
    agreed = sum(ours[row] == theirs[row] for row in rows)
    counts, other = Counter(ours[row] for row in rows), Counter(theirs[row] for row in rows)
    chance = sum(counts[verdict] * other[verdict] for verdict in counts)  # times the square of `total`
    kappa = None
    if total and chance < total * total:
        kappa = (agreed * total - chance) / (total * total - chance)
    return ReviewerAgreement(first, second, total, agreed, kappa)


def agreements(verdicts: Mapping[str, Verdicts]) -> list[ReviewerAgreement]:
    """The agreement of every two raters."""
    return [agreement(a, b, verdicts[a], verdicts[b]) for a, b in combinations(verdicts, 2)]


def disagreements(verdicts: Mapping[str, Verdicts]) -> set[int]:
    """The rows on which two raters differ."""
    seen: dict[int, str] = {}
    rows = set()
    for one in verdicts.values():
        for row, verdict in one.items():
            if seen.setdefault(row, verdict) != verdict:
                rows.add(row)
    return rows
