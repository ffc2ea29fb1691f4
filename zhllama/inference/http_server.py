"""Runs uvicorn in a thread, with deadlines and a connection limit against slow or too many clients."""

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from zhllama.errors import InputError, OptionError

HEAD_SECONDS = 10.0  # for a request's line and headers
READ_SECONDS = 30.0  # for which a client may leave an answer unread
HEAD_BYTES = 32 * 1024  # of a request's line and headers
CONNECTIONS = 512  # open at once


def bind_socket(option: str, host: str, port: int) -> socket.socket:
    """A socket on the port, or on any free port for 0. Errors: OptionError for a port in use, or a host of another machine."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        reason = f"cannot be used on {host} ({error.strerror or error})"
        raise OptionError(f"{option} {port}", reason, f"Give another with `{option}`, or 0 for any") from None
    return listener


def url_of(listener: socket.socket) -> str:
    """The URL of a bound socket, without a final slash."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


@contextmanager
def serve_app(app: Any, listener: socket.socket) -> Iterator[str]:
    """Serve an ASGI app on a bound socket while the `with` body runs; yields its URL.

    Errors: InputError where the server does not start.
    """
    settings = Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_graceful_shutdown=1,
    )
    server = Server(settings)
    thread = Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.02)
    try:
        if not server.started:
            raise InputError(url_of(listener), "cannot be served", "Give another port")
        yield url_of(listener)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


class _Protocol(H11Protocol):
    """uvicorn's protocol with deadlines for headers and for clients that do not read, for which uvicorn waits forever."""

    _late: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._late, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def _await_head(self) -> None:
        if self._late is not None:
            self._late.cancel()
        self._late = self.loop.call_later(HEAD_SECONDS, self._end_without_head)

    def _end_without_head(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
