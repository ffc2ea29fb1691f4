"""The tokenizer inside a GGUF file of llama.cpp, read without its weights.

Format: ggml/docs/gguf.md. Keys `tokenizer.ggml.*`: `model` is "llama" for SentencePiece BPE and "gpt2" for byte-level
BPE, whose pattern `pre` names (llama.cpp, src/llama-vocab.cpp).
"""

from pathlib import Path
from typing import Any

from sentencepiece import sentencepiece_model_pb2 as proto
from tokenizers import Tokenizer

from zhllama.errors import InputError
from zhllama.io.gguf import read_metadata
from zhllama.vocab.byte_level_json import CL100K, GPT2, O200K, QWEN, TEKKEN, byte_level
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary

CONTROL, USER = 3, 4  # entries of tokenizer.ggml.token_type, numbered as SentencePiece's
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
    found = read_metadata(path, "tokenizer.ggml.")
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
    kinds, tokens = found["token_type"], found["tokens"]
    ids = {text: id for id, text in enumerate(tokens)}
    if len(kinds) != len(tokens) or len(ids) != len(tokens):
        raise ValueError(f"{len(tokens)} tokens, {len(ids)} of them different, and {len(kinds)} types")
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in found["merges"])]
    for left, right in merges:
        if strange := [text for text in (left, right, left + right) if text not in ids]:
            told = f"the merge {ascii(left + ' ' + right)[:80]} needs {ascii(strange[0])[:60]}"
            raise ValueError(f"{told}, which is not in the vocabulary")
    specials = [(id, text) for text, id in ids.items() if kinds[id] in (CONTROL, USER)]
    return byte_level(ids, merges, _PATTERNS[pre], specials, whole=pre == "llama-bpe")
