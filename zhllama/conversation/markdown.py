"""Converts answers copied from a web page, as ShareGPT stores them in HTML, back into Markdown."""

import re
from typing import TYPE_CHECKING, Any

from zhllama.errors import MissingPackage

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

# What a page renders from Markdown begins and ends with one of these; an answer about HTML begins otherwise.
_BLOCK = "div|p|pre|ol|ul|table|blockquote|h[1-6]"
_WRAPPED = re.compile(rf"\A\s*<(?:{_BLOCK})\b[^<>]{{0,2000}}>.*</(?:{_BLOCK})>\s*\Z", re.I | re.S)
# The class names of the page that ShareGPT was copied from; a question stands in it as plain text.
_ANSWER = re.compile(r'<div class="[^"<>]{0,300}\b(?:markdown|prose)\b|<button\b[^<>]{0,300}>', re.I)
_QUESTION = re.compile(r'\A\s*<div class="[^"<>]{0,300}\bwhitespace-pre-wrap\b', re.I)
_LANGUAGE = re.compile(r"language-([\w+#.-]{1,30})")
# The button's words where the HTML is gone already: "```pythonCopy code", or a line of its own before the code.
_FENCE_BUTTON = re.compile(r"^(`{3,}) *([\w+#.-]{0,30}?) *Copy code *\n?", re.M)
_BUTTON_LINE = re.compile(r"^([\w+#.-]{0,30}?)Copy code\n", re.M)
_COUNTER = re.compile(r"^(?:\d{1,3} / \d{1,3}|Copy\d+ chars / \d+ words)$\n?", re.M)
UNWANTED = ("button", "svg", "script", "style", "noscript", "template", "head", "title")


def is_page(text: str) -> bool:
    """Whether an answer is a piece of a rendered page, as opposed to Markdown that speaks of HTML."""
    if "<" not in text or "</" not in text or "```" in text:
        return False
    return _WRAPPED.match(text) is not None or _ANSWER.search(text) is not None


def is_page_question(text: str) -> bool:
    """Whether a question stands in the page's own wrapper; other HTML in it is what the user typed."""
    return _QUESTION.match(text) is not None


def to_plain(html: str) -> str:
    """The text of a page's piece, its line breaks kept."""
    return str(_parse(html).get_text()).strip()


def to_markdown(html: str) -> str:
    """The Markdown that a rendered page came from; buttons and other furniture left out.

    Errors: MissingPackage without markdownify; RecursionError for hostile nesting, some 300 deep.
    """
    page = _parse(html)
    from markdownify import ATX, MarkdownConverter

    for block in page.find_all("pre"):
        _plain_code(page, block)
    for unwanted in page.find_all(UNWANTED):
        unwanted.decompose()
    # Signs that mean something in Markdown stay as they are: the text is to be read and learned, not rendered.
    converter = MarkdownConverter(
        heading_style=ATX,
        bullets="-",
        escape_asterisks=False,
        escape_underscores=False,
        code_language_callback=lambda pre: pre.get("data-language"),
    )
    return str(converter.convert_soup(page)).strip()


def _parse(html: str) -> "BeautifulSoup":
    try:
        import markdownify  # noqa: F401
        from bs4 import BeautifulSoup
    except ImportError:
        raise MissingPackage("HTML to Markdown", "markdownify", "chat") from None
    return BeautifulSoup(html, "html.parser")


def _plain_code(page: "BeautifulSoup", block: "Tag") -> None:
    """Leave of a <pre> its code alone, and its language where Markdown can write it."""
    code = block.find("code")
    if code is None:
        return
    classes = " ".join(code.get_attribute_list("class")) if code.get("class") else ""
    named = _LANGUAGE.search(classes)
    header: Any = block.find("span")
    told = header.get_text().strip() if header is not None and header.find_parent("code") is None else ""
    language = named[1] if named else told if re.fullmatch(r"[\w+#.-]{1,30}", told) else ""
    text = code.get_text()
    block.clear()
    block.append(page.new_string(text))
    if language:
        block["data-language"] = language


def without_buttons(text: str) -> str:
    """Markdown without what the page's buttons left in it: `Copy code` before a block, counters such as `2 / 2`."""
    if "Copy" in text:
        text = _FENCE_BUTTON.sub(r"\1\2\n", text)
        text = _BUTTON_LINE.sub(lambda found: f"{found[1]}\n" if found[1] else "", text)
    return _COUNTER.sub("", text) if " / " in text else text
