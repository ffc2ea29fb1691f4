"""Near-duplicate detection by datatrove's MinHash over 5-character shingles, with numpy signatures and verified pairs."""

from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import ExactDedupConfig, MinhashConfig, MinhashDedupSignature
from datatrove.utils.hashing import HashConfig
from datatrove.utils.word_tokenizers import WhitespaceTokenizer
from numpy.typing import NDArray

from zhllama.corpus.ngrams import ngram_hashes

# A pair of Jaccard s falls together in some bucket with a chance of 1 - (1 - s^ROWS)^BUCKETS: .8 -> .998, .5 -> .27. All
# BUCKETS * ROWS hashes then agree at a share of s +- .037 (.8) or +- .046 (.5), so that at SAME .999 of the former stay and
# .0001 of the latter. datatrove's own 14 x 8 without a second look gives .924 and .053.
BUCKETS, ROWS, CHARACTERS = 20, 6, 5
SAME = 0.68
_CHUNK = 1024  # runs hashed at once: BUCKETS * ROWS * _CHUNK * 4 bytes stay in the second cache


def minhash_config() -> Any:
    """datatrove's configuration, with hashes of 32 bits: a document of a million characters still has few collisions."""
    return MinhashConfig(
        n_grams=CHARACTERS, num_buckets=BUCKETS, hashes_per_bucket=ROWS, hash_config=HashConfig(precision=32)
    )


def exact_config() -> Any:
    return ExactDedupConfig(content_getter=_text)


def _text(document: Document) -> str:
    return str(document.text)


def shingles(text: str) -> NDArray[np.uint32]:
    """The runs of 5 characters that near duplicates share, hashed; case and the kind of space make no difference."""
    return (ngram_hashes(" ".join(text.lower().split()), CHARACTERS) >> np.uint64(32)).astype(np.uint32)


class CharacterSignature(MinhashDedupSignature):  # type: ignore[misc]
    """Stage 1 of MinHash. datatrove hashes word by word in Python and holds all runs times all hashes at once;
    here both go through numpy in pieces, so that a book needs no more memory than a page."""

    name = "minhash signatures"

    def __init__(self, folder: str) -> None:
        # The tokenizer is never asked; by default it would be one for English that needs spaCy.
        super().__init__(folder, minhash_config(), language=WhitespaceTokenizer())
        self._drawn: tuple[NDArray[np.uint32], NDArray[np.uint32]] | None = None

    def get_shingles(self, text: str) -> NDArray[np.uint32]:
        return shingles(text)

    @property
    def parameters(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """Odd multipliers and offsets of one function a row: x -> a * x + b modulo 2^32 permutes the 32-bit numbers."""
        if self._drawn is None:
            drawn = np.random.RandomState(self.config.seed).randint(
                0, 1 << 32, size=(2, self.num_hashes, 1), dtype=np.uint32
            )
            self._drawn = (drawn[0] | np.uint32(1), drawn[1])
        return self._drawn

    def get_signature(self, shingles: NDArray[np.uint32]) -> list[list[int]]:
        a, b = self.parameters
        least = np.full(self.num_hashes, np.iinfo(np.uint32).max, dtype=np.uint32)
        for at in range(0, len(shingles), _CHUNK):
            hashed = a * shingles[at : at + _CHUNK] + b
            np.minimum(least, hashed.min(axis=1), out=least)
        return [part.tolist() for part in np.split(least, self.config.num_buckets)]


class TruePairs(PipelineStep):  # type: ignore[misc]
    """Between datatrove's stages 2 and 3: keep the pairs whose whole signatures agree, not those that met in a bucket by chance."""

    type, name = "dedup", "true pairs"

    def __init__(self, signatures: Path, pairs: Path, kept: Path) -> None:
        super().__init__()
        self.signatures, self.pairs, self.kept = signatures, pairs, kept

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        found = {
            path.name: np.fromfile(path, dtype="<u4").reshape(-1, 2, 2)
            for path in sorted(self.pairs.glob("*.dups"))
        }
        named = np.unique(
            np.concatenate([_key(pairs[..., 0], pairs[..., 1]).ravel() for pairs in found.values()])
        )
        signatures = self._signatures(named)
        self.kept.mkdir(parents=True, exist_ok=True)
        for name, pairs in found.items():
            places = np.searchsorted(named, _key(pairs[..., 0], pairs[..., 1]))
            agree = [np.mean(signatures[a] == signatures[b]) >= SAME for a, b in places]
            kept = pairs[np.array(agree, dtype=bool)]
            self.stat_update("pairs", value=len(pairs), unit="bucket")
            self.stat_update("kept", value=len(kept), unit="bucket")
            kept.tofile(self.kept / name)

    def _signatures(self, named: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """The signatures of the documents named, a row each, gathered from the files that hold them bucket by bucket."""
        record = np.dtype([("hashes", "<u4", (ROWS,)), ("document", "<u4")])
        gathered = np.zeros((len(named), BUCKETS, ROWS), dtype=np.uint32)
        for shard in np.unique(named >> np.uint64(32)):
            for bucket in range(BUCKETS):
                records = np.fromfile(
                    self.signatures / f"bucket_{bucket:03d}" / f"{shard:05d}.minhash.sig", dtype=record
                )
                keys = _key(shard, records["document"])
                places = np.minimum(np.searchsorted(named, keys), len(named) - 1)
                wanted = named[places] == keys
                gathered[places[wanted], bucket] = records["hashes"][wanted]
        return gathered.reshape(len(named), BUCKETS * ROWS)


def _key(shard: Any, document: Any) -> NDArray[np.uint64]:
    return (np.asarray(shard, dtype=np.uint64) << np.uint64(32)) | np.asarray(document, dtype=np.uint64)
