"""A tokenizer for training: documents to ids with beginning and end of text, and a hash that identifies it."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zhllama.encoding.encoder import Encoder
from zhllama.errors import InputError
from zhllama.io.files import sha256
from zhllama.vocab.any_tokenizer import load_any_tokenizer, tokenizer_file
from zhllama.vocab.tokenizer_config import read_settings

BATCH = 4 << 20  # characters encoded in one call


@dataclass(frozen=True)
class DocumentTokenizer:
    """A tokenizer; `begin` is the id before each document, None for models without one, `end` the id after each."""

    path: Path
    encoder: Encoder
    size: int
    begin: int | None
    end: int
    hash: str

    @classmethod
    def open(cls, name: str | Path) -> "DocumentTokenizer":
        """Open a folder, a `.model` or a `tokenizer.json`; InputError if it names no end of text."""
        path = tokenizer_file(name)
        inner = load_any_tokenizer(path)
        settings = read_settings(path.parent)
        begin, end = inner.begin_and_end(settings)
        if end is None:
            raise InputError(
                path, "names no end of text (eos_token)", "Name one in its tokenizer_config.json"
            )
        hash = hashlib.sha256(f"{sha256(path)} {begin} {end}".encode()).hexdigest()
        size = max(inner.size, _largest_added_id(settings) + 1)
        return cls(Path(name), Encoder.open(path), size, begin, end, hash)

    @property
    def folder(self) -> Path:
        """The folder of the tokenizer's files."""
        return self.path if self.path.is_dir() else self.path.parent

    def files(self) -> list[Path]:
        """Return the files that were read, for a manifest."""
        return [tokenizer_file(self.path)]

    def documents(
        self, texts: Iterable[str], done: Callable[[str], None] | None = None
    ) -> Iterator[NDArray[np.int32]]:
        """Yield the ids of each text, after `begin` if there is one and before `end`; encoded in batches."""
        head = [] if self.begin is None else [self.begin]
        for batch in _batches(texts):
            ids, offsets = self.encoder.encode_batch(batch)
            for number, text in enumerate(batch):
                body = ids[offsets[number] : offsets[number + 1]]
                yield np.concatenate([head, body, [self.end]]).astype(np.int32)
                if done is not None:
                    done(text)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= BATCH:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _largest_added_id(settings: dict[str, Any]) -> int:
    """Return the largest id that tokenizer_config.json adds to a `.model`; -1 if it adds none."""
    added = settings.get("added_tokens_decoder", {})
    return max((int(id) for id in added), default=-1) if isinstance(added, dict) else -1
