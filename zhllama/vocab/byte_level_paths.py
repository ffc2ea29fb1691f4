"""Merges for new tokens of a byte-level vocabulary: the steps that build each token, ranked below every merge of the base.

A token that comes after its parts and only joins them cannot be undone by later merges: on its own text they never
apply. And since the base's merges rank first, the base's tokens are only joined, and no boundary between them moves.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from unicodedata import category

from zhllama.characters import chinese
from zhllama.vocab.byte_level_json import BYTE_OF, spelled
from zhllama.vocab.byte_level_vocabulary import ByteLevelVocabulary, readable
from zhllama.vocab.piece_filter import EXCLUDED
from zhllama.vocab.vocabulary import AddedPiece, Pair, Reason


@dataclass
class Paths:
    """New merges on top of a base, one token after another."""

    base: ByteLevelVocabulary
    requested: frozenset[str] = (
        frozenset()
    )  # characters that count as Chinese because the user named their set
    excluded: frozenset[str] = frozenset()  # tokens that are never added, not even as a part of others
    pieces: list[AddedPiece] = field(default_factory=list)
    _rank: dict[Pair, int] = field(default_factory=dict)
    _known: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._known.update(self.base.ids, self.base.added_tokens.values())

    def __contains__(self, token: str) -> bool:
        return token in self._known

    def add(self, token: str, parts: Sequence[str], reason: Reason) -> str | None:
        """Add a token, and before it what its path needs; where that is impossible add nothing and return why.

        `parts` are the base's tokens for it. Its characters are made whole first: joined from the left alone, a
        character would take the first byte of the next one.
        """
        before = len(self.pieces)
        failure = self._add(token, parts, reason)
        if failure is not None:
            for piece in self.pieces[before:]:
                assert piece.parts is not None
                del self._rank[piece.parts]
                self._known.discard(piece.text)
            del self.pieces[before:]
        return failure

    def _add(self, token: str, parts: Sequence[str], reason: Reason) -> str | None:
        if token in self._known:
            return "is in the base" if token in self.base.ids else "was added already"
        if token in self.excluded:
            return EXCLUDED
        parts = self.merged(parts)
        text = readable(token)
        if len(parts) > 2 and text is not None and len(text) > 1:
            for character in dict.fromkeys(spelled(c.encode()) for c in text):
                if character not in self._known:
                    failure = self._add(character, next(self.base.parts([character])), "character")
                    if failure is not None:
                        return failure
            parts = self.merged(parts)
        while len(parts) > 1:
            pairs = ((a, b) for a, b in pairwise(parts) if a + b not in self._known)
            pair = next(((a, b) for a, b in pairs if a + b not in self.excluded), None)
            if pair is None:
                return "has no path except through a token with other merges"
            joined = pair[0] + pair[1]
            if not harmless(joined, self.requested):
                return "needs a part that text without Chinese can contain"
            self._rank[pair] = len(self.pieces)
            self._known.add(joined)
            self.pieces.append(AddedPiece(joined, reason if joined == token else "intermediate", parts=pair))
            parts = self.merged(parts)
        return None

    def merged(self, parts: Sequence[str]) -> list[str]:
        """What the new merges leave of a word that the base has tokenized into `parts`."""
        parts = list(parts)
        while True:
            ranked = [
                (rank, i)
                for i, pair in enumerate(pairwise(parts))
                if (rank := self._rank.get(pair)) is not None
            ]
            if not ranked:
                return parts
            _, i = min(ranked)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]


def harmless(token: str, requested: frozenset[str] = frozenset()) -> bool:
    """Whether only text with a Chinese or a requested character can contain these bytes.

    They contain a whole one, or begin a character that is Chinese however it ends: E4 BD begins 你 and 63 others, but
    EF BD also begins half-width katakana, and the end of a character occurs in any script.
    """
    content = bytes(map(BYTE_OF.__getitem__, token))
    text = content.decode("utf-8", "ignore")
    if chinese.search(text) or not requested.isdisjoint(text):
        return True
    first, last = _completed(content, 0x80), _completed(content, 0xBF)
    if first is None or last is None:
        return False
    return all(
        chinese.match(c) or c in requested or category(c) == "Cn" for c in map(chr, range(first, last + 1))
    )


def _completed(content: bytes, byte: int) -> int | None:
    """The code point of the beginning of a character completed by `byte`s, or None if it begins no character."""
    length = 3 if content[0] >> 4 == 0xE else 4 if content[0] >> 3 == 0x1E else 0
    if not len(content) < length:
        return None
    # E0 and F0 take no byte below A0 and 90, F4 none above 8F: none of those begins a Chinese character, so None is right.
    try:
        return ord((content + bytes([byte]) * (length - len(content))).decode())
    except UnicodeDecodeError:
        return None
