"""Hold a byte-level vocabulary against its base; the findings are those of `audit`, and that tokens were only joined."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from tokenizers import Tokenizer as Inner

from zhllama.vocab.audit import SENTENCE, Audit, Tally, TextFigures, batches, repeated
from zhllama.vocab.bytelevel import ByteLevel, readable
from zhllama.vocab.characters import LEVELS, charset, chinese
from zhllama.vocab.fuzz import fuzzed_pieces
from zhllama.vocab.merge import Recipe
from zhllama.vocab.ranks import BYTE_OF, spelled


def byte_audit(
    model: ByteLevel,
    base: ByteLevel,
    texts: Mapping[str, Iterable[str]],
    recipe: Recipe | None = None,
    twin: Inner | None = None,
    fuzz: int = 20_000,
    seed: int = 0,
    advance: Callable[[int], None] = lambda lines: None,
    kept: Sequence[int] | None = None,
) -> Audit:
    """Audit `model` against `base` on lines of text by label, and on `fuzz` strings made from its own tokens.

    `twin` is what AutoTokenizer makes of the folder. `kept` are the base's ids that a pruned model still has, in order.
    """
    now = {id: id for id in base.texts} if kept is None else {was: id for id, was in enumerate(kept)}
    held, gone = set(now.values()), base.texts.keys() - now.keys()
    compare = _Comparison(model, base, twin, now, model.expansion(base.without(gone) if gone else base))
    figures: dict[str, TextFigures] = {}
    for label, lines in texts.items():
        figures[label] = TextFigures()
        for batch in batches(lines):
            compare.texts(batch, figures[label])
            advance(len(batch))
    tokens = (readable(model.texts[id]) for id in sorted(model.ids.values()))
    for batch in batches(fuzzed_pieces([text for text in tokens if text], fuzz, seed)):
        compare.strange(batch)
        advance(len(batch))
    added = [id for id in model.ids.values() if id not in held]
    dead = {*model.dead(added), *model.split(added)}
    moved = tuple(was for was, id in now.items() if model.texts.get(id) != base.texts[was])
    return Audit(
        recipe=recipe,
        base_size=len(base.texts),
        size=len(model.texts),
        moved=moved,
        duplicates=repeated(map(_shown, model.texts.values())),
        specials=tuple(model.beside[id] for id in sorted(model.special)),
        dead=tuple(_shown(model.texts[id]) for id in sorted(dead)),
        base_dead=tuple(_shown(base.texts[id]) for id in base.dead(sorted(base.ids.values()))),
        tied=0,
        no_twin=None,
        drift=compare.drift,
        parity=compare.parity,
        fuzz=compare.fuzz,
        round_trip=compare.round_trip,
        charsets={
            name: (sum(spelled(c.encode()) in model.ids for c in charset(name)), len(charset(name)))
            for name in LEVELS
        },
        texts=figures,
        sentence=(_cut(base), _cut(model)),
        compared=twin is not None,
        kind="byte-level",
        pruned=len(gone),
        recut=compare.recut,
        joined=compare.joined if compare.expansion is not None else None,
        fragments=sum(id in model.fragments for id in added),
    )


@dataclass
class _Comparison:
    model: ByteLevel
    base: ByteLevel
    twin: Inner | None
    now: Mapping[int, int]  # the id that each id of the base has in the model, where it is still there
    expansion: (
        Mapping[int, tuple[int, ...]] | None
    )  # ids as ids of the base, in the numbering that pruning left
    drift: Tally = field(default_factory=Tally)
    parity: Tally = field(default_factory=Tally)
    fuzz: Tally = field(default_factory=Tally)
    round_trip: Tally = field(default_factory=Tally)
    joined: Tally = field(default_factory=Tally)
    recut: int = 0

    def texts(self, batch: list[str], text: TextFigures) -> None:
        before, after = self.base.encode(batch), self.model.encode(batch)
        for line, old, new in zip(batch, before, after, strict=True):
            text.lines += 1
            text.characters += len(line)
            text.base_tokens += len(old)
            text.tokens += len(new)
            text.base_bytes += sum(map(self.base.fragments.__contains__, old))
            text.bytes += sum(map(self.model.fragments.__contains__, new))
        self._against_base(batch, before, after)
        self._against_twin(batch, after, self.parity)

    def strange(self, batch: list[str]) -> None:
        after = self.model.encode(batch)
        self._against_base(batch, self.base.encode(batch), after)
        self._against_twin(batch, after, self.fuzz)

    def _against_base(self, batch: list[str], before: list[list[int]], after: list[list[int]]) -> None:
        back, first_back = self.model.decode(after), self.base.decode(before)
        for line, ids, new, was, now in zip(batch, before, after, first_back, back, strict=True):
            lost = now != line and was == line
            self.round_trip.add({"line": line[:200], "back": now[:200]} if lost else None)
            old = [self.now[id] for id in ids if id in self.now]
            if len(old) < len(ids):
                self.recut += not chinese.search(line)
                continue
            if not chinese.search(line):
                self.drift.add(self._difference(line, "base", old, "merged", new))
            if self.expansion is not None:
                parts = list(chain.from_iterable(map(self.expansion.__getitem__, new)))
                self.joined.add(self._difference(line, "base", old, "taken apart", parts))

    def _against_twin(self, batch: list[str], expected: list[list[int]], tally: Tally) -> None:
        if self.twin is None:
            return
        cuts = self.twin.encode_batch_fast(batch, add_special_tokens=False)
        for line, ids, cut in zip(batch, expected, cuts, strict=True):
            tally.add(self._difference(line, "tokenizers", ids, "transformers", cut.ids))

    def _difference(
        self, line: str, one: str, ids: Sequence[int], other: str, others: Sequence[int]
    ) -> dict[str, str] | None:
        """The line and a few tokens of both cuts from where they differ, or None."""
        if ids == others:
            return None
        pairs = zip(ids, others, strict=False)
        at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ids), len(others)))
        cuts = {
            name: " ".join(_shown(self.model.texts.get(id, "?")) for id in cut[at : at + 4])
            for name, cut in ((one, ids), (other, others))
        }
        return {"line": line[:200], **cuts}


def _cut(model: ByteLevel) -> list[str]:
    return [_shown(model.texts[id]) for id in model.encode([SENTENCE])[0]]


def _shown(token: str) -> str:
    """A token as people read it: its text, <E4BD> for parts of a character, and a special one as it is."""
    text = readable(token)
    if text is not None:
        return text.replace(" ", "▁")
    return f"<{''.join(f'{BYTE_OF[c]:02X}' for c in token)}>" if all(c in BYTE_OF for c in token) else token
