"""One interface to tokenizers of every file format: ids of plain text, without special tokens around it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

from zhllama.errors import InputError
from zhllama.hub import hub_file
from zhllama.hub_name import is_hub_name
from zhllama.io.files import is_present, open_regular, read_utf8, read_whole, unreadable
from zhllama.io.gguf import MAGIC
from zhllama.io.json import LARGEST, parse_json, read_object
from zhllama.manifest import check_outputs
from zhllama.normalizer_panics import refuse_panic
from zhllama.vocab.byte_level_json import spelled_bytes
from zhllama.vocab.folder_settings import read_folder_settings
from zhllama.vocab.gguf import read_gguf
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary, in_its_folder
from zhllama.vocab.tekken import is_tekken, read_tekken
from zhllama.vocab.tiktoken import is_rank_file, read_tiktoken
from zhllama.vocab.tokenizer_config import (
    CONFIG,
    MERGES,
    VOCAB,
    VOCABULARIES,
    declared_tokens,
    named_token,
    named_tokens,
)
from zhllama.vocab.tokenizer_json import inside_a_text, open_tokenizer_json, without_limits
from zhllama.vocab.vocabulary import SPACE


class AnyTokenizer(Protocol):
    """A tokenizer read from a file of any format."""

    @property
    def size(self) -> int:
        """Number of ids."""

    @property
    def sentencepiece(self) -> SentencePieceVocabulary | None:
        """The SentencePiece model that tokenizes, or None where another library does."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens: none is added, and their names in the text are plain text."""

    def encode_inside(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text as in the middle of a longer text: without the ▁ that SentencePiece puts before a text."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids."""

    def surface(self, id: int) -> bytes:
        """The UTF-8 bytes that a token stands for; empty for a special token."""

    def name(self, id: int) -> str | None:
        """A token as the vocabulary spells it; None for an id without one."""

    def begin_and_end(self, settings: Mapping[str, Any]) -> tuple[int | None, int | None]:
        """The ids of the tokens before and after a text, each None where there is none.

        `settings` are those of `tokenizer_config.read_settings`.
        """


@dataclass(frozen=True)
class SentencePieceTokenizer:
    """A .model file, run by SentencePiece."""

    model: SentencePieceVocabulary

    @property
    def size(self) -> int:
        return len(self.model.pieces)

    @property
    def sentencepiece(self) -> SentencePieceVocabulary:
        return self.model

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = self.model.processor.encode(list(texts))
        return ids

    def encode_inside(self, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = self.model.bare.encode(list(texts))
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self.model.processor.decode(list(ids))
        return text

    def surface(self, id: int) -> bytes:
        piece = self.model.pieces[id]
        if piece.kind == "byte":
            return bytes([int(piece.text[1:-1], 16)])
        return piece.text.replace(SPACE, " ").encode() if piece.kind in ("normal", "user") else b""

    def name(self, id: int) -> str | None:
        piece = self.model.pieces[id]
        return None if piece.kind == "unused" else piece.text

    def begin_and_end(self, settings: Mapping[str, Any]) -> tuple[int | None, int | None]:
        bos, eos = (self._named_id(settings, role) for role in ("bos", "eos"))
        has_bos = bos >= 0 and settings.get("add_bos_token", True)
        return bos if has_bos else None, eos if eos >= 0 else None

    def _named_id(self, settings: Mapping[str, Any], role: str) -> int:
        """The id of the token that the settings name, else the .model's own; -1 without any."""
        own: int = getattr(self.model.processor, f"{role}_id")()
        return self.model.ids.get(named_token(settings, f"{role}_token") or "", own)


@dataclass(frozen=True)
class JsonTokenizer:
    """A tokenizer.json, or a tekken.json, rank file or byte-level GGUF converted to one, run by `tokenizers`."""

    path: Path

    @cached_property
    def inner(self) -> Any:
        tokenizer = without_limits(_read_inner(self.path))
        refuse_panic(tokenizer, self.path)
        _add_tokens_of_folder(tokenizer, self.path)
        tokenizer.encode_special_tokens = True
        return tokenizer

    @cached_property
    def _inside(self) -> Any:
        content = self.inner.to_str()
        inside = inside_a_text(content)
        if parse_json(inside, "tokenizer.json") == parse_json(content, "tokenizer.json"):
            return self.inner
        tokenizer = open_tokenizer_json(inside)
        tokenizer.encode_special_tokens = True
        return tokenizer

    @property
    def content(self) -> str:
        """The tokenizer.json with the limits that it stores, without the tokens that its folder adds."""
        tokenizer = _read_inner(self.path)
        refuse_panic(tokenizer, self.path)
        return str(tokenizer.to_str())

    @cached_property
    def size(self) -> int:
        # get_vocab_size would not count gaps between ids, and a model has a row for each id up to the last. An id that a
        # file states has a row too, even where AutoTokenizer gives that token another id.
        declared = declared_tokens(self.path.parent).values() if self.path.name in VOCABULARIES else ()
        return 1 + max([*self.inner.get_vocab(with_added_tokens=True).values(), *declared], default=-1)

    @property
    def sentencepiece(self) -> None:
        return None

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in self.inner.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_inside(self, texts: Sequence[str]) -> list[list[int]]:
        if self.byte_level:
            encoded = self._inside.encode_batch_fast(list(texts), add_special_tokens=False)
            return [e.ids for e in encoded]
        # The BPE model alone: the normalizer would put ▁ before each text.
        return [[t.id for t in self.inner.model.tokenize(text.replace(" ", SPACE))] for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.inner.decode(list(ids), skip_special_tokens=False))

    def surface(self, id: int) -> bytes:
        return self._surfaces.get(id, b"")

    @cached_property
    def _surfaces(self) -> dict[int, bytes]:
        added = self.inner.get_added_tokens_decoder()
        added_surfaces = {id: b"" if token.special else token.content.encode() for id, token in added.items()}
        plain = self.inner.get_vocab(with_added_tokens=False)
        if self.byte_level:
            surfaces = {id: spelled_bytes(text) for text, id in plain.items()}
        else:
            surfaces = {id: _byte_or_text(text) for text, id in plain.items()}
        return surfaces | added_surfaces

    def name(self, id: int) -> str | None:
        text: str | None = self.inner.id_to_token(id)
        return None if text is not None and text.startswith("<unused_") else text

    def begin_and_end(self, settings: Mapping[str, Any]) -> tuple[int | None, int | None]:
        bos, eos = (self._id_of(named_token(settings, role)) for role in ("bos_token", "eos_token"))
        # A tokenizer may name a BOS that its post-processor does not put before a text.
        puts_bos = bos is not None and self.inner.encode("a", add_special_tokens=True).ids[:1] == [bos]
        return bos if puts_bos and settings.get("add_bos_token", True) else None, eos

    def _id_of(self, token: str | None) -> int | None:
        id: int | None = None if token is None else self.inner.token_to_id(token)
        return id

    @cached_property
    def byte_level(self) -> bool:
        """Whether the vocabulary spells bytes as GPT-2's stand-in characters."""
        decoder = self.inner.decoder
        return decoder is not None and "ByteLevel" in repr(decoder)


def _byte_or_text(text: str) -> bytes:
    if re.fullmatch("<0x[0-9A-Fa-f]{2}>", text):
        return bytes([int(text[3:5], 16)])
    return text.removeprefix("##").replace(SPACE, " ").encode()


Format = Literal["sentencepiece", "tokenizer.json", "vocab.json", "tekken", "tiktoken", "gguf"]
_IN_FOLDER = ("tokenizer.model", "tokenizer.json", "tekken.json")
_READ = (*_IN_FOLDER, "vocab.json", "merges.txt", "*.tiktoken", "*.jinja", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "id_map.json")  # fmt: skip
_KNOWN = "a SentencePiece .model, a tokenizer.json, a tekken.json, a .tiktoken rank file, a .gguf"


def load_any_tokenizer(name: str | Path) -> AnyTokenizer:
    """Load a tokenizer from a file of any `Format`, a folder, or a hub name.

    In a folder, tokenizer.model is preferred, because tokenizer.json was made from it. Errors: InputError.
    """
    path = tokenizer_file(name)
    format = format_of(path)
    if format == "sentencepiece":
        return SentencePieceTokenizer(_with_tokens_of_folder(SentencePieceVocabulary.read(path), path))
    if format == "gguf":
        content = read_gguf(path)
        if isinstance(content, SentencePieceVocabulary):
            return SentencePieceTokenizer(content)
    tokenizer = JsonTokenizer(path)
    tokenizer.inner  # noqa: B018 - read the file now, so that a broken one is reported here
    return tokenizer


def tokenizer_file(name: str | Path) -> Path:
    """The file of the tokenizer `name`, which is a file, a folder or a hub name."""
    if is_hub_name(str(name)):
        return hub_file(str(name), *_IN_FOLDER)
    path = Path(name)
    check_outputs([path if path.is_dir() else path.parent], *_READ)
    if path.is_dir():
        for file in (*(path / file for file in _IN_FOLDER), *sorted(path.glob("*.tiktoken"))):
            if file.exists():
                return file
        if (path / VOCAB).exists() and (path / MERGES).exists():
            return path / VOCAB
        names = ", ".join(_IN_FOLDER)
        raise InputError(
            path,
            f"contains none of {names}, *.tiktoken, or {VOCAB} with {MERGES}",
            "Name a tokenizer's folder",
        )
    if not path.exists():
        raise InputError(path, "no such file", "Check the path, or give a hub name with its owner")
    check_outputs([path])
    return path


def format_of(path: Path) -> Format:
    """The format of a tokenizer file, detected by its content; InputError for an unknown format."""
    try:
        with open_regular(path) as file:
            head = file.read(1 << 16)
    except OSError as error:
        raise unreadable(path, error) from error
    if not head:
        raise InputError(path, "is empty", f"Name {_KNOWN}")
    if head.startswith(MAGIC):
        return "gguf"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        if path.name == VOCAB and path.with_name(MERGES).is_file():
            return "vocab.json"
        return "tekken" if is_tekken(read_whole(path)) else "tokenizer.json"
    if is_rank_file(head):
        return "tiktoken"
    # A .model is a protocol buffer message whose first field is a piece: tag 0x0A.
    if head.startswith(b"\n") or path.suffix == ".model":
        return "sentencepiece"
    raise InputError(path, "is not a tokenizer of a known format", f"Name {_KNOWN}")


def _with_tokens_of_folder(model: SentencePieceVocabulary, path: Path) -> SentencePieceVocabulary:
    """The model with the tokens that only its folder names; transformers is asked only where there are some."""
    if named_tokens(path) <= model.ids.keys():
        return model
    return in_its_folder(model, path)


def _add_tokens_of_folder(tokenizer: Any, path: Path) -> None:
    """Add the tokens that only the folder of a tokenizer.json names, at the ids that AutoTokenizer gives them."""
    from tokenizers import AddedToken

    if all(tokenizer.token_to_id(text) is not None for text in named_tokens(path)):
        return
    settings = read_folder_settings(path)
    for id, token in sorted(settings.tokens.items()) if settings is not None else ():
        if tokenizer.token_to_id(token.content) is None:
            flags = {key: value for key, value in token.entry().items() if key != "content"}
            (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)(
                [AddedToken(token.content, **flags)]
            )
            if tokenizer.token_to_id(token.content) != id:
                message = (
                    f"gives {token.content!r} the id {id} in its folder, which leaves ids between them unused"
                )
                raise InputError(path, message, "Save the tokenizer again with AutoTokenizer")


def _read_vocab_and_merges(path: Path) -> Any:
    """The tokenizer that transformers makes of vocab.json and merges.txt; the class says how text is split."""
    from tokenizers import Tokenizer as Inner

    if not any(is_present(path.with_name(name)) for name in (CONFIG, "config.json")):
        message = f"names no tokenizer class, and {VOCAB} and {MERGES} alone do not say how text is split"
        raise InputError(path, message, f"Put the model's {CONFIG} or config.json beside it")
    settings = read_folder_settings(path)
    backend = None if settings is None else getattr(settings.tokenizer, "_tokenizer", None)
    if settings is None or backend is None:
        raise InputError(path, "is not read by a class of `tokenizers`", "Give a tokenizer.json")
    ids = backend.get_vocab(with_added_tokens=True)
    wrong = next((text for text, id in read_object(path).items() if ids.get(text) != id), None)
    if wrong is not None:
        message = f"is not what {type(settings.tokenizer).__name__} reads: {wrong!r} has the id {ids.get(wrong)} there"
        raise InputError(path, message, f"Name another tokenizer_class in {CONFIG}")
    return Inner.from_str(backend.to_str())


def _read_inner(path: Path) -> Any:
    from tokenizers import Tokenizer as Inner

    format = format_of(path)
    if format == "vocab.json":
        return _read_vocab_and_merges(path)
    if format == "tekken":
        return read_tekken(path)
    if format == "tiktoken":
        return read_tiktoken(path)
    if format == "gguf":
        content = read_gguf(path)
        if isinstance(content, SentencePieceVocabulary):
            raise InputError(path, "contains a SentencePiece model, not byte-level BPE", "Name another file")
        return content
    if format == "sentencepiece":
        raise InputError(path, "is a SentencePiece model, not a tokenizer.json", "Name another file")
    try:
        return Inner.from_str(read_utf8(path, LARGEST))
    except InputError:
        raise
    except Exception as error:  # `tokenizers` raises a bare Exception
        message = " ".join(str(error).split())[:120]
        raise InputError(path, f"is not a readable tokenizer.json ({message})", "Check the file") from error
