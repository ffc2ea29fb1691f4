"""A SentencePiece model as its pieces: read, extended, written back to the byte."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from google.protobuf.message import DecodeError
from sentencepiece import SentencePieceProcessor
from sentencepiece import sentencepiece_model_pb2 as proto

from zhllama.errors import InputError
from zhllama.io.files import read_whole

SPACE = "\u2581"  # SentencePiece writes a space as ▁

Kind = Literal["normal", "unknown", "control", "user", "unused", "byte"]
_KINDS = get_args(Kind)  # in the order of the enumeration in sentencepiece_model.proto, which begins at 1


class Piece(NamedTuple):
    """One piece of a vocabulary; in BPE the pair whose piece has the highest score is merged first."""

    text: str
    score: float
    kind: Kind = "normal"


@dataclass(frozen=True)
class SentencePieceModel:
    """The content of a .model file; everything else is derived from its bytes."""

    content: bytes

    @classmethod
    def read(cls, path: Path) -> "SentencePieceModel":
        """Read a .model file; InputError where it is missing, cut off, or something else."""
        content = read_whole(path)
        if not content:
            raise InputError(path, "is empty", "Name a SentencePiece .model")
        try:
            model = cls(content)
            if len(model._message.pieces):
                model._refuse_bytes()
                model.processor  # noqa: B018 - SentencePiece's own checks are the last word
                return model
        except (DecodeError, RuntimeError, UnicodeDecodeError) as error:
            told = " ".join(str(error).split())[:120]
            raise InputError(
                path, f"is cut off or not a SentencePiece model ({told})", "Name a .model file"
            ) from error
        raise InputError(path, "is not a SentencePiece model", "Name a .model file")

    @cached_property
    def _message(self) -> Any:
        return proto.ModelProto.FromString(self.content)

    def _refuse_bytes(self) -> None:
        """Text that is no UTF-8 comes out of protobuf as bytes, and fails in SentencePiece only when it is decoded."""
        for text in (*self.texts, self._message.trainer_spec.unk_surface):
            if isinstance(text, bytes):
                text.decode()  # the error that `read` tells of

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """All pieces; the index is the id."""
        held = self._message.pieces
        kinds = [_KINDS[p.type - 1] for p in held]
        return tuple(map(Piece, self.texts, [p.score for p in held], kinds))

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The text of each piece; much cheaper than `pieces`."""
        return tuple([p.piece for p in self._message.pieces])

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each piece's text."""
        return {text: id for id, text in enumerate(self.texts)}

    @cached_property
    def byte_ids(self) -> frozenset[int]:
        """The pieces that stand for single bytes of what has no piece."""
        byte, held = _KINDS.index("byte") + 1, self._message.pieces
        named = (
            id for id, text in enumerate(self.texts) if text.startswith("<0x")
        )  # as SentencePiece demands
        return frozenset(id for id in named if held[id].type == byte)

    @cached_property
    def algorithm(self) -> Literal["unigram", "bpe", "word", "char"]:
        """How the model cuts text."""
        return ("unigram", "bpe", "word", "char")[self._message.trainer_spec.model_type - 1]

    @property
    def normalizer(self) -> Any:
        """The NormalizerSpec: name, precompiled map, and what happens to spaces."""
        return self._message.normalizer_spec

    @cached_property
    def processor(self) -> SentencePieceProcessor:
        """SentencePiece itself on this model."""
        return SentencePieceProcessor(model_proto=self.content)

    @cached_property
    def bare(self) -> SentencePieceProcessor:
        """SentencePiece without the ▁ before the text and without trimming: cuts the inside of a text."""
        message = proto.ModelProto.FromString(self.content)
        message.normalizer_spec.add_dummy_prefix = False
        message.normalizer_spec.remove_extra_whitespaces = False
        return SentencePieceProcessor(model_proto=message.SerializeToString())

    def extended(self, added: Iterable[Piece]) -> "SentencePieceModel":
        """The same model with more pieces after its last one."""
        message = proto.ModelProto.FromString(self.content)
        for piece in added:
            entry = message.pieces.add(piece=piece.text, score=piece.score)
            if piece.kind != "normal":  # the published files leave the default type unwritten
                entry.type = _KINDS.index(piece.kind) + 1
        return SentencePieceModel(message.SerializeToString())

    def without(self, ids: Iterable[int]) -> "SentencePieceModel":
        """The same model without some pieces; those that stay move up in their order."""
        message = proto.ModelProto.FromString(self.content)
        for id in sorted(ids, reverse=True):
            del message.pieces[id]
        return SentencePieceModel(message.SerializeToString())

    def dead(self, ids: Iterable[int]) -> list[int]:
        """Those of the normal pieces `ids` that no text can ever produce.

        Inside a piece that occurs, merges went as they go on the piece alone; so it is alive exactly if the model
        cuts its own text into that one piece.
        """
        asked = [id for id in ids if self.pieces[id].kind == "normal"]
        cuts = self.bare.encode([self.pieces[id].text for id in asked])
        return [id for id, cut in zip(asked, cuts, strict=True) if cut != [id]]
