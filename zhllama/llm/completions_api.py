"""The completion and chat completion APIs: builds request bodies and reads replies."""

import json
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field

from zhllama.io.json import parse_row
from zhllama.llm.connection import Connection, redact_key
from zhllama.llm.requests import Reply, Request

if TYPE_CHECKING:
    from openai import AsyncOpenAI


def request_body(connection: Connection, request: Request) -> dict[str, Any]:
    """The JSON body of a request; batch files contain the same body."""
    prompt: dict[str, Any] = {"prompt": request.prompt}
    if connection.api == "chat":
        prompt = {"messages": [{"role": "user", "content": request.prompt}]}
    return {"model": connection.model, **prompt, **request.sampling, **connection.extra_body}


async def send_request(client: "AsyncOpenAI", connection: Connection, request: Request) -> bytes:
    """Send one request; returns the raw body of the response."""
    body = request_body(connection, request)
    arguments = {key: body.pop(key) for key in ("model", "messages", "prompt") if key in body}
    api = client.chat.completions if connection.api == "chat" else client.completions
    # `extra_body` passes all other parameters unchecked: servers accept parameters that the package does not know.
    response: Any = await api.with_raw_response.create(**arguments, extra_body=body)
    return bytes(response.content)


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
    """The reply in a response body. If the server reports no usage, each character counts as one token.

    Errors: ValidationError (a ValueError) if the body is not a completion.
    """
    # Some servers send unpaired surrogates, which UTF-8 cannot encode: "replace" turns them into question marks.
    valid = json.dumps(parse_row(body, any_number=True), ensure_ascii=False).encode("utf-8", "replace")
    completion = _Completion.model_validate_json(valid)
    choice = completion.choices[0]
    text = redact_key((choice.message.content if choice.message else choice.text) or "", key)
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
