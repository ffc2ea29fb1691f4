"""Any tokenizer behind one face: ids of plain text, without the special tokens around it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from zhllama.errors import InputError
from zhllama.hub import hub_file, is_hub_name
from zhllama.vocab.model import SPACE, SentencePieceModel


class Tokenizer(Protocol):
    """What every tokenizer here can do."""

    @property
    def size(self) -> int:
        """Number of ids."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text; no special token is added, and none is read from the text."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids."""

    def surface(self, id: int) -> bytes:
        """The UTF-8 bytes that a token stands for; empty for a special one."""


@dataclass(frozen=True)
class SentencePieceTokenizer:
    """A .model file, cut by SentencePiece itself."""

    model: SentencePieceModel

    @property
    def size(self) -> int:
        return len(self.model.pieces)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = self.model.processor.encode(list(texts))
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self.model.processor.decode(list(ids))
        return text

    def surface(self, id: int) -> bytes:
        piece = self.model.pieces[id]
        if piece.kind == "byte":
            return bytes([int(piece.text[1:-1], 16)])
        return piece.text.replace(SPACE, " ").encode() if piece.kind in ("normal", "user") else b""


@dataclass(frozen=True)
class JsonTokenizer:
    """A tokenizer.json, cut by `tokenizers`; byte-level ones and SentencePiece's twins alike."""

    path: Path

    @cached_property
    def inner(self) -> Any:
        from tokenizers import Tokenizer as Inner

        try:
            tokenizer = Inner.from_file(str(self.path))
        except Exception as error:  # `tokenizers` raises a bare Exception
            told = " ".join(str(error).split())[:120]
            raise InputError(
                self.path, f"is not a readable tokenizer.json ({told})", "Check the file"
            ) from error
        tokenizer.encode_special_tokens = True
        return tokenizer

    @property
    def size(self) -> int:
        return int(self.inner.get_vocab_size(with_added_tokens=True))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in self.inner.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.inner.decode(list(ids), skip_special_tokens=False))

    def surface(self, id: int) -> bytes:
        return self._surfaces.get(id, b"")

    @cached_property
    def _surfaces(self) -> dict[int, bytes]:
        special = set(self.inner.get_added_tokens_decoder())
        plain = {
            id: text
            for text, id in self.inner.get_vocab(with_added_tokens=False).items()
            if id not in special
        }
        if self.byte_level:
            return {id: bytes(_BYTES[c] for c in text if c in _BYTES) for id, text in plain.items()}
        return {id: _byte_or_text(text) for id, text in plain.items()}

    @cached_property
    def byte_level(self) -> bool:
        """Whether the vocabulary spells bytes as GPT-2's stand-in characters."""
        decoder = self.inner.decoder
        return decoder is not None and "ByteLevel" in repr(decoder)


def _byte_or_text(text: str) -> bytes:
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        return bytes([int(text[3:5], 16)])
    return text.replace(SPACE, " ").encode()


def _stand_ins() -> dict[str, int]:
    """GPT-2's table (openai/gpt-2, encoder.py): printable bytes stand for themselves, the others for 256 and up."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


_BYTES = _stand_ins()


def load_tokenizer(name: str | Path) -> Tokenizer:
    """The tokenizer that a .model, a tokenizer.json, a folder or a hub name holds.

    In a folder tokenizer.model is preferred: it is what tokenizer.json was made from. Errors: InputError.
    """
    path = tokenizer_file(name)
    if path.suffix == ".json":
        tokenizer = JsonTokenizer(path)
        tokenizer.inner  # noqa: B018 - read now, so that a broken file is told now
        return tokenizer
    return SentencePieceTokenizer(SentencePieceModel.read(path))


def tokenizer_file(name: str | Path) -> Path:
    """The file that holds the tokenizer `name`: itself, the one in the folder, or the one on the hub."""
    if is_hub_name(str(name)):
        return hub_file(str(name), "tokenizer.model", "tokenizer.json")
    path = Path(name)
    if path.is_dir():
        for file in ("tokenizer.model", "tokenizer.json"):
            if (path / file).exists():
                return path / file
        raise InputError(
            path, "holds neither tokenizer.model nor tokenizer.json", "Name a tokenizer's folder"
        )
    if not path.exists():
        raise InputError(path, "no such file", "Check the path")
    return path
