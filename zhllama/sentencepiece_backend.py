"""transformers' SentencePieceBackend with a decoder that writes bytes as the characters they spell."""

from typing import Any

from tokenizers import decoders
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend as Original

SPACE = "▁"


class SentencePieceBackend(Original):
    """SentencePiece's ids and SentencePiece's text: transformers' own class decodes a line feed as <0x0A> and strips the text.

    It has the original's name, because `save_pretrained` writes the name of the class into tokenizer_config.json.
    """

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text of some tokens; without the space that SentencePiece puts before a text."""
        prefixed = self.sp_model.encode("a", out_type=str)[0].startswith(SPACE)
        strip = [decoders.Strip(" ", 1, 0)] if prefixed else []
        steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
        return str(decoders.Sequence(steps).decode(tokens))


def with_exact_decoder(tokenizer: Any) -> Any:
    """The same tokenizer; where it is transformers' SentencePieceBackend, it decodes as SentencePiece does from now on."""
    if type(tokenizer) is Original:
        tokenizer.__class__ = SentencePieceBackend
    return tokenizer
