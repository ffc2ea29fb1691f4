"""An asynchronous client that spreads requests over one or more servers, with retries and rate limiting."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from zhllama.llm.completions_api import request_body, send_request
from zhllama.llm.connection import Connection, ServerError, redact_key
from zhllama.llm.parameters import Adaptation
from zhllama.llm.rate_limiter import RateLimiter
from zhllama.llm.read_reply import ErrorReply, UnreadableReply, read_reply
from zhllama.llm.requests import Reply, Request
from zhllama.llm.retry import (
    FAILURES,
    FIRST_TRIES,
    TRIES,
    FailedAttempt,
    backoff_delay,
    classify_error,
    connection_failure,
    server_pause,
)
from zhllama.llm.server_errors import ErrorMessage, kind_of, read_error

if TYPE_CHECKING:
    from openai import AsyncOpenAI


@dataclass
class _Server:
    url: str
    limiter: RateLimiter
    client: "AsyncOpenAI"
    failures: int = 0  # consecutive
    adaptation: Adaptation = field(default_factory=Adaptation)


class Client:
    """Sends requests to one or more servers that host the same model; each server has its own rate limiter.

    Errors: ServerError for a failure that no retry can fix, and for a request that used up its tries while no other
    request succeeded.
    """

    def __init__(
        self,
        connection: Connection,
        random: Random,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        from openai import AsyncOpenAI

        self.connection, self._random, self._clock, self._sleep = connection, random, clock, sleep
        self._warn = warn
        per_server = -(-connection.concurrency // len(connection.base_urls))
        self.servers = [
            _Server(
                url,
                RateLimiter(per_server, clock),
                AsyncOpenAI(
                    base_url=url,
                    api_key=connection.key or "none",
                    max_retries=0,
                    timeout=connection.timeout,
                    http_client=_http_client(connection.timeout),
                ),
            )
            for url in connection.base_urls
        ]
        self.successes = self.rate_limited = self.retries = 0
        self._last_success = clock()

    @property
    def in_flight(self) -> int:
        """Calls in flight on all servers."""
        return sum(server.limiter.in_flight for server in self.servers)

    @property
    def limit(self) -> int:
        """Calls that may be in flight now, on all servers."""
        return sum(int(server.limiter.limit) for server in self.servers)

    async def ask(
        self,
        request: Request,
        is_allowed: Callable[[], Awaitable[bool]] | None = None,
        store: Callable[[bytes], None] = lambda body: None,
    ) -> Reply | None:
        """The reply to one request, after as many attempts as needed; None if `is_allowed` forbids the call.

        `store` gets each response body before anything of it is judged.
        """
        successes_before, tries = self.successes, 0
        for attempt in itertools.count(1):
            server = await self._acquire_server()
            try:
                if is_allowed is not None and not await is_allowed():
                    return None
                result = await self._attempt(server, request, store)
            finally:
                server.limiter.release()
            if isinstance(result, Reply):
                server.failures = 0
                return result
            if result.refusal:
                return Reply(text=None, refusal=result.reason)
            self.retries += 1
            if result.adapted:
                continue
            tries += not result.rate_limited
            server.failures += not result.rate_limited
            if server.failures >= FAILURES and len(self.servers) > 1:
                # A dead server fails at once and therefore looks idle: without a pause it would attract every call.
                server.limiter.back_off(server_pause(server.failures))
            if tries >= (TRIES if self.successes else FIRST_TRIES):
                if self.successes == successes_before and not result.completion:
                    raise ServerError(
                        server.url, f"gives no reply ({result.reason})", "Check the URL and the server"
                    )
                return Reply(text=None, refusal=f"no reply after {tries} tries ({result.reason})")
            if result.wait is None:
                await self._sleep(backoff_delay(attempt, self._random))
        raise AssertionError

    async def close(self) -> None:
        for server in self.servers:
            await server.client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _acquire_server(self) -> _Server:
        """The least loaded server, once its limiter admits a call."""
        while True:
            server = min(self.servers, key=lambda candidate: candidate.limiter.load)
            if await server.limiter.acquire():
                return server

    async def _attempt(
        self, server: _Server, request: Request, store: Callable[[bytes], None]
    ) -> Reply | FailedAttempt:
        from openai import APIConnectionError, APIStatusError, OpenAIError

        timeout, key = self.connection.timeout, self.connection.key
        sent = server.adaptation.apply(request_body(self.connection, request))
        try:
            async with asyncio.timeout(timeout):
                body = await send_request(server.client, self.connection, sent)
        except APIStatusError as error:
            headers, message = error.response.headers, read_error(error.response.content)
            return self._classify(server, message, error.status_code, headers, sent)
        except TimeoutError:
            return FailedAttempt(f"nothing after {timeout:g} s")
        except APIConnectionError as error:
            return FailedAttempt(connection_failure(error))
        except OSError as error:
            return FailedAttempt(f"{error.strerror or error}")
        except (OpenAIError, ValueError) as error:
            return FailedAttempt(" ".join(str(error).split())[:200])
        body = body.replace(key.encode(), b"[key]") if key else body
        store(body)
        try:
            reply = read_reply(body, request.prompt, key)
        except ErrorReply as error:
            return self._classify(server, error.error, 200, {}, sent)
        except UnreadableReply as error:
            return FailedAttempt(redact_key(str(error), key), completion=error.usage is not None)
        server.limiter.record_success()
        self.successes += 1
        self._last_success = self._clock()
        return reply

    def _classify(
        self,
        server: _Server,
        error: ErrorMessage,
        status: int,
        headers: Mapping[str, str],
        sent: Mapping[str, Any],
    ) -> FailedAttempt:
        """What an error means; the server's parameters are adapted if it refuses one of them."""
        if status in (200, 400, 422) and kind_of(error, status) == "other":
            change = server.adaptation.learn(error, sent, fixed=self.connection.extra_body)
            if change is not None:
                message = redact_key(error.message, self.connection.key)
                if change:
                    self._warn(f"{server.url}: {change} ({message})")
                return FailedAttempt(message, wait=0.0, adapted=True)
        idle = self._clock() - self._last_success
        failure = classify_error(
            error, status, headers, server.url, self.connection, self.successes > 0, idle
        )
        self.rate_limited += failure.rate_limited
        if failure.slow_down:
            server.limiter.back_off(failure.wait or 0.0)
        return failure


def _http_client(timeout: float) -> Any:
    """The aiohttp transport if it is installed, because it needs about half the CPU time of httpx."""
    from openai import DefaultAioHttpClient, DefaultAsyncHttpxClient

    try:
        return DefaultAioHttpClient(timeout=timeout)
    except RuntimeError:
        return DefaultAsyncHttpxClient(timeout=timeout)
