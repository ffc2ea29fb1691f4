"""Reads an extensible vocabulary from a file of any known format, with the added tokens and settings of its folder."""

from importlib.util import find_spec
from pathlib import Path

from zhllama.vocab.any_tokenizer import JsonTokenizer, format_of, tokenizer_file
from zhllama.vocab.byte_level_vocabulary import ByteLevelVocabulary
from zhllama.vocab.gguf import read_gguf
from zhllama.vocab.gguf_folder import tokenizer_folder
from zhllama.vocab.metaspace_vocabulary import MetaspaceVocabulary, is_metaspace
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary, in_its_folder
from zhllama.vocab.vocabulary import Vocabulary


def read_vocabulary(path: Path) -> Vocabulary:
    """A SentencePiece, byte-level or Metaspace BPE vocabulary with its folder's added tokens; InputError where there is neither."""
    file_format = format_of(path)
    if file_format == "sentencepiece":
        return in_its_folder(SentencePieceVocabulary.read(path), path)
    if file_format == "gguf":
        if find_spec("transformers") is not None:  # with the special tokens and the chat template of the file
            return read_vocabulary(tokenizer_file(tokenizer_folder(path)))
        content = read_gguf(path)
        if isinstance(content, SentencePieceVocabulary):
            return content
    if file_format in ("tokenizer.json", "vocab.json") and is_metaspace(JsonTokenizer(path).content):
        return MetaspaceVocabulary.read(path)
    return ByteLevelVocabulary.read(path)
