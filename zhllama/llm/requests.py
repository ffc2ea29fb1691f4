"""A request to a language model and the reply to it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from zhllama.llm.usage import Usage

Key = tuple[int, int]  # round, index within the round
Sampling = Mapping[str, Any]  # temperature, max_tokens, ... as the API names them


@dataclass(frozen=True)
class Request:
    """One prompt with its sampling parameters.

    `key` identifies it within a run. `about` is metadata that is stored with the reply but not sent to the server: ids,
    seed tasks, the instruction.
    """

    round: int
    index: int
    kind: str
    prompt: str
    about: Mapping[str, Any]
    sampling: Sampling

    @property
    def key(self) -> Key:
        return self.round, self.index

    @property
    def fingerprint(self) -> str:
        """A hash of everything that determines the reply: kind, prompt and sampling parameters."""
        text = json.dumps([self.kind, self.prompt, dict(self.sampling)], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


class Reply(BaseModel, frozen=True):
    """A server's reply; where this one request was refused, `text` is None and `refusal` is the reason."""

    text: str | None
    finish: str | None = None
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False  # the server's token counts are missing or cannot be true
    refusal: str = ""

    def with_usage(self, usage: Usage) -> "Reply":
        """The reply with the tokens of a failed attempt added to its own."""
        return self.model_copy(
            update={
                "prompt_tokens": self.prompt_tokens + usage.prompt_tokens,
                "completion_tokens": self.completion_tokens + usage.completion_tokens,
                "estimated": self.estimated or usage.estimated,
            }
        )
