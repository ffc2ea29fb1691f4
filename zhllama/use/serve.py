"""`transformers serve` as a process of ours: started with one model, awaited, asked, and stopped with us."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Any, Self

from zhllama.conversation.records import Turn
from zhllama.errors import InputError, OptionError, ZhllamaError
from zhllama.use.chat import Sampling
from zhllama.use.served import Served
from zhllama.use.speaker import dtype_here

PATIENCE = 10.0  # seconds that the server gets to end by itself


def free_port(option: str, host: str, port: int) -> int:
    """The port if it can be had, or any for 0. Errors: OptionError for one that is taken, or a host that is not here."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind((host, port))
        except OSError as error:
            told = f"cannot be had on {host} ({error.strerror or error})"
            raise OptionError(f"{option} {port}", told, f"Give another with {option}, or 0 for any") from None
        return int(taken.getsockname()[1])


@dataclass
class Server:
    """The running process, as a context: left, it is ended and with it what it held."""

    name: str
    home: Path
    host: str
    port: int

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "transformers.cli.transformers", "serve", self.name]
        command += ["--host", self.host, "--port", str(self.port)]
        command += ["--dtype", "auto" if dtype_here() is None else "float32"]
        # Its home is ours, so it lists this model and no other; what it says goes into a file, for when it fails.
        own = {"HF_HOME": str(self.home), "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        environment = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_CACHE", "TRANSFORMERS_CACHE")}
        self._log = self.home / "server.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.home,
                env={**environment, **own},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that Ctrl-C is ours to pass on
                preexec_fn=_end_with_parent,
            )
        return self

    def wait_until_up(self) -> None:
        """Return when the model is loaded and answers. Errors: InputError with the last that it said, if it ended."""
        while not self._healthy():
            self._check()
            time.sleep(0.2)

    def wait(self) -> None:
        """Return never while it serves. Errors: InputError when it ended by itself."""
        while True:
            self._check()
            time.sleep(0.5)

    def _check(self) -> None:
        code = self._process.poll()
        if code is None:
            return
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        told = next((" ".join(line.split()) for line in reversed(lines) if line.strip()), "it said nothing")
        ended = f"ended with signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise InputError(
            "transformers serve", f"{ended} ({told[:200]})", "Try a smaller model, or zhllama chat"
        )

    def _healthy(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.url}/health", timeout=2) as reply:
                return int(reply.status) == 200
        except OSError:
            return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _end_with_parent() -> None:
    """Have Linux end this process when the one that started it is gone, even by SIGKILL."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


@dataclass(frozen=True)
class ServerSpeaker:
    """A server as a speaker; tokens are counted here, by the template that it was given."""

    url: str
    served: Served

    @property
    def context(self) -> int:
        return self.served.context

    def count(self, turns: list[Turn]) -> int:
        text = self.served.template.render(self.served.tokenizer, turns, opened=True)
        return len(self.served.tokenizer(text, add_special_tokens=False).input_ids)

    def answer(self, turns: list[Turn], sampling: Sampling, stop: Event) -> Iterator[str]:
        from openai import DefaultHttpxClient, OpenAI, OpenAIError

        # trust_env=False: no proxy stands between this process and its own server.
        client = OpenAI(
            base_url=f"{self.url}/v1",
            api_key="none",
            max_retries=0,
            http_client=DefaultHttpxClient(trust_env=False),
        )
        messages: Any = [{"role": turn.role, "content": turn.text} for turn in turns]
        try:
            with (
                client,
                client.chat.completions.create(
                    model=self.served.name,
                    messages=messages,
                    temperature=0 if sampling.greedy else sampling.temperature,
                    top_p=sampling.top_p,
                    max_tokens=sampling.max_tokens,
                    seed=sampling.seed,
                    stream=True,
                ) as chunks,
            ):
                for chunk in chunks:
                    if stop.is_set():
                        return
                    for choice in chunk.choices:
                        if choice.delta.content:
                            yield choice.delta.content
        except OpenAIError as error:
            raise ZhllamaError(
                "server", " ".join(str(error).split())[:200], "Look whether it still runs"
            ) from error
