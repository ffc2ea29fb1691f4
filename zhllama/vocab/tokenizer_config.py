"""Reads tokenizer_config.json and special_tokens_map.json: settings and the names of special tokens."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zhllama.errors import InputError
from zhllama.io.json import read_object

CONFIG, TEMPLATE = "tokenizer_config.json", "chat_template.jinja"
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
NAMED = "special_tokens_map.json"  # names the special tokens in older folders, with or without a config


def read_settings(folder: Path) -> dict[str, Any]:
    """The config, with names of special tokens that only special_tokens_map.json contains; empty without both files.

    Errors: InputError for a file that is not a JSON object, and for a special token that is not a text, which transformers
    refuses too.
    """
    settings: dict[str, Any] = {}
    for path in (folder / NAMED, folder / CONFIG):
        if path.is_file():
            found = read_object(path)
            for role in ROLES:
                if found.get(role) is not None and named_token(found, role) is None:
                    told = f"names {ascii(found[role])[:40]} as its {role}, which is not the text of a token"
                    raise InputError(path, told, "Mend the file, or remove it")
            settings |= found
    return settings


def named_token(settings: Mapping[str, Any], role: str) -> str | None:
    """The text of a special token such as `eos_token`, which is written as a string or as an object with flags."""
    token = settings.get(role)
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None
