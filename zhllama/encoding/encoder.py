"""The fast encoder from text to ids, with exactly the ids of SentencePiece or `tokenizers`."""

import importlib.util
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Literal, Self

import numpy as np

from zhllama.encoding.gigatoken import FIRST, Gigatoken, difference, probed, why_not_gigatoken
from zhllama.encoding.tables import Int32, Int64, Tables, build_tables, why_not_compiled
from zhllama.errors import InputError
from zhllama.extras import install_command
from zhllama.vocab.any_tokenizer import (
    AnyTokenizer,
    JsonTokenizer,
    SentencePieceTokenizer,
    load_any_tokenizer,
)
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary

Engine = Literal["compiled", "sentencepiece", "gigatoken", "tokenizers"]

BLOCK = (
    1 << 18
)  # characters encoded in one compiled call: their code points, joints and ids fit into the CPU cache
SMALL = 1000  # characters below which the numpy calls around the compiled loops cost more than they save
# Characters after which loading the loops pays off: SentencePiece takes 130 ns per character and the loops 16, and
# loading takes 2.6 s for numba and 0.6 s for the tables [measured, CPU time].
WORTH_LOADING = 25_000_000
# Characters after which opening and probing gigatoken pays off: `tokenizers` takes 1 s per MB, opening and probing
# DeepSeek's vocabulary 3 s [measured, CPU time].
WORTH_PROBING = 2_000_000

_log = logging.getLogger(__name__)


class Encoder:
    """A tokenizer for batches of text; threads may share an encoder.

    engine: "compiled" for SentencePiece BPE with byte fallback where numba is installed, "sentencepiece" for every
    other `.model` (`reason` says why). For a byte-level tokenizer.json "gigatoken" where it is installed and gives the
    ids of `tokenizers` on a probe, otherwise and at first "tokenizers" (`reason` says why). Every engine gives the ids of
    SentencePiece, or of `tokenizers` for a tokenizer.json, without special tokens.

    >>> ids, offsets = Encoder.open("tokenizer.model").encode_batch(["人工智能", "hello"])
    >>> ids[offsets[1] : offsets[2]]  # the ids of "hello"
    """

    def __init__(self, tokenizer: AnyTokenizer) -> None:
        self.tokenizer = tokenizer
        self._model = tokenizer.sentencepiece
        self.engine: Engine = "tokenizers" if self._model is None else "sentencepiece"
        self.reason: str | None = "the tokenizer is a tokenizer.json"
        self._gigatoken: Gigatoken | None = None
        self._may_use_gigatoken = self._first_batch_is_unchecked = False
        if isinstance(tokenizer, JsonTokenizer):
            self.reason = why_not_gigatoken(tokenizer)
            self._may_use_gigatoken = self.reason is None
        self._tables: Tables | None = None
        self._characters_seen = 0
        if self._model is not None:
            self.reason = why_not_compiled(self._model)
            if self.reason is None and importlib.util.find_spec("numba") is None:
                self.reason = f"numba is not installed: {install_command('fast')}"
            if self.reason is None:
                self.engine = "compiled"

    @classmethod
    def open(cls, name: str | Path) -> Self:
        """Open a tokenizer file of any format, a folder that contains one, or a hub name. Errors: InputError."""
        return cls(load_any_tokenizer(name))

    @classmethod
    def from_model(cls, content: bytes) -> Self:
        """Make an encoder from the content of a SentencePiece `.model`."""
        return cls(SentencePieceTokenizer(SentencePieceVocabulary(content)))

    def expect(self, characters: int) -> Self:
        """Load what pays off for so many characters: for callers that fork processes, which then share it."""
        if characters > (WORTH_PROBING if self._may_use_gigatoken else WORTH_LOADING):
            self.warm_up()
        return self

    def warm_up(self) -> Self:
        """Load the compiled loops or gigatoken now; otherwise the library encodes the first batches, with the same ids.

        On first use on a machine, numba compiles the loops for about ten seconds and caches the result on disk.
        """
        if self.engine == "compiled" and self._tables is None:
            assert self._model is not None
            self._tables = build_tables(self._model)
            self._encode_block(["a"], np.ones(1, np.int64))
        if self._may_use_gigatoken:
            self._may_use_gigatoken = False
            assert isinstance(self.tokenizer, JsonTokenizer)
            self._use_gigatoken(probed(self.tokenizer))
        return self

    def _use_gigatoken(self, result: Gigatoken | str) -> None:
        """Use gigatoken, or `tokenizers` for the reason given."""
        if isinstance(result, str):
            self.engine, self._gigatoken, self.reason = "tokenizers", None, result
            _log.warning("Texts are encoded by `tokenizers`, which is slower: %s", result)
        else:
            self.engine, self._gigatoken, self._first_batch_is_unchecked = "gigatoken", result, True

    def encode(self, text: str) -> Int32:
        """The ids of one text."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str], workers: int = 1) -> tuple[Int32, Int64]:
        """The concatenated ids of all texts, and the offset at which each text's ids start, [len(texts) + 1].

        workers: threads that share a batch; `tokenizers` uses all cores by itself.
        Errors: InputError for a text with an unpaired surrogate, which cannot be encoded as UTF-8.
        """
        if isinstance(texts, str):
            raise TypeError("encode_batch takes a list of texts, encode a single one")
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        try:
            if not self._use_loops(int(lengths.sum())):
                return self._encode_by_library(texts, workers)
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

    def _encode_by_library(self, texts: Sequence[str], workers: int) -> tuple[Int32, Int64]:
        """The ids and offsets of texts from SentencePiece, gigatoken or `tokenizers` itself."""
        if self._model is not None:
            processor = self._model.processor
            if len(texts) == 1:  # for a list SentencePiece starts a thread, which takes 150 microseconds
                return _flatten([processor.encode(texts[0])])
            ids: list[list[int]] = processor.encode(list(texts), num_threads=workers)
            return _flatten(ids)
        if self._gigatoken is not None and self._first_batch_is_unchecked and texts:
            self._check_first_documents(texts)
        if self._gigatoken is not None and texts:
            return self._gigatoken.encode(texts)
        return _flatten(self.tokenizer.encode(texts))

    def _check_first_documents(self, texts: Sequence[str]) -> None:
        """Compare gigatoken with `tokenizers` on the first documents of the text."""
        assert self._gigatoken is not None and isinstance(self.tokenizer, JsonTokenizer)
        self._first_batch_is_unchecked = False
        ends = np.cumsum([len(text) for text in texts])
        first = texts[: int(np.searchsorted(ends, FIRST)) + 1]
        reason = difference(self._gigatoken, self.tokenizer, first)
        if reason is not None:
            self._use_gigatoken(reason)

    def _use_loops(self, characters: int) -> bool:
        """Whether to encode this batch by the compiled loops: it is not too small, and enough text came to load them."""
        self._characters_seen += characters
        if self._may_use_gigatoken and self._characters_seen >= WORTH_PROBING:
            self.warm_up()
        if self.engine != "compiled" or characters < SMALL:
            return False
        if self._characters_seen >= WORTH_LOADING or "zhllama.encoding.kernel" in sys.modules:
            self.warm_up()
        return self._tables is not None

    def _encode_block(self, texts: Sequence[str], lengths: Int64) -> tuple[Int32, Int64]:
        """The concatenated ids of all texts, and the number of ids of each."""
        from zhllama.encoding import kernel

        assert self._tables is not None and self._model is not None
        normalizer = self._model.normalizer
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
    """Split a batch into slices of about BLOCK characters, at least one text each."""
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
    """The text after SentencePiece's `remove_extra_whitespaces`, which removes only U+0020, but at the end ▁ as well."""
    return re.sub("  +", " ", text.strip(" ")).rstrip(" ▁")


def _surrogate(texts: Sequence[str]) -> InputError | None:
    for number, text in enumerate(texts, 1):
        surrogate = re.search("[\ud800-\udfff]", text) if isinstance(text, str) else None
        if surrogate:
            message = f"contains an unpaired surrogate (U+{ord(surrogate[0]):04X}) at character {surrogate.start() + 1}"
            return InputError(f"text {number}", message, "Read the file with errors='replace'")
    return None
