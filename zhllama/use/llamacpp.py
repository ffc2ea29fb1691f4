"""A GGUF file as a speaker and as a server: llama.cpp in this process, by the xllamacpp package."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

from zhllama.conversation.records import Turn
from zhllama.errors import InputError
from zhllama.io.json import parse_json
from zhllama.use.chat import Sampling
from zhllama.use.pieces import spoken

QUIET = -1  # of llama.cpp's verbosity


def is_gguf(model: str) -> bool:
    """Whether a model is named by a GGUF file."""
    return model.lower().endswith(".gguf")


class LlamaCppSpeaker:
    """llama.cpp with one file; its own server, at `address`, also serves others while this object lives."""

    def __init__(
        self, path: Path, template: str | None = None, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        """Load the file; `template` in place of its own; port 0 for any free one.

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
        wanted.hostnames, wanted.port, wanted.verbosity, wanted.ui = [host], port, QUIET, False
        if template is not None:
            wanted.chat_template, wanted.use_jinja = template, True
        try:
            self._server = xllamacpp.Server(wanted)
        except Exception as error:  # it raises plain RuntimeErrors
            told = " ".join(str(error).split())[:200]
            raise InputError(
                path, f"cannot be loaded by llama.cpp ({told})", "Export it again with --gguf"
            ) from error
        self.address = str(self._server.listening_address)
        self.context = int(self._call("/props")["default_generation_settings"]["n_ctx"])

    def count(self, turns: list[Turn]) -> int:
        prompt = self._call("/apply-template", {"messages": _messages(turns)})["prompt"]
        asked = {"content": prompt, "add_special": True, "parse_special": True}
        return len(self._call("/tokenize", asked)["tokens"])

    def answer(self, turns: list[Turn], sampling: Sampling, stop: Event) -> Iterator[str]:
        asked = {
            "messages": _messages(turns),
            "max_tokens": sampling.max_tokens,
            "temperature": 0 if sampling.greedy else sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": 0,
            "min_p": 0,
            "stream": True,
            **({} if sampling.seed is None else {"seed": sampling.seed}),
        }

        def work(say: Callable[[str], None]) -> None:
            def take(chunk: dict[str, Any]) -> bool:
                if "choices" not in chunk:
                    told = " ".join(json.dumps(chunk, ensure_ascii=False).split())[:200]
                    raise InputError("llama.cpp", f"does not answer ({told})", "Try /reset")
                say("".join(choice["delta"].get("content") or "" for choice in chunk["choices"]))
                return stop.is_set()

            self._server.handle_chat_completions(asked, take)

        return spoken(work, stop)

    def _call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"})
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
