"""One question in, one reply out, from any OpenAI-compatible server: retried, paced, and stopped at once where it is hopeless."""

import asyncio
import email.utils
import itertools
import json
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError

from zhllama.errors import OptionError, ZhllamaError
from zhllama.io.files import read_utf8
from zhllama.io.json import parse_row
from zhllama.llm.journal import Reply, Request
from zhllama.llm.prompts import Api
from zhllama.llm.rate_limiter import RateLimiter

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

FIRST_TRIES, TRIES = 3, 8  # while no call has ever come back; afterwards
FAILURES = 3  # in a row, after which the other servers are preferred
PATIENCE = 900.0  # seconds of nothing but 429s, or of the longest retry-after that is obeyed
QUOTA = {"insufficient_quota", "billing_hard_limit_reached", "insufficient_balance", "Arrearage"}
FILTERED = {"content_filter", "content_policy_violation", "data_inspection_failed", "DataInspectionFailed"}


class ServerError(ZhllamaError):
    """The server, the key, the quota or the model: the run ends, and goes on with --resume once `mend` is done.

    `resumes` is false where there is nothing to go on with: no reply came yet, or an option must change.
    """

    def __init__(self, where: object, what: str, mend: str, resumes: bool = True) -> None:
        self.mend = mend
        super().__init__(where, what, f"{mend}, then --resume" if resumes else mend)

    def before_all(self) -> "ServerError":
        """The same for a run that is left as if it had never begun."""
        return ServerError(self.where, self.what, self.mend, resumes=False)


@dataclass(frozen=True)
class Connection:
    """Where to ask, and how; `key` is shown by no repr and reaches nothing but the request's header."""

    base_urls: tuple[str, ...]
    model: str
    key: str | None = field(default=None, repr=False)
    api: Api = "chat"
    concurrency: int = 32
    timeout: float = 120.0  # seconds for one whole call, blank keep-alive lines included
    extra_body: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.base_urls:
            raise OptionError(
                "base_url", "is missing", "Give the server's URL, such as http://localhost:8000/v1"
            )
        for url in self.base_urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise OptionError(f"base_url {url}", "is no URL", "Give one such as http://localhost:8000/v1")
            if parts.username or parts.password:
                raise OptionError(
                    "base_url", "holds a user name or password", "Give the key in the environment"
                )
            if parts.scheme == "https" and not self.key:
                raise OptionError(
                    f"base_url {url}",
                    "needs a key, and none is set",
                    "Set OPENAI_API_KEY in the environment or in .env, or name another with `key_env`",
                )


def find_key(name: str, env_file: Path = Path(".env")) -> str | None:
    """The key in the environment, or else in a `.env` file of NAME=VALUE lines; None where neither has it."""
    if found := os.environ.get(name, "").strip():
        return found
    for line in read_utf8(env_file).splitlines() if env_file.exists() else ():
        left, equals, right = line.strip().removeprefix("export ").partition("=")
        if equals and left.strip() == name and (value := right.strip().strip("'\"")):
            return value
    return None


@dataclass
class _Server:
    url: str
    gate: RateLimiter
    client: "AsyncOpenAI"
    failures: int = 0  # in a row


@dataclass(frozen=True)
class _Trouble:
    """Why one attempt came to nothing: `wait` is what the server asked for; a `refusal` concerns this request alone."""

    what: str
    wait: float | None = None
    busy: bool = False
    refusal: bool = False


class Client:
    """Asks one or several servers that serve the same model, each through a gate of its own.

    Errors: ServerError for what no retry can mend, and when a request has used up its tries while no other came back.
    """

    def __init__(
        self,
        to: Connection,
        random: Random,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        from openai import AsyncOpenAI

        self.to, self._random, self._clock, self._sleep = to, random, clock, sleep
        each = -(-to.concurrency // len(to.base_urls))
        self.servers = [
            _Server(
                url,
                RateLimiter(each, clock),
                AsyncOpenAI(
                    base_url=url,
                    api_key=to.key or "none",
                    max_retries=0,
                    timeout=to.timeout,
                    http_client=_http_client(to.timeout),
                ),
            )
            for url in to.base_urls
        ]
        self.successes = self.busy = self.retries = 0
        self._last_success = clock()

    @property
    def in_flight(self) -> int:
        return sum(s.gate.in_flight for s in self.servers)

    @property
    def limit(self) -> int:
        """Calls that may be under way now, on all servers together."""
        return sum(int(s.gate.limit) for s in self.servers)

    async def ask(self, request: Request, may: Callable[[], Awaitable[bool]] | None = None) -> Reply | None:
        """The reply to one request, however many attempts it takes; None where `may` forbids to send it at all."""
        before, tries = self.successes, 0
        for attempt in itertools.count(1):
            while not await (server := min(self.servers, key=lambda s: s.gate.load)).gate.enter():
                pass
            try:
                if may is not None and not await may():
                    return None
                got = await self._attempt(server, request)
            finally:
                server.gate.leave()
            if isinstance(got, Reply):
                server.failures = 0
                return got
            if got.refusal:
                return Reply(text=None, refusal=got.what)
            tries += not got.busy
            server.failures += not got.busy
            if server.failures >= FAILURES and len(self.servers) > 1:
                # A dead server fails at once and so looks idle: without a pause it would draw all calls.
                server.gate.refused(min(5.0, 0.5 * 2.0 ** min(8, server.failures - FAILURES)))
            self.retries += 1
            if tries >= (TRIES if self.successes else FIRST_TRIES):
                if self.successes == before:
                    raise ServerError(
                        server.url,
                        f"gives no reply ({got.what})",
                        "Check the URL and the server",
                    )
                return Reply(text=None, refusal=f"no reply after {tries} tries ({got.what})")
            if got.wait is None:
                await self._sleep(self._random.uniform(0.5, 1) * min(30.0, 0.25 * 2**attempt))
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

    async def _attempt(self, server: _Server, request: Request) -> Reply | _Trouble:
        from openai import APIConnectionError, APIStatusError, OpenAIError

        try:
            async with asyncio.timeout(self.to.timeout):
                body = await _send(server.client, self.to, request)
            reply = read_reply(body, request.prompt, self.to.key)
        except APIStatusError as error:
            return self._status(server, error)
        except TimeoutError:
            return _Trouble(f"nothing after {self.to.timeout:g} s")
        except APIConnectionError as error:
            return _Trouble(f"{error.__cause__ or error}"[:200])
        except (ValidationError, OpenAIError, ValueError, LookupError, RecursionError) as error:
            return _Trouble(f"not a completion: {' '.join(str(error).split())[:200]}")
        except OSError as error:
            return _Trouble(f"{error.strerror or error}")
        server.gate.succeeded()
        self.successes += 1
        self._last_success = self._clock()
        return reply

    def _status(self, server: _Server, error: "APIStatusError") -> _Trouble:
        """Tell what an HTTP status means: one refused request, a pause, a retry, or (raised) the end."""
        status, codes = error.status_code, {str(error.code), str(error.type)}
        body = error.body if isinstance(error.body, dict) else {}
        said = without_key(" ".join(str(body.get("message") or error.message).split())[:300], self.to.key)
        if status == 401:
            what, name = (
                ("refuses the key", "Check the key")
                if self.to.key
                else ("asks for a key", "Set OPENAI_API_KEY")
            )
            raise ServerError(server.url, f"{what} ({said})", name)
        if status == 402 or codes & QUOTA:
            raise ServerError(server.url, f"has no quota left for this key ({said})", "Top it up")
        if codes & FILTERED:
            return _Trouble(f"refused: {said}", refusal=True)
        if status == 403:
            raise ServerError(
                server.url,
                f"forbids this key the model {self.to.model!r} ({said})",
                "Check both",
            )
        if status == 404:
            raise ServerError(
                server.url,
                f"knows no model {self.to.model!r}, or is not the right URL ({said})",
                "Check --model, and that --base-url ends as the server's does, mostly in /v1",
                resumes=False,
            )
        if status == 429 or status == 503:
            wait = _retry_after(error.response.headers)
            if (wait or 0) > PATIENCE or self._clock() - self._last_success > PATIENCE:
                raise ServerError(
                    server.url, f"asks to wait {wait or PATIENCE:.0f} s ({said})", "Wait so long"
                )
            self.busy += status == 429
            server.gate.refused(wait or 0.0)
            return _Trouble(f"HTTP {status}: {said}", wait=wait, busy=status == 429)
        if status in (408, 409, 425) or status >= 500:
            return _Trouble(f"HTTP {status}: {said}")
        if not self.successes:
            raise ServerError(
                server.url,
                f"refuses the request ({said})",
                "Check --extra-body, --api and the reply's length",
                resumes=False,
            )
        return _Trouble(f"HTTP {status}: {said}", refusal=True)


def _http_client(timeout: float) -> Any:
    """The aiohttp transport where it is installed: it takes about half the processor time of the other."""
    from openai import DefaultAioHttpClient, DefaultAsyncHttpxClient

    try:
        return DefaultAioHttpClient(timeout=timeout)
    except RuntimeError:
        return DefaultAsyncHttpxClient(timeout=timeout)


def body_of(to: Connection, request: Request) -> dict[str, Any]:
    """The JSON that asks for a request, as it is also put into a batch."""
    prompt: dict[str, Any] = {"prompt": request.prompt}
    if to.api == "chat":
        prompt = {"messages": [{"role": "user", "content": request.prompt}]}
    return {"model": to.model, **prompt, **request.sampling, **to.extra_body}


async def _send(client: "AsyncOpenAI", to: Connection, request: Request) -> bytes:
    body = body_of(to, request)
    needed = {key: body.pop(key) for key in ("model", "messages", "prompt") if key in body}
    # All else goes as it is: servers know options that the package does not.
    create = (
        client.chat.completions.with_raw_response.create
        if to.api == "chat"
        else client.completions.with_raw_response.create
    )
    raw: Any = await create(**needed, extra_body=body)
    return bytes(raw.content)


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(BaseModel):
    choices: Annotated[list[_Choice], Field(min_length=1)]
    model: str | None = None
    usage: _Usage | None = None


def read_reply(body: bytes, prompt: str, key: str | None = None) -> Reply:
    """The reply in a server's JSON; where it counts no tokens, a character is taken for one.

    Errors: ValidationError, a ValueError, for what is no completion.
    """
    # Half an emoji, which some servers send, is no Unicode: it becomes a question mark.
    mended = json.dumps(parse_row(body, any_number=True), ensure_ascii=False).encode("utf-8", "replace")
    completion = _Completion.model_validate_json(mended)
    choice = completion.choices[0]
    text = (choice.message.content if choice.message else choice.text) or ""
    text = without_key(text, key)
    usage = completion.usage or _Usage(prompt_tokens=len(prompt), completion_tokens=len(text))
    if choice.finish_reason == "content_filter":
        return Reply(text=None, refusal="refused: content filter", prompt_tokens=usage.prompt_tokens)
    return Reply(
        text=text,
        finish=choice.finish_reason,
        model=completion.model or "",
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
    )


def without_key(text: str, key: str | None) -> str:
    """A text that a server sent, should it repeat the key."""
    return text.replace(key, "[key]") if key else text


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait: `retry-after-ms`, seconds, or a date."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return max(0.0, float(milliseconds) / 1000)
        given = headers.get("retry-after")
        if given is None:
            return None
        if given.replace(".", "", 1).strip().isdigit():
            return float(given)
        return max(0.0, email.utils.parsedate_to_datetime(given).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
