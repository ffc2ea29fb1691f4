"""Count text of any size under several tokenizers: how often each id occurs, by text and by kind of line.

Everything the report tells of a tokenizer on a text is a function of these counts. Text is read once, in chunks of
bounded size; with enough of it worker processes count, forked after loading, so that they share the tokenizers.
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
Sparse = tuple[NDArray[np.int64], NDArray[np.int64]]  # what occurs, and how often

CHUNK = 400_000  # characters counted at a time
ALONE = 4_000_000  # bytes of text below which starting processes costs more than it saves
MOST_WORKERS = 6  # some 110 MB each [measured with Qwen and DeepSeek]
WORDS = 1_000_000  # bytes of a text, about, that jieba cuts (it takes 1 to 2 s for them)

_half = re.compile("[\ud800-\udfff]")
_word = re.compile(r"\w")


@dataclass
class TextTally:
    """What was seen of one text, or of one kind of line: sizes, characters by code point, ids by tokenizer."""

    tokens: list[Counts]  # a tokenizer each, [its size]
    lines: int = 0
    bytes: int = 0
    words: int = 0  # counted by jieba in `worded` characters of the text
    worded: int = 0
    codes: Counter[int] = field(default_factory=Counter)

    @property
    def characters(self) -> int:
        """Code points, without the ends of lines."""
        return self.codes.total()

    def add(self, part: "LineKindTally") -> None:
        """Count a part in."""
        self.lines += part.lines
        self.bytes += part.bytes
        self.words += part.words
        self.worded += part.worded
        self.codes.update(dict(zip(*(values.tolist() for values in part.codes), strict=True)))
        for counts, (ids, seen) in zip(self.tokens, part.tokens, strict=True):
            counts[ids] += seen


@dataclass(frozen=True)
class LineKindTally:
    """What a chunk has of one kind."""

    kind: LineKind
    lines: int
    bytes: int
    words: int
    worded: int
    codes: Sparse
    tokens: list[Sparse]


@dataclass(frozen=True)
class Chunk:
    """Some lines of the text with this number; jieba cuts one line in `stride`."""

    text: int
    lines: list[str]
    stride: int


def chunks(text: int, lines: Iterable[str], size: int) -> Iterator[Chunk]:
    """Lines in chunks, those above 4,192 bytes cut at sentence ends; `size` is that of the text in bytes, about."""
    stride = max(1, round(size / WORDS))
    held: list[str] = []
    room = CHUNK
    for line in lines:
        for part in shortened(line):
            held.append(part)
            room -= len(part)
            if room <= 0:
                yield Chunk(text, held, stride)
                held, room = [], CHUNK
    if held:
        yield Chunk(text, held, stride)


def count_chunk(encoders: Sequence[Encoder], chunk: Chunk) -> list[LineKindTally]:
    """The parts of a chunk, one for each kind of line in it."""
    lines = [_half.sub("\ufffd", line) for line in chunk.lines]
    by_kind: dict[LineKind, list[str]] = {}
    for kind, line in zip(kinds_of(lines), lines, strict=True):
        by_kind.setdefault(kind, []).append(line)
    return [_part(encoders, kind, some, chunk.stride) for kind, some in by_kind.items()]


def _part(encoders: Sequence[Encoder], kind: LineKind, lines: list[str], stride: int) -> LineKindTally:
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
    found = np.flatnonzero(counts)
    return found, counts[found]


def words_in(line: str) -> int:
    """How many words a line has: jieba's, without marks and spaces."""
    if not han.search(line):
        return len(re.findall(r"\w+", line))
    import jieba

    return sum(_word.search(word) is not None for word in jieba.cut(line))


Count = Callable[[Iterable[Chunk]], Iterator[tuple[int, list[LineKindTally]]]]


@contextmanager
def counting(encoders: Sequence[Encoder], size: int) -> Iterator[Count]:
    """A function from chunks to (text, parts) in their order; with more than ALONE bytes it spreads over the cores."""
    _quiet_jieba()
    workers = min(len(os.sched_getaffinity(0)), MOST_WORKERS)
    if size <= ALONE or workers == 1:
        yield lambda given: ((chunk.text, count_chunk(encoders, chunk)) for chunk in given)
        return
    # Forked processes share what is loaded, and get the encoders without pickling.
    pool = ProcessPoolExecutor(workers, get_context("fork"), _begin, (encoders,))
    try:
        yield lambda given: _spread(pool, given, 2 * workers)
    finally:
        pool.shutdown(cancel_futures=True)


def _spread(
    pool: ProcessPoolExecutor, given: Iterable[Chunk], ahead: int
) -> Iterator[tuple[int, list[LineKindTally]]]:
    """At most `ahead` chunks are in flight, so the text need not fit into memory."""
    flying: deque[tuple[int, Future[list[LineKindTally]]]] = deque()
    for chunk in given:
        flying.append((chunk.text, pool.submit(_count, chunk)))
        if len(flying) >= ahead:
            text, future = flying.popleft()
            yield text, future.result()
    for text, future in flying:
        yield text, future.result()


_encoders: Sequence[Encoder] = ()  # in a worker: what it was begun with


def _begin(encoders: Sequence[Encoder]) -> None:
    global _encoders
    _encoders = encoders
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the workers take the cores
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the command, which ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(command: int) -> None:
    """After SIGKILL nobody tells a worker that its command is gone."""
    while os.getppid() == command:
        time.sleep(0.5)
    os._exit(1)


def _count(chunk: Chunk) -> list[LineKindTally]:
    return count_chunk(_encoders, chunk)


def _quiet_jieba() -> None:
    """Load jieba's dictionary now, before processes part, and without its chatter."""
    import logging

    import jieba

    jieba.setLogLevel(logging.WARNING)
    jieba.initialize()
