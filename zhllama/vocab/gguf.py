"""Reads the tokenizer of a llama.cpp GGUF file without reading its weights.

Format: ggml/docs/gguf.md. Keys `tokenizer.ggml.*`: `model` is "llama" for SentencePiece BPE and "gpt2" for byte-level
BPE, whose pattern `pre` names (llama.cpp, src/llama-vocab.cpp).
"""

from pathlib import Path
from typing import Any

from sentencepiece import sentencepiece_model_pb2 as proto
from tokenizers import Tokenizer

from zhllama.errors import InputError
from zhllama.io.gguf import read_metadata
from zhllama.vocab.byte_level_json import CL100K, DIGIT, GPT2, O200K, QWEN, TEKKEN, byte_level
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary

_KEYS = {"unk": "unknown", "pad": "padding"}  # llama.cpp's names of special tokens
CONTROL, USER = 3, 4  # entries of tokenizer.ggml.token_type, numbered as in SentencePiece
_PATTERNS = {
    "default": [GPT2],
    "gpt-2": [GPT2],
    "smollm": [DIGIT, GPT2],
    "llama-bpe": [CL100K],
    "qwen2": [QWEN],
    "tekken": [TEKKEN],
    "gpt-4o": [O200K],
}


def read_gguf(path: Path) -> SentencePieceVocabulary | Tokenizer:
    """The tokenizer of a GGUF file; InputError where the file is broken or its tokenizer is of an unknown kind."""
    metadata = read_metadata(path, "tokenizer.ggml.")
    kind = metadata.get("model")
    try:
        if kind == "llama":
            model = _sentencepiece(metadata)
            model.processor  # noqa: B018 - SentencePiece's own checks are the last word
            return model
        if kind == "gpt2":
            return _byte_level(path, metadata)
    except KeyError as error:
        raise InputError(path, f"has a tokenizer that lacks its {error}", "Convert the model again") from None
    except (TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        message = " ".join(str(error).split())[:120]
        raise InputError(path, f"has a broken tokenizer ({message})", "Convert the model again") from None
    known = "llama (SentencePiece BPE) and gpt2 (byte-level BPE)"
    message = "contains no tokenizer" if kind is None else f"contains a tokenizer of kind {str(kind)[:40]!r}"
    raise InputError(path, message, f"Known are {known}; give its tokenizer.json")


def _sentencepiece(metadata: dict[str, Any]) -> SentencePieceVocabulary:
    message = proto.ModelProto()
    message.trainer_spec.model_type = message.trainer_spec.BPE
    message.trainer_spec.byte_fallback = 6 in metadata["token_type"]
    message.normalizer_spec.name = "identity"
    message.normalizer_spec.add_dummy_prefix = metadata.get("add_space_prefix", True)
    message.normalizer_spec.remove_extra_whitespaces = metadata.get("remove_extra_whitespaces", False)
    for role in ("bos", "eos", "unk", "pad"):
        id = metadata.get(f"{_KEYS.get(role, role)}_token_id")
        if isinstance(id, int) and id < len(metadata["tokens"]):
            setattr(message.trainer_spec, f"{role}_id", id)
            setattr(message.trainer_spec, f"{role}_piece", metadata["tokens"][id])
    for text, score, kind in zip(metadata["tokens"], metadata["scores"], metadata["token_type"], strict=True):
        message.pieces.add(piece=text, score=score, type=kind)
    return SentencePieceVocabulary(message.SerializeToString())


def _byte_level(path: Path, metadata: dict[str, Any]) -> Tokenizer:
    pre = metadata.get("pre", "default")
    if pre not in _PATTERNS:
        raise InputError(
            path,
            f"splits text by the unknown pattern {pre!r}",
            f"Known are: {', '.join(_PATTERNS)}; give its tokenizer.json",
        )
    kinds, tokens = metadata["token_type"], metadata["tokens"]
    ids = {text: id for id, text in enumerate(tokens)}
    if len(kinds) != len(tokens) or len(ids) != len(tokens):
        raise ValueError(f"{len(tokens)} tokens, {len(ids)} of them different, and {len(kinds)} types")
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in metadata["merges"])]
    for left, right in merges:
        if missing := [text for text in (left, right, left + right) if text not in ids]:
            message = f"the merge {ascii(left + ' ' + right)[:80]} needs {ascii(missing[0])[:60]}"
            raise ValueError(f"{message}, which is not in the vocabulary")
    specials = [(id, text) for text, id in ids.items() if kinds[id] in (CONTROL, USER)]
    return byte_level(ids, merges, _PATTERNS[pre], specials, whole=pre in ("llama-bpe", "tekken"))
