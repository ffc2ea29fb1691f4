"""Mistral's tekken.json: ranked tokens in base64, their pattern, and ids that begin after the special tokens."""

from base64 import b64decode
from pathlib import Path

from tokenizers import Tokenizer

from zhllama.errors import InputError
from zhllama.io.json import read_object
from zhllama.vocab.byte_level_json import from_ranks


def is_tekken(content: bytes) -> bool:
    """Whether JSON of this content is Mistral's; a tokenizer.json can hold these characters only escaped."""
    return b'"token_bytes"' in content


def read_tekken(path: Path) -> Tokenizer:
    """The tokenizer of a tekken.json, as mistral-common cuts; InputError where the file is broken.

    The file ranks more tokens than are used: `default_vocab_size` less the special ones.
    """
    try:
        loaded = read_object(path, "Fetch the file again")
        config = loaded["config"]
        size, first = int(config["default_vocab_size"]), int(config["default_num_special_tokens"])
        ranks = [b64decode(entry["token_bytes"], validate=True) for entry in loaded["vocab"][: size - first]]
        named = {int(s["rank"]): str(s["token_str"]) for s in loaded.get("special_tokens") or ()}
        pattern = str(config["pattern"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise InputError(path, f"is not a readable tekken.json ({told})", "Fetch the file again") from None
    specials = ((id, named.get(id, f"<SPECIAL {id}>")) for id in range(first))
    return from_ranks(ranks, [pattern], specials, first)
