"""The edits of cleaning: functions from text to text, in linear time."""

import html
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from zhllama.characters import HAN
from zhllama.chinese_script import converter

Edit = Callable[[str], str]
Width = Literal["keep", "letters", "all"]
Convert = Literal["t2s", "s2t", "tw2s", "s2tw", "hk2s", "s2hk"]

# Control characters except tab and line feed, direction marks, zero-width characters, soft hyphens, byte order marks.
# The joiners U+200C and U+200D stay: emoji and some scripts need them.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\ufeff\ufff9-\ufffb]+"
)
_BLANK_LINES = re.compile(r"\n{3,}")


def unicode_form(text: str) -> str:
    """NFC, uniform line ends, no invisible characters, no spaces at line ends, at most one blank line in a row."""
    if "\r" in text or "\u2028" in text or "\u2029" in text or "\x0c" in text:
        text = re.sub("\r\n?|[\u2028\u2029\x0c]", "\n", text)
    lines = unicodedata.normalize("NFC", _INVISIBLE.sub("", text)).split("\n")
    return _BLANK_LINES.sub("\n\n", "\n".join(map(str.rstrip, lines))).strip()


_FULL = re.compile("[０-９Ａ-Ｚａ-ｚ]+")
_TO_HALF = {
    code: code - 0xFEE0 for code in (*range(0xFF10, 0xFF1A), *range(0xFF21, 0xFF3B), *range(0xFF41, 0xFF5B))
}
_HALF_KANA = re.compile("[\uff61-\uff9f]+")
_HALF_MARK = re.compile(rf"(?<=[{HAN}”’》）])[,;:?!](?=[{HAN}“‘《（\s]|$)")
_TO_FULL = dict(zip(",;:?!", "，；：？！", strict=True))


@dataclass(frozen=True)
class EvenWidth:
    """Full-width letters and digits to ASCII, half-width kana to full width; `all` also , ; : ? ! after Han to ， ； ： ？ ！."""

    width: Width = "letters"

    def __call__(self, text: str) -> str:
        text = _FULL.sub(lambda match: match[0].translate(_TO_HALF), text)
        text = _HALF_KANA.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
        return _HALF_MARK.sub(lambda match: _TO_FULL[match[0]], text) if self.width == "all" else text


_TAGS = (
    "a abbr article aside b big blockquote body br button center cite code col dd del details div dl dt em figcaption figure "
    "font footer form h1 h2 h3 h4 h5 h6 head header hr html i iframe img input ins label li link main mark meta nav ol "
    "option noscript p picture pre q s script section select small source span strike strong style sub summary sup svg table tbody td textarea "
    "tfoot th thead title tr tt u ul video"
).replace(" ", "|")
_BLOCK = "address|article|blockquote|br|dd|div|dl|dt|figure|footer|form|h[1-6]|header|hr|li|ol|p|pre|section|table|tr|ul"
_HIDDEN = [(re.compile("<!--"), re.compile("-->"))] + [
    (re.compile(rf"<{name}\b[^<>]{{0,2000}}>", re.I), re.compile(rf"</{name}\s{{0,9}}>", re.I))
    for name in ("script", "style", "noscript")
]
_BREAK = re.compile(rf"</?(?:{_BLOCK})(?:\s[^<>]{{0,2000}})?/?>", re.I)
_TAG = re.compile(rf"</?(?:{_TAGS})(?:\s[^<>]{{0,2000}})?/?>|<!doctype\b[^<>]{{0,300}}>", re.I)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,20});", re.I)


def without_html(text: str) -> str:
    """Text without HTML tags, scripts, styles and comments, and with entities decoded.

    `a < b` and `vector<int>` stay. Block elements become line ends, so that paragraphs stay apart.
    """
    if "<" in text:
        for first, last in _HIDDEN:
            text = _without(text, first, last)
        text = _TAG.sub("", _BREAK.sub("\n", text))
    return _ENTITY.sub(lambda match: html.unescape(match[0]), text) if "&" in text else text


def _without(text: str, first: re.Pattern[str], last: re.Pattern[str]) -> str:
    """Text without the spans from `first` to `last`. A loop, because one pattern for both is quadratic in hostile text."""
    parts, at = [], 0
    while (begin := first.search(text, at)) and (end := last.search(text, begin.end())):
        parts.append(text[at : begin.start()])
        at = end.end()
    return "".join((*parts, text[at:]))


_IMAGE = re.compile(r"!\[([^\[\]\n]{0,300})\]\([^()\s]{0,2000}(?:\s+\"[^\"\n]{0,200}\")?\)")
_LINK = re.compile(
    r"\[([^\[\]\n]{1,300})\]\((?:https?:|/|\.|#|mailto:)[^()\s]{0,2000}(?:\s+\"[^\"\n]{0,200}\")?\)"
)
_BOLD = re.compile(r"(\*\*|__)(?=[^\s*_])([^\n*]{1,200}?)(?<=[^\s*_])\1")
_HEADING = re.compile(r"^#{2,6} {1,9}(?=\S)", re.M)
_RULE = re.compile(r"^ {0,3}(?:-{3,}|\*{3,}|={3,}|_{3,}) *$\n?", re.M)


def without_markdown(text: str) -> str:
    """Text without images, link targets, bold marks, heading marks of two or more #, and rules; code is not changed.

    A single # stays, because it starts a comment in many languages.
    """
    if "](" in text:
        text = _LINK.sub(r"\1", _IMAGE.sub("", text))
    if "**" in text or "__" in text:
        text = _BOLD.sub(r"\2", text)
    return _RULE.sub("", _HEADING.sub("", text))


@dataclass(frozen=True)
class ConvertScript:
    """Converts between Traditional and Simplified with OpenCC, phrases before characters."""

    convert: Convert

    def __call__(self, text: str) -> str:
        return converter(self.convert)(text)


# Navigation and notices around the text of a page. Only whole short lines, so a sentence about copyright stays.
_BOILERPLATE = re.compile(
    r"^.{0,20}(?:版权所有|版權所有|未经.{0,12}(?:不得|禁止|严禁)转载|转载请注明|轉載請註明|All Rights Reserved|ICP[备證证]\d|公网安备"
    r"|责任编辑[:：]|責任編輯[:：]|上一篇[:：]|下一篇[:：]|点击(?:查看|阅读|进入|下载)(?:更多|全文|原文)?|點擊(?:查看|閱讀)|阅读全文|查看更多"
    r"|返回(?:首页|顶部|列表)|扫(?:一扫|码)(?:关注|下载|分享)?|长按.{0,8}二维码|关注.{0,12}(?:公众号|微信)|分享到[:：]|本文来源[:：]"
    r"|您的浏览器|请(?:先)?登录|加入收藏|设为首页|网站地图|友情链接|联系我们|隐私政策|Cookie Policy|Privacy Policy|Sign in|Log in)"
    r".{0,40}$",
    re.I,
)


def without_boilerplate(text: str) -> str:
    """Text without short lines of navigation, copyright, sharing and the like."""
    lines = text.split("\n")
    remaining = [line for line in lines if not (2 < len(line) <= 80 and _BOILERPLATE.match(line.strip()))]
    return text if len(remaining) == len(lines) else "\n".join(remaining).strip()


_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9])"
)
# Each pattern matches its first character before the lookbehind; starting with a lookbehind is five times slower.
_MOBILE = re.compile(r"1(?<![\dA-Za-z.]1)[3-9]\d(?:\d{8}|[ -]\d{4}[ -]\d{4})(?![\dA-Za-z])")
_MOBILE_ABROAD = re.compile(r"\+86[ -]?1[3-9]\d(?:\d{8}|[ -]\d{4}[ -]\d{4})(?![\dA-Za-z])")
_LANDLINE = re.compile(
    r"0(?<![\dA-Za-z.]0)\d{2,3}[ -][2-9]\d{6,7}(?![\dA-Za-z-])|[(（]0\d{2,3}[)）][2-9]\d{6,7}(?![\dA-Za-z-])"
)
_ID = re.compile(
    r"[1-9](?<![\dA-Za-z].)\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?![\dA-Za-z])"
)
EMAIL, PHONE, ID = "[邮箱]", "[电话]", "[身份证号]"


def masked(text: str) -> str:
    """Text with e-mail addresses, mainland phone numbers and identity numbers replaced by their kind.

    An identity number needs a valid check digit (GB 11643-1999), so another number of 18 digits stays.
    """
    if "@" in text:
        text = _EMAIL.sub(EMAIL, text)
    text = _ID.sub(lambda match: ID if is_identity_number(match[0]) else match[0], text)
    return _LANDLINE.sub(PHONE, _MOBILE.sub(PHONE, _MOBILE_ABROAD.sub(PHONE, text)))


def masked_spans(text: str) -> list[tuple[int, int, str]]:
    """Begin, end and mask of what `masked` replaces in a text, in order."""
    spans: list[tuple[int, int, str]] = []
    hidden = text  # what a mask covers cannot be part of another match
    for pattern, mask in (
        (_EMAIL, EMAIL),
        (_ID, ID),
        (_MOBILE_ABROAD, PHONE),
        (_MOBILE, PHONE),
        (_LANDLINE, PHONE),
    ):
        if pattern is _EMAIL and "@" not in text:
            continue
        found = [m for m in pattern.finditer(hidden) if pattern is not _ID or is_identity_number(m[0])]
        for match in found:
            spans.append((match.start(), match.end(), mask))
            hidden = hidden[: match.start()] + "]" * len(match[0]) + hidden[match.end() :]
    return sorted(spans)


def is_identity_number(number: str) -> bool:
    """Whether the last of 18 characters is the check digit of the others."""
    total = sum(int(digit) * pow(2, 17 - position, 11) for position, digit in enumerate(number[:17]))
    return "10X98765432"[total % 11] == number[17].upper()
