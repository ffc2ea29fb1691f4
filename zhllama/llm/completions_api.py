"""The completion and chat completion APIs: builds request bodies and sends them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zhllama.llm.connection import Connection
from zhllama.llm.requests import Request

if TYPE_CHECKING:
    from openai import AsyncOpenAI


def request_body(connection: Connection, request: Request) -> dict[str, Any]:
    """The JSON body of a request; batch files contain the same body."""
    prompt: dict[str, Any] = {"prompt": request.prompt}
    if connection.api == "chat":
        prompt = {"messages": [{"role": "user", "content": request.prompt}]}
    sampling = {name: value for name, value in request.sampling.items() if name not in connection.omit}
    return {"model": connection.model, **prompt, **sampling, **connection.extra_body}


async def send_request(
    client: "AsyncOpenAI", connection: Connection, request_body: Mapping[str, Any]
) -> bytes:
    """Send one request; returns the raw body of the response."""
    body = dict(request_body)
    arguments = {key: body.pop(key) for key in ("model", "messages", "prompt") if key in body}
    api = client.chat.completions if connection.api == "chat" else client.completions
    # `extra_body` passes all other parameters unchecked: servers accept parameters that the package does not know.
    response: Any = await api.with_raw_response.create(**arguments, extra_body=body)
    return bytes(response.content)
