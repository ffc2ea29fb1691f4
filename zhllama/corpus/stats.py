"""Collects the statistics of a cleaning run by step, and checks that every document is accounted for."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zhllama.corpus.clean import REJECTED, WORK
from zhllama.corpus.documents import DOCUMENTS
from zhllama.corpus.executors import Phase
from zhllama.corpus.pipeline_steps import length_bin
from zhllama.errors import BrokenPromise
from zhllama.io.files import open_regular
from zhllama.io.json import as_object, parse_json, read_json

REMEDY = "Start over with `force`"
REPORT_BUG = "Start over with `force`, and report this as a bug"
SHOWN, SHOWN_CHARACTERS = 5, 200  # examples of each step, and characters of each


@dataclass(frozen=True)
class StepStats:
    """One step: the documents that reached it, those it rejected with reasons, those it changed, and its CPU seconds."""

    name: str
    drops: bool
    documents: int
    characters: int
    dropped: int
    changed: int
    reasons: dict[str, int]
    lengths: dict[int, int]
    examples: list[list[str]]
    seconds: float


@dataclass(frozen=True)
class CleaningStats:
    """All steps and their totals: documents_in == documents_out + rejected.

    splits: how often plain text was split at a line end because it had no blank line (io.text.DOCUMENT_BYTES).
    """

    documents_in: int
    documents_out: int
    characters_in: int
    characters_out: int
    rejected: int
    lengths: dict[int, int]
    steps: list[StepStats]
    splits: int = 0

    def figures(self) -> dict[str, Any]:
        """The figures for the manifest."""
        return {
            "documents_in": self.documents_in,
            "documents_out": self.documents_out,
            "splits": self.splits,
            "rejected": self.rejected,
            "characters_in": self.characters_in,
            "characters_out": self.characters_out,
            "steps": [
                {
                    "step": s.name,
                    "documents": s.documents,
                    "characters": s.characters,
                    "dropped": s.dropped,
                    "changed": s.changed,
                    "reasons": s.reasons,
                    "seconds": round(s.seconds, 3),
                }
                for s in self.steps
            ],
        }


@dataclass
class StepTally:
    """datatrove's stats of one pipeline step, summed over the tasks of a phase."""

    name: str
    totals: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


def collect_stats(phases: Sequence[Phase], out: Path) -> CleaningStats:
    """Read the stats of all tasks and the output in `out`. Errors: BrokenPromise if a document is missing or duplicated."""
    steps, read, written = [], StepTally("reader: read"), StepTally("stats: lengths")
    for phase in phases:
        for tally in _tallies(phase):
            kind, _, name = tally.name.partition(": ")
            if tally.name == read.name:
                read = tally
            elif tally.name == written.name:
                written = tally
            # The phase "signatures" drops the exact duplicates a second time.
            elif kind in ("edit", "filter") and phase.name != "signatures":
                steps.append(_step(kind, name, tally, out))
    lengths = {
        int(key.split()[1]): count for key, count in written.totals.items() if key.startswith("length ")
    }
    documents_out = sum(_lines(path) for path in sorted((out / DOCUMENTS).glob("*.jsonl")))
    stats = CleaningStats(
        read.totals["documents"],
        documents_out,
        read.totals["characters"],
        written.totals["characters"],
        sum(step.dropped for step in steps),
        dict(sorted(lengths.items())),
        steps,
        read.totals["splits"],
    )
    _balance(stats, out)
    return stats


def _balance(stats: CleaningStats, out: Path) -> None:
    for step in stats.steps:
        written = sum(step.reasons.values())
        if step.drops and step.dropped != written:
            raise BrokenPromise(
                out / REJECTED / step.name,
                f"{step.dropped} documents were dropped, but {written} rejects were written",
                REPORT_BUG,
            )
    if stats.documents_in != stats.documents_out + stats.rejected:
        raise BrokenPromise(
            out,
            f"{stats.documents_in} documents came in, {stats.documents_out} went out and "
            f"{stats.rejected} were rejected",
            REPORT_BUG,
        )


def _step(kind: str, name: str, tally: StepTally, out: Path) -> StepStats:
    reasons: Counter[str] = Counter()
    lengths: Counter[int] = Counter()
    examples: list[list[str]] = []
    if kind == "filter":
        for path in sorted((out / REJECTED / name).glob("*.jsonl")):
            for record in _records(path):
                reasons[record["reason"]] += 1
                lengths[length_bin(len(record["text"]))] += 1
                if len(examples) < SHOWN:
                    examples.append([record["reason"], record["id"], record["text"][:SHOWN_CHARACTERS]])
    else:
        for path in sorted((out / WORK / "examples" / name).glob("*.json")):
            examples += read_json(path, REMEDY)[: SHOWN - len(examples)]
    totals = tally.totals
    return StepStats(
        name,
        kind == "filter",
        totals["total"],
        totals["characters"],
        totals["dropped"],
        totals["changed"],
        dict(reasons.most_common()),
        dict(sorted(lengths.items())),
        examples,
        tally.seconds,
    )


def _tallies(phase: Phase) -> list[StepTally]:
    """One tally for each pipeline step.

    Only totals are read, because datatrove writes a plain number instead of an object if every count is one.
    """
    summed: list[StepTally] = []
    for rank in range(phase.tasks):
        blocks = read_json(phase.logs / "stats" / f"{rank:05d}.json", REMEDY, any_number=True)
        summed = summed or [StepTally(block["name"]) for block in blocks]
        for tally, block in zip(summed, blocks, strict=True):
            tally.seconds += _total(block["time_stats"])
            tally.totals.update({key: int(_total(value)) for key, value in block["stats"].items()})
    return summed


def _total(value: Any) -> float:
    return float(value["total"] if isinstance(value, dict) else value)


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with open_regular(path) as file:
        for number, line in enumerate(file, 1):
            yield as_object(parse_json(line, f"{path}:{number}", REMEDY), f"{path}:{number}", REMEDY)


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
