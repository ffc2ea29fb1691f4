"""Finds near duplicates in a stream of texts, by the MinHash signatures of the corpus pipeline."""

import numpy as np
from numpy.typing import NDArray

from zhllama.errors import MissingPackage


class NearDuplicates:
    """Finds texts that are similar to an earlier one (Jaccard from about 0.7) by MinHash over runs of 5 characters.

    Takes about 5 KB per text of any length. Errors: MissingPackage without datatrove.
    """

    def __init__(self) -> None:
        try:
            from zhllama.corpus.duplicates import SAME, CharacterSignature
        except ImportError:
            raise MissingPackage("near duplicates", "datatrove", "corpus") from None
        self._same = SAME
        # Only the signatures of datatrove's step are used; it writes no file to this folder.
        self._signature = CharacterSignature(".")
        self._names: list[str] = []
        self._signatures: list[NDArray[np.uint32]] = []
        self._buckets: dict[int, list[int]] = {}

    def other(self, text: str, name: str) -> str | None:
        """The name of an earlier similar text; without one, remember this text and return None."""
        shingles = self._signature.get_shingles(text)
        if not len(shingles):
            return None
        parts = self._signature.get_signature(shingles)
        signature = np.array(parts, dtype=np.uint32)
        keys = [hash((bucket, *part)) for bucket, part in enumerate(parts)]
        candidates = sorted({number for key in keys for number in self._buckets.get(key, ())})
        for number in candidates:
            if np.mean(self._signatures[number] == signature) >= self._same:
                return self._names[number]
        for key in keys:
            self._buckets.setdefault(key, []).append(len(self._names))
        self._names.append(name)
        self._signatures.append(signature)
        return None
