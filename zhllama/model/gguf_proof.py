"""Compares a GGUF file in llama.cpp with the folder it was written from in transformers: tokens of text, and greedy answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhllama.errors import BrokenPromise
from zhllama.io.gguf import read_metadata
from zhllama.model.gguf_converted import (
    ANOTHER_VERSION,
    converted,
    converter_of,
    quantize_file,
    quantized_rounding,
)
from zhllama.model.gguf_export import file_weights, write_gguf
from zhllama.model.gguf_types import Quantization, is_mixture
from zhllama.model.llamacpp import LlamaCpp, loading_fault
from zhllama.model.llamacpp_quantizer import relative_difference
from zhllama.model.load import open_model

if TYPE_CHECKING:
    import torch

PROMPT, ANSWER = 64, 16  # tokens of each prompt, and of each answer
SECONDS = 600.0  # for one answer
REPORT = "Report this with config.json"
# The relative rounding of one product: of float16, and of activations, which llama.cpp rounds to 8 bits in blocks of 32
# values for the plain types and of 256 for the K types. Over 16 layers of random weights gaps of 0.24 and 0.56 add up, over
# the 30 of SmolLM2-135M 0.10 and 0.12.
HALF, IN_BLOCKS, IN_LARGE_BLOCKS = 2**-10, 2**-5, 2**-4
ROUNDINGS = 16  # how many of them may add up in a logit, in standard deviations of the logits
# The largest RMS of a tensor's rounding over the RMS of its values: more than twice that of normally distributed values,
# since values far from the others make the steps of their blocks larger.
WEIGHTS: dict[Quantization, float] = {
    "q8_0": 0.02, "q6_k": 0.05, "q5_k_m": 0.1, "q5_k_s": 0.1, "q4_k_m": 0.2, "q4_k_s": 0.2, "q4_0": 0.25, "q3_k_l": 0.4,
    "q3_k_m": 0.4, "q3_k_s": 0.4, "q2_k": 0.7,
}  # fmt: skip


@dataclass(frozen=True)
class GgufProof:
    """How close llama.cpp's greedy tokens are to those of transformers in float32.

    `gguf_gap`: how far the logit of a token of llama.cpp is at most below the largest one, in standard deviations of the
    logits that transformers computes with the weights of the file; `gguf_limit`: the largest gap that rounding explains;
    `gguf_agree`: the share of tokens that the model itself ranks first too; `gguf_weights`: of a quantized file, the
    largest RMS of a tensor's rounding over the RMS of its values.
    """

    gguf_gap: float
    gguf_limit: float
    gguf_agree: float
    gguf_weights: float | None = None


@dataclass(frozen=True)
class Untried:
    """A file that was written, and why llama.cpp did not try it."""

    reason: str


NOT_INSTALLED = Untried(reason="the package xllamacpp is not installed")
UNKNOWN = "unknown model architecture"  # in llama.cpp's own words


@dataclass(frozen=True)
class Answer:
    """A prompt's ids and llama.cpp's greedy continuation; `forbidden` ids were not to be chosen."""

    prompt: list[int]
    tokens: list[int]
    forbidden: list[int]


def write_and_prove(
    folder: Path,
    path: Path,
    texts: Sequence[str],
    kind: Quantization,
    advance: Callable[[float], None],
    stage: Callable[[str], None],
) -> GgufProof | Untried:
    """Write the model in `folder` to the file `path`, and compare it with the folder.

    What llama.cpp's converter writes is compared in float16, before it is quantized: its tensors have an order that is known
    to the converter alone. Errors: those of `write_any_gguf`, BrokenPromise.
    """
    stage("writing the GGUF file")
    converter = converter_of(folder)
    if converter is None:
        write_gguf(folder, path, kind, advance)
        stage("comparing llama.cpp with transformers")
        return prove_gguf(folder, path, texts, kind)
    with converted(converter, folder, path) as half:
        stage("comparing llama.cpp with transformers")
        proof = _prove_half(folder, half, texts)
        if kind == "f16":
            half.replace(path)
            return proof
        stage("writing the GGUF file")
        quantize_file(half, path, folder, kind, advance)
        rounding = quantized_rounding(half, path, WEIGHTS[kind])
    if isinstance(proof, Untried):
        return proof
    stage("comparing llama.cpp with transformers")
    model, tokenizer = _open(folder)
    agree = float((_gaps(model, greedy_answers(path, texts, model, tokenizer)) == 0).float().mean())
    return replace(proof, gguf_agree=agree, gguf_weights=rounding)


def _prove_half(folder: Path, half: Path, texts: Sequence[str]) -> GgufProof | Untried:
    """The proof of a converted file; BrokenPromise where llama.cpp does not load it although it knows its architecture."""
    if find_spec("xllamacpp") is None:
        return NOT_INSTALLED
    fault = loading_fault(half)  # in another process, which llama.cpp may end
    if fault is None:
        return compare_gguf(folder, half, texts, HALF)
    message = f"cannot be loaded by llama.cpp ({fault})"
    if UNKNOWN in fault:
        return Untried(reason=message)
    raise BrokenPromise(half, message, ANOTHER_VERSION)


def prove_gguf(folder: Path, path: Path, texts: Sequence[str], kind: Quantization) -> GgufProof | Untried:
    """Compare a file of the type `kind`, which zhllama wrote itself, with the folder it was written from.

    A quantized file is read back by gguf-py: its weights must be the folder's after one rounding to the file's types, and
    llama.cpp must write what transformers writes with these weights. Raises BrokenPromise.
    """
    if find_spec("xllamacpp") is None:
        return NOT_INSTALLED
    if kind == "f16":
        return compare_gguf(folder, path, texts, HALF)
    model, tokenizer = _open(folder)
    answers = greedy_answers(path, texts, model, tokenizer)
    agree = float((_gaps(model, answers) == 0).float().mean())
    rounding = take_weights(model, folder, path, WEIGHTS[kind])
    gap = float(_gaps(model, answers).max())
    limit = ROUNDINGS * (IN_LARGE_BLOCKS if is_mixture(kind) else IN_BLOCKS)
    return _checked(path, GgufProof(gap, limit, agree, rounding))


def compare_gguf(folder: Path, path: Path, texts: Sequence[str], rounding: float) -> GgufProof:
    """Compare llama.cpp's greedy answers to the beginnings of texts with the logits of transformers.

    Both read the same prompt ids, llama.cpp with a cache in float32, and neither may choose a special token. A near tie,
    a gap up to ROUNDINGS times the relative `rounding` of a product, is no difference.
    Raises BrokenPromise where llama.cpp tokenizes text differently, and where a token's gap is larger.
    """
    model, tokenizer = _open(folder)
    gaps = _gaps(model, greedy_answers(path, texts, model, tokenizer))
    return _checked(
        path, GgufProof(float(gaps.max()), ROUNDINGS * rounding, float((gaps == 0).float().mean()))
    )


def _open(folder: Path) -> tuple[Any, Any]:
    import torch

    opened = open_model(folder, dtype=torch.float32)
    return opened.model, opened.tokenizer


def greedy_answers(path: Path, texts: Sequence[str], model: Any, tokenizer: Any) -> list[Answer]:
    """llama.cpp's greedy answers to the beginnings of texts; BrokenPromise where it tokenizes a text differently."""
    import torch

    llama = LlamaCpp(path, context=4 * PROMPT, threads=torch.get_num_threads(), exact=True)
    metadata = read_metadata(path, "")
    context = metadata[f"{metadata['general.architecture']}.context_length"]
    longest = min(PROMPT, context - ANSWER)
    rows = model.config.get_text_config().vocab_size
    forbidden = [id for id in sorted(_special_ids(model, tokenizer)) if id < rows]
    answers = []
    for text in texts:
        ids = tokenizer(text).input_ids
        if llama.call("/tokenize", {"content": text, "add_special": True})["tokens"] != ids:
            raise BrokenPromise(path, "tokenizes text differently in llama.cpp", REPORT)
        prompt = ids[:longest]
        request = {"prompt": prompt, "n_predict": ANSWER, "temperature": 0, "return_tokens": True,
                   "logit_bias": [[id, False] for id in forbidden], "cache_prompt": False}  # fmt: skip
        answers.append(Answer(prompt, llama.call("/completion", request, SECONDS)["tokens"], forbidden))
    return answers


def _gaps(model: Any, answers: Sequence[Answer]) -> "torch.Tensor":
    """How far the logit of each token of the answers is below the largest, in standard deviations of the logits."""
    import torch

    gaps = []
    for answer in answers:
        with torch.no_grad():
            ids = torch.tensor([answer.prompt + answer.tokens])
            logits = model(input_ids=ids, use_cache=False).logits[0, len(answer.prompt) - 1 : -1]
        spread = logits.std(1)
        logits[:, answer.forbidden] = -torch.inf
        chosen = logits.gather(1, torch.tensor(answer.tokens)[:, None])[:, 0]
        gaps.append((logits.amax(1) - chosen) / spread)
    return torch.cat(gaps)


def take_weights(model: Any, folder: Path, path: Path, limit: float) -> float:
    """Replace the model's weights by those of a file that was written from its folder; return the largest rounding.

    Raises BrokenPromise for a tensor whose rounding has an RMS above `limit` times the RMS of its values.
    """
    import torch

    parameters, largest = dict(model.named_parameters(remove_duplicate=False)), 0.0
    for name, values in file_weights(folder, path):
        if name not in parameters:
            continue
        parameter = parameters[name].data
        rounding = relative_difference(values, parameter.numpy())
        if not rounding <= limit:  # NaN must fail too
            reason = f"stores {name} with a rounding of {rounding:.2g} of its size, {limit:.2g} allowed"
            raise BrokenPromise(path, reason, REPORT)
        parameter.copy_(torch.from_numpy(values.copy()))
        largest = max(largest, rounding)
    return largest


def _checked(path: Path, proof: GgufProof) -> GgufProof:
    """The proof; BrokenPromise where the gap is above its limit."""
    if not proof.gguf_gap <= proof.gguf_limit:  # NaN must fail too
        reason = f"the logit of a token is {proof.gguf_gap:.2g} standard deviations below the largest, {proof.gguf_limit:.2g} allowed"
        raise BrokenPromise(path, f"writes other tokens in llama.cpp than in transformers: {reason}", REPORT)
    return proof


def _special_ids(model: Any, tokenizer: Any) -> set[int]:
    """The special tokens, after which llama.cpp would end its answer."""
    ends = model.generation_config.eos_token_id
    return {*tokenizer.all_special_ids, *(ends if isinstance(ends, list) else [] if ends is None else [ends])}
