"""Adapts the parameters of requests to a server that refuses some of them."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from zhllama.llm.server_errors import ErrorMessage

# The sampling parameters that requests contain; each can be left out. A schema that the user asked for cannot.
PARAMETERS = (
    "max_tokens",
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "stop",
    "seed",
    "top_k",
)
RENAMED = {"max_tokens": "max_completion_tokens"}
_OUT_OF_RANGE = re.compile(r"too (large|big|high|small|long)|at most|at least|less than|greater than|exceed|range|maximum|<=|>=|\[\d|超过|过大|不能大于|范围")  # fmt: skip
_STREAM = re.compile(r"(?<![a-z])stream|流式")


@dataclass
class Adaptation:
    """What one server refused: the parameters that are left out or renamed, and whether it must stream."""

    omitted: set[str] = field(default_factory=set)
    renamed: dict[str, str] = field(default_factory=dict)
    streams: bool = False
    stream_options: bool = True  # that ask for the usage

    def apply(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body as the server accepts it."""
        adapted = {
            self.renamed.get(name, name): value for name, value in body.items() if name not in self.omitted
        }
        if self.streams and "stream" not in body:
            adapted["stream"] = True
            if self.stream_options:
                adapted.setdefault("stream_options", {"include_usage": True})
        return adapted

    def learn(self, error: ErrorMessage, sent: Mapping[str, Any], fixed: Collection[str]) -> str | None:
        """Adapt to an error about the body that was sent; returns what the next request does differently.

        None if the error names nothing that could be changed, and an empty text if another request has already
        caused the change. `fixed` are the parameters that the user set.
        """
        words = error.words
        text = f"{' '.join(error.codes)} {error.message}"
        if "stream_options" in sent and "stream_options" not in fixed and "stream_options" in text:
            return self._change("stream_options", False, "asked again without `stream_options`")
        named = [
            name
            for name in (*PARAMETERS, *RENAMED.values())
            if name in sent and name not in fixed and _names(text, name)
        ]
        # "Use only one of temperature and top_p" names both: the later one is left out.
        direction = -1 if re.search(r"\bboth\b|only one|同时", words) else 1
        for name in sorted(named, key=lambda name: (name not in error.codes, direction * text.find(name))):
            to = RENAMED.get(name)
            is_limit = name in RENAMED or name in RENAMED.values()
            if to and to in text and not _OUT_OF_RANGE.search(words):
                if name in self.renamed:
                    return ""
                self.renamed[name] = to
                return f"asked again with `{to}` instead of `{name}`"
            if is_limit and _OUT_OF_RANGE.search(words):
                continue  # without a limit the next reply could cost anything
            original = next((old for old, new in self.renamed.items() if new == name), name)
            if original in self.omitted:
                return ""
            self.omitted.add(original)
            return f"asked again without `{original}`"
        if "stream" not in sent and _STREAM.search(words):
            return self._change("streams", True, "asked again with `stream`")
        return None

    def _change(self, name: str, value: bool, change: str) -> str:
        if getattr(self, name) is value:
            return ""
        setattr(self, name, value)
        return change


def _names(text: str, name: str) -> bool:
    return re.search(rf"(?<![\w]){name}(?![\w])", text) is not None
