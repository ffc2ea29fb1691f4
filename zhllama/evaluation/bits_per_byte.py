"""Bits per byte and bits per character: unlike per-token loss, comparable across vocabularies."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhllama.errors import InputError, OptionError
from zhllama.io.text import read_documents
from zhllama.vocab.any_tokenizer import AnyTokenizer


@dataclass(frozen=True)
class BitsPerByte:
    """The total loss of a text under a model, in bits, and the size of the text."""

    bits: float
    tokens: int
    bytes: int
    characters: int
    # Tokens of text that the vocabulary cannot represent. If above 0, the bits are too low to compare.
    unknown: int = 0

    @property
    def per_byte(self) -> float:
        return self.bits / self.bytes

    @property
    def per_character(self) -> float:
        return self.bits / self.characters


def measure_bits(
    model: Any,
    tokenizer: AnyTokenizer,
    text: str,
    *,
    window: int = 1024,
    stride: int = 512,
    advance: Callable[[float], None] | None = None,  # called with the number of newly scored characters
) -> BitsPerByte:
    """The bits of `text` under a transformers model; every token is scored exactly once.

    A window slides by `stride` tokens and scores the new ones, so that each has at least `window - stride` tokens of
    context, or the whole text before it. The first token is scored after BOS (or EOS, if the model has no BOS).
    Errors: InputError for ids beyond the model's rows, OptionError.
    """
    if not 0 < stride <= window - 1:
        raise OptionError(
            "stride", f"{stride} does not lie between 1 and the window {window}", "Give half the window"
        )
    (ids,) = tokenizer.encode([text])
    if not ids:
        raise InputError("text", "is empty", "Give a text")
    rows = model.get_input_embeddings().weight.shape[0]
    if max(ids) >= rows:
        raise InputError(
            "tokenizer", f"gives id {max(ids)} and the model has {rows} rows", "Grow the model first"
        )

    def advance_by_tokens(tokens: float) -> None:
        if advance is not None:
            advance(tokens * len(text) / len(ids))

    nats = sum_of_losses(model, [_bos_id(model), *ids], window, stride, advance_by_tokens)
    unknown = sum(not tokenizer.surface(id) for id in ids)
    return BitsPerByte(nats / math.log(2), len(ids), len(text.encode()), len(text), unknown)


def sum_of_losses(
    model: Any, ids: Sequence[int], window: int, stride: int, advance: Callable[[float], None]
) -> float:
    """The summed negative log-likelihood, in nats, of all ids except the first."""
    import torch

    device = model.get_input_embeddings().weight.device
    total, scored = 0.0, 1
    with torch.inference_mode():
        while scored < len(ids):
            # The first window scores all its tokens; each later one only its last `stride`.
            end = min(len(ids), window + 1 if scored == 1 else scored + stride)
            begin = max(0, end - 1 - window)
            inputs = torch.tensor([list(ids[begin : end - 1])], device=device)
            logits = model(input_ids=inputs, use_cache=False, logits_to_keep=end - scored).logits[0].float()
            targets = torch.tensor(list(ids[scored:end]), device=device)
            total += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
            advance(end - scored)
            scored = end
    return total


def read_text(path: Path, limit: int | None = None) -> str:
    """The first `limit` characters of a file's documents, joined by blank lines."""
    parts: list[str] = []
    length = 0
    for document in read_documents([path]):
        parts.append(document)
        length += len(document) + 2
        if limit is not None and length >= limit:
            break
    return "\n\n".join(parts)[:limit]


def _bos_id(model: Any) -> int:
    """The id before the first token of a text: BOS, else EOS. Errors: InputError for none, and for one without a row."""
    config, rows = model.config, model.get_input_embeddings().weight.shape[0]
    place = config.name_or_path or config.model_type
    # A model with vision or audio names them in the config of its language model, or in both.
    parts = (config, config.get_text_config())
    for key in ("bos_token_id", "eos_token_id"):
        given = (getattr(part, key, None) for part in parts)
        ids = next((ids for ids in given if ids is not None), None)
        id = ids[0] if isinstance(ids, list) and ids else ids
        if type(id) is int and 0 <= id < rows:
            return id
        if id not in (None, []):
            message = f"has {id!r} as its {key}, and the model has {rows:,} rows"
            raise InputError(place, message, "Correct it in config.json")
    raise InputError(place, "has neither BOS nor EOS in its config", "Set bos_token_id in config.json")
