"""Compiled loops from code points to piece ids, with exactly the merges of SentencePiece's `bpe_model.cc`.

SentencePiece repeatedly merges the two adjacent symbols whose joined text is the piece with the highest score, leftmost
first among equals. Where no piece contains the characters a and b next to each other, no merge can cross the boundary
between them, so text splits into chunks that are merged independently. 42 % of the characters of mixed Chinese text are chunks of one
under the published Chinese-LLaMA vocabulary, and 37 % more are in chunks of two [measured on zh_small.txt].
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

from zhllama.encoding.tables import LAST, Int32, Int64, Tables

Function = TypeVar("Function", bound=Callable[..., Any])

SHORT = 32  # up to here a scan over the chunk's pairs beats a heap
# 2**64 / golden ratio, as int64: multiplying by it spreads keys over the high bits.
SPREAD = -7046029254386353131


def compiled(function: Function) -> Function:
    """numba's njit, cached on disk where a writable folder exists, with the type of the function itself."""
    try:
        return cast(Function, numba.njit(nogil=True, cache=True)(function))
    except RuntimeError:  # "no locator available": neither the package nor the home folder is writable
        return cast(Function, numba.njit(nogil=True)(function))


@compiled
def pack_rows(neighbors: Int32, sizes: Int64, order: Int64) -> tuple[Int32, Int32, Int32]:
    """Interleave the rows of a sparse table, each at the first position where it fits.

    neighbors: [n, 3] left, right, value, sorted; sizes: entries of each left; order: the order in which rows are placed.
    Returns row, owner, joint as in `Tables`. Source: row displacement (Tarjan and Yao, 1979).
    """
    rows = len(sizes)
    first = np.zeros(rows + 1, np.int64)
    for left in range(rows):
        first[left + 1] = first[left] + sizes[left]
    row = np.zeros(rows, np.int32)
    owner = np.full(2 * rows + 2 * len(neighbors), -1, np.int32)
    joint = np.zeros(len(owner), np.int32)
    gap, end = 0, 0
    for left in order:
        entries = neighbors[first[left] : first[left + 1]]
        if len(entries) == 0:
            break
        while owner[gap] >= 0:
            gap += 1
        at = max(gap - entries[0, 1], 0)
        fits = False
        while not fits:
            if at + rows > len(owner):
                owner = np.concatenate((owner, np.full(len(owner), -1, np.int32)))
                joint = np.concatenate((joint, np.zeros(len(joint), np.int32)))
            fits = True
            for k in range(len(entries)):
                if owner[at + entries[k, 1]] >= 0:
                    fits = False
                    at += 1
                    break
        row[left] = at
        for k in range(len(entries)):
            owner[at + entries[k, 1]] = left
            joint[at + entries[k, 1]] = entries[k, 2]
        end = max(end, at)
    return row, owner[: end + rows].copy(), joint[: end + rows].copy()


@compiled
def fill_merges(merges: Int32, bits: int) -> Int64:
    """A hash table (open addressing, 2**bits slots) of left << 44 | right << 24 | piece."""
    table = np.full(1 << bits, -1, np.int64)
    for k in range(len(merges)):
        key = np.int64(merges[k, 0]) << 20 | np.int64(merges[k, 1])
        slot = (key * SPREAD) >> (64 - bits) & (len(table) - 1)
        while table[slot] >= 0:
            slot = (slot + 1) & (len(table) - 1)
        table[slot] = key << 24 | np.int64(merges[k, 2])
    return table


@compiled
def merged(table: Int64, bits: int, left: int, right: int, nothing: int) -> int:
    """The piece that two symbols merge into, or `nothing`."""
    key = np.int64(left) << 20 | np.int64(right)
    slot = (key * SPREAD) >> (64 - bits) & (len(table) - 1)
    entry = table[slot]
    while entry >= 0:
        if entry >> 24 == key:
            return int(entry & 0xFFFFFF)
        slot = (slot + 1) & (len(table) - 1)
        entry = table[slot]
    return nothing


@compiled
def spell(code: int, byte_piece: Int32, ids: Int32, at: int) -> int:
    """Write a character as the pieces of its UTF-8 bytes; return the position of the next id."""
    if code == 0x20:
        code = 0x2581  # the normalizer writes a space as ▁, which this vocabulary lacks
    if code < 0x80:
        ids[at] = byte_piece[code]
        return at + 1
    if code < 0x800:
        ids[at] = byte_piece[0xC0 | code >> 6]
    else:
        if code < 0x10000:
            ids[at] = byte_piece[0xE0 | code >> 12]
        else:
            ids[at] = byte_piece[0xF0 | code >> 18]
            at += 1
            ids[at] = byte_piece[0x80 | code >> 12 & 63]
        at += 1
        ids[at] = byte_piece[0x80 | code >> 6 & 63]
    ids[at + 1] = byte_piece[0x80 | code & 63]
    return at + 2


@compiled
def merge_short(
    symbols: Int32, pieces: Int32, keys: Int64, n: int, merges: Int64, bits: int, rank: Int32, nothing: int
) -> int:
    """Merge the first n symbols in place by a scan over all pairs for the best; return how many remain.

    pieces: the piece of symbols k and k + 1; keys: its rank << 32 | k, so that the smallest key is the best pair, the
    leftmost among equals, and finding it needs no branch.
    """
    pairs = n - 1
    while pairs > 0:
        best = keys[0]
        for k in range(1, pairs):
            best = min(best, keys[k])
        if best >> 32 == LAST:
            break
        at = best & 0xFFFFFFFF
        symbol = pieces[at]
        symbols[at] = symbol
        pairs -= 1
        for k in range(at + 1, pairs + 1):
            symbols[k] = symbols[k + 1]
        for k in range(at, pairs):
            pieces[k] = pieces[k + 1]
            keys[k] = keys[k + 1] - 1
        if at > 0:
            pieces[at - 1] = merged(merges, bits, symbols[at - 1], symbol, nothing)
            keys[at - 1] = np.int64(rank[pieces[at - 1]]) << 32 | (at - 1)
        if at < pairs:
            pieces[at] = merged(merges, bits, symbol, symbols[at + 1], nothing)
            keys[at] = np.int64(rank[pieces[at]]) << 32 | at
    return pairs + 1


@compiled
def push(heap: Int64, size: int, key: np.int64) -> int:
    """Add a key to a binary min-heap; return the new size."""
    child = size
    while child > 0 and heap[(child - 1) >> 1] > key:
        heap[child] = heap[(child - 1) >> 1]
        child = (child - 1) >> 1
    heap[child] = key
    return size + 1


@compiled
def pop(heap: Int64, size: int) -> int:
    """Remove the smallest key; return the new size."""
    size -= 1
    key = heap[size]
    parent = 0
    while 2 * parent + 1 < size:
        child = 2 * parent + 1
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[parent] = heap[child]
        parent = child
    heap[parent] = key
    return size


@compiled
def merge_long(symbols: Int32, pieces: Int32, n: int, t: Tables, bits: int) -> int:
    """Like `merge_short` with a heap, in n log n, for long chunks such as a megabyte of one character.

    A key is rank << 32 | left position. It is stale if the pair at that position now has another rank; if the rank is
    the same, an equal key is in the heap anyway, so using either gives the same result.
    """
    before = np.arange(-1, n - 1).astype(np.int32)
    after = np.arange(1, n + 1).astype(np.int32)
    heap = np.empty(2 * n, np.int64)  # every merge removes one key and adds at most two
    size = 0
    for k in range(n - 1):
        if pieces[k] != t.nothing:
            size = push(heap, size, np.int64(t.rank[pieces[k]]) << 32 | k)
    pieces[n - 1] = t.nothing
    while size > 0:
        key = heap[0]
        size = pop(heap, size)
        left = key & 0xFFFFFFFF
        if pieces[left] == t.nothing or t.rank[pieces[left]] != key >> 32:
            continue
        symbol = pieces[left]
        right = after[left]
        symbols[left] = symbol
        pieces[right] = t.nothing
        after[left] = after[right]
        if after[left] < n:
            before[after[left]] = left
            pieces[left] = merged(t.merges, bits, symbol, symbols[after[left]], t.nothing)
            if pieces[left] != t.nothing:
                size = push(heap, size, np.int64(t.rank[pieces[left]]) << 32 | left)
        else:
            pieces[left] = t.nothing
        last = before[left]
        if last >= 0:
            pieces[last] = merged(t.merges, bits, symbols[last], symbol, t.nothing)
            if pieces[last] != t.nothing:
                size = push(heap, size, np.int64(t.rank[pieces[last]]) << 32 | last)
    count, k = 0, 0
    while k < n:
        symbols[count] = symbols[k]
        count += 1
        k = after[k]
    return count


@compiled
def encode_long(codes: Any, t: Tables, bits: int, ids: Int32, at: int) -> int:
    """Encode a chunk of any length; return the position of the next id."""
    n = len(codes)
    symbols, pieces = np.empty(n, np.int32), np.empty(n, np.int32)
    for k in range(n):
        symbols[k] = t.symbol_of[codes[k]]
    for k in range(n - 1):
        pieces[k] = t.joint[t.row[t.letter_of[codes[k]]] + t.letter_of[codes[k + 1]]]
    n = merge_long(symbols, pieces, n, t, bits)
    for k in range(n):
        if symbols[k] < t.nothing:
            ids[at] = symbols[k]
            at += 1
        else:
            at = spell(t.code_of[symbols[k] - t.nothing], t.byte_piece, ids, at)
    return at


@compiled
def mark_joints(codes: Any, starts: Int64, t: Tables, joined: Any) -> None:
    """Set joined[i] to 1 where a merge may cross from character i to i + 1, else 0; one longer than codes.

    Without branches, at 1.4 ns per character [measured]: mispredictions would cost more than all other work.
    """
    letter_of, row, owner = t.letter_of, t.row, t.owner
    left = letter_of[codes[0]]
    for i in range(len(codes) - 1):
        right = letter_of[codes[i + 1]]
        joined[i] = owner[row[left] + right] == left
        left = right
    joined[len(codes) - 1] = 0
    joined[len(codes)] = 0
    for k in range(1, len(starts)):
        if starts[k] > 0:
            joined[starts[k] - 1] = 0


@compiled
def encode_codes(
    codes: Any, starts: Int64, prefix: int, t: Tables, joined: Any, ids: Int32, ends: Int64
) -> int:
    """Encode all texts of a block; return how many ids were written.

    codes: concatenated code points of all texts, each with its dummy prefix; starts: [texts + 1]; prefix: number of code
    points of the dummy prefix; ids: space for four per code point (UTF-8's maximum) and one; ends: [texts], filled
    with the position after each text's last id.
    """
    mark_joints(codes, starts, t, joined)
    bits = 0
    while 1 << bits < len(t.merges):
        bits += 1
    symbols, pieces, keys = np.empty(SHORT, np.int32), np.empty(SHORT, np.int32), np.empty(SHORT, np.int64)
    symbol_of, letter_of, row, joint = t.symbol_of, t.letter_of, t.row, t.joint
    rank, code_of, byte_piece, nothing = t.rank, t.code_of, t.byte_piece, t.nothing
    at = 0
    for text in range(len(starts) - 1):
        i, end = starts[text], starts[text + 1]
        if end - i == prefix:
            i = end  # SentencePiece gives an empty text no ids, not the dummy prefix
        while i < end:
            two = np.int64(joined[i])
            first = symbol_of[codes[i]]
            if two & joined[i + 1] == 0 and first < nothing:
                # One or two characters, without a branch: write both ids, advance by the number of valid ones.
                second = symbol_of[codes[i + two]]
                piece = joint[row[letter_of[codes[i]]] + letter_of[codes[i + two]]]
                apart = two == 0 or piece == nothing
                ids[at] = first if apart else piece
                ids[at + 1] = second
                at += 1 + (two & apart)
                i += 1 + two
                if second >= nothing and two & apart:
                    at = spell(code_of[second - nothing], byte_piece, ids, at - 1)
                continue
            if two == 0:
                at = spell(codes[i], byte_piece, ids, at)
                i += 1
                continue
            j = i + 1
            while joined[j]:
                j += 1
            n = j + 1 - i
            if n > SHORT:
                at = encode_long(codes[i : j + 1], t, bits, ids, at)
                i = j + 1
                continue
            left = letter_of[codes[i]]
            symbols[0] = first
            for k in range(n - 1):
                right = letter_of[codes[i + k + 1]]
                symbols[k + 1] = symbol_of[codes[i + k + 1]]
                piece = joint[row[left] + right]
                pieces[k] = piece
                keys[k] = np.int64(rank[piece]) << 32 | k
                left = right
            n = merge_short(symbols, pieces, keys, n, t.merges, bits, rank, nothing)
            for k in range(n):
                if symbols[k] < nothing:
                    ids[at] = symbols[k]
                    at += 1
                else:
                    at = spell(code_of[symbols[k] - nothing], byte_piece, ids, at)
            i = j + 1
        ends[text] = at
    return at
