"""Extend a byte-level vocabulary by a word list (`safe`), or by continuing its own BPE training (`continued`).

Both add merges that rank below every merge of the base. `add_tokens` is no alternative: such tokens are matched before
the pattern and the merges apply, in English text too.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path

import numpy as np

from zhllama.characters import Charset, charset, chinese, chinese_run
from zhllama.errors import InputError, OptionError
from zhllama.vocab.byte_level_json import spelled
from zhllama.vocab.byte_level_paths import Paths
from zhllama.vocab.byte_level_vocabulary import ByteLevelVocabulary, readable
from zhllama.vocab.continued import (
    LEAST,
    as_merges_see,
    count_characters,
    more_candidates,
    train_on_ids,
    with_prior,
)
from zhllama.vocab.piece_filter import ACCEPT_ALL, PieceFilter
from zhllama.vocab.sentencepiece_trainer import Progress
from zhllama.vocab.token_counts import BATCH, merge_uses, token_counts
from zhllama.vocab.vocabulary import PAD, SPACE, AddedPiece, Merge, Reason
from zhllama.vocab.word_table import why_not_text

SPARE = 1.1  # candidates beyond the need: once their usage is counted, the best of them are taken

ByteLevelMerge = Merge[ByteLevelVocabulary]


def safe(
    base: ByteLevelVocabulary,
    words: Sequence[str],
    pad: bool = False,
    mixed: bool = False,
    cover: Sequence[Charset] = (),
    exclude: frozenset[str] = frozenset(),
) -> ByteLevelMerge:
    """The Chinese words of a list in its order, each with a path of merges to it; `mixed` admits words as 维生素C.

    The characters of the sets in `cover` come first. `exclude` are texts that do not become tokens.
    """
    accepted = []
    paths, left_out = _covered(base, cover, exclude)
    for word in dict.fromkeys(word.replace(SPACE, " ") for word in words):
        reason = why_left_out(base, word, mixed)
        if reason is None:
            accepted.append(word)
        else:
            left_out.append((word, reason))
    tokens = [spelled(word.encode()) for word in accepted]
    for word, token, parts in zip(accepted, tokens, base.parts(tokens), strict=True):
        reason = paths.add(token, parts, "list")
        if reason is not None and token not in paths:
            left_out.append((word, reason))
    listed = set(tokens)
    added = (p._replace(reason="list") if p.text in listed else p for p in paths.pieces)
    return Merge("safe", base, (*added, *_pad(base, pad)), tuple(left_out))


def why_left_out(
    base: ByteLevelVocabulary, word: str, mixed: bool = False, requested: frozenset[str] = frozenset()
) -> str | None:
    """Why a word cannot become a token, or would change how text without Chinese is tokenized; None where it can."""
    if word in base.added_tokens.values():
        return "is a special token of the base"
    if (reason := why_not_text(word, mixed)) is not None:
        return reason
    if not chinese.search(word) and word not in requested:
        return "contains no Han character or CJK punctuation"
    if "\ud800" <= max(word) <= "\udfff":
        return "contains an unpaired surrogate"
    token = spelled(word.encode())
    if token in base.ids:
        return "is in the base"
    if any(byte not in base.ids for byte in token):
        return "contains a byte that the base lacks"
    return why_changed(base, word)


def why_changed(base: ByteLevelVocabulary, text: str) -> str | None:
    """Why a text does not reach the base's merges as one word, so that a token for it would be dead; None where it does."""
    if next(base.are_words([text])):
        return None
    if next(base.normalized([text])) != text:
        return "is changed by the base's normalizer"
    matched = next((token for token in base.added_tokens.values() if token and token in text), None)
    words = base.words(text)
    if matched is not None and words == [spelled(text.encode())]:
        return f"contains {matched!r}, which the base matches before its merges"
    return "is split by the base's pattern" if len(words) > 1 else "is changed by the base's pre-tokenizer"


def require_whole(base: ByteLevelVocabulary, words: bool) -> None:
    """InputError where no Chinese character can become a token, or, if `words`, no Chinese word: tried on GB 2312's.

    BertNormalizer, for one, puts a space on both sides of each character.
    """
    characters = charset("gb2312-1")
    pairs = list(map("".join, zip(characters[::2], characters[1::2], strict=False)))
    has_words, has_characters = any(base.are_words(pairs)), any(base.are_words(characters))
    if has_words or (has_characters and not words):
        return
    written, reason = next(base.normalized(pairs)), why_changed(base, pairs[0])
    if written != pairs[0]:
        reason = f"is {written!r} after its normalizer"
    raise InputError(
        "`base`",
        f"lets no Chinese {'word' if has_characters else 'character'} become a token: {pairs[0]!r} {reason}",
        "Take `recipe` safe with a `zh` of single characters, or use another base"
        if has_characters
        else "Use a base whose tokenizer.json keeps Chinese text as it is",
    )


def count_runs(lines: Iterable[str]) -> Counter[str]:
    """How often each run of Han characters, and of CJK punctuation, occurs in the text, with one space before it."""
    runs: Counter[str] = Counter()
    for line in lines:
        runs.update(chinese_run.findall(line))
    return runs


def continued(
    base: ByteLevelVocabulary,
    runs: Mapping[str, int],
    add: int,
    prior: Iterable[tuple[str, int]] = (),
    prior_weight: float = 0.0,
    cover: Sequence[Charset] = (),
    pad: bool = False,
    log: Path | None = None,
    progress: Progress | None = None,
    wanted: PieceFilter = ACCEPT_ALL,
) -> ByteLevelMerge:
    """Continue the BPE training of `base` on counted runs, with words as a prior, for exactly `add` tokens besides `[PAD]`.

    Characters are added whole and words are trained on them; then all are sorted by how often their merge would be
    used, so that a rare character competes with words. Characters of the sets in `cover` come first.
    What `wanted` rejects does not become a token. Errors: OptionError where `add` is negative, InputError where there is too little text.
    """
    if add < 0:
        raise OptionError("add", f"cannot be {add:,}", "Give 0 or more")
    if add == 0:
        return Merge("continued", base, _pad(base, pad))
    seen = count_characters(runs)
    if seen < add * LEAST:
        raise InputError(
            "the text",
            f"is too little for {add:,} tokens: it has {seen:,} Chinese characters, and they ask for {add * LEAST:,}",
            "Give more text, or add fewer",
        )
    weighted = as_merges_see(base, with_prior(runs, prior, prior_weight))
    paths, left_out = _covered(base, cover, wanted.exclude)
    covered = len(paths.pieces)
    _add_paths(paths, _characters(weighted), "character")
    start = base.extended(paths.pieces)
    words, asked, before = _words(start, weighted), int(add * SPARE) + 8, 0
    # Each pass asks for more, and training yields no more than the text has: so the loop ends.
    while True:
        trained = [start.text_of(ids) for ids in train_on_ids(words, asked, log, progress)]
        reasons = wanted.rejected(trained)
        failures = _add_paths(paths, [text for text in trained if text not in reasons], "merge")
        best = _most_used(paths, covered, weighted, add)
        if len(best) >= add or len(trained) <= before or not (wanted.rejects_any or any(failures)):
            break
        asked, before = more_candidates(asked, add, len(best)), len(trained)
    left_out += reasons.items()
    if len(best) < add:
        raise InputError(
            "the text",
            f"is too little for {add:,} tokens: it yields {len(best):,}",
            "Give more text, or add fewer" + (", or lower `min_documents`" if reasons else ""),
        )
    return Merge("continued", base, (*best[:add], *_pad(base, pad)), tuple(left_out))


def _covered(
    base: ByteLevelVocabulary, cover: Sequence[Charset], exclude: frozenset[str]
) -> tuple[Paths, list[tuple[str, str]]]:
    """Paths to the characters of some sets, and the characters without one, as (character, reason)."""
    requested = dict.fromkeys(c for name in cover for c in charset(name))
    paths = Paths(base, frozenset(requested), frozenset(spelled(text.encode()) for text in exclude))
    lacking = [c for c in requested if spelled(c.encode()) not in base.ids]
    reasons = {c: why_left_out(base, c, requested=paths.requested) for c in lacking}
    possible = [c for c, reason in reasons.items() if reason is None]
    reasons |= zip(possible, _add_paths(paths, possible, "character"), strict=True)
    return paths, [(c, reason) for c, reason in reasons.items() if reason is not None]


def _add_paths(paths: Paths, texts: Sequence[str], reason: Reason) -> list[str | None]:
    """Give each text a path where that is possible, and return why it is not for each, or None."""
    base, tokens = paths.base, [spelled(text.encode()) for text in texts]
    failures: list[str | None] = []
    for text, token, parts, word in zip(
        texts, tokens, base.parts(tokens), base.are_words(texts), strict=True
    ):
        failure = paths.add(token, parts, reason) if word else why_changed(base, text)
        failures.append(failure if token not in paths else None)
    return failures


def _characters(runs: Mapping[str, float]) -> list[str]:
    """All Chinese characters of the runs, the most frequent first."""
    counts: Counter[str] = Counter()
    for run, n in runs.items():
        for character in run.lstrip(" "):
            counts[character] += n  # type: ignore[assignment]
    return [character for character, _ in counts.most_common()]


def _words(vocabulary: ByteLevelVocabulary, runs: Mapping[str, float]) -> dict[tuple[int, ...], float]:
    """The runs as words of ids, split where the pattern splits and at tokens that are not whole Chinese characters."""
    whole = {
        id
        for token, id in vocabulary.ids.items()
        if (text := readable(token)) is not None and _is_chinese(text)
    }
    words: Counter[tuple[int, ...]] = Counter()
    iterator = iter(runs.items())
    while batch := list(islice(iterator, BATCH)):
        encoded = vocabulary.tokenizer_by_merges.encode_batch(
            [run for run, _ in batch], add_special_tokens=False
        )
        for (_, n), encoding in zip(batch, encoded, strict=True):
            marked = (
                (id in whole, word, id) for id, word in zip(encoding.ids, encoding.word_ids, strict=True)
            )
            for (is_whole, _), group in groupby(marked, key=itemgetter(0, 1)):
                if is_whole:
                    words[tuple(id for *_, id in group)] += n  # type: ignore[assignment]
    return dict(words)


def _is_chinese(text: str) -> bool:
    return all(map(chinese.match, text.removeprefix(" ")))


def _most_used(paths: Paths, first: int, runs: Mapping[str, float], count: int) -> list[AddedPiece]:
    """The new tokens by how often their merges are used in the runs, after the `first` ones; unused ones are dropped.

    A part is used at least as often as what is made of it, so parts come first and no token loses its parts.
    """
    pieces, base = paths.pieces, paths.base
    full = base.extended(pieces)
    counts = token_counts(full.encode_by_merges, runs.items(), full.size)
    uses = merge_uses(counts, joined_ids(full, pieces), base.size)
    order = [*range(first), *(i for i in np.argsort(-uses, kind="stable") if i >= first and uses[i] > 0)]
    best = Paths(base, paths.requested, paths.excluded)
    base_parts = base.parts(pieces[i].text for i in order)
    for piece, parts in zip((pieces[i] for i in order), base_parts, strict=True):
        best.add(piece.text, parts, piece.reason)
        if len(best.pieces) >= count:
            break
    return best.pieces


def joined_ids(vocabulary: ByteLevelVocabulary, added: Iterable[AddedPiece]) -> list[tuple[int, ...]]:
    """The two ids that the merge of each added token joins."""
    ids = vocabulary.ids
    return [(ids[piece.parts[0]], ids[piece.parts[1]]) for piece in added if piece.parts is not None]


def _pad(base: ByteLevelVocabulary, pad: bool) -> tuple[AddedPiece, ...]:
    """`[PAD]` as a special token where it is requested and missing."""
    return (AddedPiece(PAD, "pad", kind="control"),) if pad and PAD not in base.texts.values() else ()
