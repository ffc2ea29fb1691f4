"""Vocabularies for the report's tests: the embedded base and jieba's commonest words merged into it."""

from functools import cache
from itertools import islice
from pathlib import Path

from zhllama.vocab.merge import chinese_llama, safe
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary
from zhllama.vocab.vocabulary import Recipe
from zhllama.vocab.word_lists import base_file, jieba_words

WORDS = 3000


@cache
def base() -> SentencePieceVocabulary:
    return SentencePieceVocabulary.read(base_file(None))


@cache
def merged(recipe: Recipe) -> SentencePieceVocabulary:
    """As `merge-vocab` makes it; the published recipe leaves its ties."""
    ranked = sorted(jieba_words(), key=lambda entry: -entry[1])
    words = ["互相", "相互", *(word for word, _ in islice(ranked, WORDS))]
    return (chinese_llama if recipe == "chinese-llama" else safe)(base(), words).vocabulary


def write_models(folder: Path) -> dict[str, Path]:
    """base.model, safe.model and published.model in a folder."""
    found = {"base": base(), "safe": merged("safe"), "published": merged("chinese-llama")}
    for name, model in found.items():
        (folder / f"{name}.model").write_bytes(model.content)
    return {name: folder / f"{name}.model" for name in found}
