"""Guards an HTTP app: checks Host, Origin and route, and limits the size and duration of request bodies.

Any web page can make its visitor's browser send requests to 127.0.0.1, and with DNS rebinding it can read the answers:
then `Host` is the attacker's name and `Origin` the page's.
"""

import asyncio
import ipaddress
import re
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

MAX_BODY_BYTES = 8 << 20  # of one body
MAX_OPEN_BYTES = 64 << 20  # of all bodies of open requests
BODY_SECONDS = 30.0  # for a whole body
# The rest of a refused body is read and dropped for this long, so that its sender reads the refusal.
DRAIN_SECONDS = 5.0
LOCAL = ("localhost", "127.0.0.1", "::1")


class Refusal(Exception):
    """A refused request, answered with an error in OpenAI's format; `param` names the field at fault."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def body(self) -> dict[str, Any]:
        """The error as OpenAI's API has it."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        headers = {"retry-after": "5"} if self.status == 503 else {}
        return JSONResponse(self.body(), self.status, headers)


class HostNames(NamedTuple):
    """The host names by which clients may address a server; with `numbers` also any numeric address."""

    names: frozenset[str]
    numbers: bool

    def allows(self, host: str) -> bool:
        """Whether a Host header (name, or name and port) is allowed; the port is ignored."""
        name = _name_of(host)
        return name in self.names or (self.numbers and _is_address(name))


def host_names(host: str, address: str, more: Sequence[str]) -> HostNames:
    """The allowed names of a server on `host`, whose address is `address`: these, `more`, and other names of this machine.

    On all interfaces every numeric address is allowed, because DNS rebinding needs a name.
    """
    loopback = ipaddress.ip_address(address).is_loopback
    own = LOCAL if loopback else (socket.gethostname(),)
    everywhere = ipaddress.ip_address(address).is_unspecified
    names = {host, address, *own, *more, *(LOCAL if everywhere else ())}
    return HostNames(frozenset(map(str.lower, names)), everywhere)


def _name_of(host: str) -> str:
    """A Host header without its port and brackets, in lower case; empty for one that is malformed."""
    match = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^:\[\]]+))(?::[0-9]*)?", host)
    return (match[1] or match[2]).lower() if match else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """An ASGI app that checks each request, reads its body within limits, and passes it to the app.

    `allowed` decides on a route by its method and path; without it every route is allowed.
    """

    def __init__(
        self, app: Any, host_names: HostNames, allowed: Callable[[str, str], bool] | None = None
    ) -> None:
        self._app, self._host_names, self._allowed = app, host_names, allowed
        self._open_bytes = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        size = 0
        try:
            headers = Headers(scope=scope)
            self._check(scope, headers)
            body = bytearray()
            deadline = time.monotonic() + BODY_SECONDS
            async for part in _parts(receive, deadline):
                body += part
                size, self._open_bytes = size + len(part), self._open_bytes + len(part)
                self._check_size(len(body))
            await self._app(scope, _replay(bytes(body), receive), send)
        except Refusal as refusal:
            if refusal.status != 408 and not Headers(scope=scope).get("expect"):
                await _drain(receive)
            response = refusal.response()
            response.headers["connection"] = "close"
            await response(scope, receive, send)
        except _ClientLeft:
            pass
        finally:
            self._open_bytes -= size

    def _check(self, scope: Any, headers: Headers) -> None:
        host = headers.get("host", "")
        if not self._host_names.allows(host):
            raise Refusal(403, f"Host {host[:100]!r} is not an address of this server.", "Host")
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
            raise Refusal(403, f"Pages of {origin[:100]!r} may not call this server.", "Origin")
        if self._allowed is not None and not self._allowed(scope["method"], scope["path"]):
            raise Refusal(404, f"There is no {scope['method']} {scope['path'][:100]}.")
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise Refusal(415, "Compressed bodies are not supported.", "Content-Encoding")
        length = headers.get("content-length", "0")
        if length.isascii() and length.isdigit():
            self._check_size(int(length[:20]))

    def _check_size(self, size: int) -> None:
        if size > MAX_BODY_BYTES:
            raise Refusal(413, f"The body is larger than {MAX_BODY_BYTES >> 20} MiB.")
        if self._open_bytes > MAX_OPEN_BYTES:
            raise Refusal(503, "Too many large requests at once. Try again later.")


class _ClientLeft(Exception):
    """The client left."""


async def _parts(receive: Any, deadline: float) -> Any:
    """The body piece by piece. Errors: _ClientLeft, Refusal after the deadline."""
    more = True
    while more:
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                message = await receive()
        except TimeoutError:
            raise Refusal(408, f"The body did not arrive within {BODY_SECONDS:.0f} s.") from None
        if message["type"] != "http.request":
            raise _ClientLeft
        yield message.get("body", b"")
        more = message.get("more_body", False)


async def _drain(receive: Any) -> None:
    try:
        async for _ in _parts(receive, time.monotonic() + DRAIN_SECONDS):
            pass
    except (Refusal, _ClientLeft):
        pass


def _replay(body: bytes, receive: Any) -> Any:
    """A `receive` that returns the body once, and then waits for the client to leave."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Any:
        return waiting.pop() if waiting else await receive()

    return replayed
