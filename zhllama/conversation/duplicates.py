"""Rejects conversations that are near duplicates of accepted ones, by the signatures of the corpus pipeline."""

import numpy as np
from numpy.typing import NDArray

from zhllama.errors import MissingPackage


class NearDuplicates:
    """Remembers texts by MinHash over runs of 5 characters and knows one that is nearly the same (Jaccard about .7 up).

    About 5 KB a text, whatever its length. Errors: MissingPackage without datatrove.
    """

    def __init__(self) -> None:
        try:
            from zhllama.corpus.duplicates import SAME, CharacterSignature
        except ImportError:
            raise MissingPackage("near duplicates", "datatrove", "corpus") from None
        self._same = SAME
        self._signature = CharacterSignature(
            "."
        )  # of datatrove's step only the signing is used: no file is written
        self._names: list[str] = []
        self._signatures: list[NDArray[np.uint32]] = []
        self._buckets: dict[int, list[int]] = {}

    def other(self, text: str, name: str) -> str | None:
        """The name of an earlier text that this one is nearly; None, and this one remembered, where there is none."""
        shingles = self._signature.get_shingles(text)
        if not len(shingles):
            return None
        parts = self._signature.get_signature(shingles)
        signature = np.array(parts, dtype=np.uint32)
        keys = [hash((bucket, *part)) for bucket, part in enumerate(parts)]
        met = sorted({number for key in keys for number in self._buckets.get(key, ())})
        for number in met:
            if np.mean(self._signatures[number] == signature) >= self._same:
                return self._names[number]
        for key in keys:
            self._buckets.setdefault(key, []).append(len(self._names))
        self._names.append(name)
        self._signatures.append(signature)
        return None
