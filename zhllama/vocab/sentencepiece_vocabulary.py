"""A SentencePiece model as its pieces: read, extended, written back byte for byte."""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from google.protobuf.message import DecodeError
from sentencepiece import SentencePieceProcessor
from sentencepiece import sentencepiece_model_pb2 as proto

from zhllama.errors import InputError
from zhllama.io.files import read_whole
from zhllama.vocab import fast_tokenizer
from zhllama.vocab.folder_settings import AddedToken, FolderSettings, read_folder_settings
from zhllama.vocab.vocabulary import PAD, SPACE, AddedPiece, Kind, Pair, PieceKind

# In the order of the enumeration in sentencepiece_model.proto, which begins at 1.
_KINDS = get_args(PieceKind)
_FLOAT = struct.Struct("<f")
_BYTES = [bytes([number]) for number in range(256)]


class Piece(NamedTuple):
    """One piece of a vocabulary; in BPE the pair whose piece has the highest score is merged first."""

    text: str
    score: float
    kind: PieceKind = "normal"


def _serialized(pieces: Iterable[Piece | AddedPiece]) -> bytes:
    """Pieces as protobuf stores them in a ModelProto: three times as fast as messages made by attributes."""
    parts, pack = [], _FLOAT.pack
    for piece in pieces:
        text = piece.text.encode()
        # Fields of ModelProto.SentencePiece: 1 piece, 2 score, 3 type; the published files leave the default type unwritten.
        fields = b"\x0a%b%b\x15%b" % (_varint(len(text)), text, pack(piece.score))
        if piece.kind != "normal":
            fields += b"\x18" + _varint(_KINDS.index(piece.kind) + 1)
        parts.append(b"\x0a%b%b" % (_varint(len(fields)), fields))
    return b"".join(parts)


def _varint(number: int) -> bytes:
    if number < 128:
        return _BYTES[number]
    return _BYTES[number & 127 | 128] + _varint(number >> 7)


@dataclass(frozen=True)
class SentencePieceVocabulary:
    """A `Vocabulary` from the content of a .model file and the settings of its folder; all else is derived from these."""

    content: bytes
    settings: FolderSettings | None = field(default=None, compare=False, repr=False)

    kind: ClassVar[Kind] = "sentencepiece"

    @classmethod
    def read(cls, path: Path, only_texts: bool = False) -> "SentencePieceVocabulary":
        """Read a .model file without its folder; InputError where it is missing, cut off, or something else.

        With `only_texts` SentencePiece does not load a model whose texts it certainly accepts: a third of the time.
        """
        content = read_whole(path)
        if not content:
            raise InputError(path, "is empty", "Name a SentencePiece .model")
        try:
            model = cls(content)
            if len(model._message.pieces):
                model._refuse_bytes()
                if not (only_texts and model._has_plain_texts()):
                    model.processor  # noqa: B018 - SentencePiece's own checks are the last word
                return model
        except (DecodeError, RuntimeError, UnicodeDecodeError) as error:
            message = " ".join(str(error).split())[:120]
            raise InputError(
                path, f"is cut off or not a SentencePiece model ({message})", "Name a .model file"
            ) from error
        raise InputError(path, "is not a SentencePiece model", "Name a .model file")

    @cached_property
    def _message(self) -> Any:
        return proto.ModelProto.FromString(self.content)

    def _refuse_bytes(self) -> None:
        """Text that is no UTF-8 comes out of protobuf as bytes, and fails in SentencePiece only when it is decoded."""
        texts = (*self.texts, self._message.trainer_spec.unk_surface)
        if bytes in set(map(type, texts)):
            for text in texts:
                if isinstance(text, bytes):
                    text.decode()  # the error that `read` tells of

    def _has_plain_texts(self) -> bool:
        """Whether all texts are of the kind that SentencePiece accepts: not empty, not twice, without a null character."""
        texts = set(self.texts)
        return len(texts) == self.size and "" not in texts and "\0" not in "".join(texts)

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """All pieces; the index is the id."""
        pieces = self._message.pieces
        kinds = [_KINDS[p.type - 1] for p in pieces]
        return tuple(map(Piece, self.texts, [p.score for p in pieces], kinds))

    @property
    def size(self) -> int:
        """How many pieces there are."""
        return len(self.texts)

    @cached_property
    def entries(self) -> Mapping[int, Piece]:
        """Text, score and kind of each id."""
        return dict(enumerate(self.pieces))

    @cached_property
    def added_tokens(self) -> Mapping[int, str]:
        """Pieces that no merge produces: unknown, control and user-defined ones."""
        return {id: p.text for id, p in enumerate(self.pieces) if p.kind in ("unknown", "control", "user")}

    @cached_property
    def user_defined(self) -> tuple[str, ...]:
        """Pieces that are matched in a text before any merge, the longest first at each place.

        One with a space is never matched: spaces are ▁ by then.
        """
        spaced = self.normalizer.escape_whitespaces
        texts = [p.text for p in self.pieces if p.kind == "user" and not (spaced and " " in p.text)]
        return tuple(sorted(texts, key=len, reverse=True))

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """The unknown, control and user-defined pieces in the order of their ids."""
        return tuple(self.added_tokens.values())

    @property
    def fallback_ids(self) -> frozenset[int]:
        """The byte pieces."""
        return self.byte_ids

    @cached_property
    def merges(self) -> list[Pair]:
        """Every split of every piece into two pieces, in the order in which SentencePiece prefers them."""
        return fast_tokenizer.merges(self)

    @property
    def removable(self) -> set[int]:
        """Ordinary pieces, and single characters only where bytes can stand in for them; no special or added token."""
        shortest = 1 if self.byte_ids else 2
        retained = {
            PAD,
            *(token.content for token in (self.settings.tokens if self.settings else {}).values()),
        }
        return {
            id
            for id, piece in enumerate(self.pieces)
            if piece.kind == "normal" and len(piece.text) >= shortest and piece.text not in retained
        }

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The text of each piece; much cheaper than `pieces`."""
        return tuple(map(attrgetter("piece"), self._message.pieces))

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each piece's text."""
        return dict(zip(self.texts, range(self.size), strict=True))

    @cached_property
    def byte_ids(self) -> frozenset[int]:
        """The pieces for single bytes, which spell characters that have no piece."""
        byte, pieces = _KINDS.index("byte") + 1, self._message.pieces
        # SentencePiece requires this spelling; testing it first is much cheaper than reading every type.
        candidates = [id for id, text in enumerate(self.texts) if text[:3] == "<0x"]
        return frozenset(id for id in candidates if pieces[id].type == byte)

    @cached_property
    def algorithm(self) -> Literal["unigram", "bpe", "word", "char"]:
        """How the model cuts text."""
        return ("unigram", "bpe", "word", "char")[self._message.trainer_spec.model_type - 1]

    @property
    def normalizer(self) -> Any:
        """The NormalizerSpec: name, precompiled map, and what happens to spaces."""
        return self._message.normalizer_spec

    @property
    def trainer(self) -> Any:
        """The TrainerSpec, which also says on which side of a word its space is."""
        return self._message.trainer_spec

    @cached_property
    def processor(self) -> SentencePieceProcessor:
        """SentencePiece itself on this model."""
        return SentencePieceProcessor(model_proto=self.content)

    @cached_property
    def bare(self) -> SentencePieceProcessor:
        """SentencePiece without the ▁ before the text and without trimming: tokenizes the inside of a text."""
        message = proto.ModelProto.FromString(self.content)
        message.normalizer_spec.add_dummy_prefix = False
        message.normalizer_spec.remove_extra_whitespaces = False
        return SentencePieceProcessor(model_proto=message.SerializeToString())

    def normalized(self, lines: Iterable[str]) -> Iterator[str]:
        """Each line, as a part of a text, as the rules of the model write it, with spaces for ▁."""
        if not self.normalizer.precompiled_charsmap:
            yield from lines
            return
        for line in lines:
            yield self.bare.normalize(line).replace(SPACE, " ")

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens."""
        ids: list[list[int]] = self.processor.encode(list(texts))
        return ids

    def encode_by_merges(self, texts: Sequence[str]) -> list[list[int]]:
        """The same as `encode`: SentencePiece has no shortcuts."""
        return self.encode(texts)

    def decode(self, ids: Iterable[Sequence[int]]) -> list[str]:
        """The text of each list of ids."""
        texts: list[str] = self.processor.decode([list(one) for one in ids])
        return texts

    def display(self, id: int) -> str:
        """The text of a piece, in which a space is ▁."""
        return self.texts[id]

    def has_character(self, character: str) -> bool:
        """Whether a character is a piece by itself."""
        return character in self.ids

    def fuzz_pieces(self) -> list[str]:
        """The text of all ordinary pieces."""
        return [p.text.replace(SPACE, " ") for p in self.pieces if p.kind == "normal"]

    def extended(self, added: Iterable[Piece | AddedPiece]) -> "SentencePieceVocabulary":
        """The same vocabulary with more pieces after its last one; control pieces become special tokens."""
        message = proto.ModelProto.FromString(self.content)
        added = list(added)
        message.MergeFromString(_serialized(added))
        special = {
            id: AddedToken(piece.text) for id, piece in enumerate(added, self.size) if piece.kind == "control"
        }
        settings = self.settings.with_tokens(special) if self.settings is not None else None
        return SentencePieceVocabulary(message.SerializeToString(), settings)

    def in_folder(self, settings: FolderSettings) -> "SentencePieceVocabulary":
        """The same vocabulary with the tokens that its folder adds, each at its id; ids between them become unused pieces.

        An added token that text can contain becomes a user-defined piece where SentencePiece can match it as
        transformers does, and every other one a control piece. A token that its folder puts in the place of a piece
        takes that piece's id.
        """
        if null := next((t.content for t in settings.tokens.values() if "\0" in t.content), None):
            reason = f"adds the token {null!r}, and no piece of SentencePiece can contain a null character"
            raise InputError(
                settings.folder, reason, "Remove the token, or give a tokenizer.json without the .model"
            )
        message = proto.ModelProto.FromString(self.content)
        if not settings.prefix:
            message.normalizer_spec.add_dummy_prefix = False
        taken = {*self.ids, *(token.content for token in settings.tokens.values())}
        for id in range(self.size, settings.size):
            if id not in settings.tokens:
                name = next(name for n in range(10) if (name := f"<unused_{id}{'_' * n}>") not in taken)
                message.pieces.add(piece=name, type=_KINDS.index("unused") + 1)
                continue
            message.pieces.add(piece="\0", type=_KINDS.index("control") + 1)
        for id, token in settings.tokens.items():
            piece = message.pieces[id]
            if piece.piece != token.content:
                kind: PieceKind = "control" if token.special or not token.plain else "user"
                piece.piece, piece.type = token.content, _KINDS.index(kind) + 1
        return SentencePieceVocabulary(message.SerializeToString(), settings)

    def without(self, ids: Iterable[int]) -> "SentencePieceVocabulary":
        """The same vocabulary without some pieces; the others move up in their order."""
        message = proto.ModelProto.FromString(self.content)
        for id in sorted(ids, reverse=True):
            del message.pieces[id]
        return SentencePieceVocabulary(message.SerializeToString(), self.settings)

    def dead(self, ids: Iterable[int]) -> list[int]:
        """Those of the normal pieces `ids` that no text can produce.

        Merges inside a piece do not depend on the text around it, so a piece can occur exactly if its own text is
        tokenized into that one piece.
        """
        normal = [id for id in ids if self.pieces[id].kind == "normal"]
        encoded = self.bare.encode([self.pieces[id].text for id in normal])
        return [id for id, tokens in zip(normal, encoded, strict=True) if tokens != [id]]

    def split(self, ids: Iterable[int]) -> list[int]:
        """None: nothing splits a text before SentencePiece's merges."""
        return []

    def expansion(self, base: "SentencePieceVocabulary") -> None:
        """None: a SentencePiece piece can be reached by merges of several others."""
        return None

    def remaining(self, removed: Iterable[int]) -> list[int]:
        """All ids but `removed`, in order."""
        gone = set(removed)
        return [id for id in range(self.size) if id not in gone]

    @property
    def tied(self) -> int:
        """How many pieces share their score with another."""
        return fast_tokenizer.tied_pieces(self)

    def why_no_fast_tokenizer(self) -> str | None:
        """Why no tokenizer.json can give SentencePiece's ids, or None where one can."""
        return fast_tokenizer.why_no_fast_tokenizer(self)

    def table_row(self, piece: AddedPiece) -> dict[str, str]:
        """An added piece, its score and the reason."""
        return {"piece": piece.text, "score": f"{piece.score:g}", "why": piece.reason}

    def transformers_files(
        self, source: Path, base_ids: Sequence[int] | None = None, pad: str | None = None
    ) -> dict[str, bytes]:
        """The files, by name, from which `AutoTokenizer` gives SentencePiece's ids."""
        return fast_tokenizer.transformers_files(self, fast_tokenizer.Specials(pad=pad))


def in_its_folder(model: SentencePieceVocabulary, path: Path) -> SentencePieceVocabulary:
    """The model of the file `path` as AutoTokenizer makes it of the folder.

    Errors: InputError where the folder cannot be read, or contains another vocabulary than the .model.
    """
    settings = read_folder_settings(path, model.processor.encode)
    if settings is None:
        return model
    others = settings.tokenizer.get_vocab()
    wrong = next((text for text, id in model.ids.items() if others.get(text, id) != id), None)
    beyond = next((t for t, id in others.items() if id >= model.size and id not in settings.tokens), None)
    if wrong is not None or beyond is not None:
        message = f"is not the vocabulary that AutoTokenizer reads from its folder: {wrong or beyond!r} has another id there"
        raise InputError(path, message, "Name the tokenizer.json, or remove the file that is out of date")
    complete = model.in_folder(settings)
    try:
        complete.processor  # noqa: B018 - SentencePiece refuses some tokens, such as those of thousands of characters
    except RuntimeError as error:
        message = f"cannot be used by SentencePiece with the tokens of its folder ({str(error)[:120]})"
        raise InputError(
            path, message, "Check added_tokens.json and tokenizer_config.json beside it"
        ) from error
    return complete
