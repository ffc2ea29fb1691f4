"""A GGUF file as a chat model: llama.cpp in this process, through xllamacpp."""

import json
import secrets
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any, Literal

from zhllama.conversation.records import Turn
from zhllama.errors import InputError
from zhllama.inference.chat import Sampling
from zhllama.inference.generation_queue import EmitText, GenerationResult, Prompt
from zhllama.inference.token_stream import stream_from_thread
from zhllama.io.json import parse_json

QUIET = -1  # of llama.cpp's verbosity


def is_gguf(model: str) -> bool:
    """Whether a model is named by a GGUF file."""
    return model.lower().endswith(".gguf")


class LlamaCppChatModel:
    """llama.cpp with one file."""

    longest = 128  # characters of a token; those that are longer are runs of one sign
    schemas = True

    def __init__(self, path: Path, template: str | None = None) -> None:
        """Load the file; `template` in place of its own.

        Errors: InputError for a file that is missing or that llama.cpp does not load, and without xllamacpp.
        """
        if not path.is_file():
            raise InputError(path, "no such file", "Check the path")
        try:
            import xllamacpp
        except ImportError:
            raise InputError(path, "needs the package xllamacpp", "pip install xllamacpp") from None
        wanted = xllamacpp.CommonParams()
        wanted.model.path, wanted.n_parallel, wanted.n_ctx = (
            str(path),
            1,
            0,
        )  # 0: as many tokens as the model has
        # Its own server counts tokens for this process, and answers nobody without a key that nobody knows.
        self._key = secrets.token_hex(32)
        wanted.hostnames, wanted.port, wanted.api_keys = ["127.0.0.1"], 0, [self._key]
        wanted.verbosity, wanted.ui = QUIET, False
        if template is not None:
            wanted.chat_template, wanted.use_jinja = template, True
        try:
            self._server = xllamacpp.Server(wanted)
        except Exception as error:  # it raises plain RuntimeErrors
            told = " ".join(str(error).split())[:200]
            raise InputError(
                path, f"cannot be loaded by llama.cpp ({told})", "Export it again with --gguf"
            ) from error
        self._address = str(self._server.listening_address)
        settings = self._call("/props")["default_generation_settings"]
        self.context = int(settings["n_ctx"])
        named = settings.get("params", settings)
        self.own = Sampling(
            temperature=float(named["temperature"]), top_p=float(named["top_p"]), top_k=int(named["top_k"])
        )

    def count(self, prompt: Prompt) -> int:
        if not isinstance(prompt, str):
            prompt = self._call("/apply-template", {"messages": _messages(prompt)})["prompt"]
        asked = {"content": prompt, "add_special": True, "parse_special": True}
        return len(self._call("/tokenize", asked)["tokens"])

    def answer(self, turns: list[Turn], sampling: Sampling, stop: Event) -> Iterator[str]:
        return stream_from_thread(lambda say: self.generate(turns, sampling, stop, say), stop)

    def generate(self, prompt: Prompt, sampling: Sampling, stop: Event, say: EmitText) -> GenerationResult:
        """Say an answer piece by piece; end with the token after which `stop` is set."""
        asked = {
            "max_tokens": sampling.max_tokens,
            "temperature": 0 if sampling.greedy else sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": 0,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "logit_bias": [[id, bias] for id, bias in sampling.bias.items()],
            "stream": True,
            "stream_options": {"include_usage": True},
            **({} if sampling.seed is None else {"seed": sampling.seed % (1 << 32)}),
            **({} if sampling.response_format is None else {"response_format": sampling.response_format}),
        }
        reason: Literal["stop", "length"] = "stop"
        tokens, refused = 0, ""

        def take(chunk: dict[str, Any]) -> bool:
            nonlocal reason, tokens, refused
            if "choices" not in chunk:
                refused = " ".join(json.dumps(chunk, ensure_ascii=False).split())[:200]
                return True
            for choice in chunk["choices"]:
                delta = choice.get("delta") or {}
                say(delta.get("content") or choice.get("text") or "")
                reason = "length" if choice.get("finish_reason") == "length" else reason
            tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
            return stop.is_set()

        try:
            if isinstance(prompt, str):
                self._server.handle_completions({**asked, "prompt": prompt}, take)
            else:
                self._server.handle_chat_completions({**asked, "messages": _messages(prompt)}, take)
        except Exception as error:  # what it raises for a schema is of no class of its own
            refused = " ".join(str(error).split())[:200]
        if refused:
            raise InputError("llama.cpp", f"does not answer ({refused})", "Try /reset")
        return GenerationResult(reason, tokens)

    def _call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
        request = urllib.request.Request(self._address + path, data, headers)
        try:
            # No proxy stands between this process and itself.
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                request, timeout=60
            ) as reply:
                return parse_json(reply.read(), "llama.cpp", "Start it again", any_number=True)
        except OSError as error:
            told = error.read().decode()[:200] if hasattr(error, "read") else str(error)
            raise InputError("llama.cpp", f"refuses this conversation ({told})", "Try /reset") from error


def _messages(turns: list[Turn]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.text} for turn in turns]
