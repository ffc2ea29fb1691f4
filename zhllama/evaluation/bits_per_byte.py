"""How many bits a model needs for a text, per byte and per character: what compares across vocabularies."""

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
    """The whole loss of a text under a model, and the sizes it is shared by."""

    bits: float
    tokens: int
    bytes: int
    characters: int
    unknown: int = (
        0  # tokens that stand for text the vocabulary cannot spell: above 0, the bits flatter the model
    )

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
    advance: Callable[[float], None] | None = None,  # told how many characters were scored
) -> BitsPerByte:
    """The bits of `text` under a transformers model, every token scored exactly once.

    A window slides by `stride` tokens and scores those it has not seen, so each has `window - stride` tokens before it
    or all there are. The first is read after the model's BOS (else EOS), so that no model gets its first token free.
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

    def told(tokens: float) -> None:
        if advance is not None:
            advance(tokens * len(text) / len(ids))

    nats = sum_of_losses(model, [_before(model), *ids], window, stride, told)
    unknown = sum(not tokenizer.surface(id) for id in ids)
    return BitsPerByte(nats / math.log(2), len(ids), len(text.encode()), len(text), unknown)


def sum_of_losses(
    model: Any, ids: Sequence[int], window: int, stride: int, advance: Callable[[float], None]
) -> float:
    """The summed negative log-likelihood, in nats, of all ids but the first."""
    import torch

    device = model.get_input_embeddings().weight.device
    total, scored = 0.0, 1
    with torch.inference_mode():
        while scored < len(ids):
            # A window that begins where the text does scores all it sees; each later one its last `stride`.
            end = min(len(ids), window + 1 if scored == 1 else scored + stride)
            begin = max(0, end - 1 - window)
            seen = torch.tensor([list(ids[begin : end - 1])], device=device)
            logits = model(input_ids=seen, use_cache=False, logits_to_keep=end - scored).logits[0].float()
            asked = torch.tensor(list(ids[scored:end]), device=device)
            total += float(torch.nn.functional.cross_entropy(logits, asked, reduction="sum"))
            advance(end - scored)
            scored = end
    return total


def read_text(path: Path, limit: int | None = None) -> str:
    """A file's documents as one text, a blank line between them; its first `limit` characters."""
    parts: list[str] = []
    held = 0
    for document in read_documents([path]):
        parts.append(document)
        held += len(document) + 2
        if limit is not None and held >= limit:
            break
    return "\n\n".join(parts)[:limit]


def _before(model: Any) -> int:
    """The id that stands before a text."""
    config = model.config
    for id in (config.bos_token_id, config.eos_token_id):
        if isinstance(id, list):
            id = id[0]
        if id is not None:
            return int(id)
    raise InputError(
        config.model_type, "has neither BOS nor EOS in its config", "Set bos_token_id in config.json"
    )
