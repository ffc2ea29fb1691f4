"""Finds normalizers with which the library `tokenizers` panics: a panic is no error that a program can report in one line."""

from collections.abc import Iterator
from typing import Any

from tokenizers import Regex, Tokenizer, normalizers

from zhllama.errors import InputError
from zhllama.io.json import as_object, parse_json

_MARK = "\ue000"  # a private character, for what a pattern inserts
# Texts on which a pattern is tried: what texts begin with, and single characters.
_TEXTS: tuple[str, ...] = (
    "one two",
    "你好，世界",
    " one",
    "1. one",
    *map(chr, range(1, 0x180)),
    *"あア가я中〇々，。、“《（￥①😀",
)
# Steps of a normalizer that work without the positions of characters.
_HARMLESS = ("Strip", "Prepend", "Replace")


def refuse_panic(tokenizer: Tokenizer, where: object) -> None:
    """Raise InputError, which names `where`, for a tokenizer of whose normalizer `tokenizers` 0.23 would panic.

    A step that inserts something before the first character of a text leaves that character without a position, and any later
    step that changes text, as the spelling of bytes, then reads beyond the end. `Prepend` does it right.
    """
    if tokenizer.normalizer is None:
        return
    state = parse_json(tokenizer.normalizer.__getstate__(), where)
    steps = list(_steps(as_object(state, where)))
    bytes_follow = "ByteLevel" in repr(tokenizer.pre_tokenizer)
    for place, step in enumerate(steps, 1):
        if not bytes_follow and all(later["type"] in _HARMLESS for later in steps[place:]):
            return
        text = _text_with_insertion(step)
        if text is not None:
            pattern = next(iter(step["pattern"].values())) if "pattern" in step else ""
            what = (
                f"has a normalizer, {step['type']} {pattern!r}, that inserts text before {text!r} without replacing anything, "
                "and the library `tokenizers` panics on that"
            )
            raise InputError(where, what, "Let its pattern match a character, or use Prepend")


def _steps(step: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The steps of a normalizer, those of sequences one by one."""
    if "normalizers" in step:
        for part in step["normalizers"]:
            yield from _steps(part)
    else:
        yield step


def _text_with_insertion(step: dict[str, Any]) -> str | None:
    """A text before whose first character a step inserts something without replacing it, or None."""
    if step["type"] == "Prepend" and not step["prepend"]:
        return _TEXTS[0]
    if step["type"] != "Replace" or not step["content"]:
        return None
    kind, pattern = next(iter(step["pattern"].items()))
    replace = normalizers.Replace(Regex(pattern) if kind == "Regex" else pattern, _MARK)
    inserted = (text for text in _TEXTS if replace.normalize_str(text).startswith(_MARK + text[0]))
    return next(inserted, None)
