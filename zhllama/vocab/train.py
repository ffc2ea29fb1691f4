"""Trains a Chinese SentencePiece model, on text or on the word list that jieba ships."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from zhllama.characters import Charset, charset
from zhllama.chinese_script import OutputScript, in_script
from zhllama.errors import InputError
from zhllama.vocab.piece_filter import ACCEPT_ALL, PieceFilter, plain
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
    wanted: PieceFilter = ACCEPT_ALL,
) -> Training:
    """Train `size` pieces on lines of text, none longer than `sample.LONGEST` bytes; `wanted` can reject some."""
    options = sentencepiece_options(size, algorithm, coverage, cover)
    return _trained(lambda: in_script(lines, script), options, wanted, log, progress)


def train_on_words(
    size: int,
    algorithm: Algorithm = "bpe",
    coverage: float = 0.9995,
    cover: tuple[Charset, ...] = (),
    script: OutputScript = "as-is",
    log: Path | None = None,
    progress: Progress | None = None,
    wanted: PieceFilter = ACCEPT_ALL,
) -> Training:
    """Train `size` pieces on jieba's words, each as often as its count says.

    No ▁ is put before a word: a piece with ▁ would match only at the start of a text or after a space.
    """
    options = sentencepiece_options(size, algorithm, coverage, cover)
    options |= {"input_format": "tsv", "add_dummy_prefix": False}

    def words() -> Iterator[str]:
        return (f"{form}\t{count}" for word, count in jieba_words() for form in in_script([word], script))

    return _trained(words, options, wanted, log, progress)


def _trained(
    lines: Callable[[], Iterable[str]],
    options: dict[str, Any],
    wanted: PieceFilter,
    log: Path | None,
    progress: Progress | None,
) -> Training:
    """A model of `vocab_size` pieces, none of which `wanted` rejects; the next best ones take the place of those.

    Each pass trains more pieces until enough remain or training yields no more, so the loop ends.
    """
    size, before, asked = options["vocab_size"], 0, options
    while True:
        model = train_sentencepiece(lines(), asked, log, progress)
        if not wanted.rejects_any:
            return Training(model, options)
        remaining = _without_rejected(model, wanted, size)
        if remaining.size >= size:
            return Training(remaining, options)
        if model.size <= before:
            message = (
                f"is too little for {size:,} pieces: {remaining.size:,} remain without the rejected ones"
            )
            raise InputError(
                "the text", message, "Give more text, a smaller `size` or a lower `min_documents`"
            )
        more = int(asked["vocab_size"] * min(4.0, max(1.1, 1.1 * size / remaining.size)))
        before, asked = model.size, {**options, "vocab_size": more, "hard_vocab_limit": False}


def _without_rejected(
    model: SentencePieceVocabulary, wanted: PieceFilter, size: int
) -> SentencePieceVocabulary:
    """The model without the pieces that `wanted` rejects, without those that are then dead, and of at most `size` pieces."""
    normal = {id: plain(p.text) for id, p in enumerate(model.pieces) if p.kind == "normal"}
    reasons = wanted.rejected(normal.values())
    model = model.without(id for id, text in normal.items() if text in reasons)
    while model.algorithm == "bpe" and (dead := model.dead(range(model.size))):
        model = model.without(dead)  # each pass removes some, so the loop ends
    longer = [id for id, p in enumerate(model.pieces) if p.kind == "normal" and len(p.text) > 1]
    return model.without(longer[len(longer) - max(0, model.size - size) :])


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
