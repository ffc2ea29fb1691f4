"""Extend a byte-level vocabulary: by a list (`safe`), or by going on with its own BPE (`continued`).

Both come in as merges below every merge of the base. Words given to `add_tokens` would be cut out of text before
the pattern and the merges are asked, in English text too.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path

import numpy as np

from zhllama.errors import InputError, OptionError
from zhllama.vocab.byte_paths import Joined, Paths
from zhllama.vocab.bytelevel import ByteLevel, readable
from zhllama.vocab.characters import Charset, ascii_word, charset, chinese, chinese_run
from zhllama.vocab.continued import LEAST, train_on_ids, with_prior
from zhllama.vocab.merge import PAD, Recipe, Why
from zhllama.vocab.model import SPACE
from zhllama.vocab.ranks import spelled
from zhllama.vocab.trainer import Progress
from zhllama.vocab.usage import BATCH, merge_uses, token_counts

SPARE = 1.1  # candidates beyond the need: with their usage known, the best of them are taken


@dataclass(frozen=True)
class ByteMerge:
    """A base, what was added to it, what of the list was left out, and which ids of the base were pruned."""

    recipe: Recipe
    base: ByteLevel
    added: tuple[Joined, ...]
    special: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    dropped: tuple[int, ...] = ()

    @cached_property
    def model(self) -> ByteLevel:
        """The merged vocabulary."""
        base = self.base.without(self.dropped) if self.dropped else self.base
        return base.extended([(j.left, j.right) for j in self.added], self.special)

    @property
    def kept(self) -> list[int]:
        """The ids of the base that stay, in their new order."""
        return self.base.kept(self.dropped)

    @property
    def fragments(self) -> int:
        """How many of the added tokens are no whole characters: the way to a character that has none else."""
        return sum(readable(j.token) is None for j in self.added)

    def counts(self) -> dict[str, int]:
        """How many tokens were added, by reason."""
        return dict(Counter([*(j.why for j in self.added), *("pad" for _ in self.special)]))


def safe(base: ByteLevel, words: Sequence[str], pad: bool = False) -> ByteMerge:
    """The Chinese words of a list in its order, each with a path of merges to it."""
    left_out, fresh = [], []
    for word in dict.fromkeys(word.replace(SPACE, " ") for word in words):
        reason = why_left_out(base, word)
        if reason is None:
            fresh.append(word)
        else:
            left_out.append((word, reason))
    paths, tokens = Paths(base), [spelled(word.encode()) for word in fresh]
    for word, token, parts in zip(fresh, tokens, base.parts(tokens), strict=True):
        reason = paths.add(token, parts, "list")
        if reason is not None and token not in paths:
            left_out.append((word, reason))
    wanted = set(tokens)
    added = (Joined(j.left, j.right, "list") if j.token in wanted else j for j in paths.made)
    return ByteMerge("safe", base, tuple(added), _pad(base, pad), tuple(left_out))


def why_left_out(base: ByteLevel, word: str) -> str | None:
    """Why a word cannot become a token, or would change how text without Chinese is cut; None where it can."""
    if word in base.beside.values():
        return "is a special token of the base"
    if ascii_word.search(word):
        return "holds an ASCII letter or digit"
    if not chinese.search(word):
        return "holds no Han character or CJK punctuation"
    if "\ud800" <= max(word) <= "\udfff":
        return "holds half a surrogate pair"
    token = spelled(word.encode())
    if token in base.ids:
        return "is in the base"
    if any(byte not in base.ids for byte in token):
        return "holds a byte that the base lacks"
    words = base.words(word)
    if len(words) > 1:
        return "is split by the base's pattern"
    return None if words == [token] else "is changed by the base's normalizer"


def count_runs(lines: Iterable[str]) -> Counter[str]:
    """How often each run of Han, and each run of CJK punctuation, stands in the text, with one space before it."""
    runs: Counter[str] = Counter()
    for line in lines:
        runs.update(chinese_run.findall(line))
    return runs


def continued(
    base: ByteLevel,
    runs: Mapping[str, int],
    add: int,
    prior: Iterable[tuple[str, int]] = (),
    prior_weight: float = 0.0,
    cover: Sequence[Charset] = (),
    pad: bool = False,
    log: Path | None = None,
    progress: Progress | None = None,
) -> ByteMerge:
    """Go on with the BPE of `base` on counted runs, and on words as a prior, for exactly `add` tokens (`[PAD]` besides).

    Characters come in whole and words are trained on them; then all stand by how often their merge would be used, so
    that a rare character has to earn its place beside a word. Those of the sets in `cover` stand first.
    Errors: OptionError where `add` is below 0, InputError where the text is too little for it.
    """
    if add < 0:
        raise OptionError("--add", f"cannot be {add:,}", "Give 0 or more")
    if add == 0:
        return ByteMerge("continued", base, (), _pad(base, pad))
    seen = sum(len(run.lstrip(" ")) * n for run, n in runs.items())
    if seen < add * LEAST:
        raise InputError(
            "the text",
            f"is too little for {add:,} tokens: it has {seen:,} Chinese characters, and they ask for {add * LEAST:,}",
            "Give more text, or add fewer",
        )
    weighed = with_prior(runs, prior, prior_weight)
    paths = Paths(base)
    _make(paths, (c for name in cover for c in charset(name)), "character")
    first = len(paths.made)
    _make(paths, _characters(weighed), "character")
    start = base.extended(paths.merges)
    found = train_on_ids(_words(start, weighed), int(add * SPARE) + 8, log, progress)
    _make(paths, (start.text_of(ids) for ids in found), "merge")
    best = _most_used(paths, first, weighed, add)
    if len(best) < add:
        raise InputError(
            "the text",
            f"is too little for {add:,} tokens: it yields {len(best):,}",
            "Give more text, or add fewer",
        )
    return ByteMerge("continued", base, tuple(best[:add]), _pad(base, pad))


def _make(paths: Paths, texts: Iterable[str], why: Why) -> None:
    """Give each text a path where one can be; the others stay in the parts that they are in."""
    tokens = [spelled(text.encode()) for text in texts]
    for token, parts in zip(tokens, paths.base.parts(tokens), strict=True):
        paths.add(token, parts, why)


def _characters(runs: Mapping[str, float]) -> list[str]:
    """All Chinese characters of the runs, the most frequent first."""
    counts: Counter[str] = Counter()
    for run, n in runs.items():
        for character in run.lstrip(" "):
            counts[character] += n  # type: ignore[assignment]
    return [character for character, _ in counts.most_common()]


def _words(model: ByteLevel, runs: Mapping[str, float]) -> dict[tuple[int, ...], float]:
    """The runs as words of ids, cut where the pattern cuts, and at tokens that are no whole Chinese characters."""
    whole = {id for id, text in model.texts.items() if (t := readable(text)) is not None and _chinese_text(t)}
    words: Counter[tuple[int, ...]] = Counter()
    iterator = iter(runs.items())
    while batch := list(islice(iterator, BATCH)):
        cuts = model.plain.encode_batch([run for run, _ in batch], add_special_tokens=False)
        for (_, n), cut in zip(batch, cuts, strict=True):
            marked = ((id in whole, word, id) for id, word in zip(cut.ids, cut.word_ids, strict=True))
            for (fits, _), group in groupby(marked, key=itemgetter(0, 1)):
                if fits:
                    words[tuple(id for *_, id in group)] += n  # type: ignore[assignment]
    return dict(words)


def _chinese_text(text: str) -> bool:
    return all(map(chinese.match, text.removeprefix(" ")))


def _most_used(paths: Paths, first: int, runs: Mapping[str, float], most: int) -> list[Joined]:
    """The new tokens by how often their merges are used in the runs, behind the `first` ones, none of them unused.

    A part is used at least as often as what is made of it, so parts come first and what is cut off leaves no gap.
    """
    made, base = paths.made, paths.base
    full = base.extended(paths.merges)
    counts = token_counts(full.encode_plainly, runs.items(), full.size)
    parts = [(full.ids[j.left], full.ids[j.right]) for j in made]
    uses = merge_uses(counts, parts, base.size)
    order = [*range(first), *(i for i in np.argsort(-uses, kind="stable") if i >= first and uses[i] > 0)]
    again = Paths(base)
    for joined, cut in zip((made[i] for i in order), base.parts(made[i].token for i in order), strict=True):
        again.add(joined.token, cut, joined.why)
        if len(again.made) >= most:
            break
    return again.made


def _pad(base: ByteLevel, pad: bool) -> tuple[str, ...]:
    """`[PAD]` as a special token where it is asked for and lacking."""
    return (PAD,) if pad and PAD not in base.texts.values() else ()
