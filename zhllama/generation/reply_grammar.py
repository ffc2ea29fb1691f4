"""The grammar of replies, line by line: labels, numbers, headings, separators and code fences.

docs/generate.md describes the grammar; `zhllama.generation.reply_blocks` puts the lines of a reply together.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from zhllama.generation.reply_words import SHORT, SIMPLIFIED, WORDS, Role

Kind = Literal["blank", "text", "label", "heading", "titled", "separator", "fence", "attribute"]

# The patterns match the start of a line with runs of white space made one space (`_compact`), so that even a hostile
# reply is read in linear time.
_GAP = " ?"
TITLED = " with a title"  # ends the form of a heading such as 5. 写作
_START = 100  # characters of a line that may contain its label or heading
_DIGITS = r"[0-9０-９]{1,4}"
_HAN_NUMBER = r"[一二三四五六七八九十百零〇两兩]{1,6}"
_PLAIN = rf"(?:{_DIGITS}|{_HAN_NUMBER}|[IVXivx]{{1,5}})"
_ENCLOSED = (
    r"[\u2460-\u249b\u24ea\u24f5-\u24fe\u2776-\u2793\u3220-\u3229\u3251-\u325f\u3280-\u3289\u32b1-\u32bf\u2160-\u216b]"
    r"|(?:[0-9]\ufe0f?\u20e3){1,4}|\U0001f51f"
)
_COUNTER = "[道题題条條组組个個则則例項项]"
# A number that numbers something: 5. 五、 （5） (5) [5] ⑤ 5️⃣ 第五道 #5
NUMBER = (
    rf"(?:[（(\[【〔]{_GAP}{_PLAIN}{_GAP}[)）\]】〕]{_GAP}[.、．:：]?"
    rf"|{_PLAIN}{_GAP}(?:[.．:](?![0-9])|[、。)）：])"
    rf"|(?:{_ENCLOSED}){_GAP}[.、．:：]?"
    rf"|第{_GAP}{_PLAIN}{_GAP}{_COUNTER}{_GAP}[.、．:：]?"
    rf"|#{_GAP}{_DIGITS}{_GAP}[.、．:：]?)"
)
_AFTER = (
    rf"(?:{_GAP}(?:{_PLAIN}|{_ENCLOSED}|[（(]{_GAP}{_PLAIN}{_GAP}[)）]))"  # the number of 指令5 or 任务（五）
)
_EMOJI = r"(?:[\u2190-\u21ff\u2600-\u27bf\u2b00-\u2bff\U0001f300-\U0001faff]\ufe0f?)"
_BULLET = r"(?:[-*+•·●▪◦] |[-•·●▪◦])"

_ITEM = r"任务|任務|题目|題目|指令|示例|例子|例题|例|样例|样本|组|问题|問題|条目|数据|task|example|instruction|item|no\.?|question|q"
_WORD = "|".join(sorted(map(re.escape, WORDS), key=len, reverse=True))
_BOLD = r"\*\*|__"
_LABEL = re.compile(
    rf"(?P<hashes>#{{1,6}} ?)?(?P<bullet>{_BULLET})?(?P<emoji1>{_EMOJI})? ?(?P<bold1>{_BOLD})?(?P<emoji2>{_EMOJI})? ?(?P<number>{NUMBER} ?)?"
    rf"(?P<bold2>{_BOLD})? ?(?P<bold3>{_BOLD})?(?P<open>[【\[〈「])? ?(?P<name>{_WORD})(?P<suffix>{_AFTER})? ?(?P<close>[】\]〉」])?"
    rf"(?P<bold4>{_BOLD})? ?(?P<colon>[:：])?(?P<bold5> ?(?:{_BOLD}))?",
    re.IGNORECASE,
)
_HEADING = re.compile(
    rf"{_GAP}(?P<hashes>#{{1,6}})?{_GAP}{_EMOJI}?{_GAP}(?P<bold>\*{{2,3}}|__)?{_GAP}(?P<open>[【\[<〈「（(])?{_GAP}"
    rf"(?:(?P<word>{_ITEM}){_GAP}(?P<after>{_AFTER}|{NUMBER}){_GAP}(?:{_COUNTER})?|(?P<number>{NUMBER}{_GAP}(?:任务|任務|题目|題目|示例|例子)?)"
    rf"|(?P<bare>{_DIGITS}))"
    rf"{_GAP}[】\]>〉」）)]?{_GAP}(?P<mark>[:：.、．\-—–]{{0,2}}){_GAP}(?:\*{{2,3}}|__)?(?P<title>.*)",
    re.IGNORECASE,
)
_ANNOUNCEMENT = re.compile(
    rf".{{0,16}}第{_GAP}{_PLAIN}{_GAP}{_COUNTER}(?:任务|任務|题目|題目|指令|示例)?.{{0,8}}[:：]"
)
_SEPARATOR = re.compile(
    r"#{2,6}|-( ?-)+|\*( ?\*){2,}|_( ?_){2,}|={3,}|~{4,}|[—–─━]{2,}|[·•.…]{6,}|<[bh]r ?/?>"
)
_FENCE = re.compile(r"[ \t]{0,3}(?P<fence>`{3,16}|~{3})[ \t]{0,4}(?P<info>[\w+#.-]{0,16})[ \t]{0,8}")
_ATTRIBUTE = re.compile(
    rf"{_GAP}{_BULLET}?(?:\*\*)?[【\[]?(?P<name>类型|類型|任务类型|类别|類別|分类|分類|领域|領域|主题|主題|难度|難度|编号|編號|序号|序號|题型|題型"
    rf"|标题|標題|id|type|category|topic|difficulty|title)[】\]]?(?:\*\*)?{_GAP}[:：].{{1,40}}",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Line:
    """One line of a reply and what it may be: `kind` is a candidate, which the style of the reply confirms or not."""

    text: str
    kind: Kind
    # What lines of one style share: a heading without its number and title, the sign of a separator, an attribute's name,
    # whether a label follows a bullet, an emoji or a bracket.
    form: str = ""
    role: Role | None = None
    word: str = ""
    number: str = ""  # before a label, without its signs
    colon: bool = False  # of a label; without a colon the label is alone on its line
    indent: int = 0
    value: str = ""  # after a label
    bold_open: bool = False  # ** before a label that is not closed before the value


@lru_cache(maxsize=4096)
def read_line(text: str) -> Line:
    """Classify one line."""
    stripped = text.strip()
    if not stripped:
        return Line(text, "blank")
    if fence := _FENCE.fullmatch(text):
        return Line(text, "fence", fence["fence"][0], value=fence["info"], indent=len(fence["fence"]))
    start, positions = _compact(text)
    if _SEPARATOR.fullmatch(start) and len(stripped) < _START:
        return Line(text, "separator", stripped[0])
    if label := _read_label(text, start, positions):
        return label
    if len(stripped) <= 60:
        if (match := _HEADING.fullmatch(start)) and (heading := _heading(text, match)):
            return heading
        if _ANNOUNCEMENT.fullmatch(start):
            return Line(text, "heading", "announcement")
        if attribute := _ATTRIBUTE.fullmatch(start):
            return Line(text, "attribute", attribute["name"].lower())
    return Line(text, "text")


def _compact(text: str) -> tuple[str, list[int]]:
    """The start of a line without indentation, with one space for each run of white space, and where each character was."""
    characters: list[str] = []
    positions: list[int] = []
    for position, character in enumerate(text[: 2 * _START]):
        space = character in " \t\u3000\xa0\ufeff\u200b"
        if space and (not characters or characters[-1] == " "):
            continue
        characters.append(" " if space else character)
        positions.append(position)
    start = "".join(characters)[:_START]
    return start.rstrip(" "), positions


def _read_label(text: str, start: str, positions: list[int]) -> Line | None:
    match = _LABEL.match(start)
    if match is None:
        return None
    name = match["name"].lower()
    end = match.end()
    opened = sum(match[part] is not None for part in ("bold1", "bold2", "bold3")) % 2
    if match["bold5"] and (match["bold4"] or not opened):
        end = match.start("bold5")  # the value itself starts in bold, as in 输出：**注意**
        closed = match["bold4"] is not None
    else:
        closed = match["bold4"] is not None or match["bold5"] is not None
    if closed and not opened:
        if match["colon"] is not None or match["close"] != "】":
            return None
        end, closed = match.start("bold4"), False  # 【输出】**注意**
    value = text[positions[end] :] if end < len(positions) else ""
    marked = bool(match["hashes"] or opened or (match["open"] and match["close"]))
    if match["colon"] is None:
        # Without a colon a label is alone on its line, or in the brackets 【】.
        if value.strip() and not (match["open"] == "【" and match["close"] == "】"):
            return None
        if not marked and (match["suffix"] or name in SHORT):
            return None
    suffix = match["suffix"]
    return Line(
        text,
        "label",
        form="".join(
            sign
            for sign, groups in (("-", ("bullet",)), ("e", ("emoji1", "emoji2")), ("[", ("open",)))
            if any(match[group] for group in groups)
        )
        + _marker_style(match["number"] or ""),
        role=WORDS[name],
        word=SIMPLIFIED.get(name, name),
        number=number_of(match["number"] or "") or (f"~{number_of(suffix)}" if suffix else ""),
        colon=match["colon"] is not None,
        indent=positions[0] + len(match["bullet"] or ""),
        value=value,
        bold_open=bool(opened) and not closed,
    )


def _heading(text: str, match: re.Match[str]) -> Line | None:
    title = match["title"].strip().strip("*_").strip()
    hashes, bold = match["hashes"] or "", "**" if match["bold"] else ""
    if match["word"]:
        form = f"{hashes}{bold}{match['open'] or ''}{match['word'].lower()}"
        return _with_title(text, form, title, number_of(match["after"]))
    if match["number"]:
        number = match["number"]
        form = f"{hashes}{bold}{match['open'] or ''}{number_class(number)}"
        return _with_title(text, form, title, number_of(number))
    if title or match["open"]:
        return None
    return Line(text, "heading", f"{hashes}{bold}0", number=number_of(match["bare"]))


def _with_title(text: str, form: str, title: str, number: str) -> Line:
    return Line(text, "titled" if title else "heading", form + (TITLED if title else ""), number=number)


_HAN_DIGITS = {character: value for value, character in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2, "兩": 2}  # fmt: skip


def number_of(text: str) -> str:
    """The number in a marker such as 五、 （5） or ⑤, as decimal digits; the bare text for other numerals; "" for none."""
    plain = (
        unicodedata.normalize("NFKC", text)
        .replace("\U0001f51f", "10")
        .replace("\ufe0f", "")
        .replace("\u20e3", "")
    )
    if digits := re.search(r"\d+", plain):
        return str(int(digits.group()))
    if han := re.search(_HAN_NUMBER, plain):
        value, unit = 0, 0
        for character in han.group():
            if character == "十":
                value, unit = value + (unit or 1) * 10, 0
            elif character == "百":
                value, unit = value + (unit or 1) * 100, 0
            else:
                unit = unit * 10 + _HAN_DIGITS[character] if unit and not value else _HAN_DIGITS[character]
        return str(value + unit)
    roman = re.search(r"[IVXivx]+", plain)
    return roman.group().upper() if roman else ""


def number_class(marker: str) -> str:
    """The kind of a marker's numeral: 0 digits, 一 Han, ① enclosed, I Roman, - a bullet."""
    if re.search(_ENCLOSED, marker):
        return "①"  # also 5️⃣
    if re.search(r"[0-9０-９]", marker):
        return "0"
    if re.search(_HAN_NUMBER, marker):
        return "一"
    return "I" if re.search(r"[IVXivx]", marker) else "-"


def _marker_style(marker: str) -> str:
    return (number_class(marker) + ("(" if marker[0] in "（([【〔" else "")) if marker else ""


_LIST_ITEM = re.compile(
    rf"(?:#{{1,6}}{_GAP})?(?P<bold>\*{{2,3}})?{_GAP}"
    rf"(?:(?:任务|任務|指令|题目|題目){_GAP}(?P<after>{_PLAIN}{_GAP}[.、．)）:：])|(?P<number>{NUMBER})|(?P<bullet>[-*+•·●▪◦] |[-•·●▪◦](?!-)))"
    rf"(?P<bold2>\*{{2,3}})? ?"
)


@dataclass(frozen=True)
class ListItem:
    """The first line of a list item."""

    style: str  # of the marker, as in `number_class`
    number: str
    text: str  # the line without its marker
    indent: int


@lru_cache(maxsize=4096)
def read_list_item(text: str) -> ListItem | None:
    """A line that starts with a number or a bullet; None for any other line."""
    start, positions = _compact(text)
    match = _LIST_ITEM.match(start)
    if match is None:
        return None
    marker = match["after"] or match["number"] or ""
    item = text[positions[match.end()] :].strip() if match.end() < len(positions) else ""
    if (match["bold"] is None) != (match["bold2"] is None):  # **9. 写诗。** or 9. **写诗。**
        if match["bold"] is None:
            item = f"**{item}"
        elif item.endswith("**"):
            item = item[:-2]
    if item.startswith("**") and item.endswith("**") and item.count("**") == 2:
        item = item[2:-2].strip()
    return ListItem(number_class(marker) if marker else "-", number_of(marker), item, positions[0])
