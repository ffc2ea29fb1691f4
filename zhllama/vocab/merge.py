"""Extend a SentencePiece vocabulary by a word list, as published (`chinese-llama`) or without side effects (`safe`).

The published way is the merge script of Chinese-LLaMA-Alpaca (arXiv:2304.08177, section 2.1): every piece that the
base lacks, in order, with score 0.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from zhllama.characters import Charset, charset, chinese
from zhllama.errors import InputError
from zhllama.vocab.piece_filter import EXCLUDED, plain
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary
from zhllama.vocab.vocabulary import PAD, SPACE, AddedPiece, Merge, Reason
from zhllama.vocab.word_table import why_not_text

SentencePieceMerge = Merge[SentencePieceVocabulary]


def chinese_llama(
    base: SentencePieceVocabulary,
    words: Sequence[str],
    pad: bool = False,
    exclude: frozenset[str] = frozenset(),
) -> SentencePieceMerge:
    """The published merge: new pieces in order, all with score 0, optionally `[PAD]` after them.

    `exclude` are texts, with spaces for ▁, that do not become pieces.

    tests/test_merge.py checks the sha256 of the published files.
    """
    require_bpe(base)
    new = _new_words(base, words)
    excluded = [word for word in new if plain(word) in exclude] if exclude else []
    rejected = set(excluded)
    added = [AddedPiece(word, "list") for word in new if word not in rejected]
    if pad and PAD not in base.ids:
        added.append(AddedPiece(PAD, "pad"))
    return Merge(
        "chinese-llama",
        base,
        tuple(added),
        (*_known_words(base, words), *((word, EXCLUDED) for word in excluded)),
    )


def safe(
    base: SentencePieceVocabulary,
    words: Sequence[str],
    pad: bool = False,
    mixed: bool = False,
    cover: Sequence[Charset] = (),
    exclude: frozenset[str] = frozenset(),
) -> SentencePieceMerge:
    """The same list without side effects: only Chinese pieces, ranked below every ordinary merge of the base, none dead.

    `mixed` admits letters and digits beside a Han character, as in 维生素C. The characters of the sets in `cover` become
    pieces first. `exclude` are texts, with spaces for ▁, that do not become pieces.
    """
    require_bpe(base)
    covered, left_out = cover_characters(base, cover)
    accepted = [AddedPiece(c, "character") for c in covered if c not in exclude]
    words = [word for word in words if word not in set(covered)]
    left_out += _known_words(base, words)
    for word in _new_words(base, words):
        reason = EXCLUDED if plain(word) in exclude else why_unsafe(base, word, mixed)
        if reason is None:
            accepted.append(AddedPiece(word, "list"))
        else:
            left_out.append((word, reason))
    pieces, unreachable = with_paths(base, accepted, exclude)
    left_out += [(word, "has no path without an excluded piece") for word in unreachable]
    added = ranked(base, pieces)
    return Merge("safe", base, (*added, *pad_piece(base, pad)), tuple(left_out))


def cover_characters(
    base: SentencePieceVocabulary, cover: Sequence[Charset]
) -> tuple[list[str], list[tuple[str, str]]]:
    """The characters of some sets that the base lacks and can have, and those that it changes, as (character, reason)."""
    lacking = [c for c in dict.fromkeys(c for name in cover for c in charset(name)) if c not in base.ids]
    reasons = {c: why_changed(base, c) for c in lacking}
    return (
        [c for c, reason in reasons.items() if reason is None],
        [(c, reason) for c, reason in reasons.items() if reason is not None],
    )


def why_unsafe(base: SentencePieceVocabulary, word: str, mixed: bool = False) -> str | None:
    """Why a piece could change how text without Chinese is tokenized, or None."""
    if (reason := why_not_text(word, mixed)) is not None:
        return reason
    if not chinese.search(word):
        return "contains no Han character or CJK punctuation"
    if any(c not in base.ids and not chinese.match(c) for c in word):
        return "contains a character that is neither Chinese nor in the base"
    return why_changed(base, word)


def why_changed(base: SentencePieceVocabulary, word: str) -> str | None:
    """Why the base changes or splits a piece's text before it applies any merge, so that the piece would be dead, or None."""
    if base.bare.normalize(word.replace(SPACE, " ")) != word:
        return "is changed by the base's normalizer"
    if base.normalizer.remove_extra_whitespaces and SPACE * 2 in word:
        return "contains a run of spaces, which the base reduces to one"
    matched = next((piece for piece in base.user_defined if piece in word), None)
    return None if matched is None else f"contains {matched!r}, which the base matches before its merges"


def with_paths(
    base: SentencePieceVocabulary, added: Sequence[AddedPiece], exclude: frozenset[str] = frozenset()
) -> tuple[list[AddedPiece], list[str]]:
    """The same pieces in their order, followed by what BPE needs to reach each of them, so that none is dead.

    Also returns the pieces that need one of `exclude`, which are dropped. Each pass drops at least one, so the loop ends.
    """
    added, dropped = list(added), list[str]()
    while True:
        pieces, unreachable = _with_paths(base, added, exclude)
        if not unreachable:
            return pieces, dropped
        dropped += unreachable
        added = [piece for piece in added if piece.text not in set(unreachable)]


def _with_paths(
    base: SentencePieceVocabulary, added: Sequence[AddedPiece], exclude: frozenset[str]
) -> tuple[list[AddedPiece], list[str]]:
    """The pieces with what BPE needs to reach them, and those that cannot be reached without one of `exclude`.

    A character that the base lacks becomes a piece: `tokenizers` merges nothing that it has split into bytes.
    A dead piece is tokenized into three parts or more; the first two of them with a Chinese character are joined, again
    and again, until it is whole. Two without one, as I and T in IT行业, would change text without Chinese.
    Such intermediates rank below all others, so a piece that was reachable stays so: on its own text they never apply.
    """
    pieces, unreachable = list(added), []
    rank = {p.text: -p.score for p in base.pieces if p.kind == "normal"}
    lowest = max(rank.values(), default=0.0)

    def add(text: str, reason: Reason) -> None:
        if reason != "list":
            pieces.append(AddedPiece(text, reason))
        rank[text] = lowest + 1 + len(rank)

    for piece in added:
        add(piece.text, "list")
    for character in dict.fromkeys("".join(piece.text for piece in added)):
        if character not in rank and character not in exclude:
            add(character, "character")
    for piece in added:
        if any(character not in rank for character in piece.text):
            unreachable.append(piece.text)
            continue
        while len(parts := merge_by_rank(piece.text, rank)) > 1:
            joined = [left + right for left, right in pairwise(parts)]
            joined = [text for text in joined if plain(text) not in exclude]
            if not joined:
                unreachable.append(piece.text)
                break
            add(next((text for text in joined if chinese.search(text)), joined[0]), "intermediate")
    return pieces, unreachable


def merge_by_rank(text: str, rank: Mapping[str, float]) -> list[str]:
    """BPE in its simplest form: join the neighbors whose piece ranks first, leftmost first, until none are left."""
    parts = list(text)
    while True:
        pairs = [
            (rank[joined], i) for i in range(len(parts) - 1) if (joined := parts[i] + parts[i + 1]) in rank
        ]
        if not pairs:
            return parts
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


def ranked(base: SentencePieceVocabulary, added: Iterable[AddedPiece]) -> list[AddedPiece]:
    """The same pieces with unique scores: integers that descend from below the base's ordinary merges.

    LLaMA's runs of spaces have the score -1e9 and are not ordinary merges. Integers above -2**24 are exact in float32.
    """
    normal = (p for p in base.pieces if p.kind == "normal")
    ordinary = [p.score for p in normal if p.text.strip(SPACE) or p.score > -(2**24)]
    floor = int(min(ordinary, default=0.0)) - 1
    scored = [piece._replace(score=float(floor - rank)) for rank, piece in enumerate(added)]
    if floor - len(scored) <= -(2**24):
        raise InputError(
            "base", f"its lowest ordinary score is {floor}, which leaves no room below", "Use another base"
        )
    return scored


def pad_piece(base: SentencePieceVocabulary, pad: bool) -> list[AddedPiece]:
    """`[PAD]` where it is requested and missing: a control piece, unlike the published one, so no text produces it."""
    return [AddedPiece(PAD, "pad", kind="control")] if pad and PAD not in base.ids else []


def require_bpe(base: SentencePieceVocabulary) -> None:
    """Refuse a base without merges."""
    if base.algorithm != "bpe":
        raise InputError(
            "base", f"is a {base.algorithm} model, and only BPE has merges to add to", "Use a BPE base"
        )


def _new_words(base: SentencePieceVocabulary, words: Sequence[str]) -> list[str]:
    return [word for word in dict.fromkeys(words) if word not in base.ids]


def _known_words(base: SentencePieceVocabulary, words: Sequence[str]) -> Iterator[tuple[str, str]]:
    return ((word, "is in the base") for word in dict.fromkeys(words) if word in base.ids)
