"""Builds flat arrays from a SentencePiece BPE vocabulary: which characters are adjacent in pieces, which symbols merge.

BPE merges symbols. A symbol is the id of a piece, or, from `nothing + 1` on, a character that occurs in pieces but is
none itself. The symbol `nothing` (one past the last id) means "no piece" and ranks last.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary
from zhllama.vocab.vocabulary import SPACE as ESCAPED_SPACE

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

SYMBOLS = 1 << 19  # two symbols and the piece they make share one int64: 20 + 20 + 24 bits including the sign
LAST = 2**31 - 1  # the rank of symbols that never merge


class Tables(NamedTuple):
    """The arrays that the compiled loops read, indexed by code point, letter or symbol as their comments say.

    Letters are the characters that are adjacent to another one in a piece, numbered from 1; 0 is every other character.
    Source: for the published Chinese-LLaMA vocabulary (49,953 pieces) 2,793 letters and 13,470 neighbors [measured].
    """

    symbol_of: Int32  # [0x110000] code point -> symbol
    letter_of: Int32  # [0x110000] code point -> letter
    row: Int32  # letter a -> start of its row: the slot of the pair ab is row[a] + b
    owner: Int32  # slot -> a, or -1: rows are interleaved, as in a double array
    joint: Int32  # slot -> the piece ab, or `nothing` where ab occurs only inside longer pieces
    # Hash table of left << 44 | right << 24 | piece, -1 where empty; its size is a power of two.
    merges: Int64
    rank: Int32  # symbol -> rank of its merge; pieces of equal score share a rank
    code_of: Int64  # symbol - nothing -> code point, for characters without a piece
    byte_piece: Int32  # [256] byte -> id
    nothing: int


class Pairs(NamedTuple):
    """The merges and neighbors of a vocabulary, before their layout for speed; rows of three columns."""

    merges: Int32  # left symbol, right symbol, piece
    neighbors: Int32  # left letter, right letter, piece or `nothing`; sorted
    letters: list[str]  # letter 1 first
    characters: dict[str, int]  # character -> symbol
    strays: list[str]  # the characters of symbols nothing + 1, nothing + 2, ...


def why_not_compiled(model: SentencePieceVocabulary) -> str | None:
    """Why only SentencePiece can encode with this model, or None where the compiled loops give the same ids."""
    trainer = model._message.trainer_spec
    kinds = {piece.kind for piece in model.pieces}
    characters = {c for piece in model.pieces for c in piece.text}
    if model.algorithm != "bpe":
        return f"the model is {model.algorithm}, not BPE"
    if "byte" not in kinds:  # SentencePiece loads a model with all 256 or none
        return "the model has no byte fallback"
    if model.normalizer.precompiled_charsmap:
        return f"the model normalizes text ({model.normalizer.name or 'by a rule without name'})"
    if not model.normalizer.escape_whitespaces or trainer.treat_whitespace_as_suffix:
        return "the model treats spaces in an unsupported way"
    if kinds & {"user", "unused"}:
        return "the model contains user-defined or unused pieces"
    if any(len(piece.text) == 1 and piece.kind != "normal" for piece in model.pieces):
        return "a single character is a control piece"
    if not np.isfinite([piece.score for piece in model.pieces]).all():
        return "a score is not finite"
    if len(model.pieces) + len(characters) >= SYMBOLS:
        return "the vocabulary is too large"
    return None


def find_pairs(pieces: dict[str, int], nothing: int) -> Pairs:
    """Every merge that can happen, and every two adjacent characters of a reachable piece.

    A piece counts only if some path of merges leads to it: a dead piece never joins text.
    """
    characters = {piece: id_ for piece, id_ in pieces.items() if len(piece) == 1}
    strays: list[str] = []
    reachable: dict[str, int] = {}  # pieces of two characters and more

    def symbol(part: str) -> int | None:
        if len(part) > 1:
            return reachable.get(part)
        if part not in characters:
            strays.append(part)
            characters[part] = nothing + len(strays)
        return characters[part]

    merges: list[tuple[int, int, int]] = []
    for piece in sorted((p for p in pieces if len(p) > 1), key=len):
        halves = [(symbol(piece[:cut]), symbol(piece[cut:])) for cut in range(1, len(piece))]
        splits = [
            (left, right, pieces[piece]) for left, right in halves if left is not None and right is not None
        ]
        if splits:
            merges += splits
            reachable[piece] = pieces[piece]
    adjacent = sorted({two for piece in reachable for two in pairwise(piece)})
    letters = sorted({character for two in adjacent for character in two})
    letter = {character: number for number, character in enumerate(letters, 1)}
    neighbors = [(letter[a], letter[b], reachable.get(a + b, nothing)) for a, b in adjacent]
    return Pairs(_rows(merges), _rows(neighbors), letters, characters, strays)


def _rows(triples: Iterable[tuple[int, int, int]]) -> Int32:
    return np.array(list(triples), np.int32).reshape(-1, 3)


def build_tables(model: SentencePieceVocabulary) -> Tables:
    """Build the tables of a model (0.4 s for 50,000 pieces); needs numba."""
    from zhllama.encoding import kernel

    nothing = len(model.pieces)
    pairs = find_pairs({p.text: id for id, p in enumerate(model.pieces) if p.kind == "normal"}, nothing)
    symbol_of = np.full(0x110000, nothing, np.int32)
    for character, symbol in pairs.characters.items():
        symbol_of[ord(character)] = symbol
    letter_of = np.zeros(0x110000, np.int32)
    for letter, character in enumerate(pairs.letters, 1):
        letter_of[ord(character)] = letter
    for table in (symbol_of, letter_of):
        table[ord(" ")] = table[ord(ESCAPED_SPACE)]  # the normalizer writes every space as ▁
    scores = np.array([piece.score for piece in model.pieces], np.float32)
    rank = np.full(nothing + 1 + len(pairs.strays), LAST, np.int32)
    rank[:nothing] = np.unique(-scores, return_inverse=True)[1]
    byte_piece = np.zeros(256, np.int32)
    for id, piece in enumerate(model.pieces):
        if piece.kind == "byte":
            byte_piece[int(piece.text[1:-1], 16)] = id  # "<0x41>"
    sizes = np.bincount(pairs.neighbors[:, 0], minlength=len(pairs.letters) + 1)
    order = np.argsort(-sizes, kind="stable")  # long rows first: short ones fit into the gaps
    row, owner, joint = kernel.pack_rows(pairs.neighbors, sizes, order)
    bits = max(len(pairs.merges).bit_length() + 1, 4)  # a quarter to half full
    return Tables(
        symbol_of=symbol_of,
        letter_of=letter_of,
        row=row,
        owner=owner,
        joint=joint,
        merges=kernel.fill_merges(pairs.merges, bits),
        rank=rank,
        code_of=np.array([0, *map(ord, pairs.strays)], np.int64),
        byte_piece=byte_piece,
        nothing=nothing,
    )
