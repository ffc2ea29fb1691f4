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
    """The same tokenizer.json without the space that `add_prefix_space` puts before a text: for parts of a longer text."""
    raw = parse_json(content, "tokenizer.json")
    return json.dumps({**raw, "pre_tokenizer": _without_prefix(raw.get("pre_tokenizer"))}, ensure_ascii=False)


def _without_prefix(step: Any) -> Any:
    if not isinstance(step, dict):
        return step
    if "pretokenizers" in step:
        return {**step, "pretokenizers": [_without_prefix(part) for part in step["pretokenizers"]]}
    return {**step, "add_prefix_space": False} if step.get("type") == "ByteLevel" else step
