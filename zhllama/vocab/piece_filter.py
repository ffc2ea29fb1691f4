"""Decides which candidates become pieces: not those of a list, and not those that occur in too few documents."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from zhllama.io.text import read_lines
from zhllama.vocab.counted_text import CountedText, PieceUse
from zhllama.vocab.vocabulary import SPACE
from zhllama.vocab.word_lists import word_list
from zhllama.vocab.word_table import FEW_LINES

EXCLUDED = "is on the exclude list"
LONG = 8  # characters; 中华人民共和国 has 7
FEW = 10  # documents
OFTEN = 10  # occurrences for each document that contains the piece
# Digits and letters of contact details, full width where the vocabulary keeps ASCII out of Chinese pieces.
_CONTACT = re.compile(
    r"https?|www|ｗｗｗ|\.(?:com|net|org|cn)|．(?:ｃｏｍ|ｎｅｔ|ｏｒｇ|ｃｎ)|点ｃｏｍ|[0-9０-９]{5,}|[〇零一二三四五六七八九]{7,}"
    r"|加(?:微信|Ｖ|V|ｑ|Ｑ|Q)|微信号|(?:QQ|ＱＱ|ｑｑ)(?:号|群)|客服(?:电话|热线)|[a-zａ-ｚ0-9０-９]@|＠[a-zａ-ｚ]",
    re.IGNORECASE,
)
_REPEATED = re.compile(r"(.)\1\1|(.{2,})\2")


def plain(text: str) -> str:
    """A piece with spaces for ▁."""
    return text.replace(SPACE, " ")


@dataclass(frozen=True)
class PieceFilter:
    """Texts that are excluded, with spaces for ▁, and in how many documents of a text longer pieces have to occur."""

    exclude: frozenset[str] = frozenset()
    min_documents: int = 1
    text: CountedText | None = None

    def rejected(self, texts: Iterable[str]) -> dict[str, str]:
        """Why texts, with spaces for ▁, do not become pieces; the others are left out."""
        texts = list(texts)
        reasons = {text: EXCLUDED for text in texts if text in self.exclude}
        if self.min_documents > 1 and self.text is not None:
            longer = [text for text in texts if len(text.strip()) > 1 and text not in reasons]
            for text, use in self.text.uses(longer).items():
                if use.documents < self.min_documents:
                    reasons[text] = f"occurs in {use.documents:,} documents"
        return reasons

    @property
    def rejects_any(self) -> bool:
        """Whether it can reject anything."""
        return bool(self.exclude) or self.min_documents > 1


ACCEPT_ALL = PieceFilter()


def suspicions(text: str, use: PieceUse | None = None, exclude: Iterable[str] = ()) -> Iterator[str]:
    """What makes a piece look like advertising or boilerplate rather than a word; `text` has spaces for ▁."""
    word = text.strip()
    if len(word) >= LONG:
        yield "long"
    if use is not None and len(word) > 1 and use.documents < FEW:
        yield "few documents"
    elif use is not None and len(word) > 2 and use.count >= OFTEN * use.documents:
        yield "often in few documents"
    if any(phrase in text or (len(word) > 2 and word in phrase) for phrase in exclude):
        yield "in a phrase of the exclude list"
    if _CONTACT.search(text):
        yield "like a URL or phone number"
    if _REPEATED.search(word):
        yield "repeated characters"


def read_exclude_list(path: Path) -> frozenset[str]:
    """The texts of a list with spaces for ▁: its lines as they are, and the words in a list of another form.

    A piece can contain a comma or end in a number, so that a list of pieces resembles a table. Errors: InputError.
    """
    words = frozenset(map(plain, word_list(path).words))
    if path.suffix == ".model":
        return words
    lines = frozenset(plain(line.strip(" \r\n\ufeff")) for line in read_lines([path]))
    return lines | words if len(lines) >= FEW_LINES else lines


def use_cells(text: str, use: PieceUse | None, exclude: frozenset[str] = frozenset()) -> dict[str, str]:
    """The columns of a table of pieces that tell where a piece occurs and what is suspicious about it."""
    if use is None or not use.count:
        return {
            "documents": "0" if text else "",
            "count": "0" if text else "",
            "domain": "",
            "suspicious": "",
        }
    return {
        "documents": str(use.documents),
        "count": str(use.count),
        "domain": f"{use.domain} {use.share:.0%}",
        "suspicious": ", ".join(suspicions(text, use, exclude)),
    }
