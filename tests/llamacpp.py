"""llama.cpp itself, to hold exported files against."""

import json
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest


class Llama:
    """llama.cpp on a GGUF file: ids of a text, and greedy tokens after some."""

    def __init__(self, path: Path) -> None:
        xllamacpp = pytest.importorskip("xllamacpp")
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.cpuparams.n_threads, params.warmup = 256, 1, False
        # In f32 without flash attention: f16 states turn near ties of random models round.
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.server = xllamacpp.Server(params)  # listens on a port of its own

    def ids(self, text: str) -> list[int]:
        found: list[int] = self._ask("tokenize", content=text, add_special=True)
        return found

    def greedy(self, ids: list[int], n: int) -> list[int]:
        found: list[int] = self._ask("completion", prompt=ids, n_predict=n, temperature=0, return_tokens=True,
                                     ignore_eos=True, cache_prompt=False)  # fmt: skip
        return found

    def _ask(self, path: str, **asked: Any) -> Any:
        content = json.dumps(asked).encode()
        request = Request(
            f"{self.server.listening_address}/{path}", content, {"Content-Type": "application/json"}
        )
        with urlopen(request, timeout=60) as answer:
            return json.load(answer)["tokens"]
