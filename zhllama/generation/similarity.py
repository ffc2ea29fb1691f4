"""Near duplicates exactly as ROUGE-L over Chinese tokens finds them, by an index instead of a scan."""

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

# A character of Chinese, Japanese or Korean script is a token; so is a run of any other letters and digits.
_CJK = f"{HAN}\u3006\u3040-\u30ff\uac00-\ud7af"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")
# Runs get code points of their own behind the last Han extension, so that rapidfuzz compares plain strings.
_FIRST_RUN, _LAST_RUN = HAN_RANGES[-1][1] + 1, 0x10FFFF
SHARED = 4  # features a candidate must share before its common subsequence is computed; measured best of 1..6

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]


def simplified(text: str) -> str:
    """Traditional characters turned into Simplified ones."""
    return converter("t2s")(text)


def tokens(text: str) -> list[str]:
    """What ROUGE compares: after NFKC, lower case and Traditional to Simplified, punctuation left out."""
    return _TOKEN.findall(simplified(unicodedata.normalize("NFKC", text).lower()))


@dataclass(frozen=True)
class NearDuplicate:
    """The nearest text at or above the threshold: its number in the order of adding, and the F measure."""

    number: int
    score: float


class Similarity:
    """A growing pool of texts that tells which of them is nearest to a new one, if any is near.

    Decisions equal `rouge_score`'s ROUGE-L F measure with `tokens` as tokenizer, to the last bit: the bag of tokens
    bounds the subsequence from above, so the index only ever leaves out pairs that cannot reach the threshold.
    About 8 bytes a token and 100 a text.
    """

    def __init__(self, threshold: float = 0.7) -> None:
        assert 0 < threshold <= 1
        self.threshold = threshold
        self._runs: dict[str, str] = {}
        self._texts: list[str] = []
        self._lengths = array("i")
        self._postings: dict[int, array[int]] = {}  # feature -> numbers of the texts that have it, ascending

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: str) -> int:
        """Take a text into the pool; returns its number."""
        coded = self._code(text)
        number = len(self._texts)
        self._texts.append(coded)
        self._lengths.append(len(coded))
        for feature in _features(coded):
            postings = self._postings.get(feature)
            if postings is None:
                postings = self._postings[feature] = array("i")
            postings.append(number)
        return number

    def near(self, text: str) -> NearDuplicate | None:
        """The nearest text with F >= threshold, the earliest among equals; None where all are farther."""
        coded = self._code(text)
        candidates = self._candidates(coded)
        if not len(candidates):
            return None
        scores = self._scores(coded, candidates)
        best = int(np.argmax(scores))
        if scores[best] < self.threshold:
            return None
        return NearDuplicate(int(candidates[best]), float(scores[best]))

    def nearest(self, number: int) -> float:
        """F of the text nearest to one of the pool, however far; a whole scan, for reports on a sample."""
        scores = self._scores(self._texts[number], np.arange(len(self._texts), dtype=np.int32), cut=False)
        scores[number] = 0
        return float(scores.max()) if len(scores) > 1 else 0.0

    def _code(self, text: str) -> str:
        return "".join(token if len(token) == 1 else self._run(token) for token in tokens(text))

    def _run(self, token: str) -> str:
        code = self._runs.get(token)
        if code is None:
            point = _FIRST_RUN + len(self._runs)
            if point > _LAST_RUN:
                raise InputError(
                    "similarity", f"more than {len(self._runs):,} unlike Latin words", "Give less at once"
                )
            code = self._runs[token] = chr(point)
        return code

    def _candidates(self, coded: str) -> Ints:
        """Numbers, ascending, of all texts that can reach the threshold, and few others.

        F >= t asks for an overlap of t(m+n)/2, which is at least tm/(2-t) for any n: of m - overlap + l features, the
        rarest first, such a text shares l.
        """
        m, t = len(coded), self.threshold
        overlap = max(1, math.ceil(t * m / (2 - t) - 1e-9))
        shared = min(SHARED, overlap)
        found = sorted((self._postings.get(f, _NONE) for f in _features(coded)), key=len)[
            : m - overlap + shared
        ]
        found = [postings for postings in found if len(postings)]
        if len(found) < shared:
            return np.empty(0, dtype=np.int32)
        lists = [np.frombuffer(postings, dtype=np.int32) for postings in found]
        together = np.concatenate(lists)
        if len(together) * 4 > len(self._texts):
            numbers = np.flatnonzero(np.bincount(together, minlength=1) >= shared).astype(np.int32)
        else:
            together.sort()
            runs = together[shared - 1 :][together[shared - 1 :] == together[: len(together) - shared + 1]]
            numbers = np.unique(runs)
        lengths = np.frombuffer(self._lengths, dtype=np.int32)[numbers]
        fits = (lengths >= overlap) & (lengths <= (2 - t) / t * m + 1e-9)
        chosen: Ints = numbers[fits]
        return chosen

    def _scores(self, coded: str, numbers: Ints, cut: bool = True) -> Floats:
        """F of each, in rouge_score's own order of floating-point steps; 0 for what stays below the threshold if `cut`."""
        m, lengths = len(coded), np.frombuffer(self._lengths, dtype=np.int32)[numbers].astype(np.float64)
        least = math.ceil(self.threshold * (m + lengths.min()) / 2 - 1e-9) if cut else 0
        common = process.cdist(
            [coded],
            [self._texts[n] for n in numbers],
            scorer=LCSseq.similarity,
            score_cutoff=least,
            dtype=np.int32,
        )[0].astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision, recall = common / m, common / lengths
            scores = 2 * precision * recall / (precision + recall)
        return np.where(common > 0, scores, 0.0)


_NONE: "array[int]" = array("i")


def _features(coded: str) -> Iterator[int]:
    """Each token with its number among equals, so that overlap of bags is overlap of sets."""
    seen: Counter[str] = Counter()
    for token in coded:
        yield ord(token) + seen[token] * 0x110000
        seen[token] += 1
