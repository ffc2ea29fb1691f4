"""Compares an extended vocabulary with its base: moved ids, dead pieces, drift, parity in transformers, and the gain."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import chain, islice
from typing import Any

from zhllama.characters import LEVELS, charset, chinese
from zhllama.vocab.carried_over import CarriedOver
from zhllama.vocab.fuzz import fuzzed
from zhllama.vocab.promises import Promise, promises
from zhllama.vocab.vocabulary import Kind, Recipe, V, Vocabulary

# The paper's sentence (arXiv:2304.08177, table 1): 35 tokens of LLaMA, 16 of Chinese-LLaMA.
SENTENCE = "人工智能是计算机科学、心理学、哲学等学科融合的交叉学科。"
EXAMPLES = 10  # of each kind of difference
BATCH = 4096  # lines


@dataclass
class LineTally:
    """How many lines were compared, how many differ, and the first few that do."""

    lines: int = 0
    differ: int = 0
    examples: list[dict[str, str]] = field(default_factory=list)

    def add(self, example: dict[str, str] | None) -> None:
        """Count a line; an example shows how it differs, None means that it does not."""
        self.lines += 1
        if example is not None:
            self.differ += 1
            if len(self.examples) < EXAMPLES:
                self.examples.append(example)


@dataclass
class TextFigures:
    """One text under both vocabularies; `bytes` are tokens that are less than a character."""

    lines: int = 0
    characters: int = 0
    base_tokens: int = 0
    tokens: int = 0
    base_bytes: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Audit:
    """All findings; the audit passes if every promise of the recipe was kept."""

    recipe: Recipe | None
    kind: Kind
    base_size: int
    size: int
    moved: tuple[int, ...]
    duplicates: tuple[str, ...]
    specials: tuple[str, ...]
    dead: tuple[str, ...]
    base_dead: tuple[str, ...]
    tied: int  # pieces that share their score with another
    why_no_fast_tokenizer: str | None
    base_why_no_fast_tokenizer: str | None  # then no extension of the base has an exact tokenizer.json
    drift: LineTally
    parity: LineTally
    fuzz: LineTally
    round_trip: LineTally
    charsets: Mapping[str, tuple[int, int]]
    texts: Mapping[str, TextFigures]
    sentence: tuple[list[str], list[str]]
    compared: bool  # whether transformers loaded a fast tokenizer to compare with
    pruned: int  # pieces of the base that were removed
    pruned_lines: int  # lines without Chinese whose base tokens contain a removed piece
    joined: LineTally | None  # texts in which more changed than that tokens of the base were joined
    fragments: int  # added pieces that are less than a character
    # Texts with an added token, not compared with transformers: SentencePiece puts ▁ before one at the start.
    lines_with_added: int = 0
    # Added tokens, settings and templates; None where the base's folder has none.
    carried: CarriedOver | None = None

    @property
    def added(self) -> int:
        """How many pieces there are besides those of the base."""
        return self.size - self.base_size + self.pruned

    @cached_property
    def promises(self) -> tuple[Promise, ...]:
        """What the recipe promises, each with the figures that show whether it was kept."""
        return tuple(promises(self))

    @property
    def passed(self) -> bool:
        """Whether every promise was kept."""
        return all(p.kept for p in self.promises)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in audit.json."""
        return {**asdict(self), "promises": [asdict(p) for p in self.promises], "passed": self.passed}


def audit(
    vocabulary: V,
    base: V,
    texts: Mapping[str, Iterable[str]],
    recipe: Recipe | None = None,
    fast_tokenizer: Any = None,
    fuzz: int = 20_000,
    seed: int = 0,
    advance: Callable[[int], None] = lambda lines: None,
    base_ids: Sequence[int] | None = None,
) -> Audit:
    """Audit `vocabulary` against `base` on lines of text by label, and on `fuzz` strings made from its own pieces.

    `fast_tokenizer` is what transformers loads from the vocabulary's folder, a `tokenizers.Tokenizer` or called as one; `advance` receives the number of lines
    compared. `base_ids` are the base's ids that pruning left, in their new order; None means that all of them remain.
    """
    remaining = sorted(base.entries) if base_ids is None else list(base_ids)
    new_id = (
        {id: id for id in remaining} if base_ids is None else {id: new for new, id in enumerate(remaining)}
    )
    removed = base.entries.keys() - new_id.keys()
    expansion = vocabulary.expansion(base.without(removed) if removed else base)
    compare = _Comparison(vocabulary, base, fast_tokenizer, new_id, expansion, recipe)
    figures: dict[str, TextFigures] = {}
    for label, lines in texts.items():
        figures[label] = TextFigures()
        for batch in batches(lines):
            compare.texts(batch, figures[label])
            advance(len(batch))
    for batch in batches(fuzzed(vocabulary.fuzz_pieces(), fuzz, seed)) if fast_tokenizer is not None else ():
        compare.fuzzed(batch)
        advance(len(batch))
    kept_ids = set(new_id.values())
    added = sorted(id for id in vocabulary.entries if id not in kept_ids)
    dead = sorted({*vocabulary.dead(added), *vocabulary.split(added)})
    moved = tuple(id for id, new in new_id.items() if vocabulary.entries.get(new) != base.entries[id])
    return Audit(
        recipe=recipe,
        kind=vocabulary.kind,
        base_size=len(base.entries),
        size=len(vocabulary.entries),
        moved=moved,
        duplicates=_duplicates(map(vocabulary.display, vocabulary.entries)),
        specials=vocabulary.special_tokens,
        dead=tuple(map(vocabulary.display, dead)),
        base_dead=tuple(map(base.display, base.dead(sorted(base.entries)))),
        tied=vocabulary.tied,
        why_no_fast_tokenizer=vocabulary.why_no_fast_tokenizer(),
        base_why_no_fast_tokenizer=base.why_no_fast_tokenizer(),
        drift=compare.drift,
        parity=compare.parity,
        fuzz=compare.fuzz,
        round_trip=compare.round_trip,
        charsets={
            name: (sum(map(vocabulary.has_character, charset(name))), len(charset(name))) for name in LEVELS
        },
        texts=figures,
        sentence=(_pieces(base, SENTENCE), _pieces(vocabulary, SENTENCE)),
        compared=fast_tokenizer is not None,
        pruned=len(removed),
        pruned_lines=compare.pruned_lines,
        joined=compare.joined if expansion is not None else None,
        fragments=sum(id in vocabulary.fallback_ids for id in added),
        lines_with_added=compare.lines_with_added,
    )


def batches(lines: Iterable[str]) -> Iterator[list[str]]:
    """The lines, BATCH at a time."""
    iterator = iter(lines)
    while batch := list(islice(iterator, BATCH)):
        yield batch


def _duplicates(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(text for text, n in Counter(texts).items() if n > 1)


def _pieces(vocabulary: Vocabulary, text: str) -> list[str]:
    return [vocabulary.display(id) for id in vocabulary.encode([text])[0]]


@dataclass
class _Comparison:
    vocabulary: Vocabulary
    base: Vocabulary
    fast_tokenizer: Any
    new_id: Mapping[int, int]  # the new id of each remaining id of the base
    expansion: Mapping[int, tuple[int, ...]] | None  # each id as ids of the base, numbered as after pruning
    recipe: Recipe | None
    drift: LineTally = field(default_factory=LineTally)
    parity: LineTally = field(default_factory=LineTally)
    fuzz: LineTally = field(default_factory=LineTally)
    round_trip: LineTally = field(default_factory=LineTally)
    joined: LineTally = field(default_factory=LineTally)
    pruned_lines: int = 0
    lines_with_added: int = 0

    @cached_property
    def _symbols(self) -> frozenset[str]:
        """Added single characters that are not Chinese: `safe` and `continued` add them only if the user names their set."""
        if self.recipe not in ("safe", "continued"):
            return frozenset()
        old = set(self.new_id.values())
        texts = (self.vocabulary.display(id) for id in self.vocabulary.entries if id not in old)
        return frozenset(text for text in texts if len(text) == 1 and chinese.match(text) is None)

    @cached_property
    def _matched(self) -> tuple[str, ...]:
        """Added tokens that plain text contains, which SentencePiece cannot match in every place as transformers does."""
        settings = self.vocabulary.settings if self.vocabulary.kind == "sentencepiece" else None
        tokens = settings.tokens.values() if settings is not None else ()
        return tuple(token.content for token in tokens if not token.special and token.content)

    def texts(self, batch: list[str], text: TextFigures) -> None:
        before, after = self.base.encode(batch), self.vocabulary.encode(batch)
        for line, old, new in zip(batch, before, after, strict=True):
            text.lines += 1
            text.characters += len(line)
            text.base_tokens += len(old)
            text.tokens += len(new)
            text.base_bytes += sum(map(self.base.fallback_ids.__contains__, old))
            text.bytes += sum(map(self.vocabulary.fallback_ids.__contains__, new))
        self._with_base(batch, before, after)
        self._with_transformers(batch, after, self.parity)

    def fuzzed(self, batch: list[str]) -> None:
        after = self.vocabulary.encode(batch)
        if self.expansion is not None:
            self._with_base(batch, self.base.encode(batch), after)
        self._with_transformers(batch, after, self.fuzz)

    def _with_base(self, batch: list[str], before: list[list[int]], after: list[list[int]]) -> None:
        decoded, base_decoded = self.vocabulary.decode(after), self.base.decode(before)
        for line, ids, new, base_text, text in zip(batch, before, after, base_decoded, decoded, strict=True):
            # What the base loses too, as SentencePiece a literal ▁, is no fault of the extension.
            lost = text != line and base_text == line
            self.round_trip.add({"line": line[:200], "back": text[:200]} if lost else None)
            # A base's normalizer can turn other characters into Chinese ones (㈱ into 株): its decoded text shows them.
            has_chinese = chinese.search(line) is not None or chinese.search(base_text) is not None
            has_chinese = has_chinese or not self._symbols.isdisjoint(line)
            old = [self.new_id[id] for id in ids if id in self.new_id]
            if len(old) < len(ids):
                self.pruned_lines += not has_chinese
                continue
            if not has_chinese:
                self.drift.add(self._difference(line, "base", old, "merged", new))
            if self.expansion is not None:
                expanded = list(chain.from_iterable(map(self.expansion.__getitem__, new)))
                self.joined.add(self._difference(line, "base", old, "taken apart", expanded))

    def _with_transformers(self, batch: list[str], expected: list[list[int]], tally: LineTally) -> None:
        if self.fast_tokenizer is None:
            return
        encoded = self.fast_tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        for line, ids, encoding in zip(batch, expected, encoded, strict=True):
            if any(token in line for token in self._matched):
                self.lines_with_added += 1
                continue
            tally.add(self._difference(line, self.vocabulary.kind, ids, "transformers", encoding.ids))

    def _difference(
        self, line: str, one: str, ids: Sequence[int], other: str, others: Sequence[int]
    ) -> dict[str, str] | None:
        """The line and a few pieces of both tokenizations from where they differ, or None."""
        if ids == others:
            return None
        pairs = zip(ids, others, strict=False)
        at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ids), len(others)))
        shown = {
            name: " ".join(map(self._display, tokens[at : at + 4]))
            for name, tokens in ((one, ids), (other, others))
        }
        return {"line": line[:200], **shown}

    def _display(self, id: int) -> str:
        # A vocabulary that is no extension of the base lacks some of the base's ids.
        return self.vocabulary.display(id) if id < self.vocabulary.size else f"<id {id}>"
