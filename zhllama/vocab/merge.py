"""Merge a Chinese list into a base vocabulary, the published way (`chinese-llama`) or without its harm (`safe`).

The published way is the merge script of Chinese-LLaMA-Alpaca (arXiv:2304.08177, section 2.1): every piece that the
base lacks, in order, with score 0.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from zhllama.errors import InputError
from zhllama.vocab.characters import ascii_word, chinese
from zhllama.vocab.model import SPACE, Piece, SentencePieceModel

Recipe = Literal["chinese-llama", "safe", "continued"]
Why = Literal["list", "intermediate", "character", "merge", "pad"]
PAD = "[PAD]"


class Added(NamedTuple):
    """A piece that the base lacked, and why it is there."""

    piece: Piece
    why: Why


@dataclass(frozen=True)
class Merge:
    """A base, what was added to it, what of the list was left out: (piece, reason), and which ids of the base were pruned."""

    recipe: Recipe
    base: SentencePieceModel
    added: tuple[Added, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    dropped: tuple[int, ...] = ()

    @property
    def model(self) -> SentencePieceModel:
        """The merged vocabulary."""
        base = self.base.without(self.dropped) if self.dropped else self.base
        return base.extended(a.piece for a in self.added)

    @property
    def kept(self) -> list[int]:
        """The ids of the base that stay, in their new order."""
        gone = set(self.dropped)
        return [id for id in range(len(self.base.pieces)) if id not in gone]

    def counts(self) -> dict[str, int]:
        """How many pieces were added, by reason."""
        return dict(Counter(a.why for a in self.added))


def chinese_llama(base: SentencePieceModel, words: Sequence[str], pad: bool = False) -> Merge:
    """The published merge: unseen pieces in order, all at score 0, optionally `[PAD]` after them (sha256 in DESIGN.md)."""
    require_bpe(base)
    fresh = _unseen(base, words)
    added = [Added(Piece(word, 0.0), "list") for word in fresh]
    if pad and PAD not in base.ids:
        added.append(Added(Piece(PAD, 0.0), "pad"))
    return Merge("chinese-llama", base, tuple(added), tuple(_seen(base, words)))


def safe(base: SentencePieceModel, words: Sequence[str], pad: bool = False) -> Merge:
    """The same list without harm: only Chinese pieces, ranked below every ordinary merge of the base, none of them dead."""
    require_bpe(base)
    fresh, left_out = [], list(_seen(base, words))
    for word in _unseen(base, words):
        reason = why_unsafe(base, word)
        if reason is None:
            fresh.append(Added(Piece(word, 0.0), "list"))
        else:
            left_out.append((word, reason))
    added = ranked(base, with_paths(base, fresh))
    return Merge("safe", base, (*added, *pad_piece(base, pad)), tuple(left_out))


def why_unsafe(base: SentencePieceModel, word: str) -> str | None:
    """Why a piece could change how text without Chinese is cut, or None."""
    if ascii_word.search(word):
        return "holds an ASCII letter or digit"
    if not chinese.search(word):
        return "holds no Han character or CJK punctuation"
    if any(c not in base.ids and not chinese.match(c) for c in word):
        return "holds a character, not Chinese, that the base lacks"
    return None


def with_paths(base: SentencePieceModel, added: Sequence[Added]) -> list[Added]:
    """The same pieces in their order, and after them what BPE needs on its way to each, so that none is dead.

    A character that the base lacks comes in by itself: `tokenizers` merges nothing that it has cut into bytes.
    A dead piece ends in three parts or more; its first two are joined, again and again, until it is whole. Such
    intermediates rank below all others, so a piece that was alive stays alive: on its own text they never come first.
    """
    done = list(added)
    rank = {p.text: -p.score for p in base.pieces if p.kind == "normal"}
    lowest = max(rank.values(), default=0.0)

    def add(piece: str, why: Why) -> None:
        if why != "list":
            done.append(Added(Piece(piece, 0.0), why))
        rank[piece] = lowest + 1 + len(rank)

    for item in added:
        add(item.piece.text, "list")
    for character in dict.fromkeys("".join(item.piece.text for item in added)):
        if character not in rank:
            add(character, "character")
    for item in added:
        while len(parts := cut(item.piece.text, rank)) > 1:
            add(parts[0] + parts[1], "intermediate")
    return done


def cut(text: str, rank: Mapping[str, float]) -> list[str]:
    """BPE in its plainest form: join the neighbours whose piece ranks first, leftmost first, until none are left."""
    parts = list(text)
    while True:
        pairs = [
            (rank[joined], i) for i in range(len(parts) - 1) if (joined := parts[i] + parts[i + 1]) in rank
        ]
        if not pairs:
            return parts
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


def ranked(base: SentencePieceModel, added: Iterable[Added]) -> list[Added]:
    """The same pieces with unique scores: whole numbers that descend from below the base's ordinary merges.

    LLaMA's runs of spaces stand at -1e9 and are no ordinary merges. Whole numbers above -2**24 are exact in float32.
    """
    ordinary = [p.score for p in base.pieces if p.kind == "normal" and p.text.strip(SPACE)]
    floor = int(min(ordinary, default=0.0)) - 1
    done = [
        Added(Piece(a.piece.text, float(floor - rank), a.piece.kind), a.why) for rank, a in enumerate(added)
    ]
    if floor - len(done) <= -(2**24):
        raise InputError(
            "base", f"its lowest ordinary score is {floor}, which leaves no room below", "Use another base"
        )
    return done


def _unseen(base: SentencePieceModel, words: Sequence[str]) -> list[str]:
    return [word for word in dict.fromkeys(words) if word not in base.ids]


def _seen(base: SentencePieceModel, words: Sequence[str]) -> Iterator[tuple[str, str]]:
    return ((word, "is in the base") for word in dict.fromkeys(words) if word in base.ids)


def pad_piece(base: SentencePieceModel, pad: bool) -> list[Added]:
    """`[PAD]` where it is asked for and lacking: a control piece, unlike the published one, so no text produces it."""
    return [Added(Piece(PAD, 0.0, "control"), "pad")] if pad and PAD not in base.ids else []


def require_bpe(base: SentencePieceModel) -> None:
    """Refuse a base without merges."""
    if base.algorithm != "bpe":
        raise InputError(
            "base", f"is a {base.algorithm} model, and only BPE has merges to add to", "Use a BPE base"
        )
