"""The tokenizer inside a GGUF file of llama.cpp, read without its weights.

Format: ggml/docs/gguf.md. Keys `tokenizer.ggml.*`: `model` is "llama" for SentencePiece BPE and "gpt2" for byte-level
BPE, whose pattern `pre` names (llama.cpp, src/llama-vocab.cpp).
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from sentencepiece import sentencepiece_model_pb2 as proto
from tokenizers import Tokenizer

from zhllama.errors import InputError
from zhllama.vocab.byte_level_json import CL100K, GPT2, O200K, QWEN, TEKKEN, byte_level
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary

MAGIC = b"GGUF"
LONGEST = 1 << 28  # bytes of one string or entries of one array; more is a broken file
CONTROL, USER = 3, 4  # entries of tokenizer.ggml.token_type, numbered as SentencePiece's
_SCALARS = (
    "B",
    "b",
    "H",
    "h",
    "I",
    "i",
    "f",
    "?",
    "",
    "",
    "Q",
    "q",
    "d",
)  # by type; 8 is a string, 9 an array
_PATTERNS = {
    "default": [GPT2],
    "gpt-2": [GPT2],
    "smollm": [r"\p{N}", GPT2],
    "llama-bpe": [CL100K],
    "qwen2": [QWEN],
    "tekken": [TEKKEN],
    "gpt-4o": [O200K],
}


def read_gguf(path: Path) -> SentencePieceVocabulary | Tokenizer:
    """The tokenizer of a GGUF file; InputError where the file is broken or its tokenizer is of another kind."""
    found = {
        key.removeprefix("tokenizer.ggml."): value
        for key, value in _metadata(path)
        if key.startswith("tokenizer.ggml.")
    }
    kind = found.get("model")
    try:
        if kind == "llama":
            model = _sentencepiece(found)
            model.processor  # noqa: B018 - SentencePiece's own checks are the last word
            return model
        if kind == "gpt2":
            return _byte_level(path, found)
    except KeyError as error:
        raise InputError(path, f"has a tokenizer that lacks its {error}", "Convert the model again") from None
    except (TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        told = " ".join(str(error).split())[:120]
        raise InputError(path, f"has a broken tokenizer ({told})", "Convert the model again") from None
    known = "llama (SentencePiece BPE) and gpt2 (byte-level BPE)"
    told = "holds no tokenizer" if kind is None else f"holds a tokenizer of the kind {str(kind)[:40]!r}"
    raise InputError(path, told, f"Known are {known}; give its tokenizer.json")


def _sentencepiece(found: dict[str, Any]) -> SentencePieceVocabulary:
    message = proto.ModelProto()
    message.trainer_spec.model_type = message.trainer_spec.BPE
    message.trainer_spec.byte_fallback = 6 in found["token_type"]
    message.normalizer_spec.name = "identity"
    message.normalizer_spec.add_dummy_prefix = found.get("add_space_prefix", True)
    message.normalizer_spec.remove_extra_whitespaces = found.get("remove_extra_whitespaces", False)
    for text, score, kind in zip(found["tokens"], found["scores"], found["token_type"], strict=True):
        message.pieces.add(piece=text, score=score, type=kind)
    return SentencePieceVocabulary(message.SerializeToString())


def _byte_level(path: Path, found: dict[str, Any]) -> Tokenizer:
    pre = found.get("pre", "default")
    if pre not in _PATTERNS:
        raise InputError(
            path,
            f"splits text as {pre!r}, which is not known here",
            f"Known are: {', '.join(_PATTERNS)}; give its tokenizer.json",
        )
    kinds = found["token_type"]
    ids = {text: id for id, text in enumerate(found["tokens"])}
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in found["merges"])]
    specials = [(id, text) for text, id in ids.items() if kinds[id] in (CONTROL, USER)]
    return byte_level(ids, merges, _PATTERNS[pre], specials, whole=pre == "llama-bpe")


def _metadata(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        with path.open("rb") as file:
            if file.read(4) != MAGIC:
                raise ValueError("no GGUF")
            version, _, entries = _read(file, "IQQ")
            if version not in (2, 3):
                raise ValueError(f"version {version}")
            for _ in range(entries):
                key = _string(file)
                yield key, _value(file, *_read(file, "I"))
    except (ValueError, struct.error, UnicodeDecodeError, IndexError, MemoryError) as error:
        raise InputError(path, f"is cut off or not a GGUF file ({error})", "Fetch the file again") from None


def _read(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(f"<{layout}", file.read(struct.calcsize(f"<{layout}")))


def _string(file: BinaryIO) -> str:
    (length,) = _read(file, "Q")
    if length > LONGEST:
        raise ValueError(f"a string of {length} bytes")
    return file.read(length).decode("utf-8", "replace")


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == 8:
        return _string(file)
    if kind != 9:
        return _read(file, _SCALARS[kind])[0]
    inner, length = _read(file, "IQ")
    if length > LONGEST:
        raise ValueError(f"an array of {length} entries")
    if inner in (8, 9):
        return [_value(file, inner) for _ in range(length)]
    return list(_read(file, f"{length}{_SCALARS[inner]}"))
