"""Bytes of unknown origin to text: declared or detected, strict, and every failure with its reason."""

import codecs
from dataclasses import dataclass

from zhllama.errors import OptionError

SAMPLE = 1 << 16  # bytes from the head of a file that its encoding is judged by
# Lines of GB18030 and Big5 look like UTF-8 in .35 and .25 of their high bytes, 1 of 3,000 in more than this; a line of
# UTF-8 with a byte missing in .98, and 3,000 of 3,000 in more than this.
SURELY_UTF8 = 0.75
WIDE = ("utf-16", "utf-16-le", "utf-16-be", "utf-32")  # a line end is not one byte in these
CANDIDATES = ("utf-8", "gb18030", "big5hkscs", "utf-16-le", "utf-16-be")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What a Chinese text is mostly made of; a wrong decoding scatters over rarer signs.
_COMMON = (
    ("一", "龥"),
    (" ", "~"),
    ("，", "，"),
    ("。", "。"),
    ("\n", "\n"),
    ("\r", "\r"),
    ("\t", "\t"),
    ("　", "〗"),
    ("！", "～"),
)


@dataclass(frozen=True)
class Broken:
    """Why bytes are not text."""

    reason: str


def known_encoding(name: str) -> str:
    """Python's name of an encoding; OptionError for one that it does not know, or that is no text encoding."""
    try:
        "中".encode(name, "replace")
        found = codecs.lookup(name).name
    except (LookupError, UnicodeError):
        raise OptionError(
            "encoding", f"unknown encoding {name!r}", "Give utf-8, gb18030, big5, utf-16 ..."
        ) from None
    # GB2312 and GBK are parts of GB18030, and files that claim the former hold the latter.
    return {"gb2312": "gb18030", "gbk": "gb18030", "big5": "big5hkscs", "utf-8-sig": "utf-8"}.get(
        found, found
    )


def detect(sample: bytes) -> str | Broken:
    """The encoding of the head of a file: by its mark, as UTF-8, or as one of those that Chinese comes in."""
    for mark, name in _BOMS:
        if sample.startswith(mark):
            return name
    if b"\0" not in sample and (_mostly_utf8(sample) or _share_of_utf8(sample) > SURELY_UTF8):
        return "utf-8"
    chinese = _chinese_encoding(sample)
    if chinese is not None:
        return chinese
    if b"\0" not in sample and _lines_of_utf8(sample)[0]:
        return "utf-8"  # mixed with others: each document gets its own hearing
    return Broken("binary file" if b"\0" in sample or _control_share(sample) > 0.01 else "unknown encoding")


def decode(data: bytes, encoding: str, declared: bool = False) -> str | Broken:
    """Text of one document, strictly in `encoding`; an undeclared one that is not UTF-8 may be GB18030 or Big5 by itself.

    Files put together from many others mix encodings, so a document that fails gets a hearing of its own, unless it
    is UTF-8 with some bytes broken.
    """
    for name in (encoding,) if declared or encoding == "utf-8" else ("utf-8", encoding):
        try:
            return data.decode(name).removeprefix("\ufeff")
        except UnicodeDecodeError:
            continue
    if declared or encoding != "utf-8" or _share_of_utf8(data) > SURELY_UTF8:
        return Broken(f"broken {encoding}")
    own = _chinese_encoding(data[:SAMPLE])
    if own is None or own in WIDE:
        return Broken("unknown encoding")
    try:
        return data.decode(own)
    except UnicodeDecodeError:
        return Broken(f"broken {own}")


def _mostly_utf8(sample: bytes) -> bool:
    """Whether UTF-8 it is, be it with broken lines: most of the lines beyond ASCII are."""
    good, lines = _lines_of_utf8(sample)
    return good * 2 > lines or not lines


def _lines_of_utf8(sample: bytes) -> tuple[int, int]:
    """How many lines beyond ASCII are UTF-8, and how many there are."""
    lines = [line for line in sample.split(b"\n") if not line.isascii()]
    if len(sample) == SAMPLE and len(lines) > 1:
        lines.pop()  # cut by the end of the sample
    good = sum(1 for line in lines if _share_of_utf8(line) == 1 or _share_of_utf8(line[:-3]) == 1)
    return good, len(lines)


def _share_of_utf8(data: bytes) -> float:
    """The share of bytes beyond ASCII that stand in whole UTF-8 sequences."""
    beyond = (
        sum(1 for byte in data if byte > 127)
        if len(data) < 4096
        else len(data.translate(None, bytes(range(128))))
    )
    if not beyond:
        return 1.0
    kept = data.decode("utf-8", "ignore").encode()
    return len(kept.translate(None, bytes(range(128)))) / beyond


def _chinese_encoding(sample: bytes) -> str | None:
    """What charset-normalizer takes the bytes for, when the text that comes out is mostly common signs."""
    from charset_normalizer import from_bytes

    for cut in range(4):  # the sample may end inside a character
        data = sample[: len(sample) - cut]
        best = from_bytes(data, cp_isolation=list(CANDIDATES)).best()
        if best is not None:
            name = codecs.lookup(best.encoding).name
            text = data.decode(name, "ignore")
            common = sum(1 for sign in text if any(low <= sign <= high for low, high in _COMMON))
            return name if text and common / len(text) > 0.9 else None
    return None


def _control_share(sample: bytes) -> float:
    controls = bytes(b for b in range(32) if b not in b"\t\n\r\f\x1b")
    return (len(sample) - len(sample.translate(None, controls))) / max(1, len(sample))
