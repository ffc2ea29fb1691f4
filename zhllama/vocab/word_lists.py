"""The base and the Chinese word lists of a merge: from the user's files, or from installed packages."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from zhllama.errors import InputError, MissingPackage
from zhllama.io.text import read_lines
from zhllama.manifest import check_outputs
from zhllama.vocab.any_tokenizer import tokenizer_file
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary
from zhllama.vocab.vocabulary import SPACE
from zhllama.vocab.word_table import WordTable, read_words


def base_file(name: str | None) -> Path:
    """The base that the user names, or the embedded one: the 32,000-piece model in `mistral-common` (Apache-2.0)."""
    if name is not None:
        return tokenizer_file(name)
    spec = find_spec("mistral_common")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackage("the embedded base", "mistral-common", "demo")
    return Path(spec.submodule_search_locations[0]) / "data" / "tokenizer.model.v1"


def jieba_file() -> Path:
    """jieba's dictionary: 349,046 lines of word, count, part of speech (MIT)."""
    spec = find_spec("jieba")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackage("the embedded word list", "jieba", "all")
    return Path(spec.submodule_search_locations[0]) / "dict.txt"


def jieba_words() -> Iterator[tuple[str, int]]:
    """(word, count) of jieba's dictionary, in its order."""
    for line in read_lines([jieba_file()]):
        word, count, *_ = line.split(" ")
        yield word, int(count)


def listed_pieces(path: Path) -> list[str]:
    """The pieces of a word list in its order: see `word_list`."""
    return list(word_list(path).words)


def word_list(path: Path, field: str = "text") -> WordTable:
    """The pieces of a word list in its order, with spaces as ▁, from a .model or a file of words that `read_words` reads.

    `field` is that of the words in a file of JSON lines or Parquet.
    """
    check_outputs([path])
    if path.suffix == ".model":
        model = SentencePieceVocabulary.read(path, only_texts=True)
        pieces = [text for id, text in enumerate(model.texts) if id not in model.byte_ids]
        return WordTable(tuple(pieces), "the pieces of a SentencePiece model")
    table = read_words(read_lines([path], field))
    if not table.words:
        raise InputError(path, "contains no words", "Write one word a line")
    return WordTable(tuple(word.replace(" ", SPACE) for word in table.words), table.reading)
