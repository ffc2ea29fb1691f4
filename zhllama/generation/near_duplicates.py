"""Near-duplicate detection: the exact decisions of ROUGE-L over Chinese tokens, with an index instead of a scan."""

import math
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rapidfuzz import process
from rapidfuzz.distance import LCSseq

from zhllama.characters import HAN, HAN_RANGES
from zhllama.chinese_script import converter
from zhllama.errors import InputError

# A token is one Chinese, Japanese or Korean character, or a run of other letters and digits.
_CJK = f"{HAN}\u3006\u3040-\u30ff\uac00-\ud7af"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")
# Each distinct run is encoded as one code point behind the last Han extension, so that rapidfuzz can compare strings.
_FIRST_RUN, _LAST_RUN = HAN_RANGES[-1][1] + 1, 0x10FFFF
SHARED = 4  # features a candidate must share before its LCS is computed; the fastest of 1..6 in measurements

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]


def simplified(text: str) -> str:
    """The text with Traditional characters converted to Simplified ones."""
    return converter("t2s")(text)


def tokens(text: str) -> list[str]:
    """The tokens that ROUGE compares: without punctuation, after NFKC, lowercasing and conversion to Simplified."""
    return _TOKEN.findall(simplified(unicodedata.normalize("NFKC", text).lower()))


@dataclass(frozen=True)
class NearDuplicate:
    """The most similar indexed text: its number in the order of addition, and the ROUGE-L F measure."""

    number: int
    score: float


class NearDuplicateIndex:
    """An index of texts that finds the near duplicate of a new text.

    The decisions equal those of `rouge_score`'s ROUGE-L F measure with `tokens` as tokenizer, bit for bit: the overlap of
    the token bags is an upper bound on the common subsequence, so the index skips only pairs that cannot reach the
    threshold. Memory: about 8 bytes per token and 100 per text.
    """

    def __init__(self, threshold: float = 0.7) -> None:
        assert 0 < threshold <= 1
        self.threshold = threshold
        self._runs: dict[str, str] = {}  # run of letters -> its code point
        self._texts: list[str] = []
        self._lengths = array("i")
        self._postings: dict[int, array[int]] = {}  # feature -> numbers of the texts that have it, ascending

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: str) -> int:
        """Add a text; returns its number."""
        encoded = self._encode(text)
        number = len(self._texts)
        self._texts.append(encoded)
        self._lengths.append(len(encoded))
        for feature in _features(encoded):
            postings = self._postings.get(feature)
            if postings is None:
                postings = self._postings[feature] = array("i")
            postings.append(number)
        return number

    def find(self, text: str) -> NearDuplicate | None:
        """The most similar text with F >= threshold, the earliest of equals; None if there is none."""
        return next(self.matches(text), None)

    def matches(self, text: str) -> Iterator[NearDuplicate]:
        """All texts with F >= threshold, the most similar first, equals in the order of addition."""
        encoded = self._encode(text)
        candidates = self._candidates(encoded)
        if not len(candidates):
            return
        scores = self._scores(encoded, candidates)
        similar = np.flatnonzero(scores >= self.threshold)
        for place in similar[np.argsort(-scores[similar], kind="stable")]:
            yield NearDuplicate(int(candidates[place]), float(scores[place]))

    def nearest(self, number: int) -> float:
        """F of an indexed text to its nearest neighbor. Scans all texts; for reports on a sample."""
        scores = self._scores(self._texts[number], np.arange(len(self._texts), dtype=np.int32), cutoff=False)
        scores[number] = 0
        return float(scores.max()) if len(scores) > 1 else 0.0

    def _encode(self, text: str) -> str:
        return "".join(token if len(token) == 1 else self._run(token) for token in tokens(text))

    def _run(self, token: str) -> str:
        code = self._runs.get(token)
        if code is None:
            point = _FIRST_RUN + len(self._runs)
            if point > _LAST_RUN:
                raise InputError(
                    "similarity", f"more than {len(self._runs):,} distinct words", "Split the data"
                )
            code = self._runs[token] = chr(point)
        return code

    def _candidates(self, encoded: str) -> Ints:
        """Numbers, ascending, of all texts that can reach the threshold, and of few others.

        For texts of m and n tokens, F >= t requires an overlap of at least t(m+n)/2, which is at least tm/(2-t) for any
        n. Such a text shares at least l of any m - overlap + l features; the rarest features are looked up.
        """
        m, t = len(encoded), self.threshold
        overlap = max(1, math.ceil(t * m / (2 - t) - 1e-9))
        shared = min(SHARED, overlap)
        rarest = sorted((self._postings.get(f, _EMPTY) for f in _features(encoded)), key=len)
        rarest = [postings for postings in rarest[: m - overlap + shared] if len(postings)]
        if len(rarest) < shared:
            return np.empty(0, dtype=np.int32)
        lists = [np.frombuffer(postings, dtype=np.int32) for postings in rarest]
        hits = np.concatenate(lists)
        if len(hits) * 4 > len(self._texts):
            numbers = np.flatnonzero(np.bincount(hits, minlength=1) >= shared).astype(np.int32)
        else:
            hits.sort()
            # In sorted hits, a number occurs `shared` times if it equals the one `shared - 1` places before it.
            repeated = hits[shared - 1 :][hits[shared - 1 :] == hits[: len(hits) - shared + 1]]
            numbers = np.unique(repeated)
        lengths = np.frombuffer(self._lengths, dtype=np.int32)[numbers]
        fits = (lengths >= overlap) & (lengths <= (2 - t) / t * m + 1e-9)
        candidates: Ints = numbers[fits]
        return candidates

    def _scores(self, encoded: str, numbers: Ints, cutoff: bool = True) -> Floats:
        """F of each text, in rouge_score's order of floating-point operations; with `cutoff`, 0 below the threshold."""
        m, lengths = len(encoded), np.frombuffer(self._lengths, dtype=np.int32)[numbers].astype(np.float64)
        min_common = math.ceil(self.threshold * (m + lengths.min()) / 2 - 1e-9) if cutoff else 0
        common = process.cdist(
            [encoded],
            [self._texts[n] for n in numbers],
            scorer=LCSseq.similarity,
            score_cutoff=min_common,
            dtype=np.int32,
        )[0].astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision, recall = common / m, common / lengths
            scores = 2 * precision * recall / (precision + recall)
        return np.where(common > 0, scores, 0.0)


_EMPTY: "array[int]" = array("i")


def _features(encoded: str) -> Iterator[int]:
    """Each token numbered among its equals, so that the overlap of token bags becomes an overlap of sets."""
    seen: Counter[str] = Counter()
    for token in encoded:
        yield ord(token) + seen[token] * 0x110000
        seen[token] += 1
