"""Continue the base's own BPE training on Chinese text: new merges after the old ones, so that no piece is dead.

The method of arXiv:2512.03989 for SentencePiece: each base token is written as one private character, BPE is trained
on that, and its pieces are written back. A character that the base lacks is added whole, as its bytes have no merges.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from zhllama.characters import Charset, chinese_run
from zhllama.errors import InputError, OptionError
from zhllama.vocab.merge import (
    SentencePieceMerge,
    cover_characters,
    merge_by_rank,
    pad_piece,
    ranked,
    require_bpe,
    why_changed,
    why_unsafe,
)
from zhllama.vocab.piece_filter import ACCEPT_ALL, PieceFilter, plain
from zhllama.vocab.sentencepiece_trainer import Progress, train_sentencepiece
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary
from zhllama.vocab.vocabulary import SPACE, AddedPiece, Merge, Vocabulary

PRIVATE = 0x20000  # first of 131,072 code points that stand for base tokens while training
LONGEST_PIECE = 16  # tokens of the base, SentencePiece's own default
LEAST = 10  # Chinese characters of text for each merge to add; with less the prior alone would choose them
Number = TypeVar("Number", int, float)
SPARE = 1.02  # candidates beyond the need, since some turn out dead or duplicate


def count_runs(lines: Iterable[str]) -> Counter[str]:
    """How often each run of Han characters, and of CJK punctuation, occurs in the text.

    A run includes one space before it, and a line begins with one, as SentencePiece's ▁ does.
    """
    runs: Counter[str] = Counter()
    for line in lines:
        runs.update(chinese_run.findall(f" {line}"))
    return runs


def as_merges_see(base: Vocabulary, runs: Mapping[str, Number]) -> dict[str, Number]:
    """The runs of Chinese as the base's normalizer writes them inside a text, so that no piece stands for what it replaces."""
    seen: dict[str, Number] = {}
    for (run, n), written in zip(runs.items(), base.normalized(runs), strict=True):
        for part in [run] if written == run else chinese_run.findall(written):
            seen[part] = seen[part] + n if part in seen else n
    return seen


def count_characters(runs: Mapping[str, int]) -> int:
    """How many Chinese characters counted runs contain."""
    return sum(len(run.lstrip(" ")) * n for run, n in runs.items())


def with_prior(runs: Mapping[str, int], words: Iterable[tuple[str, int]], weight: float) -> dict[str, float]:
    """The runs, and the words weighted to `weight` times as many characters in all as the runs have."""
    words = list(words) if weight else []
    mass = sum(len(run) * n for run, n in runs.items())
    listed = sum(len(word) * n for word, n in words)
    mixed: dict[str, float] = dict(runs)
    for word, n in words:
        mixed[word] = mixed.get(word, 0) + n * weight * mass / listed
    return mixed


def characters(runs: Mapping[str, int], coverage: float) -> list[str]:
    """The most frequent characters that cover the share `coverage` of the runs."""
    counts: Counter[str] = Counter()
    for run, n in runs.items():
        for character in run.lstrip(" "):
            counts[character] += n
    wanted, room = [], coverage * sum(counts.values())
    for character, n in counts.most_common():
        if room <= 0:
            break
        wanted.append(character)
        room -= n
    return wanted


def continued(
    base: SentencePieceVocabulary,
    runs: Mapping[str, int],
    size: int,
    prior: Iterable[tuple[str, int]] = (),
    prior_weight: float = 0.0,
    coverage: float = 0.999,
    cover: Sequence[Charset] = (),
    pad: bool = False,
    log: Path | None = None,
    progress: Progress | None = None,
    wanted: PieceFilter = ACCEPT_ALL,
) -> SentencePieceMerge:
    """Continue the BPE training of `base` on counted runs, with words as a prior, to exactly `size` pieces besides `[PAD]`.

    What `wanted` rejects does not become a piece; the next best ones take its place.

    Errors: OptionError where `size` leaves no room, InputError where there is too little text.
    """
    require_bpe(base)
    covered, left_out = cover_characters(base, cover)
    singles = _possible(base, [c for c in characters(runs, coverage) if c not in base.ids])
    singles = [c for c in dict.fromkeys((*singles, *covered)) if c not in wanted.exclude]
    room = size - len(base.pieces)
    if room == 0:
        return Merge("continued", base, tuple(pad_piece(base, pad)))
    if room <= len(singles):
        raise OptionError(
            "size",
            f"{size:,} leaves {room:,} pieces, and the single characters alone are {len(singles):,}",
            "Raise `size`, or lower `character_coverage` or `cover`",
        )
    seen, merges = count_characters(runs), room - len(singles)
    if seen < merges * LEAST:
        raise InputError(
            "the text",
            f"is too little for {size:,} pieces: it has {seen:,} Chinese characters, and {merges:,} new merges ask "
            f"for {merges * LEAST:,}",
            "Give more text, or ask for fewer pieces",
        )
    characters_added = [AddedPiece(c, "character") for c in singles]
    start = base.extended(characters_added)
    weighted = with_prior(runs, prior, prior_weight)
    asked, before = int(merges * SPARE) + 8, 0
    # Each pass asks for more, and training yields no more than the text has: so the loop ends.
    while True:
        trained = _new_pieces(start, weighted, asked, log, progress)
        candidates = [text for text in trained if text not in start.ids and why_unsafe(base, text) is None]
        reasons = wanted.rejected(map(plain, candidates))
        candidates = [text for text in candidates if plain(text) not in reasons]
        added = _without_dead(base, characters_added, candidates, merges)
        if len(added) == room:
            left_out += [(text.replace(" ", SPACE), reason) for text, reason in reasons.items()]
            return Merge("continued", base, (*added, *pad_piece(base, pad)), tuple(left_out))
        if len(trained) <= before or len(trained) == len(candidates):
            raise InputError(
                "the text",
                f"is too little for {size:,} pieces: it yields {len(base.pieces) + len(added):,}",
                "Give more text, or ask for fewer pieces" + (", or lower `min_documents`" if reasons else ""),
            )
        asked, before = more_candidates(asked, room, len(added)), len(trained)


def more_candidates(asked: int, wanted: int, accepted: int) -> int:
    """How many candidates to train next, where of `asked` ones only `accepted` of the `wanted` pieces remained."""
    return int(asked * min(4.0, max(1.2, 1.1 * wanted / max(1, accepted))))


def _without_dead(
    base: SentencePieceVocabulary, singles: Sequence[AddedPiece], candidates: Sequence[str], merges: int
) -> list[AddedPiece]:
    """The single characters and the first `merges` candidates that are not dead, fewer where there are no more."""
    # Each pass removes at least one candidate, since single characters are possible in any text: so the loop ends.
    while True:
        added = ranked(base, (*singles, *(AddedPiece(c, "merge") for c in candidates[:merges])))
        extended = base.extended(added)
        dead = {extended.texts[id] for id in extended.dead(range(base.size, extended.size))}
        if not dead:
            return added
        assert dead <= set(candidates), f"single characters are dead: {dead - set(candidates)}"
        # A dead piece occurs in no tokenization, so removing it changes none.
        candidates = [text for text in candidates if text not in dead]


def _possible(base: SentencePieceVocabulary, singles: Sequence[str]) -> list[str]:
    """The characters that stay as they are when the base normalizes a text; no piece can contain any other."""
    return [text for text in singles if why_changed(base, text) is None]


def joined_ids(vocabulary: SentencePieceVocabulary, added: Iterable[AddedPiece]) -> list[tuple[int, ...]]:
    """The ids that each added piece is joined from: two or more, or the bytes of a character that was added whole."""
    ids = vocabulary.ids
    rank = {p.text: -p.score for p in vocabulary.pieces if p.kind == "normal"}
    joined = []
    for piece in added:
        if len(piece.text) == 1:
            joined.append(tuple(ids[f"<0x{byte:02X}>"] for byte in piece.text.encode()))
            continue
        own_rank = rank.pop(piece.text)
        joined.append(tuple(ids[part] for part in merge_by_rank(piece.text, rank)))
        rank[piece.text] = own_rank
    return joined


def _new_pieces(
    start: SentencePieceVocabulary,
    runs: Mapping[str, float],
    count: int,
    log: Path | None,
    progress: Progress | None,
) -> list[str]:
    """The pieces that training would add after those of `start`, best first, without duplicates."""
    bytes_ = {id for id, p in enumerate(start.pieces) if p.kind != "normal"}
    words: Counter[tuple[int, ...]] = Counter()
    texts = list(runs)
    for text, ids in zip(texts, start.bare.encode(texts), strict=True):
        for part in _without(ids, bytes_):
            words[tuple(part)] += runs[text]  # type: ignore[assignment]
    joined = train_on_ids(words, count, log, progress)
    return list(dict.fromkeys("".join(start.pieces[id].text for id in ids) for ids in joined))


def train_on_ids(
    words: Mapping[tuple[int, ...], float], count: int, log: Path | None, progress: Progress | None
) -> list[tuple[int, ...]]:
    """The sequences of ids, about `count`, that BPE joins in weighted words of ids, best first.

    Each id is written as one private character, so that SentencePiece's trainer never looks inside it.
    """
    used: dict[int, str] = {}
    spelled = [
        ("".join(used.setdefault(id, chr(PRIVATE + len(used))) for id in word), n)
        for word, n in words.items()
    ]
    options = {
        "model_type": "bpe",
        "vocab_size": 3 + len(used) + count,
        "input_format": "tsv",
        "character_coverage": 1.0,
        "normalization_rule_name": "identity",
        "add_dummy_prefix": False,
        "split_by_unicode_script": False,
        "split_by_number": False,
        "split_by_whitespace": False,
        "max_sentence_length": 1 << 24,
        "max_sentencepiece_length": LONGEST_PIECE,
        "hard_vocab_limit": False,
    }
    lines = [f"{word}\t{max(1, round(n))}" for word, n in spelled if len(word) > 1]
    if not lines:
        return []
    trained = train_sentencepiece(lines, options, log, progress)
    id_of = {character: id for id, character in used.items()}
    pieces = (p.text for p in trained.pieces if p.kind == "normal" and len(p.text) > 1)
    return [tuple(id_of[c] for c in piece) for piece in pieces]


def _without(ids: Sequence[int], excluded: set[int]) -> Iterator[list[int]]:
    """The runs of `ids` between excluded ones."""
    part: list[int] = []
    for id in ids:
        if id in excluded:
            yield part
            part = []
        else:
            part.append(id)
    yield part
