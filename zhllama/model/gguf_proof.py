"""Compares a GGUF file in llama.cpp with the folder it was written from in transformers: tokens of text, and greedy answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zhllama.errors import BrokenPromise
from zhllama.model.gguf_export import Quantization
from zhllama.model.llamacpp import LlamaCpp
from zhllama.model.load import open_model

PROMPT, ANSWER = 64, 16  # tokens of each prompt, and of each answer
SECONDS = 600.0  # for one answer
REPORT = "Report this with config.json"
# The relative rounding of one product with weights of each type; llama.cpp rounds activations too.
ROUNDING: dict[Quantization, float] = {"f16": 2**-10, "q8_0": 2**-7, "q4_0": 2**-3}
ROUNDINGS = 16  # how many of them may add up in a logit, in standard deviations of the logits


@dataclass(frozen=True)
class GgufProof:
    """How close llama.cpp's greedy tokens are to those of transformers in float32.

    `gguf_gap`: how far the logit of a token of llama.cpp is at most below the largest one, in standard deviations of the
    logits; `gguf_limit`: the largest gap that rounding to the file's type explains; `gguf_agree`: the share of tokens that
    transformers ranks first too.
    """

    gguf_gap: float
    gguf_limit: float
    gguf_agree: float


def prove_gguf(folder: Path, path: Path, texts: Sequence[str], kind: Quantization) -> GgufProof | None:
    """Compare a file of the type `kind` with the folder it was written from; None where xllamacpp is not installed."""
    return None if find_spec("xllamacpp") is None else compare_gguf(folder, path, texts, ROUNDING[kind])


def compare_gguf(folder: Path, path: Path, texts: Sequence[str], rounding: float) -> GgufProof:
    """Compare llama.cpp's greedy answers to the beginnings of texts with the logits of transformers.

    Both read the same prompt ids, llama.cpp with a cache in float32, and neither may choose a special token. A near tie,
    a gap up to ROUNDINGS times the relative `rounding` of a product, is no difference.
    Raises BrokenPromise where llama.cpp tokenizes text differently, and where a token's gap is larger.
    """
    import torch

    llama = LlamaCpp(path, context=4 * PROMPT, threads=torch.get_num_threads())
    model, tokenizer = open_model(folder, dtype=torch.float32)
    forbidden = [
        id for id in sorted(_special_ids(model, tokenizer)) if id < model.config.get_text_config().vocab_size
    ]
    limit = ROUNDINGS * rounding
    gaps = []
    for text in texts:
        ids = tokenizer(text).input_ids
        if llama.call("/tokenize", {"content": text, "add_special": True})["tokens"] != ids:
            raise BrokenPromise(path, "tokenizes text differently in llama.cpp", REPORT)
        prompt = ids[:PROMPT]
        request = {"prompt": prompt, "n_predict": ANSWER, "temperature": 0, "return_tokens": True,
                   "logit_bias": [[id, False] for id in forbidden], "cache_prompt": False}  # fmt: skip
        answer = llama.call("/completion", request, SECONDS)["tokens"]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + answer]), use_cache=False).logits[0]
        logits = logits[len(prompt) - 1 : -1]
        spread = logits.std(1)
        logits[:, forbidden] = -torch.inf
        chosen = logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
        gaps.append((logits.amax(1) - chosen) / spread)
    gap = torch.cat(gaps)
    proof = GgufProof(float(gap.max()), limit, float((gap == 0).float().mean()))
    if not proof.gguf_gap <= limit:  # NaN must fail too
        reason = f"the logit of a token is {proof.gguf_gap:.2g} standard deviations below the largest, {limit:.2g} allowed"
        raise BrokenPromise(path, f"writes other tokens in llama.cpp than in transformers: {reason}", REPORT)
    return proof


def _special_ids(model: Any, tokenizer: Any) -> set[int]:
    """The special tokens, after which llama.cpp would end its answer."""
    ends = model.generation_config.eos_token_id
    return {*tokenizer.all_special_ids, *(ends if isinstance(ends, list) else [] if ends is None else [ends])}
