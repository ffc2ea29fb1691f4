"""The promises of each recipe, checked against the figures of an audit."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zhllama.vocab.audit import Audit


@dataclass(frozen=True)
class Promise:
    """A promise of a recipe, whether it was kept, and the figures that show it."""

    name: str
    kept: bool
    detail: str


def promises(audit: "Audit") -> Iterator[Promise]:
    """All promises of the audited recipe."""
    yield _base_ids(audit)
    trip = audit.round_trip
    yield Promise(
        "round trip", trip.differ == 0, f"{trip.differ:,} of {trip.lines:,} lines decode to a different text"
    )
    if audit.recipe not in ("safe", "continued"):
        return
    excluded = f", not counting {audit.pruned_lines:,} with a pruned piece" if audit.pruned else ""
    drift = f"{audit.drift.differ:,} of {audit.drift.lines:,} lines without Chinese are tokenized differently"
    yield Promise("no English drift", audit.drift.differ == 0, drift + excluded)
    dead = f"{len(audit.dead):,} of {audit.added:,} added pieces can never occur"
    yield Promise("no dead pieces", not audit.dead, dead)
    if audit.joined is not None:
        tally = audit.joined
        detail = f"in {tally.differ:,} of {tally.lines:,} texts the change is more than base tokens joined together"
        yield Promise("base tokens only joined", tally.differ == 0, detail)
    yield _same_in_transformers(audit)


def _base_ids(audit: "Audit") -> Promise:
    remaining = audit.base_size - audit.pruned
    unmoved = remaining - len(audit.moved)
    if audit.pruned:
        detail = (
            f"{unmoved:,} of {remaining:,} pieces have the ids in id_map.json, {audit.pruned:,} were pruned"
        )
        return Promise("base ids as mapped", not audit.moved, detail)
    return Promise(
        "base ids unmoved", not audit.moved, f"{unmoved:,} of {remaining:,} pieces have their old ids"
    )


def _same_in_transformers(audit: "Audit") -> Promise:
    differ, texts = audit.parity.differ + audit.fuzz.differ, audit.parity.lines + audit.fuzz.lines
    kept = audit.compared and differ == 0
    if audit.kind == "byte-level":
        detail = f"in {differ:,} of {texts:,} texts AutoTokenizer gives different ids"
        return Promise("same in transformers", kept, detail)
    name, reason = "exact fast tokenizer", audit.why_no_fast_tokenizer
    if reason is not None:
        return Promise(name, False, reason)
    if not audit.compared:
        return Promise(name, False, "there is no tokenizer.json")
    detail = (
        f"{differ:,} of {audit.parity.lines:,} lines and {audit.fuzz.lines:,} fuzzed strings "
        "differ between SentencePiece and tokenizer.json"
    )
    return Promise(name, kept, detail)
