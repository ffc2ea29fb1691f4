"""Merges for new tokens of a byte-level vocabulary: each with a path to it, below every merge of the base.

A token that comes after its parts, and only joins what is already there, can never be undone by those after it: on its
own text they are never asked. And since the base's merges all come first, its cut is only ever joined, never moved.
"""

from dataclasses import dataclass, field
from itertools import pairwise

from zhllama.vocab.bytelevel import ByteLevel, Pair, readable
from zhllama.vocab.characters import chinese
from zhllama.vocab.merge import Why
from zhllama.vocab.ranks import BYTE_OF, spelled


@dataclass(frozen=True)
class Joined:
    """A new token: the two tokens that its merge joins, and why it is there."""

    left: str
    right: str
    why: Why

    @property
    def token(self) -> str:
        return self.left + self.right


@dataclass
class Paths:
    """New merges on top of a base, one token after another."""

    base: ByteLevel
    made: list[Joined] = field(default_factory=list)
    _rank: dict[Pair, int] = field(default_factory=dict)
    _known: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._known.update(self.base.ids, self.base.beside.values())

    def __contains__(self, token: str) -> bool:
        return token in self._known

    @property
    def merges(self) -> list[Pair]:
        """The new merges in their order."""
        return [(joined.left, joined.right) for joined in self.made]

    def add(self, token: str, parts: list[str], why: Why) -> str | None:
        """Make a token, and before it what its path needs; or nothing, and the reason.

        `parts` are what the base makes of it. Its characters are made whole first: joined from the left
        alone, a character would take the first byte of the next one away from it.
        """
        before = len(self.made)
        reason = self._add(token, parts, why)
        if reason is not None:
            for joined in self.made[before:]:
                del self._rank[joined.left, joined.right]
                self._known.discard(joined.token)
            del self.made[before:]
        return reason

    def _add(self, token: str, parts: list[str], why: Why) -> str | None:
        if token in self._known:
            return "is in the base" if token in self.base.ids else "is there already"
        parts = self.cut(parts)
        text = readable(token)
        if len(parts) > 2 and text is not None and len(text) > 1:
            for character in dict.fromkeys(spelled(c.encode()) for c in text):
                if character not in self._known:
                    reason = self._add(character, next(self.base.parts([character])), "character")
                    if reason is not None:
                        return reason
            parts = self.cut(parts)
        while len(parts) > 1:
            pairs = pairwise(parts)
            left, right = next(((a, b) for a, b in pairs if a + b not in self._known), ("", ""))
            if not left:
                return "has no path but through a token that is made otherwise"
            if not harmless(left + right):
                return "needs a part that text without Chinese can hold"
            self._rank[left, right] = len(self.made)
            self._known.add(left + right)
            self.made.append(Joined(left, right, why if left + right == token else "intermediate"))
            parts = self.cut(parts)
        return None

    def cut(self, parts: list[str]) -> list[str]:
        """What the new merges leave of a word that the base has cut into `parts`."""
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


def harmless(token: str) -> bool:
    """Whether only text with a Chinese character can hold these bytes.

    They hold one whole, or are the beginning of a character that, however it ends, is Chinese: E4 BD begins 你 and
    63 others, but EF BD also begins half-width katakana, and the end of a character is found in any script.
    """
    content = bytes(map(BYTE_OF.__getitem__, token))
    if chinese.search(content.decode("utf-8", "ignore")):
        return True
    first, last = _completed(content, 0x80), _completed(content, 0xBF)
    return (
        first is not None and last is not None and all(map(chinese.match, map(chr, range(first, last + 1))))
    )


def _completed(content: bytes, byte: int) -> int | None:
    """The code point that the beginning of a character comes to when it ends in `byte`s, or None if it is no beginning."""
    length = 3 if content[0] >> 4 == 0xE else 4 if content[0] >> 3 == 0x1E else 0
    if not len(content) < length:
        return None
    # E0 and F0 take no byte below A0 and 90, F4 none above 8F: those begin nothing Chinese, so None is right for them.
    try:
        return ord((content + bytes([byte]) * (length - len(content))).decode())
    except UnicodeDecodeError:
        return None
