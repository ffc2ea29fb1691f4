"""Loads a tokenizer folder with transformers, so that proofs test what users will load."""

from pathlib import Path
from typing import cast

from tokenizers import Tokenizer

from zhllama.errors import InputError, ZhllamaError
from zhllama.pretrained import open_tokenizer
from zhllama.vocab.tokenizer_json import without_limits


def auto_tokenizer(folder: Path, base: Path | None = None) -> Tokenizer:
    """The fast tokenizer that AutoTokenizer loads from a folder; special tokens in a text are read as text.

    `base` is the folder whose settings were carried over into `folder`, if any.
    Errors: InputError that names `base`, or else `folder`, where AutoTokenizer refuses it.
    """
    try:
        tokenizer = cast(Tokenizer, open_tokenizer(folder)._tokenizer)
    except ZhllamaError:
        raise
    except Exception as error:  # foreign folders raise anything
        message = " ".join(str(error).split())[:160]
        remedy = "Check the files beside its tokenizer.json"
        raise InputError(base or folder, f"is not loaded by AutoTokenizer ({message})", remedy) from error
    tokenizer.encode_special_tokens = True
    return without_limits(tokenizer)
