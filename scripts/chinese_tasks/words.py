"""Cloze and character items: a word or a character of a sentence among others of its kind."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import jieba
import jieba.posseg

from scripts.chinese_tasks.items import Item, key, placed
from scripts.chinese_tasks.sentences import Sentence

WRONG = 3
KINDS = {"n": "n", "v": "v", "vn": "v", "a": "a", "an": "a"}  # jieba's parts of speech
COMMON = 300  # occurrences in jieba's dictionary
# Characters that stand almost anywhere.
FUNCTION = frozenset(
    "的了在是不一我你他她它这那有和就也都着过地得上下来去到说要会能可以为与及或而但个里中大小多少好人"
)
LONGEST_WORD = 4
MOST = 3  # items that ask for the same character


@dataclass(frozen=True)
class Gap:
    """A place in a sentence, what stands there, and of which kind it is."""

    sentence: Sentence
    begin: int
    right: str
    kind: str

    def filled(self, text: str) -> str:
        """The sentence with another text in the gap."""
        return self.sentence.text[: self.begin] + text + self.sentence.text[self.begin + len(self.right) :]

    @property
    def shown(self) -> str:
        return self.filled("＿" * len(self.right))


def cloze(sentences: Iterable[Sentence], wanted: int, unsuitable: Mapping[str, Sequence[str]]) -> list[Item]:
    """A two-character word is missing, and the others are words of its kind from other documents.

    Each wrong word is the right one of another item, so that words alone do not tell. `unsuitable`: words that fit as well,
    by the sentence; a sentence without words is left out.
    """
    gaps: list[Gap] = []
    for sentence in sentences:
        if len(gaps) < wanted and unsuitable.get(sentence.text, ["-"]):
            gaps += _word_gap(sentence, {gap.right for gap in gaps})
    items = []
    for number, gap in enumerate(gaps):
        document = "".join(
            other.sentence.text for other in gaps if other.sentence.document == gap.sentence.document
        )
        wrong = [
            other.right
            for other in sorted(gaps, key=lambda other: key("cloze", gap.sentence.text, other.right))
            if other.kind == gap.kind
            and other.sentence.document != gap.sentence.document
            and other.right not in document
            and not set(other.right) & set(gap.right)
            and other.right not in unsuitable.get(gap.sentence.text, ())
        ][:WRONG]
        items.append(_item("cloze", number, gap, wrong))
    return items


def characters(
    sentences: Iterable[Sentence], wanted: int, unsuitable: Mapping[str, Sequence[str]]
) -> list[Item]:
    """A character inside a word is missing; with the others no word of jieba's dictionary covers the place.

    Each wrong character is the right one of another item.
    """
    gaps: list[Gap] = []
    for sentence in sentences:
        if len(gaps) < wanted and unsuitable.get(sentence.text, ["-"]):
            times = Counter(gap.right for gap in gaps)
            gaps += _character_gap(sentence, {right for right, n in times.items() if n == MOST})
    items = []
    for number, gap in enumerate(gaps):
        wrong = [
            right
            for right in sorted({gap.right for gap in gaps}, key=lambda right: key(gap.sentence.text, right))
            if right not in gap.sentence.text
            and right not in unsuitable.get(gap.sentence.text, ())
            and not words_at(gap.filled(right), gap.begin)
        ][:WRONG]
        items.append(_item("characters", number, gap, wrong))
    return items


def words_at(text: str, at: int) -> list[str]:
    """The words of two to four characters in jieba's dictionary that cover a place of the text."""
    jieba.initialize()
    found = []
    for length in range(2, LONGEST_WORD + 1):
        for begin in range(max(0, at - length + 1), at + 1):
            word = text[begin : begin + length]
            if len(word) == length and jieba.dt.FREQ.get(word, 0) > 0:
                found.append(word)
    return found


def _word_gap(sentence: Sentence, taken: set[str]) -> list[Gap]:
    gaps, at = [], 0
    for word, flag in jieba.posseg.cut(sentence.text):
        common = jieba.dt.FREQ.get(word, 0) >= COMMON
        if (
            len(word) == 2
            and flag in KINDS
            and common
            and word not in taken
            and sentence.text.count(word) == 1
        ):
            gaps.append(Gap(sentence, at, word, KINDS[flag]))
        at += len(word)
    return sorted(gaps, key=lambda gap: key("gap", gap.sentence.text, gap.right))[:1]


def _character_gap(sentence: Sentence, taken: set[str]) -> list[Gap]:
    gaps, at = [], 0
    for word in jieba.cut(sentence.text):
        if 2 <= len(word) <= LONGEST_WORD and jieba.dt.FREQ.get(word, 0) >= COMMON:
            gaps += [
                Gap(sentence, at + place, character, word)
                for place, character in enumerate(word)
                if character not in FUNCTION
                and character not in taken
                and sentence.text.count(character) == 1
            ]
        at += len(word)
    return sorted(gaps, key=lambda gap: key("gap", gap.sentence.text, gap.right))[:1]


def _item(task: str, number: int, gap: Gap, wrong: Sequence[str]) -> Item:
    assert len(wrong) == WRONG, f"{gap.sentence.text}: too few words to choose from"
    filled = [gap.filled(text) for text in wrong]
    return placed(task, number, gap.filled(gap.right), filled, gap.shown, gap.sentence.document)
