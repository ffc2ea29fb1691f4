"""Which characters are Chinese, and which ones a character set holds."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Literal, get_args

from zhllama.errors import OptionError

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
CJK_PUNCTUATION = "\u3000-\u303f\uff00-\uff65"

chinese = re.compile(f"[{HAN}{CJK_PUNCTUATION}]")
chinese_run = re.compile(
    f" ?(?:[{HAN}]+|[{CJK_PUNCTUATION}]+)"
)  # with the space before it, which mixed text has
han = re.compile(f"[{HAN}]")
ascii_word = re.compile("[A-Za-z0-9]")

Charset = Literal["gb2312", "gb2312-1", "gb2312-2", "big5", "big5-1", "big5-2"]
LEVELS: tuple[Charset, ...] = ("gb2312-1", "gb2312-2", "big5-1", "big5-2")

# Rows of the tables, as lead bytes and trail bytes: GB 2312-1980 rows 16-55 and 56-87; Big5 A440-C67E and C940-F9D5.
_GB = range(0xA1, 0xFF)
_BIG5 = (*range(0x40, 0x7F), *range(0xA1, 0xFF))


@cache
def charset(name: Charset) -> tuple[str, ...]:
    """The Han characters of a national character set, or of one of its levels, in table order."""
    if name in ("gb2312", "big5"):
        return charset(f"{name}-1") + charset(f"{name}-2")
    first, last, trail, codec = {
        "gb2312-1": (0xB0A1, 0xD7FE, _GB, "gb2312"),
        "gb2312-2": (0xD8A1, 0xF7FE, _GB, "gb2312"),
        "big5-1": (0xA440, 0xC67E, _BIG5, "big5"),
        "big5-2": (0xC940, 0xF9D5, _BIG5, "big5"),
    }[name]
    codes = (lead << 8 | t for lead in range(first >> 8, (last >> 8) + 1) for t in trail)
    return tuple(_decoded((c for c in codes if first <= c <= last), codec))


def _decoded(codes: Iterator[int], codec: str) -> Iterator[str]:
    for code in codes:
        try:
            yield code.to_bytes(2, "big").decode(codec)
        except UnicodeDecodeError:
            continue  # GB 2312 leaves five cells free at the end of level 1


def charsets(names: str) -> tuple[Charset, ...]:
    """The character sets that a list such as "gb2312,big5-1" names."""
    known = get_args(Charset)
    given = [name.strip() for name in names.split(",") if name.strip()]
    for name in given:
        if name not in known:
            raise OptionError("cover", f"unknown character set {name!r}", f"Known are: {', '.join(known)}")
    return tuple(given)  # type: ignore[arg-type]
