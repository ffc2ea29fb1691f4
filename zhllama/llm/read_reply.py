"""Reads the body of a successful response: a completion as JSON or as server-sent events, or an error sent as a success."""

import codecs
import json
from collections.abc import Iterator, Mapping
from typing import Any

from zhllama.llm.connection import redact_key
from zhllama.llm.requests import Reply
from zhllama.llm.server_errors import ErrorMessage, find_error
from zhllama.llm.usage import Usage, read_usage

# Values of `finish_reason` without underscores and capitals.
AT_LIMIT = {"length", "maxtokens", "maxoutputtokens", "maxcompletiontokens", "maxlength", "modellength", "tokenlimit"}  # fmt: skip
FILTERED = {"contentfilter", "contentfiltered", "filtered", "sensitive", "safety", "recitation", "blocklist", "prohibitedcontent", "moderation", "refusal", "spii"}  # fmt: skip
FAILED = {"error", "networkerror", "abort", "aborted", "malformedfunctioncall"}
_DECODER = json.JSONDecoder(strict=False)  # some servers leave line breaks in strings


class UnreadableReply(ValueError):
    """A body that is no completion, or a completion without a readable text.

    `usage` is what it cost; None if the body does not look like a completion at all.
    """

    def __init__(self, reason: str, usage: Usage | None = None) -> None:
        self.usage = usage
        super().__init__(reason)


class ErrorReply(ValueError):
    """An error that the server sent with a status of success."""

    def __init__(self, error: ErrorMessage) -> None:
        self.error = error
        super().__init__(error.message)


def read_reply(body: bytes, prompt: str, key: str | None = None) -> Reply:
    """The reply in a response body; the API key is removed from its text.

    Bytes that are not UTF-8 and unpaired surrogates become U+FFFD. Token counts that the server does
    not report, or that cannot be true, are estimated (`zhllama/llm/usage.py`).
    Errors: UnreadableReply, ErrorReply.
    """
    text = body.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace").strip().strip("\x00").lstrip()
    events = list(_event_data(text)) if text.startswith(("data:", "event:", "id:", "retry:", ":")) else []
    completion = (
        _join_chunks([_object(event) for event in events])
        if events
        else _object(_without_comments(text).lstrip())
    )
    choices = completion.get("choices")
    is_completion = isinstance(choices, list | Mapping) and bool(choices)
    if not is_completion and (error := find_error(completion)):
        raise ErrorReply(error)
    if "choices" not in completion:
        raise UnreadableReply(f"not a completion: {' '.join(text.split())[:200]}")
    return _from_completion(completion, prompt, key)


def _from_completion(completion: Mapping[str, Any], prompt: str, key: str | None) -> Reply:
    choices = completion["choices"]
    choice = choices[0] if isinstance(choices, list) and choices else choices
    choice = choice if isinstance(choice, Mapping) else {}
    message = choice.get("message")
    message = message if isinstance(message, Mapping) else {"content": message}
    content = message.get("content") if message.get("content") is not None else choice.get("text")
    thoughts = _text_of(message.get("reasoning_content") or message.get("reasoning")) or ""
    text = _text_of(content)
    usage = read_usage(completion.get("usage") or choice.get("usage"), prompt, (text or "") + thoughts)
    finish = choice.get("finish_reason")
    reason = "".join(character for character in str(finish).lower() if character.isalnum())
    refusal = _text_of(message.get("refusal"))
    if reason in FILTERED or refusal:
        refused = f"refused: {redact_key(refusal or 'content filter', key)}"
        return _reply(usage, text=None, refusal=refused, model=_model(completion, key))
    if not choice or text is None:
        shown = json.dumps(content if choice else choices, ensure_ascii=False)[:100]
        raise UnreadableReply(f"a completion without text ({shown})", usage)
    if reason in FAILED:
        error = find_error(choice)
        raise UnreadableReply(f"finish_reason {finish}" + (f" ({error.message})" if error else ""), usage)
    finish = "length" if reason in AT_LIMIT else _valid(finish) if isinstance(finish, str) else None
    return _reply(usage, text=redact_key(_valid(text), key), finish=finish, model=_model(completion, key))


def _reply(usage: Usage, **fields: Any) -> Reply:
    return Reply(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        estimated=usage.estimated,
        **fields,
    )


def _model(completion: Mapping[str, Any], key: str | None) -> str:
    model = completion.get("model")
    return redact_key(_valid(model), key) if isinstance(model, str) else ""


def _valid(text: str) -> str:
    """The text with U+FFFD for unpaired surrogates, which UTF-8 cannot encode."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _text_of(content: Any) -> str | None:
    """The text of a message: a string, an object with a text, or a list of those; None for anything else.

    An absent text is empty. Parts of other types, such as thoughts, are left out.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        if content.get("type", "text") not in ("text", "output_text"):
            return ""
        text = content.get("text", content.get("value", content.get("content")))
        return None if text is None else _text_of(text)
    if isinstance(content, list):
        parts = [_text_of(part) for part in content]
        return None if None in parts else "".join(part or "" for part in parts)
    return None


def _object(text: str) -> Mapping[str, Any]:
    try:
        value, _ = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        raise UnreadableReply(f"not a completion: {' '.join(text.split())[:200]}") from None
    if not isinstance(value, Mapping):
        raise UnreadableReply(f"not a completion: {' '.join(text.split())[:200]}")
    return value


def _event_data(text: str) -> Iterator[str]:
    """The data of each server-sent event, without the final [DONE]."""
    data: list[str] = []
    # Not splitlines: a text may contain U+2028, which ends no line of an event stream.
    for line in [*text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), ""]:
        if line.startswith("data:"):
            data.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and data:
            # Some servers separate events by one line break only, so that each line is a whole event.
            for event in (
                data if all(part.startswith(("{", "[DONE]")) for part in data) else ["\n".join(data)]
            ):
                if event.strip() and event.strip() != "[DONE]":
                    yield event
            data = []


def _without_comments(text: str) -> str:
    """A body without the comment lines that keep a connection alive."""
    return (
        "\n".join(line for line in text.split("\n") if not line.startswith(":"))
        if text.startswith(":")
        else text
    )


def _join_chunks(chunks: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    """One completion from the chunks of a stream.

    A stream that ends without a `finish_reason` counts as cut off, since its last words may be missing.
    """
    joined: dict[str, Any] = {}
    texts: dict[str, list[str]] = {"content": [], "reasoning_content": [], "refusal": []}
    finish: Any = None
    seen = False
    for chunk in chunks:
        if error := find_error(chunk):
            if not seen:
                raise ErrorReply(error)
            finish = "length"  # what was paid for arrived before the error
            break
        joined |= {name: chunk[name] for name in ("model", "usage") if chunk.get(name)}
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, Mapping) or choice.get("index") not in (0, None):
                continue
            seen = True
            part = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
            part = part if isinstance(part, Mapping) else {"content": part}
            for name, pieces in texts.items():
                pieces.append(_text_of(part.get(name)) or "")
            finish = choice.get("finish_reason") or finish
            joined |= {"usage": choice["usage"]} if choice.get("usage") else {}
    if not seen:
        return joined
    message = {name: text for name, pieces in texts.items() if (text := "".join(pieces))}
    return {**joined, "choices": [{"message": message, "finish_reason": finish or "length"}]}
