"""The two kinds of vocabulary that can be extended, read by what their file holds."""

from pathlib import Path

from zhllama.vocab.bytelevel import ByteLevel
from zhllama.vocab.gguf import read_gguf
from zhllama.vocab.load import format_of
from zhllama.vocab.model import SentencePieceModel

Vocabulary = SentencePieceModel | ByteLevel


def read_vocabulary(path: Path) -> Vocabulary:
    """A SentencePiece model, or byte-level BPE of any format; InputError where it is neither."""
    format = format_of(path)
    if format == "sentencepiece":
        return SentencePieceModel.read(path)
    if format == "gguf":
        found = read_gguf(path)
        if isinstance(found, SentencePieceModel):
            return found
    return ByteLevel.read(path)


def size_of(vocabulary: Vocabulary) -> int:
    """How many ids there are, reserved ones included."""
    return vocabulary.size if isinstance(vocabulary, ByteLevel) else len(vocabulary.pieces)
