"""The engines whose serving speed is measured: a model in transformers, and its GGUF file in llama.cpp."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from zhllama.evaluation.serving import Passage, ReplyTime
from zhllama.model.chain import Chain
from zhllama.model.export import merge_chain
from zhllama.model.gguf_converted import write_any_gguf
from zhllama.model.gguf_types import Quantization
from zhllama.model.llamacpp import LlamaCpp

SECONDS = 3600.0  # for one reply of llama.cpp


class TransformersEngine:
    """A model of transformers that writes a given reply token by token, greedily computed and replaced."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._cache_bytes = 0.0

    def reply(self, passage: Passage) -> ReplyTime:
        """The prompt in one pass, then each token of the reply in a pass of its own with the KV cache."""
        import torch

        device = self._model.get_input_embeddings().weight.device
        cache = None

        def read(*ids: int) -> None:
            nonlocal cache
            output = self._model(
                input_ids=torch.tensor([ids], device=device), past_key_values=cache, use_cache=True, logits_to_keep=1
            )  # fmt: skip
            cache = output.past_key_values
            int(output.logits[0, -1].argmax())  # waits for the device

        with torch.inference_mode():
            start = time.perf_counter()
            read(*passage.prompt)
            first = time.perf_counter()
            for id in passage.reply[:-1]:
                read(id)
            end = time.perf_counter()
        self._cache_bytes = _tensor_bytes(cache) / (len(passage.prompt) + len(passage.reply) - 1)
        return ReplyTime(first - start, end - first)

    def cache_bytes(self) -> float:
        return self._cache_bytes


def _tensor_bytes(cache: Any) -> int:
    """Bytes of all tensors in the layers of a cache of transformers."""
    import torch

    values = [value for layer in cache.layers for value in vars(layer).values()]
    return sum(value.nbytes for value in values if isinstance(value, torch.Tensor))


class LlamaCppEngine:
    """A GGUF file in llama.cpp, which writes as many tokens of its own as the reply has, and tells its times."""

    def __init__(self, path: Path, context: int, threads: int, folder: Path) -> None:
        """`folder` is an empty one for the cache, whose size is measured by saving it."""
        self._llama = LlamaCpp(path, context=context, threads=threads, slots=folder)

    def reply(self, passage: Passage) -> ReplyTime:
        request = {"prompt": list(passage.prompt), "n_predict": len(passage.reply), "temperature": 0,
                   "ignore_eos": True, "cache_prompt": False}  # fmt: skip
        times = self._llama.call("/completion", request, SECONDS)["timings"]
        assert (times["prompt_n"], times["predicted_n"]) == (len(passage.prompt), len(passage.reply))
        return ReplyTime(times["prompt_ms"] / 1e3, times["predicted_ms"] / 1e3)

    def cache_bytes(self) -> float:
        saved = self._llama.call("/slots/0?action=save", {"filename": "cache"}, SECONDS)
        return float(saved["n_written"] / saved["n_saved"])


@contextmanager
def llamacpp_engine(chain: Chain, kind: Quantization, context: int, threads: int) -> Iterator[LlamaCppEngine]:
    """The model of a chain in llama.cpp, from a temporary GGUF file.

    Errors: those of `write_any_gguf` and of merging the chain; MissingPackage.
    """
    with TemporaryDirectory(prefix="zhllama-serving-") as name:
        folder, path, slots = Path(name, "merged"), Path(name, "model.gguf"), Path(name, "slots")
        slots.mkdir()
        if chain.runs:
            merge_chain(chain, folder)
        write_any_gguf(folder if chain.runs else chain.base, path, kind)
        yield LlamaCppEngine(path, context, threads, slots)
