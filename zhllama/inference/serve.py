"""Serves a model with OpenAI's API: /v1/models, /v1/chat/completions, /v1/completions and /health."""

import asyncio
import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from zhllama.errors import InputError, ZhllamaError
from zhllama.inference.api_requests import ChatRequest, CompletionRequest, read_request
from zhllama.inference.generation_queue import Busy, Engine, GenerationResult
from zhllama.inference.http_guard import Refusal

Output = str | GenerationResult


def served_name(model: str) -> str:
    """The name that clients use, from a path or hub name, with only the characters of a hub name."""
    last = (
        Path(model).expanduser().resolve().name
        if Path(model).expanduser().exists()
        else model.rpartition("/")[2]
    )
    return re.sub(r"[^\w.-]+|--+|\.\.+", "-", last, flags=re.ASCII).strip("-.") or "model"


def api(name: str, engine: Engine) -> Starlette:
    """The API as an app; clients call the model `name`. Serve it behind a Guard, which checks Host and size."""
    service = _Service(name, engine)
    app = Starlette(
        routes=[
            Route("/health", lambda _: JSONResponse({"status": "ok"})),
            Route("/v1/models", lambda _: JSONResponse({"object": "list", "data": [service.card]})),
            Route("/v1/models/{name}", service.model),
            Route("/v1/chat/completions", service.chat, methods=["POST"]),
            Route("/v1/completions", service.complete, methods=["POST"]),
        ],
        exception_handlers={
            Refusal: lambda _, refusal: refusal.response(),
            HTTPException: _http_error,
            InputError: lambda _, error: _refused(error).response(),
            Exception: lambda _, __: Refusal(500, "The server failed.").response(),
        },
    )
    app.router.redirect_slashes = False
    return app


class _Service:
    def __init__(self, name: str, engine: Engine) -> None:
        self._engine = engine
        # One thread, so that only one long prompt at a time takes memory for counting.
        self._counting = ThreadPoolExecutor(1, "counting")
        self.card = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "zhllama"}

    async def model(self, request: Request) -> Response:
        if request.path_params["name"] != self.card["id"]:
            raise Refusal(404, "There is no such model.", "model", "model_not_found")
        return JSONResponse(self.card)

    async def chat(self, request: Request) -> Response:
        return await self._answer(request, ChatRequest)

    async def complete(self, request: Request) -> Response:
        return await self._answer(request, CompletionRequest)

    async def _answer(self, request: Request, kind: Any) -> Response:
        _check_type(request.headers.get("content-type", ""))
        query = read_request(kind, await request.body(), [str(self.card["id"])])
        model = self._engine.model
        if query.kind == ChatRequest.kind and query.schema_to_follow() is not None and not model.schemas:
            raise Refusal(400, "response_format: this model does not support it.", "response_format")
        prompt_tokens = await self._count(query)
        room = model.context - prompt_tokens
        if room < 1:
            raise _too_long(query, f"{prompt_tokens:,} tokens", model.context)
        running = _Running(self._engine, query, query.sampling(model.own, room))
        reply = _Reply(query, str(self.card["id"]), prompt_tokens)
        if query.stream:
            return _Stream(reply.stream(running.output()), running.leave)
        return await _unless_left(request, reply.whole(running.output()), running.leave)

    async def _count(self, query: ChatRequest | CompletionRequest) -> int:
        """The number of prompt tokens, at least one. Errors: Refusal, without counting where the length alone is too large."""
        model = self._engine.model
        if query.size() > model.context * model.longest:
            raise _too_long(query, f"{query.size():,} characters", model.context)
        if isinstance(query, ChatRequest) and len(query.messages) > model.context:
            raise _too_long(query, f"{len(query.messages):,} messages", model.context)
        loop = asyncio.get_running_loop()
        try:
            prompt_tokens = await loop.run_in_executor(self._counting, model.count, query.prompt)
        except ZhllamaError as error:  # the template refuses such a conversation
            message = f"{query.prompt_field}: {' '.join(str(error).split())}"
            raise Refusal(400, message, query.prompt_field) from error
        if not prompt_tokens:
            raise Refusal(400, f"{query.prompt_field}: contains no tokens.", query.prompt_field)
        return prompt_tokens


class _Running:
    """One generation, consumed in the event loop."""

    def __init__(self, engine: Engine, query: ChatRequest | CompletionRequest, sampling: Any) -> None:
        self._stop, self._outputs = Event(), asyncio.Queue[str | Future[GenerationResult]]()
        loop = asyncio.get_running_loop()

        def receive(output: str | Future[GenerationResult]) -> None:
            with suppress(RuntimeError):  # the loop is closed: the client left
                loop.call_soon_threadsafe(self._outputs.put_nowait, output)

        try:
            self._future = engine.submit(query.prompt, sampling, self._stop, receive, tuple(query.stop))
        except Busy as error:
            raise Refusal(503, str(error), code="busy") from error
        self._future.add_done_callback(receive)

    async def output(self) -> AsyncIterator[Output]:
        """The pieces, then the result. Errors: whatever the model raises."""
        while not isinstance(output := await self._outputs.get(), Future):
            if output:
                yield output
        yield output.result()

    def leave(self) -> None:
        """Stop the generation, or remove it from the queue, after its client left."""
        self._stop.set()
        self._future.cancel()


class _Reply:
    """Builds replies in OpenAI's format."""

    def __init__(self, query: ChatRequest | CompletionRequest, model: str, prompt_tokens: int) -> None:
        self._query, self._prompt_tokens = query, prompt_tokens
        self._chat = isinstance(query, ChatRequest)
        self._frame = {
            "id": f"{'chatcmpl' if self._chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    async def whole(self, output: AsyncIterator[Output]) -> Response:
        pieces: list[str] = []
        result = GenerationResult("stop", 0)
        async for piece in output:
            if isinstance(piece, GenerationResult):
                result = piece
            else:
                pieces.append(piece)
        text = "".join(pieces)
        content = {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": result.reason}
        frame = {**self._frame, "object": self._query.kind, "choices": [choice]}
        return JSONResponse({**frame, "usage": self._usage(result)})

    async def stream(self, output: AsyncIterator[Output]) -> AsyncIterator[str]:
        if self._chat:
            yield self._chunk({"role": "assistant", "content": ""})
        try:
            async for piece in output:
                if isinstance(piece, str):
                    yield self._chunk({"content": piece} if self._chat else piece)
                    continue
                yield self._chunk({} if self._chat else "", piece.reason)
                if self._query.stream_options.include_usage:
                    yield self._event({"choices": [], "usage": self._usage(piece)})
        except Exception as error:
            refusal = _refused(error) if isinstance(error, InputError) else Refusal(500, "The model failed.")
            yield _sse(refusal.body())
        yield "data: [DONE]\n\n"

    def _chunk(self, content: Any, reason: str | None = None) -> str:
        field = "delta" if self._chat else "text"
        return self._event(
            {"choices": [{"index": 0, field: content, "logprobs": None, "finish_reason": reason}]}
        )

    def _event(self, content: dict[str, Any]) -> str:
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        return _sse({**self._frame, "object": kind, **content})

    def _usage(self, result: GenerationResult) -> dict[str, int]:
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": result.tokens,
            "total_tokens": self._prompt_tokens + result.tokens,
        }


class _Stream(StreamingResponse):
    """Server-sent events; `leave` is called at the end, also when the client disconnects."""

    def __init__(self, events: AsyncIterator[str], leave: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"cache-control": "no-cache"})
        self._leave = leave

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


async def _unless_left(request: Request, answer: Any, leave: Callable[[], None]) -> Response:
    """The answer; for a client that left, stop its generation and return an empty response."""
    answering = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return await answering if answering.done() else Response(status_code=499)
    finally:
        leave()
        leaving.cancel()
        answering.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _too_long(query: ChatRequest | CompletionRequest, size: str, context: int) -> Refusal:
    message = (
        f"{query.prompt_field}: {size} do not fit the model's context of {context:,} tokens with an answer."
    )
    return Refusal(400, message, query.prompt_field, "context_length_exceeded")


def _refused(error: Exception) -> Refusal:
    """A refusal by the model itself, such as of a schema that llama.cpp does not support."""
    return Refusal(400, " ".join(str(error).split())[:300])


def _check_type(content_type: str) -> None:
    kind, _, rest = content_type.partition(";")
    charset = rest.strip().lower().removeprefix("charset=").strip('"') if rest else "utf-8"
    if kind.strip().lower() != "application/json" or charset not in ("utf-8", "utf8"):
        raise Refusal(415, "Content-Type is not application/json in UTF-8.", "Content-Type")


async def _http_error(request: Request, error: Exception) -> Response:
    """The router's 404 and 405 in OpenAI's format."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    response = Refusal(status, f"There is no {request.method} {request.url.path[:100]}.").response()
    response.headers.update(getattr(error, "headers", None) or {})
    return response


def _sse(content: Any) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False, separators=(',', ':'))}\n\n"
