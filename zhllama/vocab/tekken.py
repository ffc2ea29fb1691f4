"""Reads Mistral's tekken.json: ranked tokens in base64, a pattern, and ids that start after the special tokens."""

from base64 import b64decode
from pathlib import Path

from tokenizers import Tokenizer

from zhllama.errors import InputError
from zhllama.io.json import read_object
from zhllama.vocab.byte_level_json import from_ranks


def is_tekken(content: bytes) -> bool:
    """Whether JSON content is a tekken.json; a tokenizer.json can contain these characters only escaped."""
    return b'"token_bytes"' in content


def read_tekken(path: Path) -> Tokenizer:
    """The tokenizer of a tekken.json, with the ids of mistral-common; InputError where the file is broken.

    Only the first `default_vocab_size` minus `default_num_special_tokens` ranked tokens are used.
    """
    try:
        content = read_object(path, "Fetch the file again")
        config = content["config"]
        size, first = int(config["default_vocab_size"]), int(config["default_num_special_tokens"])
        ranks = [b64decode(entry["token_bytes"], validate=True) for entry in content["vocab"][: size - first]]
        special_names = {int(s["rank"]): str(s["token_str"]) for s in content.get("special_tokens") or ()}
        pattern = str(config["pattern"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise InputError(path, f"is not a readable tekken.json ({message})", "Fetch the file again") from None
    specials = ((id, special_names.get(id, f"<SPECIAL {id}>")) for id in range(first))
    return from_ranks(ranks, [pattern], specials, first)
