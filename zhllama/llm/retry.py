"""Retry policy: which HTTP errors are retried, after what delay, and which end the run."""

import email.utils
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from zhllama.llm.connection import Connection, ServerError, redact_key
from zhllama.llm.server_errors import ErrorMessage, kind_of

FIRST_TRIES, TRIES = 3, 8  # attempts per request: before the first success of the run, and after it
FAILURES = 3  # consecutive failures of one server before the others are preferred
# Seconds: the longest `retry-after` that is honored, and the longest time without any success.
PATIENCE = 900.0


@dataclass(frozen=True)
class FailedAttempt:
    """Why an attempt failed. `wait` is the delay in seconds that the server asked for.

    Attempts that were `rate_limited`, and those that `adapted` the parameters to the server, do not use up tries; a
    `refusal` is final for this request alone. `slow_down` lowers the number of concurrent calls. `completion` is true if
    the server sent a completion that could not be read.
    """

    reason: str
    wait: float | None = None
    rate_limited: bool = False
    refusal: bool = False
    slow_down: bool = False
    adapted: bool = False
    completion: bool = False


def backoff_delay(attempt: int, random: Random) -> float:
    """Seconds to wait before the next attempt: exponential, at most 30, with jitter."""
    return random.uniform(0.5, 1) * min(30.0, 0.25 * 2.0 ** min(attempt, 8))


def connection_failure(error: BaseException) -> str:
    """Why no connection came about, in the system's words: those of aiohttp and httpx name their own sockets."""
    inner: BaseException | None = error
    while inner is not None:
        system = getattr(inner, "os_error", inner)
        if isinstance(system, OSError) and not isinstance(system, ssl.SSLError) and system.errno:
            # A failed look-up of a name has a negative number and a text of its own.
            return os.strerror(system.errno) if system.errno > 0 else f"{system.strerror}"
        error, inner = inner, inner.__cause__
    return f"{error}"[:200]


def server_pause(failures: int) -> float:
    """Seconds without new calls to a server after so many consecutive failures: exponential, at most 5."""
    return min(5.0, 0.5 * 2.0 ** min(8, failures - FAILURES))


def classify_error(
    error: ErrorMessage,
    status: int,
    headers: Mapping[str, str],
    url: str,
    connection: Connection,
    any_success: bool,
    idle: float,
) -> FailedAttempt:
    """What an error means for the request; `status` is that of HTTP, or 200 for an error sent as a success.

    `any_success` is true once any call of the run succeeded; `idle` is the number of seconds since the last success.
    Errors: ServerError where a retry cannot help.
    """
    wait, message = retry_after(headers), redact_key(error.message, connection.key)
    kind = kind_of(error, status, waits=wait is not None)
    if status == 200:
        status = error.status or 200
    if kind == "quota":
        raise ServerError(url, f"has no quota left for this key ({message})", "Top it up")
    if kind == "content":
        return FailedAttempt(f"refused: {message}", refusal=True)
    if status == 401:
        if connection.key:
            raise ServerError(url, f"refuses the key ({message})", f"Check the key in {connection.key_env}")
        raise ServerError(url, f"asks for a key ({message})", f"Set {connection.key_env} in the environment")
    if kind == "rate" or status == 503:
        if (wait or 0) > PATIENCE or idle > PATIENCE:
            raise ServerError(url, f"asks to wait {wait or PATIENCE:.0f} s ({message})", "Wait for that long")
        return FailedAttempt(_reason(status, message), wait, rate_limited=kind == "rate", slow_down=True)
    if status == 403:
        raise ServerError(url, f"forbids this key the model {connection.model!r} ({message})", "Check both")
    if status == 404:
        raise ServerError(
            url,
            f"knows no model {connection.model!r}, or is not the right URL ({message})",
            "Check `model`, and that `base_url` ends as the server's does, mostly in /v1",
            resumable=False,
        )
    if status in (200, 408, 409, 425) or status >= 500:
        return FailedAttempt(_reason(status, message))
    if not any_success:
        raise ServerError(
            url,
            f"refuses the request ({message})",
            "Check `extra_body`, `api`, `reply_tokens` and `omit`",
            resumable=False,
        )
    return FailedAttempt(_reason(status, message), refusal=True)


def _reason(status: int, message: str) -> str:
    return f"HTTP {status}: {message}" if status != 200 else f"an error instead of a reply: {message}"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, from `retry-after-ms` or `retry-after` (seconds or a date)."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return max(0.0, float(milliseconds) / 1000)
        value = headers.get("retry-after")
        if value is None:
            return None
        if value.replace(".", "", 1).strip().isdigit():
            return float(value)
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
