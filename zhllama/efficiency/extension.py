"""One run of continued BPE on any base, laid out for advice: what each new piece is joined from, and where it stands."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from zhllama.efficiency.advise import Measured, savings
from zhllama.errors import InputError
from zhllama.vocab import byte_merge, continued
from zhllama.vocab.byte_merge import ByteMerge
from zhllama.vocab.bytelevel import ByteLevel
from zhllama.vocab.characters import chinese
from zhllama.vocab.kinds import Vocabulary, size_of
from zhllama.vocab.lists import jieba_words
from zhllama.vocab.merge import Merge, cut
from zhllama.vocab.trainer import Progress
from zhllama.vocab.usage import Counts, token_counts

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
    merge: Merge | ByteMerge
    if isinstance(base, ByteLevel):
        runs = byte_merge.count_runs(train)
        most = min(most, _affordable(runs))
        merge = byte_merge.continued(base, runs, most, jieba_words(), prior, progress=progress)
    else:
        runs = continued.count_runs(train)
        most = min(most, _affordable(runs))
        size = size_of(base) + most
        merge = continued.continued(base, runs, size, jieba_words(), prior, progress=progress)
    model, first = merge.model, size_of(base)
    encode = model.encode_plainly if isinstance(model, ByteLevel) else model.processor.encode

    def counts(lines: Iterable[str]) -> Counts:
        return token_counts(encode, ((line, 1.0) for line in lines), size_of(model))

    measured = {label: Measured(sum(map(len, lines)), counts(lines)) for label, lines in aside.items()}
    found = Extension(first, joined_from(merge), measured, counts(train))
    return found if isinstance(merge, ByteMerge) else _best_first(found)


def joined_from(merge: Merge | ByteMerge) -> Parts:
    """The ids that each added piece is joined from: two, or the bytes of a character that came in whole."""
    if isinstance(merge, ByteMerge):
        ids = merge.model.ids
        return [(ids[j.left], ids[j.right]) for j in merge.added]
    model = merge.model
    ids = model.ids
    rank = {p.text: -p.score for p in model.pieces if p.kind == "normal"}
    parts = []
    for added in merge.added:
        text = added.piece.text
        if len(text) == 1:
            parts.append(tuple(ids[f"<0x{byte:02X}>"] for byte in text.encode()))
            continue
        own = rank.pop(text)
        parts.append(tuple(ids[part] for part in cut(text, rank)))
        rank[text] = own
    return parts


def _affordable(runs: Counter[str]) -> int:
    return sum(len(run.lstrip(" ")) * n for run, n in runs.items()) // continued.LEAST


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
