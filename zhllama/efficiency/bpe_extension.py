"""Runs continued BPE once for `advise`: the parts of each new piece, and the token counts of each text."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from zhllama.characters import chinese
from zhllama.efficiency.advise import MeasuredText, savings
from zhllama.errors import InputError, OptionError
from zhllama.vocab.continued import LEAST, count_characters
from zhllama.vocab.recipes import continue_training, count_runs, joined_ids
from zhllama.vocab.sentencepiece_trainer import Progress
from zhllama.vocab.token_counts import Counts, token_counts
from zhllama.vocab.vocabulary import Vocabulary

VALIDATION = 0.1  # share of the lines for the validation split

Parts = list[tuple[int, ...]]


@dataclass(frozen=True)
class Extension:
    """New pieces in the order in which to add them, and the counts of all ids, [first + pieces]."""

    first: int
    parts: Parts
    domains: dict[str, MeasuredText]
    training: Counts


def split_validation(texts: Mapping[str, Iterable[str]], seed: int) -> tuple[list[str], dict[str, list[str]]]:
    """Lines with Chinese to train on, and the validation split of each text; InputError where either is empty."""
    random, train = Random(seed), list[str]()
    validation: dict[str, list[str]] = {label: [] for label in texts}
    for label, lines in texts.items():
        for line in lines:
            if chinese.search(line):
                (validation[label] if random.random() < VALIDATION else train).append(line)
    validation = {label: lines for label, lines in validation.items() if lines}
    if not train or not validation:
        raise InputError("`text`", "contains too few lines with Chinese to measure any", "Give more text")
    return train, validation


def extend(
    base: Vocabulary,
    train: Sequence[str],
    validation: Mapping[str, Sequence[str]],
    most: int,
    prior: float,
    progress: Progress | None = None,
) -> Extension:
    """Continue the BPE of `base` by up to `most` pieces, as far as the text allows, and count tokens.

    Errors: OptionError where `most`, or what the text allows, leaves no room beyond the text's single characters.
    """
    runs = count_runs(base, train)
    allowed = min(most, count_characters(runs) // LEAST)
    try:
        merge = continue_training(base, runs, allowed, prior, progress=progress)
    except OptionError as error:
        if error.where != "size":
            raise
        raise OptionError("most", error.what, "Raise it, or give more text") from None
    vocabulary, first = merge.vocabulary, base.size

    def counts(lines: Iterable[str]) -> Counts:
        return token_counts(vocabulary.encode_by_merges, ((line, 1.0) for line in lines), vocabulary.size)

    measured = {
        label: MeasuredText(sum(map(len, lines)), counts(lines)) for label, lines in validation.items()
    }
    extension = Extension(first, joined_ids(merge), measured, counts(train))
    # Continued byte-level BPE already sorts pieces by use.
    return extension if base.kind == "byte-level" else _best_first(extension)


def _best_first(extension: Extension) -> Extension:
    """Reorder pieces by the tokens that they save on the training text; parts still precede the pieces made of them.

    For SentencePiece all characters come first, and rare ones among them save less than later words.
    """
    saved = savings(extension.training, extension.parts, extension.first)
    order = np.argsort(-saved, kind="stable")
    new_ids = np.arange(extension.first + len(order))
    new_ids[extension.first + order] = extension.first + np.arange(len(order))

    def permuted(counts: Counts) -> Counts:
        return np.concatenate([counts[: extension.first], counts[extension.first :][order]])

    return Extension(
        extension.first,
        [tuple(int(new_ids[id]) for id in extension.parts[i]) for i in order],
        {label: MeasuredText(m.characters, permuted(m.counts)) for label, m in extension.domains.items()},
        permuted(extension.training),
    )
