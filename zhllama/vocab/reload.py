"""What transformers makes of a tokenizer folder: the proofs read it back through this."""

from pathlib import Path
from typing import cast

from tokenizers import Tokenizer

from zhllama.errors import InputError, ZhllamaError
from zhllama.pretrained import open_tokenizer


def auto_tokenizer(folder: Path) -> Tokenizer:
    """The fast tokenizer that AutoTokenizer loads from a folder; special tokens in a text are read as text.

    Errors: InputError where AutoTokenizer refuses the folder.
    """
    try:
        tokenizer = cast(Tokenizer, open_tokenizer(folder)._tokenizer)
    except ZhllamaError:
        raise
    except Exception as error:  # foreign folders raise anything
        message = " ".join(str(error).split())[:160]
        raise InputError(folder, f"is not loaded by AutoTokenizer ({message})", "Check the folder") from error
    tokenizer.encode_special_tokens = True
    return tokenizer
