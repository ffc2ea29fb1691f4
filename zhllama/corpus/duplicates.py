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

# Two documents with Jaccard similarity s share a bucket with probability 1 - (1 - s^ROWS)^BUCKETS: 0.998 for 0.8, 0.27 for
# 0.5. Of all BUCKETS * ROWS hashes, a share of s +- 0.037 (0.8) or +- 0.046 (0.5) agrees, so the threshold SAME accepts 0.999
# of the former pairs and 0.0001 of the latter. datatrove's own 14 x 8 without this check accepts 0.924 and 0.053.
BUCKETS, ROWS, CHARACTERS = 20, 6, 5
SAME = 0.68
_CHUNK = 1024  # shingles hashed at once: BUCKETS * ROWS * _CHUNK * 4 bytes fit in the L2 cache


def minhash_config() -> Any:
    """datatrove's configuration with 32-bit hashes, which rarely collide even in a document of a million characters."""
    return MinhashConfig(
        n_grams=CHARACTERS, num_buckets=BUCKETS, hashes_per_bucket=ROWS, hash_config=HashConfig(precision=32)
    )


def exact_config() -> Any:
    return ExactDedupConfig(content_getter=_text)


def _text(document: Document) -> str:
    return str(document.text)


def shingles(text: str) -> NDArray[np.uint32]:
    """Hashes of all 5-character shingles, [n]; case and kind of whitespace do not matter."""
    return (ngram_hashes(" ".join(text.lower().split()), CHARACTERS) >> np.uint64(32)).astype(np.uint32)


class CharacterSignature(MinhashDedupSignature):  # type: ignore[misc]
    """Stage 1 of MinHash, in numpy by chunks of shingles, so that a book needs no more memory than a page.

    datatrove hashes word by word in Python and keeps the matrix of all shingles and hashes in memory.
    """

    name = "minhash signatures"

    def __init__(self, folder: str) -> None:
        # The tokenizer is not used; the default one is for English and needs spaCy.
        super().__init__(folder, minhash_config(), language=WhitespaceTokenizer())
        self._parameters: tuple[NDArray[np.uint32], NDArray[np.uint32]] | None = None

    def get_shingles(self, text: str) -> NDArray[np.uint32]:
        return shingles(text)

    @property
    def parameters(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """Odd multipliers a and offsets b, [hashes, 1]: x -> a * x + b modulo 2^32 permutes the 32-bit numbers."""
        if self._parameters is None:
            random = np.random.RandomState(self.config.seed).randint(
                0, 1 << 32, size=(2, self.num_hashes, 1), dtype=np.uint32
            )
            self._parameters = (random[0] | np.uint32(1), random[1])
        return self._parameters

    def get_signature(self, shingles: NDArray[np.uint32]) -> list[list[int]]:
        a, b = self.parameters
        least = np.full(self.num_hashes, np.iinfo(np.uint32).max, dtype=np.uint32)
        for at in range(0, len(shingles), _CHUNK):
            hashed = a * shingles[at : at + _CHUNK] + b
            np.minimum(least, hashed.min(axis=1), out=least)
        return [part.tolist() for part in np.split(least, self.config.num_buckets)]


class TruePairs(PipelineStep):  # type: ignore[misc]
    """Runs between datatrove's stages 2 and 3: accepts only pairs whose whole signatures agree, not those of a shared bucket."""

    type, name = "dedup", "true pairs"

    def __init__(self, signatures: Path, pairs: Path, accepted: Path) -> None:
        super().__init__()
        self.signatures, self.pairs, self.accepted = signatures, pairs, accepted

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        pairs_by_file = {
            path.name: np.fromfile(path, dtype="<u4").reshape(-1, 2, 2)
            for path in sorted(self.pairs.glob("*.dups"))
        }
        documents = np.unique(
            np.concatenate([_key(pairs[..., 0], pairs[..., 1]).ravel() for pairs in pairs_by_file.values()])
        )
        signatures = self._signatures(documents)
        self.accepted.mkdir(parents=True, exist_ok=True)
        for name, pairs in pairs_by_file.items():
            indices = np.searchsorted(documents, _key(pairs[..., 0], pairs[..., 1]))
            agree = [np.mean(signatures[a] == signatures[b]) >= SAME for a, b in indices]
            accepted = pairs[np.array(agree, dtype=bool)]
            self.stat_update("pairs", value=len(pairs), unit="bucket")
            self.stat_update("accepted", value=len(accepted), unit="bucket")
            accepted.tofile(self.accepted / name)

    def _signatures(self, documents: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """The signature of each document, [documents, BUCKETS * ROWS], read from the files of all buckets."""
        record = np.dtype([("hashes", "<u4", (ROWS,)), ("document", "<u4")])
        gathered = np.zeros((len(documents), BUCKETS, ROWS), dtype=np.uint32)
        for shard in np.unique(documents >> np.uint64(32)):
            for bucket in range(BUCKETS):
                records = np.fromfile(
                    self.signatures / f"bucket_{bucket:03d}" / f"{shard:05d}.minhash.sig", dtype=record
                )
                keys = _key(shard, records["document"])
                indices = np.minimum(np.searchsorted(documents, keys), len(documents) - 1)
                wanted = documents[indices] == keys
                gathered[indices[wanted], bucket] = records["hashes"][wanted]
        return gathered.reshape(len(documents), BUCKETS * ROWS)


def _key(shard: Any, document: Any) -> NDArray[np.uint64]:
    return (np.asarray(shard, dtype=np.uint64) << np.uint64(32)) | np.asarray(document, dtype=np.uint64)
