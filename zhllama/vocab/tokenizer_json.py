"""Opens the text of a tokenizer.json for measuring, packing and training: without truncation, padding or dropout."""

import json
from typing import Any

from tokenizers import Tokenizer

from zhllama.io.json import parse_json


def open_tokenizer_json(content: str) -> Tokenizer:
    """The tokenizer of a tokenizer.json without its stored limits; whatever `tokenizers` raises."""
    return without_limits(Tokenizer.from_str(content))


def without_limits(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer object with truncation, padding and dropout switched off.

    A tokenizer.json stores them for the program that trained with it. Here each would change ids without a word.
    """
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if getattr(tokenizer.model, "dropout", None):
        tokenizer.model.dropout = None
    return tokenizer


def inside_a_text(content: str) -> str:
    """The same tokenizer.json without what it does only at the start or end of a text: for parts of a longer text.

    That is the space of `add_prefix_space`, the ▁ of Metaspace, a normalizer that prepends or strips, and one whose pattern names the start or end.
    """
    raw = parse_json(content, "tokenizer.json")
    steps = {
        "normalizer": _without_edges(raw.get("normalizer")),
        "pre_tokenizer": _without_prefix(raw.get("pre_tokenizer")),
    }
    return json.dumps({**raw, **steps}, ensure_ascii=False)


def _without_prefix(step: Any) -> Any:
    if not isinstance(step, dict):
        return step
    if "pretokenizers" in step:
        return {**step, "pretokenizers": [_without_prefix(part) for part in step["pretokenizers"]]}
    if step.get("type") == "Metaspace":
        return {**step, "prepend_scheme": "never"}
    return {**step, "add_prefix_space": False} if step.get("type") == "ByteLevel" else step


def _without_edges(step: Any) -> Any:
    """A normalizer without the steps that act only at the start or end of a text; None where nothing remains."""
    if not isinstance(step, dict):
        return step
    if "normalizers" in step:
        parts = [part for one in step["normalizers"] if (part := _without_edges(one)) is not None]
        return {**step, "normalizers": parts} if parts else None
    pattern = step.get("pattern")
    regex = pattern.get("Regex") if step.get("type") == "Replace" and isinstance(pattern, dict) else None
    if step.get("type") in ("Prepend", "Strip") or (regex is not None and _only_at_edges(regex)):
        return None
    return step


def _only_at_edges(regex: str) -> bool:
    """Whether each alternative of a pattern begins with the anchor of a text's start, or ends with that of its end."""
    return all(
        part.startswith(("^", r"\A")) or part.endswith(("$", r"\z", r"\Z")) for part in regex.split("|")
    )
