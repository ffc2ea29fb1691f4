"""A served model of one character a token, in this process, and raw requests to it: for what no client library sends."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import Any, NamedTuple

from zhllama.conversation.records import Turn
from zhllama.errors import InputError
from zhllama.inference.chat import Sampling
from zhllama.inference.generation_queue import EmitText, Engine, GenerationResult, Prompt
from zhllama.inference.http_guard import Guard, host_names
from zhllama.inference.http_server import bind_socket, serve_app
from zhllama.inference.serve import api

ASKED = {"model": "toy", "messages": [{"role": "user", "content": "你好"}]}


@dataclass
class Toy:
    """Says 好 until its tokens are spent, `seconds` each; what it was asked and how it ended is kept."""

    seconds: float = 0.0
    context: int = 512
    longest: int = 4
    own: Sampling = field(default_factory=lambda: Sampling(temperature=0.5, top_p=0.6, top_k=7))
    schemas: bool = False
    asked: list[tuple[Prompt, Sampling]] = field(default_factory=list)
    ended: list[GenerationResult] = field(default_factory=list)

    def count(self, prompt: Prompt) -> int:
        if isinstance(prompt, str):
            return len(prompt)
        if prompt[-1].text == "模板":
            raise InputError("template own", "fails on a conversation")
        return sum(len(turn.text) for turn in prompt)

    def generate(self, prompt: Prompt, sampling: Sampling, stop: Event, say: EmitText) -> GenerationResult:
        self.asked.append((prompt, sampling))
        if prompt == [Turn("user", "坏")]:
            raise RuntimeError("fell over")
        said = 0
        while said < sampling.max_tokens and not stop.is_set():
            time.sleep(self.seconds)
            say("好")
            said += 1
        self.ended.append(GenerationResult("stop" if stop.is_set() else "length", said))
        return self.ended[-1]


@contextmanager
def toy_server(model: Toy, waiting: int = 64) -> Iterator[str]:
    """The API over a toy, guarded as `zhllama serve` guards it; gives its URL without /v1."""
    with closing(Engine(model, waiting)) as engine, bind_socket("port", "127.0.0.1", 0) as taken:
        guarded = Guard(api("toy", engine), host_names("127.0.0.1", "127.0.0.1", ["proxy.example"]))
        with serve_app(guarded, taken) as url:
            yield url


class Reply(NamedTuple):
    status: int
    head: str
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The error of OpenAI's shape; fails where there is none."""
        error = json.loads(self.body)["error"]
        assert set(error) == {"message", "type", "param", "code"} and isinstance(error["message"], str)
        assert error["type"] == ("server_error" if self.status >= 500 else "invalid_request_error")
        return dict(error)


def port_of(url: str) -> int:
    return int(url.split(":")[2].split("/")[0])


def raw(url: str, *parts: bytes, seconds: float = 20) -> Reply:
    """Send bytes as they are, and read until the server closes or the answer's Content-Length is there."""
    with socket.create_connection(("127.0.0.1", port_of(url)), timeout=seconds) as sender:
        try:
            for part in parts:
                sender.sendall(part)
        except OSError:
            pass  # refused and closed: the answer is there to be read
        return read_reply(sender)


def read_reply(sender: socket.socket) -> Reply:
    data = b""
    while True:
        head, end, body = data.partition(b"\r\n\r\n")
        if end:
            named = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if named and len(body) >= int(named[0].partition(b":")[2]):
                break
        try:
            more = sender.recv(1 << 16)
        except ConnectionResetError:
            more = b""
        if not more:
            break
        data += more
    assert data, "closed without an answer"
    return Reply(int(head.split()[1]), head.decode("latin-1").lower(), body)


def request(
    method: str = "POST",
    path: str = "/v1/chat/completions",
    body: bytes = b"",
    host: str | None = "127.0.0.1",
    **headers: str | None,
) -> bytes:
    """The bytes of a request; headers with underscores for hyphens, None leaves one out."""
    told = {"content-type": "application/json", "content-length": str(len(body)), "host": host}
    told["connection"] = "close"
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [
        f"{method} {path} HTTP/1.1",
        *(f"{name}: {value}" for name, value in told.items() if value is not None),
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def ask(url: str, body: Any = None, path: str = "/v1/chat/completions", **headers: str) -> Reply:
    """Post a body, as JSON unless it is bytes."""
    content = body if isinstance(body, bytes) else json.dumps(ASKED if body is None else body).encode()
    return raw(url, request(path=path, body=content, **headers))
