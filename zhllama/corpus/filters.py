"""The filters of cleaning: each returns the reason to reject a document, or None."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from zhllama.characters import HAN_RANGES
from zhllama.chinese_script import converter
from zhllama.corpus.ngrams import codes, repeated_share
from zhllama.errors import InputError
from zhllama.io.files import read_utf8

Filter = Callable[[str], str | None]
Language = Literal["zh", "en"]
Script = Literal["any", "simplified", "traditional"]

OTHER, HAN, KANA, HANGUL, LATIN, LETTER, SPACE = range(7)
_RANGES = (
    *((HAN, first, last) for first, last in HAN_RANGES),
    (KANA, 0x3041, 0x30FF),
    (HANGUL, 0xAC00, 0xD7AF),
    (HANGUL, 0x1100, 0x11FF),
    (LATIN, 0x41, 0x5A),
    (LATIN, 0x61, 0x7A),
    (LATIN, 0xC0, 0x24F),
)


def broken_text(text: str) -> str | None:
    """Reject text that was decoded with a wrong encoding earlier."""
    lost = text.count("\ufffd") + 3 * text.count("锟斤拷") + 2 * text.count("烫烫烫")
    return "broken characters" if lost * 200 > len(text) else None


@dataclass(frozen=True)
class InLanguages:
    """Accepts text in one of the languages, judged by its letters.

    Chinese: at least a share `min_han` of the letters is Han, and at most a tenth is kana, because Japanese contains Han
    too. English: at least 90 % is Latin. A share `min_letters` of all characters except spaces must be letters.
    """

    languages: tuple[Language, ...] = ("zh", "en")
    min_han: float = 0.3
    min_letters: float = 0.4

    def __call__(self, text: str) -> str | None:
        counts = np.bincount(_classes()[codes(text)], minlength=7)
        letters = int(counts[HAN : LETTER + 1].sum())
        characters = len(text) - int(counts[SPACE])
        if letters < self.min_letters * characters or not letters:
            return "mostly symbols and digits"
        if "zh" in self.languages and counts[HAN] >= self.min_han * letters:
            return None if counts[KANA] <= 0.1 * letters else "Japanese"
        if "en" in self.languages and counts[LATIN] >= 0.9 * letters:
            return None
        if counts[KANA] > 0.1 * letters:
            return "Japanese"
        if counts[HANGUL] > 0.3 * letters:
            return "Korean"
        return "too little Chinese" if "zh" in self.languages else "too little English"


@dataclass(frozen=True)
class InScript:
    """Accepts text if at most a fifth of its characters that occur in one script only belong to the other script."""

    script: Script

    def __call__(self, text: str) -> str | None:
        simplified, traditional = (int(np.count_nonzero(table[codes(text)])) for table in _script_tables())
        other = {"simplified": traditional, "traditional": simplified, "any": 0}[self.script]
        if other * 5 <= simplified + traditional:
            return None
        return "Traditional" if self.script == "simplified" else "Simplified"


@dataclass(frozen=True)
class OfLength:
    """Accepts a range of lengths, in characters."""

    shortest: int = 20
    longest: int = 5_000_000

    def __call__(self, text: str) -> str | None:
        if not text.strip():
            return "empty"
        if len(text) < self.shortest:
            return "too short"
        return "too long" if len(text) > self.longest else None


@dataclass(frozen=True)
class NotRepeated:
    """Rejects repetitive text: more than 0.3 repeated lines (Gopher, arXiv:2112.11446) or `most` repeated 10-grams.

    Gopher counts words; 10 characters correspond to the 5 to 6 words of its strictest rule. Long texts repeat n-grams
    naturally; books of a million characters stay below 0.1.
    """

    most: float = 0.3

    def __call__(self, text: str) -> str | None:
        lines = [line for line in text.split("\n") if line.strip()]
        if len(lines) > 3 and 1 - len(set(lines)) / len(lines) > 0.3:
            return "repeated lines"
        return "repeated characters" if repeated_share(text, 10) > self.most else None


_URL = re.compile(r"https?://[^\s<>\"'，。；、）)】]{1,2000}|www\.[^\s<>\"'，。；、）)】]{1,2000}", re.I)


def link_list(text: str) -> str | None:
    """Reject text that consists mostly of URLs."""
    if "://" not in text and "www." not in text:
        return None
    return "mostly links" if sum(len(url) for url in _URL.findall(text)) * 2 > len(text) else None


@dataclass(frozen=True)
class WithoutWords:
    """Rejects text with at least `hits` of the user's words; `lists` contains (name of the list, its words)."""

    lists: tuple[tuple[str, tuple[str, ...]], ...]
    hits: int = 3

    @cached_property
    def _automata(self) -> list[tuple[str, Any]]:
        import ahocorasick  # type: ignore[import-not-found]

        automata = []
        for name, words in self.lists:
            automaton = ahocorasick.Automaton(ahocorasick.STORE_LENGTH)
            for word in words:
                automaton.add_word(word)
            automaton.make_automaton()
            automata.append((name, automaton))
        return automata

    def __call__(self, text: str) -> str | None:
        lowered = text.lower()
        for name, automaton in self._automata:
            if sum(1 for _ in islice(automaton.iter(lowered), self.hits)) == self.hits:
                return f"words of {name}"
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {"lists": self.lists, "hits": self.hits}


@dataclass(frozen=True)
class NotListed:
    """Rejects a document whose URL, host or parent domain is on the user's list."""

    listed: frozenset[str]

    def __call__(self, url: str | None) -> str | None:
        if not url:
            return None
        try:
            host = (urlsplit(url).hostname or "").lower().strip(".")
        except ValueError:
            return None
        lowered = url.lower()
        if lowered in self.listed or lowered.split("://", 1)[-1].rstrip("/") in self.listed:
            return "listed address"
        labels = host.split(".")
        return "listed site" if any(".".join(labels[i:]) in self.listed for i in range(len(labels))) else None


def read_words(paths: Iterable[Path]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Word lists by file name: one word per line, lowercased, without lines that begin with #. Errors: InputError."""
    lists = []
    for path in paths:
        lines = read_utf8(path).splitlines()
        words = dict.fromkeys(
            line.strip().lower() for line in lines if line.strip() and not line.startswith("#")
        )
        if not words:
            raise InputError(path, "contains no word", "Write one word a line")
        lists.append((path.name, tuple(words)))
    return tuple(lists)


@cache
def _classes() -> NDArray[np.int64]:
    """The class of every code point."""
    table = np.zeros(0x110000, dtype=np.int64)
    for code in range(0x10000):
        if not 0xD800 <= code < 0xE000:
            character = chr(code)
            table[code] = LETTER if character.isalpha() else SPACE if character.isspace() else OTHER
    for kind, first, last in _RANGES:
        table[first : last + 1] = kind
    table[[0xD7, 0xF7]] = OTHER  # × and ÷ lie within the Latin ranges
    return table


@cache
def _script_tables() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks of the code points that are only Simplified, and only Traditional: those that OpenCC converts."""
    characters = [chr(code) for code in range(0x4E00, 0xA000)]
    changed = []
    for name in ("s2t", "t2s"):
        table = np.zeros(0x110000, dtype=np.bool_)
        converted = converter(name)("\n".join(characters)).split("\n")
        for before, after in zip(characters, converted, strict=True):
            table[ord(before)] = before != after
        changed.append(table)
    # 后 becomes 後 but is also a Traditional character: one that changes in both directions decides nothing.
    return changed[0] & ~changed[1], changed[1] & ~changed[0]
