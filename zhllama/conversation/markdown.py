"""Converts answers copied from a web page, as ShareGPT stores them, from HTML back to Markdown without the page's buttons."""

import re
from typing import TYPE_CHECKING, Any

from zhllama.errors import MissingPackage

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

# Markdown rendered by a page begins and ends with one of these; an answer about HTML begins differently.
_BLOCK = "div|p|pre|ol|ul|table|blockquote|h[1-6]"
_WRAPPED = re.compile(rf"\A\s*<(?:{_BLOCK})\b[^<>]{{0,2000}}>.*</(?:{_BLOCK})>\s*\Z", re.I | re.S)
# Class names of the page that ShareGPT was copied from; it contains questions as plain text.
_ANSWER = re.compile(r'<div class="[^"<>]{0,300}\b(?:markdown|prose)\b|<button\b[^<>]{0,300}>', re.I)
_QUESTION = re.compile(r'\A\s*<div class="[^"<>]{0,300}\bwhitespace-pre-wrap\b', re.I)
_LANGUAGE = re.compile(r"language-([\w+#.-]{1,30})")
# The button's label without HTML: "```pythonCopy code", or on its own line before the code.
_FENCE_BUTTON = re.compile(r"^(`{3,}) *([\w+#.-]{0,30}?) *Copy code *\n?", re.M)
_BUTTON_LINE = re.compile(r"^([\w+#.-]{0,30}?)Copy code\n", re.M)
_COUNTER = re.compile(r"^(?:\d{1,3} / \d{1,3}|Copy\d+ chars / \d+ words)$\n?", re.M)
UNWANTED = ("button", "svg", "script", "style", "noscript", "template", "head", "title")


def is_page(text: str) -> bool:
    """Whether an answer is part of a rendered page, as opposed to Markdown about HTML."""
    if "<" not in text or "</" not in text or "```" in text:
        return False
    return _WRAPPED.match(text) is not None or _ANSWER.search(text) is not None


def is_page_question(text: str) -> bool:
    """Whether a question is in the page's wrapper; the user typed any other HTML."""
    return _QUESTION.match(text) is not None


def to_plain(html: str) -> str:
    """The text of HTML, with its line breaks."""
    return str(_parse(html).get_text()).strip()


def to_markdown(html: str) -> str:
    """The Markdown of rendered HTML, without buttons and other page elements.

    Errors: MissingPackage without markdownify; RecursionError for hostile nesting, some 300 deep.
    """
    page = _parse(html)
    from markdownify import ATX, MarkdownConverter

    for block in page.find_all("pre"):
        _plain_code(page, block)
    for unwanted in page.find_all(UNWANTED):
        unwanted.decompose()
    # No characters are escaped: the text is for training, not for rendering.
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
    """Reduce a <pre> to its code, and its language where Markdown can express it."""
    code = block.find("code")
    if code is None:
        return
    classes = " ".join(code.get_attribute_list("class")) if code.get("class") else ""
    class_name = _LANGUAGE.search(classes)
    header: Any = block.find("span")
    label = header.get_text().strip() if header is not None and header.find_parent("code") is None else ""
    language = class_name[1] if class_name else label if re.fullmatch(r"[\w+#.-]{1,30}", label) else ""
    text = code.get_text()
    block.clear()
    block.append(page.new_string(text))
    if language:
        block["data-language"] = language


def without_buttons(text: str) -> str:
    """Markdown without button labels: `Copy code` before a block, and counters such as `2 / 2`."""
    if "Copy" in text:
        text = _FENCE_BUTTON.sub(r"\1\2\n", text)
        text = _BUTTON_LINE.sub(lambda match: f"{match[1]}\n" if match[1] else "", text)
    return _COUNTER.sub("", text) if " / " in text else text
