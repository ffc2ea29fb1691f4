"""Compares a GGUF file in llama.cpp with the folder it was written from in transformers: tokens of text, and greedy answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from zhllama.errors import BrokenPromise
from zhllama.model.gguf_export import Quantization
from zhllama.model.llamacpp import LlamaCpp
from zhllama.model.load import open_model

PROMPT, ANSWER = 64, 16  # tokens of each prompt, and of each answer
REPORT = "Report this with config.json"
# The largest mean gap that rounding to these types explains (tests/test_export_gguf.py).
LIMITS: dict[Quantization, float] = {"f16": 0.02, "q8_0": 0.1, "q4_0": 1.0}


@dataclass(frozen=True)
class GgufProof:
    """How close llama.cpp's greedy tokens are to those of transformers in float32.

    `gguf_gap`: how far the logit of llama.cpp's token is below the largest one on average, in standard deviations of the
    logits; `gguf_agree`: the share of tokens that transformers ranks first too.
    """

    gguf_gap: float
    gguf_agree: float


def prove_gguf(folder: Path, path: Path, texts: Sequence[str], kind: Quantization) -> GgufProof | None:
    """Compare llama.cpp's greedy answers to the beginnings of texts; None where xllamacpp is not installed.

    Raises BrokenPromise where llama.cpp tokenizes text differently, and where the gap exceeds what rounding explains.
    """
    import torch

    if find_spec("xllamacpp") is None:
        return None
    llama = LlamaCpp(path, context=4 * PROMPT)
    model, tokenizer = open_model(folder, dtype=torch.float32)
    gaps, first = [], []
    for text in texts:
        ids = tokenizer(text).input_ids
        if llama.call("/tokenize", {"content": text, "add_special": True})["tokens"] != ids:
            raise BrokenPromise(path, "tokenizes text differently in llama.cpp", REPORT)
        prompt = ids[:PROMPT]
        request = {"prompt": prompt, "n_predict": ANSWER, "temperature": 0, "return_tokens": True,
                   "ignore_eos": True, "cache_prompt": False}  # fmt: skip
        answer = llama.call("/completion", request)["tokens"]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([prompt + answer]), use_cache=False).logits[0]
        logits = logits[len(prompt) - 1 : -1]
        chosen = logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
        gaps.append((logits.amax(1) - chosen) / logits.std(1))
        first.append(logits.argmax(1) == torch.tensor(answer))
    proof = GgufProof(float(torch.cat(gaps).mean()), float(torch.cat(first).float().mean()))
    if not proof.gguf_gap <= LIMITS[kind]:  # NaN must fail too
        reason = (
            f"their logits are {proof.gguf_gap:.2g} standard deviations too low, {LIMITS[kind]:g} allowed"
        )
        raise BrokenPromise(path, f"writes other tokens in llama.cpp than in transformers: {reason}", REPORT)
    return proof
