"""Copies the files of a model folder that accompany its weights."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from zhllama.io.files import is_present
from zhllama.vocab.folder_settings import TEMPLATES

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
OTHER_FILES = ("generation_config.json", "chat_template.jinja", "LICENSE*", "NOTICE*")


def copy_tokenizer(source: Path, out: Path) -> None:
    """Copy the files of a tokenizer; an id map is left out, because the copy already follows it."""
    for name in TOKENIZER_FILES:
        if is_present(source / name):
            shutil.copyfile(source / name, out / name)
    for template in sorted((source / TEMPLATES).glob("*.jinja")):
        (out / TEMPLATES).mkdir(exist_ok=True)
        shutil.copyfile(template, out / TEMPLATES / template.name)


def copy_missing(source: Path, out: Path, patterns: Sequence[str] = OTHER_FILES) -> None:
    """Copy the files of a model folder that match a pattern and do not exist in `out`."""
    for pattern in patterns:
        for path in source.glob(pattern):
            if not (out / path.name).exists():
                shutil.copyfile(path, out / path.name)
