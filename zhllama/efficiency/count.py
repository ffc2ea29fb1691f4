"""Counts how often each id occurs in text of any size under several tokenizers, by text and by kind of line.

The report derives all figures from these counts. Text is read once, in chunks of bounded size. Long text is counted by
worker processes, which are forked after loading so that they share the tokenizers.
"""

import os
import re
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from threading import Thread

import numpy as np
from numpy.typing import NDArray

from zhllama.characters import han
from zhllama.efficiency.line_kinds import LineKind, kinds_of
from zhllama.encoding.encoder import Encoder
from zhllama.vocab.sample import shortened

Counts = NDArray[np.int64]
Sparse = tuple[NDArray[np.int64], NDArray[np.int64]]  # values that occur, and their counts

CHUNK = 400_000  # characters counted at a time
SINGLE_PROCESS = 4_000_000  # bytes of text up to which starting processes costs more than it saves
MOST_WORKERS = 6  # about 110 MB each [measured with Qwen and DeepSeek]
WORDS = 1_000_000  # approximate bytes of a text that jieba segments (in 1 to 2 s)

_surrogate = re.compile("[\ud800-\udfff]")
_word = re.compile(r"\w")


@dataclass
class TextTally:
    """Counts of one text, or of one kind of line: sizes, characters by code point, ids by tokenizer."""

    tokens: list[Counts]  # for each tokenizer the count of each id, [size]
    lines: int = 0
    bytes: int = 0
    words: int = 0  # counted by jieba in `worded` characters of the text
    worded: int = 0
    codes: Counter[int] = field(default_factory=Counter)

    @property
    def characters(self) -> int:
        """Number of code points, without line ends."""
        return self.codes.total()

    def add(self, part: "LineKindTally") -> None:
        """Add the counts of a part."""
        self.lines += part.lines
        self.bytes += part.bytes
        self.words += part.words
        self.worded += part.worded
        self.codes.update(dict(zip(*(values.tolist() for values in part.codes), strict=True)))
        for counts, (ids, occurrences) in zip(self.tokens, part.tokens, strict=True):
            counts[ids] += occurrences


@dataclass(frozen=True)
class LineKindTally:
    """Counts of the lines of one kind in a chunk."""

    kind: LineKind
    lines: int
    bytes: int
    words: int
    worded: int
    codes: Sparse
    tokens: list[Sparse]


@dataclass(frozen=True)
class Chunk:
    """Lines of the text with this number; jieba segments one line in `stride`."""

    text: int
    lines: list[str]
    stride: int


def chunks(text: int, lines: Iterable[str], size: int) -> Iterator[Chunk]:
    """Group lines into chunks; lines above 4,192 bytes are split at sentence ends. `size`: approximate bytes of the text."""
    stride = max(1, round(size / WORDS))
    chunk_lines: list[str] = []
    room = CHUNK
    for line in lines:
        for part in shortened(line):
            chunk_lines.append(part)
            room -= len(part)
            if room <= 0:
                yield Chunk(text, chunk_lines, stride)
                chunk_lines, room = [], CHUNK
    if chunk_lines:
        yield Chunk(text, chunk_lines, stride)


def count_chunk(encoders: Sequence[Encoder], chunk: Chunk) -> list[LineKindTally]:
    """Count a chunk, separately for each kind of line in it."""
    lines = [_surrogate.sub("\ufffd", line) for line in chunk.lines]
    by_kind: dict[LineKind, list[str]] = {}
    for kind, line in zip(kinds_of(lines), lines, strict=True):
        by_kind.setdefault(kind, []).append(line)
    return [_count_lines(encoders, kind, kind_lines, chunk.stride) for kind, kind_lines in by_kind.items()]


def _count_lines(encoders: Sequence[Encoder], kind: LineKind, lines: list[str], stride: int) -> LineKindTally:
    text = "".join(lines)
    worded = lines[::stride]
    return LineKindTally(
        kind,
        len(lines),
        len(text.encode()),
        sum(map(words_in, worded)),
        sum(map(len, worded)),
        _occurring(np.frombuffer(text.encode("utf-32-le"), np.uint32)),
        [_occurring(encoder.encode_batch(lines)[0]) for encoder in encoders],
    )


def _occurring(values: NDArray[np.uint32] | NDArray[np.int32]) -> Sparse:
    counts = np.bincount(values)
    values_present = np.flatnonzero(counts)
    return values_present, counts[values_present]


def words_in(line: str) -> int:
    """The number of words in a line by jieba, without punctuation and spaces."""
    if not han.search(line):
        return len(re.findall(r"\w+", line))
    import jieba

    return sum(_word.search(word) is not None for word in jieba.cut(line))


Count = Callable[[Iterable[Chunk]], Iterator[tuple[int, list[LineKindTally]]]]


@contextmanager
def counting(encoders: Sequence[Encoder], size: int) -> Iterator[Count]:
    """A function from chunks to (text, counts) in their order; above SINGLE_PROCESS bytes it uses worker processes."""
    _quiet_jieba()
    workers = min(len(os.sched_getaffinity(0)), MOST_WORKERS)
    if size <= SINGLE_PROCESS or workers == 1:
        yield lambda chunks: ((chunk.text, count_chunk(encoders, chunk)) for chunk in chunks)
        return
    # Forked processes share loaded memory and need no pickled encoders.
    pool = ProcessPoolExecutor(workers, get_context("fork"), _start_worker, (encoders,))
    try:
        yield lambda chunks: _count_in_pool(pool, chunks, 2 * workers)
    finally:
        pool.shutdown(cancel_futures=True)


def _count_in_pool(
    pool: ProcessPoolExecutor, chunks: Iterable[Chunk], ahead: int
) -> Iterator[tuple[int, list[LineKindTally]]]:
    """Count chunks with at most `ahead` in flight, so that the text need not fit into memory."""
    in_flight: deque[tuple[int, Future[list[LineKindTally]]]] = deque()
    for chunk in chunks:
        in_flight.append((chunk.text, pool.submit(_count, chunk)))
        if len(in_flight) >= ahead:
            text, future = in_flight.popleft()
            yield text, future.result()
    for text, future in in_flight:
        yield text, future.result()


_encoders: Sequence[Encoder] = ()  # in a worker process: its encoders


def _start_worker(encoders: Sequence[Encoder]) -> None:
    global _encoders
    _encoders = encoders
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the workers use all cores already
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and stops its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()


def _exit_with_parent(parent: int) -> None:
    """Exit when the parent is gone: after SIGKILL it cannot stop its workers itself."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _count(chunk: Chunk) -> list[LineKindTally]:
    return count_chunk(_encoders, chunk)


def _quiet_jieba() -> None:
    """Load jieba's dictionary now, before processes are forked, and without its log messages."""
    import logging

    import jieba

    jieba.setLogLevel(logging.WARNING)
    jieba.initialize()
