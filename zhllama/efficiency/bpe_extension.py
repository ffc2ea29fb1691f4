"""One run of continued BPE on any base, laid out for advice: what each new piece is joined from, and where it stands."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from zhllama.characters import chinese
from zhllama.efficiency.advise import Measured, savings
from zhllama.errors import InputError
from zhllama.vocab.continued import LEAST, count_characters
from zhllama.vocab.recipes import continue_training, count_runs, joined_ids
from zhllama.vocab.sentencepiece_trainer import Progress
from zhllama.vocab.token_counts import Counts, token_counts
from zhllama.vocab.vocabulary import Vocabulary

ASIDE = 0.1  # share of the lines that is measured on and never trained on

Parts = list[tuple[int, ...]]


@dataclass(frozen=True)
class Extension:
    """New pieces in the order in which to add them, and the counts of all ids, [first + pieces]."""

    first: int
    parts: Parts
    domains: dict[str, Measured]
    training: Counts


def kept_aside(texts: Mapping[str, Iterable[str]], seed: int) -> tuple[list[str], dict[str, list[str]]]:
    """Lines to train on, and of each text those to measure on; InputError where no Chinese is left for either."""
    random, train = Random(seed), list[str]()
    aside: dict[str, list[str]] = {label: [] for label in texts}
    for label, lines in texts.items():
        for line in lines:
            if chinese.search(line):
                (aside[label] if random.random() < ASIDE else train).append(line)
    aside = {label: lines for label, lines in aside.items() if lines}
    if not train or not aside:
        raise InputError("--text", "holds too few lines with Chinese to measure any", "Give more text")
    return train, aside


def extend(
    base: Vocabulary,
    train: Sequence[str],
    aside: Mapping[str, Sequence[str]],
    most: int,
    prior: float,
    progress: Progress | None = None,
) -> Extension:
    """Continue the BPE of `base` by `most` pieces, fewer where the text is too little, and count what it makes."""
    runs = count_runs(base, train)
    merge = continue_training(
        base, runs, min(most, count_characters(runs) // LEAST), prior, progress=progress
    )
    vocabulary, first = merge.vocabulary, base.size

    def counts(lines: Iterable[str]) -> Counts:
        return token_counts(vocabulary.encode_by_merges, ((line, 1.0) for line in lines), vocabulary.size)

    measured = {label: Measured(sum(map(len, lines)), counts(lines)) for label, lines in aside.items()}
    extension = Extension(first, joined_ids(merge), measured, counts(train))
    # Byte-level pieces are sorted already: `continued` takes them by their use.
    return extension if base.kind == "byte-level" else _best_first(extension)


def _best_first(found: Extension) -> Extension:
    """The same with the pieces in the order of what they save on the training text, parts still before the whole.

    SentencePiece takes all characters first, and the rare ones among them save less than words that come later.
    """
    saved = savings(found.training, found.parts, found.first)
    order = np.argsort(-saved, kind="stable")
    moved = np.arange(found.first + len(order))
    moved[found.first + order] = found.first + np.arange(len(order))

    def permuted(counts: Counts) -> Counts:
        return np.concatenate([counts[: found.first], counts[found.first :][order]])

    return Extension(
        found.first,
        [tuple(int(moved[id]) for id in found.parts[i]) for i in order],
        {label: Measured(m.characters, permuted(m.counts)) for label, m in found.domains.items()},
        permuted(found.training),
    )
