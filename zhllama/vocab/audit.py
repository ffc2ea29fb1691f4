"""Hold a vocabulary against its base: what moved, what is dead, what is cut differently, and by how much it gained."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, Literal

from tokenizers import Tokenizer as Inner

from zhllama.vocab.characters import LEVELS, charset, chinese
from zhllama.vocab.fuzz import fuzzed
from zhllama.vocab.huggingface import tied_pieces, why_no_twin
from zhllama.vocab.merge import Recipe
from zhllama.vocab.model import SentencePieceModel

# The paper's sentence (arXiv:2304.08177, table 1): 35 tokens of LLaMA, 16 of Chinese-LLaMA.
SENTENCE = "人工智能是计算机科学、心理学、哲学等学科融合的交叉学科。"
SHOWN = 10  # examples of each kind of difference
BATCH = 4096  # lines


@dataclass
class Tally:
    """Lines looked at, how many differ, and the first few of them."""

    lines: int = 0
    differ: int = 0
    examples: list[dict[str, str]] = field(default_factory=list)

    def add(self, example: dict[str, str] | None) -> None:
        """Count a line; an example says that it differs, and how."""
        self.lines += 1
        if example is not None:
            self.differ += 1
            if len(self.examples) < SHOWN:
                self.examples.append(example)


@dataclass
class TextFigures:
    """One text under both vocabularies; a token is a byte token where the vocabulary fell back to bytes."""

    lines: int = 0
    characters: int = 0
    base_tokens: int = 0
    tokens: int = 0
    base_bytes: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Promise:
    """Something that a recipe promises, whether it held, and the figure that shows it."""

    name: str
    kept: bool
    told: str


@dataclass(frozen=True)
class Audit:
    """All findings; it passes where every promise of the recipe was kept."""

    recipe: Recipe | None
    base_size: int
    size: int
    moved: tuple[int, ...]
    duplicates: tuple[str, ...]
    specials: tuple[str, ...]
    dead: tuple[str, ...]
    base_dead: tuple[str, ...]
    tied: int
    no_twin: str | None
    drift: Tally
    parity: Tally
    fuzz: Tally
    round_trip: Tally
    charsets: Mapping[str, tuple[int, int]]
    texts: Mapping[str, TextFigures]
    sentence: tuple[list[str], list[str]]
    compared: bool  # whether there was a tokenizer.json to compare with
    kind: Literal["sentencepiece", "byte-level"] = "sentencepiece"
    pruned: int = 0  # pieces of the base that were taken away
    recut: int = 0  # lines without Chinese that held one of them
    joined: Tally | None = None  # byte-level: lines in which more than joins of the base's tokens changed
    fragments: int = 0  # byte-level: added tokens that are no whole characters

    @property
    def added(self) -> int:
        """How many pieces there are beside those of the base."""
        return self.size - self.base_size + self.pruned

    @cached_property
    def promises(self) -> tuple[Promise, ...]:
        """What the recipe promises, each with the figure that shows whether it held."""
        return tuple(_promises(self))

    @property
    def passed(self) -> bool:
        """Whether every promise was kept."""
        return all(p.kept for p in self.promises)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in audit.json."""
        return {**asdict(self), "promises": [asdict(p) for p in self.promises], "passed": self.passed}


def audit(
    model: SentencePieceModel,
    base: SentencePieceModel,
    texts: Mapping[str, Iterable[str]],
    recipe: Recipe | None = None,
    twin: Inner | None = None,
    fuzz: int = 20_000,
    seed: int = 0,
    advance: Callable[[int], None] = lambda lines: None,
    kept: Sequence[int] | None = None,
) -> Audit:
    """Audit `model` against `base` on lines of text by label, and on `fuzz` strings made from its own pieces.

    `twin` is the tokenizer.json beside it, held to SentencePiece's ids; `advance` is told how many lines were done.
    `kept` are the base's ids that a pruned model still has, in its order; without it all of them are.
    """
    kept = range(len(base.pieces)) if kept is None else kept
    drift, parity, strange, round_trip = Tally(), Tally(), Tally(), Tally()
    figures: dict[str, TextFigures] = {}
    compare = _Comparison(model, base, twin, {was: id for id, was in enumerate(kept)})
    for label, lines in texts.items():
        figures[label] = TextFigures()
        for batch in batches(lines):
            compare.texts(batch, figures[label], drift, parity, round_trip)
            advance(len(batch))
    for batch in batches(fuzzed(model, fuzz, seed)) if twin is not None else ():
        compare.parity(batch, model.processor.encode(batch), strange)
        advance(len(batch))
    moved = tuple(
        was for id, was in enumerate(kept) if id >= len(model.pieces) or model.pieces[id] != base.pieces[was]
    )
    dead = tuple(model.pieces[id].text for id in model.dead(range(len(kept), len(model.pieces))))
    return Audit(
        recipe=recipe,
        base_size=len(base.pieces),
        size=len(model.pieces),
        moved=moved,
        duplicates=repeated(p.text for p in model.pieces),
        specials=tuple(p.text for p in model.pieces if p.kind in ("unknown", "control", "user")),
        dead=dead,
        base_dead=tuple(base.pieces[id].text for id in base.dead(range(len(base.pieces)))),
        tied=tied_pieces(model),
        no_twin=why_no_twin(model),
        drift=drift,
        parity=parity,
        fuzz=strange,
        round_trip=round_trip,
        charsets={name: (sum(c in model.ids for c in charset(name)), len(charset(name))) for name in LEVELS},
        texts=figures,
        sentence=(
            base.processor.encode(SENTENCE, out_type=str),
            model.processor.encode(SENTENCE, out_type=str),
        ),
        compared=twin is not None,
        pruned=len(base.pieces) - len(kept),
        recut=compare.recut.differ,
    )


def repeated(texts: Iterable[str]) -> tuple[str, ...]:
    """What stands more than once."""
    return tuple(text for text, n in Counter(texts).items() if n > 1)


def _promises(found: Audit) -> Iterator[Promise]:
    held = found.base_size - found.pruned
    stay = held - len(found.moved)
    if found.pruned:
        told = f"{stay:,} of {held:,} pieces stand where id_map.json says, {found.pruned:,} were pruned"
        yield Promise("base ids as mapped", not found.moved, told)
    else:
        told = f"{stay:,} of {held:,} pieces stand where they stood"
        yield Promise("base ids unmoved", not found.moved, told)
    trip = found.round_trip
    yield Promise(
        "round trip", trip.differ == 0, f"{trip.differ:,} of {trip.lines:,} lines come back changed"
    )
    if found.recipe not in ("safe", "continued"):
        return
    yield Promise(
        "no English drift",
        found.drift.differ == 0,
        f"{found.drift.differ:,} of {found.drift.lines:,} lines without Chinese are cut differently"
        + (f", beside {found.recut:,} that held a pruned piece" if found.pruned else ""),
    )
    yield Promise(
        "no dead pieces",
        not found.dead,
        f"{len(found.dead):,} of {found.added:,} added pieces can never occur",
    )
    if found.kind == "byte-level":
        yield from _byte_promises(found)
        return
    differ = found.parity.differ + found.fuzz.differ
    yield Promise(
        "exact fast tokenizer",
        found.no_twin is None and found.compared and differ == 0,
        found.no_twin
        or (
            "there is no tokenizer.json"
            if not found.compared
            else f"{differ:,} of {found.parity.lines:,} lines and {found.fuzz.lines:,} fuzzed strings "
            "differ between SentencePiece and tokenizer.json"
        ),
    )


def _byte_promises(found: Audit) -> Iterator[Promise]:
    if found.joined is not None:
        tally = found.joined
        told = f"in {tally.differ:,} of {tally.lines:,} texts more changed than that tokens of the base were joined"
        yield Promise("base tokens only joined", tally.differ == 0, told)
    differ, texts = found.parity.differ + found.fuzz.differ, found.parity.lines + found.fuzz.lines
    told = f"in {differ:,} of {texts:,} texts AutoTokenizer gives other ids"
    yield Promise("same in transformers", found.compared and differ == 0, told)


@dataclass(frozen=True)
class _Comparison:
    model: SentencePieceModel
    base: SentencePieceModel
    twin: Inner | None
    moved_to: Mapping[int, int]  # the id that each kept id of the base has now
    recut: Tally = field(default_factory=Tally)

    def texts(
        self, batch: list[str], text: TextFigures, drift: Tally, parity: Tally, round_trip: Tally
    ) -> None:
        before, after = self.base.processor.encode(batch), self.model.processor.encode(batch)
        back, first_back = self.model.processor.decode(after), self.base.processor.decode(before)
        for line, old, new, was, now in zip(batch, before, after, first_back, back, strict=True):
            text.lines += 1
            text.characters += len(line)
            text.base_tokens += len(old)
            text.tokens += len(new)
            text.base_bytes += sum(id in self.base.byte_ids for id in old)
            text.bytes += sum(id in self.model.byte_ids for id in new)
            if not chinese.search(line):
                mapped = [self.moved_to[id] for id in old if id in self.moved_to]
                if len(mapped) == len(old):
                    drift.add(self._difference(line, "base", mapped, "merged", new))
                else:
                    self.recut.add({})
            # A literal ▁ becomes a space under every SentencePiece model: what the base loses is not held against it.
            lost = now != line and was == line
            round_trip.add({"line": line[:200], "back": now[:200]} if lost else None)
        self.parity(batch, after, parity)

    def parity(self, batch: list[str], expected: Sequence[list[int]], tally: Tally) -> None:
        if self.twin is None:
            return
        cuts = self.twin.encode_batch_fast(batch, add_special_tokens=False)
        for line, ids, cut in zip(batch, expected, cuts, strict=True):
            tally.add(self._difference(line, "sentencepiece", ids, "tokenizer.json", cut.ids))

    def _difference(
        self, line: str, one: str, ids: Sequence[int], other: str, others: Sequence[int]
    ) -> dict[str, str] | None:
        """The line and a few pieces of both cuts from where they differ, or None; base ids mean the same in both."""
        if ids == others:
            return None
        pairs = zip(ids, others, strict=False)
        at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ids), len(others)))
        cuts = {
            name: " ".join(self.model.pieces[id].text for id in cut[at : at + 4])
            for name, cut in ((one, ids), (other, others))
        }
        return {"line": line[:200], **cuts}


def batches(lines: Iterable[str]) -> Iterator[list[str]]:
    """The lines, BATCH at a time."""
    iterator = iter(lines)
    while batch := list(islice(iterator, BATCH)):
        yield batch
