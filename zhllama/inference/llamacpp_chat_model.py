"""A chat model from a GGUF file: llama.cpp in this process, by the xllamacpp package."""

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any, Literal

from zhllama.conversation.records import Turn
from zhllama.errors import InputError
from zhllama.inference.chat import Sampling
from zhllama.inference.generation_queue import EmitText, GenerationResult, Prompt
from zhllama.inference.token_stream import stream_from_thread
from zhllama.model.llamacpp import LlamaCpp


def is_gguf(model: str) -> bool:
    """Whether a model name is a GGUF file."""
    return model.lower().endswith(".gguf")


class LlamaCppChatModel:
    """llama.cpp with one model file."""

    longest = 128  # characters of a token; longer tokens repeat one character
    schemas = True

    def __init__(self, path: Path, template: str | None = None) -> None:
        """Load the file; `template` in place of its own.

        Errors: InputError for a file that is missing or that llama.cpp does not load, and without xllamacpp.
        """
        self._llama = LlamaCpp(path, template)
        settings = self._llama.call("/props")["default_generation_settings"]
        self.context = int(settings["n_ctx"])
        defaults = settings.get("params", settings)
        self.own = Sampling(
            temperature=float(defaults["temperature"]),
            top_p=float(defaults["top_p"]),
            top_k=int(defaults["top_k"]),
        )

    def count(self, prompt: Prompt) -> int:
        if not isinstance(prompt, str):
            prompt = self._llama.call("/apply-template", {"messages": _messages(prompt)})["prompt"]
        request_body = {"content": prompt, "add_special": True, "parse_special": True}
        return len(self._llama.call("/tokenize", request_body)["tokens"])

    def answer(self, turns: list[Turn], sampling: Sampling, stop: Event) -> Iterator[str]:
        return stream_from_thread(lambda emit: self.generate(turns, sampling, stop, emit), stop)

    def generate(self, prompt: Prompt, sampling: Sampling, stop: Event, emit: EmitText) -> GenerationResult:
        """Generate an answer and emit it in pieces; end after the token during which `stop` is set."""
        request_body = {
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
                emit(delta.get("content") or choice.get("text") or "")
                reason = "length" if choice.get("finish_reason") == "length" else reason
            tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
            return stop.is_set()

        try:
            if isinstance(prompt, str):
                self._llama.server.handle_completions({**request_body, "prompt": prompt}, take)
            else:
                self._llama.server.handle_chat_completions(
                    {**request_body, "messages": _messages(prompt)}, take
                )
        except Exception as error:  # xllamacpp raises no specific class for a bad schema
            refused = " ".join(str(error).split())[:200]
        if refused:
            raise InputError("llama.cpp", f"does not answer ({refused})", "Try /reset")
        return GenerationResult(reason, tokens)


def _messages(turns: list[Turn]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.text} for turn in turns]
