"""A BPE tokenizer.json that writes spaces as ▁ and has no .model: Gemma's package, mergekit's output, a saved folder.

Spaces are written as ▁ and characters without a piece as byte pieces, but the merges are a ranked list.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from sentencepiece import sentencepiece_model_pb2 as proto
from tokenizers import Tokenizer

from zhllama.characters import charset
from zhllama.errors import InputError
from zhllama.io.json import parse_json, parse_row
from zhllama.vocab.any_tokenizer import JsonTokenizer
from zhllama.vocab.folder_settings import FolderSettings, read_folder_settings
from zhllama.vocab.json_vocabulary import JsonVocabulary, dumped, loaded, special_token
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary
from zhllama.vocab.tokenizer_json import inside_a_text
from zhllama.vocab.vocabulary import SPACE, AddedPiece, Kind

_BYTE, _NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED = (
    6,
    1,
    2,
    3,
    4,
    5,
)  # types of pieces in sentencepiece_model.proto


@dataclass(frozen=True)
class MetaspaceVocabulary(JsonVocabulary):
    """A `Vocabulary` from the content of a tokenizer.json whose merges join characters, with spaces as ▁."""

    kind: ClassVar[Kind] = "metaspace"

    @classmethod
    def read(cls, path: Path) -> "MetaspaceVocabulary":
        """Read a tokenizer.json as AutoTokenizer makes it of its folder; InputError where it is of another kind."""
        content, settings = JsonTokenizer(path).content, read_folder_settings(path)
        vocabulary = cls(content if settings is None else _as_loaded(content, settings))
        reason = vocabulary._why_not_metaspace()
        if reason is not None:
            raise InputError(path, f"cannot be extended: {reason}", "Name a BPE tokenizer.json, or a .model")
        return vocabulary if settings is None else vocabulary.in_folder(settings)

    def _why_not_metaspace(self) -> str | None:
        model = self._json["model"]
        if model.get("type") != "BPE":
            return f"its model is {model.get('type')}, which has no merges to add to"
        if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
            return "its tokens carry a prefix or suffix that marks their place in a word"
        if self._unknown is None:
            return "it names no unknown token and has no special one"
        for text in ("one two", "中文 a\nb", "A．1 ﬁ ①"):
            if self.words(text).removeprefix(SPACE) != text.replace(" ", SPACE):
                return f"its normalizer or pre-tokenizer changes or splits the text {text!r}"
        pattern = self._inside.pre_tokenizer
        if pattern is not None and len(pattern.pre_tokenize_str("".join(charset("gb2312")))) > 1:
            return "its pre-tokenizer splits Chinese text"
        return None

    def require_extensible(self) -> None:
        """InputError where the base's tokens would get other ids in any extension.

        `extended` writes added tokens into the vocabulary, where merges begin with any single character.
        """
        vocabulary = self._json["model"]["vocab"]
        single = [text for text in self.added_tokens.values() if len(text) == 1 and text not in vocabulary]
        around = [f"中{text}。{text}" for text in single]
        pairs = zip(single, self.encode(around), self.extended([]).encode(around), strict=True)
        moved = next((text for text, before, after in pairs if before != after), None)
        if moved is not None:
            what = f"has the added token {moved!r}, which it finds at the start of a text only, and an extension everywhere"
            raise InputError("`base`", what, "Give the token the flag normalized=false in its tokenizer.json")

    def words(self, text: str) -> str:
        """A text as the merges see it; split texts are joined by a line end that none contains."""
        normalized = self.tokenizer.normalizer.normalize_str(text) if self.tokenizer.normalizer else text
        pattern = self.tokenizer.pre_tokenizer
        parts = (
            [normalized] if pattern is None else [word for word, _ in pattern.pre_tokenize_str(normalized)]
        )
        return "\n\n\n".join(parts)

    @property
    def _unknown(self) -> str | None:
        """The unknown token; where every byte has a piece none is needed, and some special token takes its place."""
        named = self._json["model"].get("unk_token")
        if named is None and self.settings is not None:
            named = self.settings.config.get("unk_token")
        return named or next(iter(self.special_tokens), None)

    @cached_property
    def model(self) -> SentencePieceVocabulary:
        """The same pieces as a SentencePiece model: the earlier the first merge that makes a piece, the higher its score."""
        message, raw = proto.ModelProto(), self._json["model"]
        score = {text: -float(rank) for rank, text in enumerate(dict.fromkeys(map("".join, self.merges)))}
        has_bytes = bool(raw.get("byte_fallback"))
        message.trainer_spec.model_type = message.trainer_spec.BPE
        message.trainer_spec.byte_fallback = has_bytes
        message.normalizer_spec.name = "identity"
        message.normalizer_spec.add_dummy_prefix = self.words("one").startswith(SPACE)
        message.normalizer_spec.remove_extra_whitespaces = False
        for id in range(self.size):
            text = self.texts.get(id, f"<unused_{id}>")
            if text == self._unknown:
                message.trainer_spec.unk_id, message.trainer_spec.unk_piece = id, text
                type = _UNKNOWN
            elif id in self.added_tokens:
                type = _CONTROL if id in self.special_ids else _USER
            elif has_bytes and _is_byte(text):
                type = _BYTE
            else:
                type = _NORMAL if text in score or (len(text) == 1 and id in self.texts) else _UNUSED
            message.pieces.add(piece=text, score=score.get(text, 0.0), type=type)
        self._name_ends(message)
        return SentencePieceVocabulary(message.SerializeToString())

    def _name_ends(self, message: Any) -> None:
        ids = {piece.piece: id for id, piece in enumerate(message.pieces) if piece.type == _CONTROL}
        for role in ("bos", "eos", "pad"):
            text = self.settings.config.get(f"{role}_token") if self.settings is not None else None
            setattr(message.trainer_spec, f"{role}_id", ids.get(text, -1))
            if text in ids:
                setattr(message.trainer_spec, f"{role}_piece", text)

    @property
    def removable(self) -> set[int]:
        """Ordinary pieces, and single characters only where bytes can stand in for them."""
        return self.model.removable

    @cached_property
    def fallback_ids(self) -> frozenset[int]:
        """The byte pieces."""
        return self.model.byte_ids

    @cached_property
    def bare_tokenizer(self) -> Tokenizer:
        """The merges alone, without ▁ before a text."""
        steps = dict.fromkeys(("normalizer", "pre_tokenizer", "post_processor", "decoder"))
        return loaded(dumped({**self._json, **steps, "added_tokens": []}))

    @cached_property
    def _inside(self) -> Tokenizer:
        """The same for parts of a text."""
        return loaded(inside_a_text(self.content))

    def normalized(self, lines: Iterable[str]) -> Iterator[str]:
        """Each line, as a part of a text, as its normalizer writes it, with spaces for ▁."""
        normalizer = self._inside.normalizer
        if normalizer is None:
            yield from lines
            return
        for line in lines:
            yield normalizer.normalize_str(line).replace(SPACE, " ")

    def encode_by_merges(self, texts: Any) -> list[list[int]]:
        """The same as `encode`: there are no shortcuts for whole words."""
        return self.encode(texts)

    def display(self, id: int) -> str:
        """The text of a piece, in which a space is ▁."""
        return self.texts.get(id, "?")

    def has_character(self, character: str) -> bool:
        """Whether a character is a piece by itself."""
        return character in self.ids

    def fuzz_pieces(self) -> list[str]:
        """The text of all ordinary pieces."""
        return self.model.fuzz_pieces()

    def dead(self, ids: Iterable[int]) -> list[int]:
        """Those of the normal pieces `ids` that no merges can produce."""
        normal = [id for id in ids if self.model.pieces[id].kind == "normal"]
        encoded = self.bare_tokenizer.encode_batch_fast([self.texts[id] for id in normal])
        return [id for id, encoding in zip(normal, encoded, strict=True) if encoding.ids != [id]]

    def split(self, ids: Iterable[int]) -> list[int]:
        """Those of the normal pieces `ids` that do not reach the merges as one word."""
        texts = {id: self.texts[id] for id in ids if self.model.pieces[id].kind == "normal"}
        return [id for id, reason in zip(texts, self.why_changed(texts.values()), strict=True) if reason]

    def why_changed(self, pieces: Iterable[str]) -> Iterator[str | None]:
        """Why each piece's text, inside a longer one, does not reach the merges as one word; None where it does."""
        pattern = self._inside.pre_tokenizer
        texts = [piece.replace(SPACE, " ") for piece in pieces]
        for text, written in zip(texts, self.normalized(texts), strict=True):
            if written != text:
                yield "is changed by the base's normalizer"
            elif pattern is not None and len(pattern.pre_tokenize_str(text.replace(" ", SPACE))) != 1:
                yield "is split by the base's pattern"
            else:
                yield None

    def expansion(self, base: "MetaspaceVocabulary") -> None:
        """None: a piece can be reached by merges of several others."""
        return

    def extended(self, added: Iterable[AddedPiece]) -> "MetaspaceVocabulary":
        """The same with more pieces after every id; all their merges rank below the base's, control pieces become special."""
        raw, added = self._parsed(), list(added)
        vocabulary: dict[str, int] = raw["model"]["vocab"]
        for id, text in self.added_tokens.items():
            vocabulary.setdefault(text, id)
        for id, piece in enumerate(added, self.size):
            vocabulary[piece.text] = id
            if piece.kind == "control":
                raw["added_tokens"].append(special_token(id, piece.text))
        joinable = {*self.ids, *(piece.text for piece in added if piece.kind == "normal")}
        for piece in sorted(
            (p for p in added if p.kind == "normal"), key=lambda p: (-p.score, vocabulary[p.text])
        ):
            halves = ((piece.text[:at], piece.text[at:]) for at in range(len(piece.text) - 1, 0, -1))
            raw["model"]["merges"] += [[a, b] for a, b in halves if a in joinable and b in joinable]
        return replace(self, content=dumped(raw))

    def table_row(self, piece: AddedPiece) -> dict[str, str]:
        """An added piece, its rank below the base's as a score, and the reason."""
        return {"piece": piece.text, "score": f"{piece.score:g}", "why": piece.reason}


def is_metaspace(content: str) -> bool:
    """Whether a tokenizer.json spells bytes as byte pieces or spaces as ▁, and not in GPT-2's stand-in characters."""
    raw = parse_json(content, "tokenizer.json")
    model = raw.get("model", {})
    steps = json.dumps([raw.get("pre_tokenizer"), raw.get("decoder")])
    return "ByteLevel" not in steps and bool(
        model.get("byte_fallback")
        or SPACE in json.dumps(raw.get("normalizer"), ensure_ascii=False)
        or "Metaspace" in steps
    )


def _as_loaded(content: str, settings: FolderSettings) -> str:
    """The tokenizer.json as AutoTokenizer's class has rebuilt it, with the limits that the file stores."""
    backend = getattr(settings.tokenizer, "_tokenizer", None)
    if backend is None:
        return content
    stored: Mapping[str, Any] = parse_json(content, "tokenizer.json")
    limits = {key: stored.get(key) for key in ("truncation", "padding")}
    rebuilt = parse_row(backend.to_str())
    rebuilt["model"]["dropout"] = stored["model"].get("dropout")
    return dumped({**rebuilt, **limits})


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")
