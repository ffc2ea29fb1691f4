"""Finds characters that a wrong encoding leaves in a text."""

import re

from ftfy.badness import is_bad

from zhllama.characters import han

# The replacement character, half a surrogate pair, noncharacters, and control characters except tab and line breaks.
_BROKEN = re.compile(
    "[\ufffd\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]|锟斤拷|烫烫烫|屯屯屯"
)
_QUOTES = "“‘「『\"'`", "”’」』\"'`"
_RUN = re.compile(r"[^\x00-\x7f]{4,}")
MIN_HAN = 3  # in text of another encoding that reads as UTF-8


def broken_characters(text: str, about: str = "") -> str | None:
    """The first characters of a text that a wrong encoding left there, or None.

    Those that `about` quotes, as in “�”是什么意思, are the topic of the text and no damage.
    """
    for found in _BROKEN.finditer(text):
        if not any(before + found[0] in about for before in _QUOTES[0]):
            return found[0].encode("unicode_escape").decode() if len(found[0]) == 1 else found[0]
    for line in text.split("\n"):
        if is_bad(line.replace("\ufffd", "")):  # UTF-8 that was read as Latin-1 or a similar encoding
            return line[:20]
        for run in _RUN.findall(line):
            if _reads_as_utf8(run):
                return str(run[:20])
    return None


def _reads_as_utf8(text: str) -> bool:
    """True for UTF-8 that was read as GBK, which may have lost single bytes."""
    encoded = text.encode("gb18030", "ignore")
    decoded = encoded.decode("utf-8", "ignore")
    return len(han.findall(decoded)) >= MIN_HAN and len(decoded.encode("utf-8")) * 5 >= len(encoded) * 4
