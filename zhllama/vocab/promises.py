"""The promises of each recipe, checked against the figures of an audit."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zhllama.vocab.audit import Audit
    from zhllama.vocab.carried_over import CarriedOver


@dataclass(frozen=True)
class Promise:
    """A promise of a recipe, whether it was kept, and the figures that show it."""

    name: str
    kept: bool
    detail: str


def promises(audit: "Audit") -> Iterator[Promise]:
    """All promises of the audited recipe."""
    yield _base_ids(audit)
    if audit.carried is not None:
        yield _special_and_added_tokens(audit, audit.carried)
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


def _special_and_added_tokens(audit: "Audit", carried: "CarriedOver") -> Promise:
    """Every recipe carries them over; that text with them is tokenized as before is promised where plain text is."""
    kept = not carried.differences and (
        carried.texts_differ == 0
        or audit.recipe not in ("safe", "continued")
        or audit.base_why_no_fast_tokenizer
        is not None  # SentencePieceBackend puts ▁ after each special token
    )
    compared = (
        f"{carried.tokens:,} tokens with their flags, {carried.settings:,} settings and {carried.conversations:,} "
        f"conversations are the base's; {carried.texts_differ:,} of {carried.texts:,} texts with special tokens differ"
    )
    differences = "; ".join(carried.differences[:4])
    example = carried.examples[0] if carried.examples else None
    shown = f", as {example['base']} → {example['merged']}" if example is not None else ""
    notes = "".join(f"; {note}" for note in carried.notes)
    return Promise("special and added tokens", kept, (differences or compared) + shown + notes)


def _same_in_transformers(audit: "Audit") -> Promise:
    differ, texts = audit.parity.differ + audit.fuzz.differ, audit.parity.lines + audit.fuzz.lines
    kept = audit.compared and differ == 0
    if audit.kind != "sentencepiece":
        detail = f"in {differ:,} of {texts:,} texts AutoTokenizer gives different ids"
        return Promise("same in transformers", kept, detail)
    name, reason = "exact fast tokenizer", audit.why_no_fast_tokenizer
    if reason is not None and audit.base_why_no_fast_tokenizer is not None:
        detail = f"{differ:,} of {texts:,} texts differ between SentencePiece and AutoTokenizer; no tokenizer.json: {reason}"
        return Promise("same in transformers", kept, detail)
    if reason is not None:
        return Promise(name, False, f"none can be exact: {reason}")
    if not audit.compared:
        return Promise(name, False, "there is no tokenizer.json")
    detail = (
        f"{differ:,} of {audit.parity.lines:,} lines and {audit.fuzz.lines:,} fuzzed strings "
        "differ between SentencePiece and tokenizer.json"
    )
    if audit.lines_with_added:
        detail += f", not counting {audit.lines_with_added:,} texts with an added token, in which tokenizer.json is right"
    return Promise(name, kept, detail)
