"""Loads a tokenizer folder with transformers, so that proofs test what users will load."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tokenizers import Tokenizer

from zhllama.errors import InputError, ZhllamaError
from zhllama.pretrained import open_tokenizer
from zhllama.vocab.tokenizer_json import without_limits


@dataclass(frozen=True)
class PythonIds:
    """The ids of a text."""

    ids: list[int]


@dataclass(frozen=True)
class PythonTokenizer:
    """A tokenizer class of transformers without a fast tokenizer, as SentencePieceBackend, called as `tokenizers` is."""

    tokenizer: Any

    def encode_batch_fast(self, texts: Sequence[str], add_special_tokens: bool) -> list[PythonIds]:
        """The ids of each text; special tokens in it are read as text."""
        encoded = (
            self.tokenizer(text, add_special_tokens=add_special_tokens, split_special_tokens=True)
            for text in texts
        )
        return [PythonIds(list(one.input_ids)) for one in encoded]


def auto_tokenizer(folder: Path, base: Path | None = None) -> "Tokenizer | PythonTokenizer":
    """The tokenizer that AutoTokenizer loads from a folder, as `tokenizers` calls it; special tokens in a text are read as text.

    `base` is the folder whose settings were carried over into `folder`, if any.
    Errors: InputError that names `base`, or else `folder`, where AutoTokenizer refuses it.
    """
    try:
        loaded = open_tokenizer(folder)
        if not hasattr(loaded, "_tokenizer"):
            return PythonTokenizer(loaded)
        tokenizer = cast(Tokenizer, loaded._tokenizer)
    except ZhllamaError:
        raise
    except Exception as error:  # foreign folders raise anything
        message = " ".join(str(error).split())[:160]
        remedy = "Check the files beside its tokenizer.json"
        raise InputError(base or folder, f"is not loaded by AutoTokenizer ({message})", remedy) from error
    tokenizer.encode_special_tokens = True
    return without_limits(tokenizer)
