"""Which server and model to use, with which API key."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from zhllama.errors import OptionError, ZhllamaError
from zhllama.io.files import read_utf8
from zhllama.llm.prompts import Api


class ServerError(ZhllamaError):
    """A failure that no retry can fix: the server, the key, the quota or the model. It ends the run.

    The message suggests `resume` unless `resumable` is false: no reply was received yet, or an option must change.
    """

    def __init__(self, where: object, what: str, fix: str, resumable: bool = True) -> None:
        self._fix = fix
        super().__init__(where, what, f"{fix}, then give `resume`" if resumable else fix)

    def without_resume(self) -> "ServerError":
        """The same error for a run that has nothing to resume."""
        return ServerError(self.where, self.what, self._fix, resumable=False)


@dataclass(frozen=True)
class Connection:
    """Servers that host the same model, and how to call them.

    `key` is sent in the request header only; it is left out of the repr. Errors: OptionError for an invalid URL or a
    missing key.
    """

    base_urls: tuple[str, ...]
    model: str
    key: str | None = field(default=None, repr=False)
    api: Api = "chat"
    concurrency: int = 32
    timeout: float = 120.0  # seconds for one whole call, including blank keep-alive lines
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    omit: tuple[str, ...] = ()  # sampling parameters that are not sent
    key_env: str = "OPENAI_API_KEY"  # where the key was looked for

    def __post_init__(self) -> None:
        if not self.base_urls:
            raise OptionError(
                "base_url", "is missing", "Give the server's URL, such as http://localhost:8000/v1"
            )
        for url in self.base_urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise OptionError(
                    f"base_url {url}", "is not a URL", "Give one such as http://localhost:8000/v1"
                )
            if parts.username or parts.password:
                raise OptionError(
                    "base_url", "contains a user name or password", "Set the key in the environment"
                )
            if parts.scheme == "https" and not self.key:
                raise OptionError(
                    f"base_url {url}",
                    "needs a key, and none is set",
                    f"Set {self.key_env} in the environment or in .env, or name another with `key_env`",
                )


def read_api_key(name: str, env_file: Path = Path(".env")) -> str | None:
    """The API key from the environment, else from a `.env` file of NAME=VALUE lines; None if neither sets it."""
    if key := os.environ.get(name, "").strip():
        return key
    for line in read_utf8(env_file).splitlines() if env_file.exists() else ():
        left, equals, right = line.strip().removeprefix("export ").partition("=")
        if equals and left.strip() == name and (value := right.strip().strip("'\"")):
            return value
    return None


def redact_key(text: str, key: str | None) -> str:
    """Text from a server, with the API key replaced in case the server echoes it."""
    return text.replace(key, "[key]") if key else text
