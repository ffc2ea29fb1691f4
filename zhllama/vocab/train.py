"""Trains a Chinese SentencePiece model, on text or on the word list that jieba ships."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from zhllama.characters import Charset, charset
from zhllama.chinese_script import OutputScript, in_script
from zhllama.vocab.sample import LONGEST
from zhllama.vocab.sentencepiece_trainer import Progress, train_sentencepiece
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary
from zhllama.vocab.word_lists import jieba_words

Algorithm = Literal["unigram", "bpe"]

# CPU seconds and bytes of memory for a byte of sample, measured on 20 MB with 20,000 pieces (docs/results.md).
COST: Mapping[Algorithm, tuple[float, float]] = {"bpe": (0.45e-6, 28.0), "unigram": (6.5e-6, 30.0)}


@dataclass(frozen=True)
class Training:
    """A trained model and all SentencePiece options that it was trained with."""

    model: SentencePieceVocabulary
    options: dict[str, Any]


def train_on_text(
    lines: Iterable[str],
    size: int,
    algorithm: Algorithm = "bpe",
    coverage: float = 0.9995,
    cover: tuple[Charset, ...] = (),
    script: OutputScript = "as-is",
    log: Path | None = None,
    progress: Progress | None = None,
) -> Training:
    """Train `size` pieces on lines of text, none longer than `sample.LONGEST` bytes."""
    options = sentencepiece_options(size, algorithm, coverage, cover)
    return Training(train_sentencepiece(in_script(lines, script), options, log, progress), options)


def train_on_words(
    size: int,
    algorithm: Algorithm = "bpe",
    coverage: float = 0.9995,
    cover: tuple[Charset, ...] = (),
    script: OutputScript = "as-is",
    log: Path | None = None,
    progress: Progress | None = None,
) -> Training:
    """Train `size` pieces on jieba's words, each as often as its count says.

    No ▁ is put before a word: a piece with ▁ would match only at the start of a text or after a space.
    """
    options = sentencepiece_options(size, algorithm, coverage, cover)
    options |= {"input_format": "tsv", "add_dummy_prefix": False}
    words = (f"{form}\t{count}" for word, count in jieba_words() for form in in_script([word], script))
    return Training(train_sentencepiece(words, options, log, progress), options)


def sentencepiece_options(
    size: int, algorithm: Algorithm, coverage: float, cover: tuple[Charset, ...]
) -> dict[str, Any]:
    """SentencePiece's options; training on the same lines gives the same model, byte for byte."""
    return {
        "model_type": algorithm,
        "vocab_size": size,
        "character_coverage": coverage,
        "required_chars": "".join(dict.fromkeys(c for name in cover for c in charset(name))),
        "normalization_rule_name": "identity",  # any other turns ，！？： into ASCII, and they never become pieces
        "remove_extra_whitespaces": False,
        "split_digits": True,
        "max_sentence_length": LONGEST,
        "input_sentence_size": 0,
        "train_extremely_large_corpus": False,
    }
