"""What lies beside a tokenizer's own file: its settings, and the names of its special tokens."""

from pathlib import Path
from typing import Any

from zhllama.io.json import read_object

CONFIG, TEMPLATE = "tokenizer_config.json", "chat_template.jinja"
NAMED = "special_tokens_map.json"  # what older folders name their special tokens in, beside the config or instead of it


def read_settings(folder: Path) -> dict[str, Any]:
    """The config, with the names of special tokens that only the older file holds; empty where there is neither.

    Errors: InputError for a file that is no JSON object.
    """
    found: dict[str, Any] = {}
    for path in (folder / NAMED, folder / CONFIG):
        if path.is_file():
            found |= read_object(path)
    return found


def named_token(settings: dict[str, Any], role: str) -> str | None:
    """The text of a special token such as `eos_token`, which stands as itself or with its flags."""
    token = settings.get(role)
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else None
