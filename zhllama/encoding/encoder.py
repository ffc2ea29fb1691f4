"""Text to piece ids, fast, and exactly as SentencePiece gives them."""

import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Literal, Self

import numpy as np

from zhllama.encoding.tables import Int32, Int64, Tables, build_tables, why_not_compiled
from zhllama.errors import InputError
from zhllama.vocab.any_tokenizer import (
    AnyTokenizer,
    JsonTokenizer,
    SentencePieceTokenizer,
    load_any_tokenizer,
)
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary

Engine = Literal["compiled", "sentencepiece", "tokenizers"]

BLOCK = 1 << 18  # characters encoded in one compiled call: its code points, joints and ids stay in the cache
SMALL = 1000  # characters below which the numpy calls around the compiled loops cost more than they save
# Characters after which loading the loops has paid: SentencePiece takes 130 ns for one, the loops 16, and loading
# them 2.6 s for numba and 0.6 s for the tables [measured, CPU time].
WORTH_LOADING = 25_000_000


class Encoder:
    """One tokenizer, for batches: a call for a thousand lines costs little more than one for a line.

    engine: "compiled" for SentencePiece BPE with byte fallback where numba is installed, "sentencepiece" for every
    other `.model` (`reason` says why), "tokenizers" for a tokenizer.json. The ids are the same either way: those of
    SentencePiece, or of `tokenizers`, without special tokens. Threads may share an encoder.

    >>> ids, offsets = Encoder.open("tokenizer.model").encode_batch(["人工智能", "hello"])
    >>> ids[offsets[1] : offsets[2]]  # those of "hello"
    """

    def __init__(self, tokenizer: AnyTokenizer) -> None:
        self.tokenizer = tokenizer
        self.engine: Engine = "tokenizers" if isinstance(tokenizer, JsonTokenizer) else "sentencepiece"
        self.reason: str | None = "the tokenizer is a tokenizer.json"
        self._tables: Tables | None = None
        self._seen = 0
        if isinstance(tokenizer, SentencePieceTokenizer):
            self.reason = why_not_compiled(tokenizer.model)
            if self.reason is None and importlib.util.find_spec("numba") is None:
                self.reason = "numba is not installed: pip install 'zhllama[fast]'"
            if self.reason is None:
                self.engine = "compiled"

    @classmethod
    def open(cls, name: str | Path) -> Self:
        """From a `.model`, a tokenizer.json, a folder that holds either, or a hub name. Errors: InputError."""
        return cls(load_any_tokenizer(name))

    @classmethod
    def from_model(cls, content: bytes) -> Self:
        """From the content of a SentencePiece `.model`."""
        return cls(SentencePieceTokenizer(SentencePieceVocabulary(content)))

    def warm_up(self) -> Self:
        """Loads the compiled loops now; otherwise the first batches go through SentencePiece, to the same ids.

        The first time on a machine numba compiles them, for some ten seconds, and keeps the result on disk.
        """
        if self.engine == "compiled" and self._tables is None:
            assert isinstance(self.tokenizer, SentencePieceTokenizer)
            self._tables = build_tables(self.tokenizer.model)
            self._encode_block(["a"], np.ones(1, np.int64))
        return self

    def encode(self, text: str) -> Int32:
        """The ids of one text."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str], workers: int = 1) -> tuple[Int32, Int64]:
        """The ids of all texts one after another, and where those of each begin: offsets [len(texts) + 1].

        workers: threads at work on a batch; a tokenizer.json takes all cores by itself.
        Errors: InputError for a text with half a surrogate pair, which has no UTF-8 to be cut.
        """
        if isinstance(texts, str):
            raise TypeError("encode_batch takes a list of texts, encode a single one")
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        try:
            if not self._use_loops(int(lengths.sum())):
                return _flatten(self._judge(texts, workers))
            parts = list(_blocks(lengths))
            if workers == 1:
                encoded = [self._encode_block(texts[part], lengths[part]) for part in parts]
            else:
                with ThreadPoolExecutor(workers) as pool:  # the loops run without the interpreter's lock
                    encoded = list(
                        pool.map(lambda part: self._encode_block(texts[part], lengths[part]), parts)
                    )
        except (UnicodeEncodeError, TypeError, RuntimeError) as error:
            raise _surrogate(texts) or error from None
        ids = np.concatenate([np.empty(0, np.int32), *(ids for ids, _ in encoded)])
        counts = np.concatenate([[0], *(counts for _, counts in encoded)])
        return ids, np.cumsum(counts, dtype=np.int64)

    def _judge(self, texts: Sequence[str], workers: int) -> list[list[int]]:
        """What SentencePiece or `tokenizers` itself says."""
        if isinstance(self.tokenizer, SentencePieceTokenizer):
            processor = self.tokenizer.model.processor
            if len(texts) == 1:  # a list has it start a thread, at 150 microseconds
                return [processor.encode(texts[0])]
            ids: list[list[int]] = processor.encode(list(texts), num_threads=workers)
            return ids
        return self.tokenizer.encode(texts)

    def _use_loops(self, characters: int) -> bool:
        """Whether this batch is for the compiled loops: not too small, and enough text has come to load them."""
        self._seen += characters
        if self.engine != "compiled" or characters < SMALL:
            return False
        if self._seen >= WORTH_LOADING or "zhllama.encoding.kernel" in sys.modules:
            self.warm_up()
        return self._tables is not None

    def _encode_block(self, texts: Sequence[str], lengths: Int64) -> tuple[Int32, Int64]:
        """The ids of all texts, and how many each has."""
        from zhllama.encoding import kernel

        assert self._tables is not None and isinstance(self.tokenizer, SentencePieceTokenizer)
        normalizer = self.tokenizer.model.normalizer
        if normalizer.remove_extra_whitespaces:
            texts = [_squeeze(text) for text in texts]
            lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        prefix = " " if normalizer.add_dummy_prefix else ""
        codes = np.frombuffer((prefix + prefix.join(texts)).encode("utf-32-le"), np.uint32)
        starts = np.concatenate([[0], np.cumsum(lengths + len(prefix))])
        ends = np.zeros(len(texts), np.int64)
        if len(codes) == 0:
            return np.empty(0, np.int32), ends
        ids = np.empty(4 * len(codes) + 1, np.int32)
        joined = np.empty(len(codes) + 1, np.uint8)
        count = kernel.encode_codes(codes, starts, len(prefix), self._tables, joined, ids, ends)
        return ids[:count].copy(), np.diff(ends, prepend=0)


def _blocks(lengths: Int64) -> Iterator[slice]:
    """Cuts a batch into runs of texts of about BLOCK characters, at least one text each."""
    ends = np.cumsum(lengths)
    first, done = 0, 0
    while first < len(lengths):
        last = max(int(np.searchsorted(ends, done + BLOCK, side="right")), first + 1)
        yield slice(first, last)
        first, done = last, int(ends[last - 1])


def _flatten(lists: Sequence[Sequence[int]]) -> tuple[Int32, Int64]:
    offsets = np.zeros(len(lists) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, lists), np.int64, len(lists)), out=offsets[1:])
    return np.fromiter(chain.from_iterable(lists), np.int32, int(offsets[-1])), offsets


def _squeeze(text: str) -> str:
    """What SentencePiece's `remove_extra_whitespaces` leaves; it counts U+0020 alone, but at the end ▁ too."""
    return re.sub("  +", " ", text.strip(" ")).rstrip(" ▁")


def _surrogate(texts: Sequence[str]) -> InputError | None:
    for number, text in enumerate(texts, 1):
        half = re.search("[\ud800-\udfff]", text) if isinstance(text, str) else None
        if half:
            what = f"holds half a surrogate pair (U+{ord(half[0]):04X}) at character {half.start() + 1}"
            return InputError(f"text {number}", what, "Read the file with errors='replace'")
    return None
