"""Continue the base's own BPE on Chinese text: new merges on top of the old ones, no piece without a path to it.

The method of arXiv:2512.03989 for SentencePiece: each base token is written as one private character, BPE is trained
on that, and its pieces are written back. A character that the base lacks comes in whole, as its bytes have no merges.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from zhllama.errors import InputError, OptionError
from zhllama.vocab.characters import Charset, charset, chinese_run
from zhllama.vocab.merge import Added, Merge, pad_piece, ranked, require_bpe
from zhllama.vocab.model import Piece, SentencePieceModel
from zhllama.vocab.trainer import Progress, train_sentencepiece

PRIVATE = 0x20000  # first of 131,072 code points that stand for base tokens while training
LONGEST_PIECE = 16  # tokens of the base, SentencePiece's own default
LEAST = 10  # Chinese characters of text for each merge to add; with less the prior alone would choose them
SPARE = 1.02  # candidates beyond the need, for those that turn out dead or double


def count_runs(lines: Iterable[str]) -> Counter[str]:
    """How often each run of Han, and each run of CJK punctuation, stands in the text.

    A run takes one space before it along, and a line begins with one, as SentencePiece's ▁ does.
    """
    runs: Counter[str] = Counter()
    for line in lines:
        runs.update(chinese_run.findall(f" {line}"))
    return runs


def with_prior(runs: Mapping[str, int], words: Iterable[tuple[str, int]], weight: float) -> dict[str, float]:
    """The runs, and the words with as many characters in all as `weight` times the runs have."""
    words = list(words) if weight else []
    mass = sum(len(run) * n for run, n in runs.items())
    listed = sum(len(word) * n for word, n in words)
    mixed: dict[str, float] = dict(runs)
    for word, n in words:
        mixed[word] = mixed.get(word, 0) + n * weight * mass / listed
    return mixed


def characters(runs: Mapping[str, int], coverage: float, cover: Sequence[Charset]) -> list[str]:
    """The most frequent characters that make up `coverage` of the runs, then those of the sets in `cover`."""
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
    return list(dict.fromkeys((*wanted, *(c for name in cover for c in charset(name)))))


def continued(
    base: SentencePieceModel,
    runs: Mapping[str, int],
    size: int,
    prior: Iterable[tuple[str, int]] = (),
    prior_weight: float = 0.0,
    coverage: float = 0.999,
    cover: Sequence[Charset] = (),
    pad: bool = False,
    log: Path | None = None,
    progress: Progress | None = None,
) -> Merge:
    """Continue the BPE of `base` on counted runs, and on words as a prior, until there are exactly `size` pieces (`[PAD]` besides).

    Errors: OptionError where `size` leaves no room, InputError where the text is too little for it.
    """
    require_bpe(base)
    singles = [c for c in characters(runs, coverage, cover) if c not in base.ids]
    room = size - len(base.pieces)
    if room == 0:
        return Merge("continued", base, tuple(pad_piece(base, pad)))
    if room <= len(singles):
        raise OptionError(
            "--size",
            f"{size:,} leaves {room:,} pieces, and the single characters alone are {len(singles):,}",
            "Raise --size, or lower --character-coverage or --cover",
        )
    seen, merges = sum(len(run.lstrip(" ")) * n for run, n in runs.items()), room - len(singles)
    if seen < merges * LEAST:
        raise InputError(
            "the text",
            f"is too little for {size:,} pieces: it has {seen:,} Chinese characters, and {merges:,} new merges ask "
            f"for {merges * LEAST:,}",
            "Give more text, or a smaller --size",
        )
    letters = [Added(Piece(c, 0.0), "character") for c in singles]
    start = base.extended(a.piece for a in letters)
    weighed = with_prior(runs, prior, prior_weight)
    found = [
        p for p in _new_pieces(start, weighed, int(merges * SPARE) + 8, log, progress) if p not in start.ids
    ]
    while True:
        tried = ranked(base, (*letters, *(Added(Piece(p, 0.0), "merge") for p in found[:merges])))
        if len(tried) < room:
            raise InputError(
                "the text",
                f"is too little for {size:,} pieces: it yields {len(base.pieces) + len(tried):,}",
                "Give more text, or a smaller --size",
            )
        model = base.extended(a.piece for a in tried)
        dead = {model.pieces[id].text for id in model.dead(range(len(base.pieces), size))}
        if not dead:
            return Merge("continued", base, (*tried, *pad_piece(base, pad)))
        # A dead piece never stood in any cut, so taking it away moves nothing.
        found = [p for p in found if p not in dead]


def _new_pieces(
    start: SentencePieceModel,
    runs: Mapping[str, float],
    count: int,
    log: Path | None,
    progress: Progress | None,
) -> list[str]:
    """The pieces that training goes on to make after those of `start`, best first, none twice."""
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
    """The sequences of ids, about `count`, that BPE joins in weighed words of ids, best first.

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
    lines = (f"{word}\t{max(1, round(n))}" for word, n in spelled if len(word) > 1)
    trained = train_sentencepiece(lines, options, log, progress)
    id_of = {character: id for id, character in used.items()}
    pieces = (p.text for p in trained.pieces if p.kind == "normal" and len(p.text) > 1)
    return [tuple(id_of[c] for c in piece) for piece in pieces]


def _without(ids: Sequence[int], excluded: set[int]) -> Iterator[list[int]]:
    """The stretches of `ids` between excluded ones."""
    part: list[int] = []
    for id in ids:
        if id in excluded:
            yield part
            part = []
        else:
            part.append(id)
    yield part
