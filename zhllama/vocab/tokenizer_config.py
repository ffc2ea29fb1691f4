"""Reads tokenizer_config.json, special_tokens_map.json and added_tokens.json: settings, special and added tokens."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zhllama.errors import InputError
from zhllama.io.files import is_present
from zhllama.io.json import read_object

CONFIG, TEMPLATE = "tokenizer_config.json", "chat_template.jinja"
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
NAMED = "special_tokens_map.json"  # names the special tokens in older folders, with or without a config
ADDED = "added_tokens.json"  # {text: id}, in older folders
VOCAB, MERGES = "vocab.json", "merges.txt"  # byte-level BPE as GPT-2 has it
VOCABULARIES = ("tokenizer.model", "tokenizer.json", VOCAB)  # names that AutoTokenizer reads
LARGEST_ID = 10_000_000  # no model has more rows; a larger id in a file is a mistake, and gaps are filled


def read_settings(folder: Path) -> dict[str, Any]:
    """The config, with names of special tokens that only special_tokens_map.json contains; empty without both files.

    Errors: InputError for a file that is not a JSON object, and for a special token that is not a text, which transformers
    refuses too.
    """
    settings: dict[str, Any] = {}
    for path in (folder / NAMED, folder / CONFIG):
        if is_present(path):
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


def declared_tokens(folder: Path) -> dict[str, int]:
    """The ids of added tokens as the folder's files state them; AutoTokenizer may give others.

    Errors: InputError for a file that is not a JSON object, and for ids that are no numbers.
    """
    declared: dict[str, Any] = {}
    if is_present(folder / ADDED):
        declared |= read_object(folder / ADDED)
    if is_present(folder / CONFIG):
        decoder = read_object(folder / CONFIG).get("added_tokens_decoder")
        for id, token in decoder.items() if isinstance(decoder, dict) else ():
            text = token.get("content") if isinstance(token, dict) else None
            if isinstance(text, str) and str(id).isdecimal():
                declared[text] = int(id)
    for text, number in declared.items():
        if type(number) is not int or not 0 <= number < LARGEST_ID:
            raise InputError(folder / ADDED, f"gives {text!r} the id {number!r}", "Correct the id")
    return declared


def named_tokens(path: Path) -> set[str]:
    """The text of every special or added token that files beside the vocabulary file `path` name.

    Empty for a file whose name AutoTokenizer does not read.
    """
    folder = path.parent
    if path.name not in VOCABULARIES:
        return set()
    settings = read_settings(folder)
    texts = {named_token(settings, role) for role in settings if role.endswith("_token")}
    for key in ("additional_special_tokens", "extra_special_tokens"):
        listed = settings.get(key)
        for token in listed.values() if isinstance(listed, dict) else listed or ():
            texts.add(named_token({key: token}, key))
    return {text for text in texts if text} | declared_tokens(folder).keys()


def settings_files(path: Path) -> list[Path]:
    """The files beside the vocabulary file `path` whose settings are read with it, for a manifest."""
    if path.name not in VOCABULARIES:
        return []
    names = (CONFIG, NAMED, ADDED, TEMPLATE, *((MERGES,) if path.name == VOCAB else ()))
    return [path.with_name(name) for name in names if is_present(path.with_name(name))]
