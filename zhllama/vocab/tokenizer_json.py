"""Opens the text of a tokenizer.json for measuring, packing and training: nothing is cut off, padded or left to chance."""

from tokenizers import Tokenizer


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
