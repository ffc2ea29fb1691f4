"""The one definition of Han characters, CJK punctuation and the Chinese character sets.

Han is the Unicode script of that name without radicals: the ideographs with all extensions, the compatibility ideographs
(U+F900-FAFF, which old encodings of Chinese text contain), 々, 〇 (二〇二四 is one run of Han) and the Hangzhou numerals.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import Literal, get_args

from zhllama.errors import OptionError

# First and last code point of each range. Source: Scripts.txt of Unicode 17, Script=Han.
HAN_RANGES = (
    (0x3005, 0x3005),  # 々
    (0x3007, 0x3007),  # 〇
    (0x3021, 0x3029),  # Hangzhou numerals 〡 to 〩
    (0x3038, 0x303B),  # Hangzhou numerals 〸 〹 〺, and 〻
    (0x3400, 0x4DBF),  # extension A
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),  # compatibility ideographs
    (0x20000, 0x3347F),  # extensions B to J, and the supplement of compatibility ideographs
)
# Blocks that contain punctuation and symbols; the Han characters among them count as Han.
_PUNCTUATION_RANGES = ((0x3000, 0x3004), (0x3006, 0x3006), (0x3008, 0x3020), (0x302A, 0x3037), (0x303C, 0x303F), (0xFF00, 0xFF65))  # fmt: skip


def _character_class(ranges: tuple[tuple[int, int], ...]) -> str:
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


# For use inside the brackets of a regular expression.
HAN = _character_class(HAN_RANGES)
CJK_PUNCTUATION = _character_class(_PUNCTUATION_RANGES)

chinese = re.compile(f"[{HAN}{CJK_PUNCTUATION}]")
# A run includes one space before it, as in mixed text.
chinese_run = re.compile(f" ?(?:[{HAN}]+|[{CJK_PUNCTUATION}]+)")
han = re.compile(f"[{HAN}]")
ascii_word = re.compile("[A-Za-z0-9]")

Charset = Literal[
    "gb2312", "gb2312-1", "gb2312-2", "big5", "big5-1", "big5-2", "bopomofo", "enclosed", "fullwidth-signs", "kangxi-radicals",
    "radicals-supplement", "ideographic-description", "small-forms", "vertical-forms",
]  # fmt: skip
LEVELS: tuple[Charset, ...] = ("gb2312-1", "gb2312-2", "big5-1", "big5-2")

# Characters of Chinese text that are neither Han nor CJK punctuation, so that they become pieces only on request.
_SYMBOLS: dict[str, tuple[tuple[int, int], ...]] = {
    "bopomofo": ((0x3105, 0x312F), (0x31A0, 0x31BF)),
    "enclosed": ((0x2460, 0x24FF), (0x3220, 0x325F), (0x3280, 0x32BF)),  # ① ⑴ ⒈ Ⓐ ㈠ ㊀
    "fullwidth-signs": ((0xFFE0, 0xFFE6),),  # ￠ ￡ ￢ ￣ ￤ ￥ ￦
    "kangxi-radicals": ((0x2F00, 0x2FD5),),
    "radicals-supplement": ((0x2E80, 0x2EF3),),
    "ideographic-description": ((0x2FF0, 0x2FFF),),
    "small-forms": ((0xFE50, 0xFE6F),),  # ﹐ ﹑ ﹒
    "vertical-forms": ((0xFE10, 0xFE19), (0xFE30, 0xFE4F)),
}

# Trail bytes of the tables: GB 2312-1980 rows 16-55 and 56-87; Big5 A440-C67E and C940-F9D5.
_GB = range(0xA1, 0xFF)
_BIG5 = (*range(0x40, 0x7F), *range(0xA1, 0xFF))


@cache
def charset(name: Charset) -> tuple[str, ...]:
    """The Han characters of a national character set or of one of its levels, or the symbols of a named set, in table order."""
    if name in _SYMBOLS:
        codes_of_set = (code for first, last in _SYMBOLS[name] for code in range(first, last + 1))
        return tuple(c for c in map(chr, codes_of_set) if unicodedata.category(c) != "Cn")
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
    requested = [name.strip().lower() for name in names.split(",") if name.strip()]
    for name in requested:
        if name not in known:
            raise OptionError("cover", f"unknown character set {name!r}", f"Choose from: {', '.join(known)}")
    return tuple(requested)  # type: ignore[arg-type]
