"""Decodes bytes of a declared or detected encoding strictly; every failure has a reason."""

import codecs
from dataclasses import dataclass

from zhllama.errors import OptionError

SAMPLE = 1 << 16  # bytes at the start of a file from which its encoding is detected
# Share of the bytes above 127 that form valid UTF-8: 0.35 in lines of GB18030, 0.25 in Big5 (1 of 3,000 lines exceeds the
# threshold), 0.98 in UTF-8 with a missing byte (3,000 of 3,000 lines exceed it).
SURELY_UTF8 = 0.75
WIDE = ("utf-16", "utf-16-le", "utf-16-be", "utf-32")  # a line end is not one byte in these encodings
CANDIDATES = ("utf-8", "gb18030", "big5hkscs", "utf-16-le", "utf-16-be")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Ranges of common characters of Chinese text; a wrong encoding yields mostly rarer ones.
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
    """Python's name of an encoding. Errors: OptionError for an unknown one, or one that is not a text encoding."""
    try:
        "中".encode(name, "replace")
        codec = codecs.lookup(name).name
    except (LookupError, UnicodeError):
        raise OptionError(
            "encoding", f"unknown encoding {name!r}", "Give utf-8, gb18030, big5, utf-16 ..."
        ) from None
    # GB2312 and GBK are subsets of GB18030, and files that are labelled with the former often contain the latter.
    return {"gb2312": "gb18030", "gbk": "gb18030", "big5": "big5hkscs", "utf-8-sig": "utf-8"}.get(
        codec, codec
    )


def detect(sample: bytes) -> str | Broken:
    """The encoding of the start of a file: by its byte order mark, as UTF-8, or as another one used for Chinese."""
    for mark, name in _BOMS:
        if sample.startswith(mark):
            return name
    if b"\0" not in sample and (_mostly_utf8(sample) or _share_of_utf8(sample) > SURELY_UTF8):
        return "utf-8"
    chinese = _chinese_encoding(sample)
    if chinese is not None:
        return chinese
    if b"\0" not in sample and _lines_of_utf8(sample)[0]:
        return "utf-8"  # mixed with others: `decode` tries each document separately
    return Broken("binary file" if b"\0" in sample or _control_share(sample) > 0.01 else "unknown encoding")


def decode(data: bytes, encoding: str, declared: bool = False) -> str | Broken:
    """The text of one document, decoded strictly.

    declared: the user named `encoding`. Otherwise a document that is not in `encoding` is tried as GB18030 or Big5,
    because files that were concatenated from many others mix encodings, unless it is UTF-8 with some broken bytes.
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
    """Whether at least half of the lines that are not ASCII are UTF-8."""
    good, lines = _lines_of_utf8(sample)
    return good * 2 > lines or not lines


def _lines_of_utf8(sample: bytes) -> tuple[int, int]:
    """The number of UTF-8 lines among those that are not ASCII, and the number of the latter."""
    lines = [line for line in sample.split(b"\n") if not line.isascii()]
    if len(sample) == SAMPLE and len(lines) > 1:
        lines.pop()  # truncated by the end of the sample
    good = sum(1 for line in lines if _share_of_utf8(line) == 1 or _share_of_utf8(line[:-3]) == 1)
    return good, len(lines)


def _share_of_utf8(data: bytes) -> float:
    """The share of bytes above 127 that belong to complete UTF-8 sequences."""
    high_bytes = (
        sum(1 for byte in data if byte > 127)
        if len(data) < 4096
        else len(data.translate(None, bytes(range(128))))
    )
    if not high_bytes:
        return 1.0
    valid = data.decode("utf-8", "ignore").encode()
    return len(valid.translate(None, bytes(range(128)))) / high_bytes


def _chinese_encoding(sample: bytes) -> str | None:
    """The encoding that charset-normalizer detects, if the decoded text consists mostly of common characters."""
    from charset_normalizer import from_bytes

    for cut in range(4):  # the sample may end inside a character
        data = sample[: len(sample) - cut]
        best = from_bytes(data, cp_isolation=list(CANDIDATES)).best()
        if best is not None:
            name = codecs.lookup(best.encoding).name
            text = data.decode(name, "ignore")
            common = sum(1 for character in text if any(low <= character <= high for low, high in _COMMON))
            return name if text and common / len(text) > 0.9 else None
    return None


def _control_share(sample: bytes) -> float:
    controls = bytes(b for b in range(32) if b not in b"\t\n\r\f\x1b")
    return (len(sample) - len(sample.translate(None, controls))) / max(1, len(sample))
