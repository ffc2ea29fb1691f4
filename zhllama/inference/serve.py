"""The OpenAI-compatible server: /v1/models, /v1/chat/completions, /v1/completions, /health, and nothing else."""

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

Said = str | GenerationResult


def served_name(model: str) -> str:
    """A name for clients out of a path or hub name: what a hub name may hold, nothing else."""
    last = (
        Path(model).expanduser().resolve().name
        if Path(model).expanduser().exists()
        else model.rpartition("/")[2]
    )
    return re.sub(r"[^\w.-]+|--+|\.\.+", "-", last, flags=re.ASCII).strip("-.") or "model"


def api(name: str, engine: Engine) -> Starlette:
    """The app; `name` is how clients call the model. Without a Guard before it, it checks neither Host nor size."""
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
        # One thread: the memory that counting a long prompt takes is taken once.
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
        asked = read_request(kind, await request.body(), [str(self.card["id"])])
        model = self._engine.model
        if asked.kind == ChatRequest.kind and asked.followed() is not None and not model.schemas:
            raise Refusal(400, "response_format: this model cannot be held to one.", "response_format")
        taken = await self._count(asked)
        room = model.context - taken
        if room < 1:
            raise _too_long(asked, f"{taken:,} tokens", model.context)
        running = _Running(self._engine, asked, asked.sampling(model.own, room))
        reply = _Reply(asked, str(self.card["id"]), taken)
        if asked.stream:
            return _Stream(reply.stream(running.said()), running.leave)
        return await _unless_left(request, reply.whole(running.said()), running.leave)

    async def _count(self, asked: ChatRequest | CompletionRequest) -> int:
        """Tokens of the prompt, at least one. Errors: Refusal for what is too long, told at once by its length."""
        model = self._engine.model
        if asked.size() > model.context * model.longest:
            raise _too_long(asked, f"{asked.size():,} characters", model.context)
        if isinstance(asked, ChatRequest) and len(asked.messages) > model.context:
            raise _too_long(asked, f"{len(asked.messages):,} messages", model.context)
        loop = asyncio.get_running_loop()
        try:
            taken = await loop.run_in_executor(self._counting, model.count, asked.prompt)
        except ZhllamaError as error:  # the template refuses such a conversation
            told = f"{asked.prompt_field}: {' '.join(str(error).split())}"
            raise Refusal(400, told, asked.prompt_field) from error
        if not taken:
            raise Refusal(400, f"{asked.prompt_field}: holds no tokens.", asked.prompt_field)
        return taken


class _Running:
    """One generation, heard from the event loop."""

    def __init__(self, engine: Engine, asked: ChatRequest | CompletionRequest, sampling: Any) -> None:
        self._stop, self._heard = Event(), asyncio.Queue[str | Future[GenerationResult]]()
        loop = asyncio.get_running_loop()

        def hear(said: str | Future[GenerationResult]) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody listens
                loop.call_soon_threadsafe(self._heard.put_nowait, said)

        try:
            self._future = engine.submit(asked.prompt, sampling, self._stop, hear, tuple(asked.stop))
        except Busy as error:
            raise Refusal(503, str(error), code="busy") from error
        self._future.add_done_callback(hear)

    async def said(self) -> AsyncIterator[Said]:
        """The pieces, then how it ended. Errors: whatever the model raises."""
        while not isinstance(said := await self._heard.get(), Future):
            if said:
                yield said
        yield said.result()

    def leave(self) -> None:
        """Nobody listens any more: end it, or take it out of the queue."""
        self._stop.set()
        self._future.cancel()


class _Reply:
    """What is sent back, in OpenAI's shapes."""

    def __init__(self, asked: ChatRequest | CompletionRequest, model: str, taken: int) -> None:
        self._asked, self._taken = asked, taken
        self._chat = isinstance(asked, ChatRequest)
        self._frame = {
            "id": f"{'chatcmpl' if self._chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    async def whole(self, said: AsyncIterator[Said]) -> Response:
        pieces: list[str] = []
        ended = GenerationResult("stop", 0)
        async for piece in said:
            if isinstance(piece, GenerationResult):
                ended = piece
            else:
                pieces.append(piece)
        text = "".join(pieces)
        told = {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}
        choice = {"index": 0, **told, "logprobs": None, "finish_reason": ended.reason}
        frame = {**self._frame, "object": self._asked.kind, "choices": [choice]}
        return JSONResponse({**frame, "usage": self._usage(ended)})

    async def stream(self, said: AsyncIterator[Said]) -> AsyncIterator[str]:
        if self._chat:
            yield self._chunk({"role": "assistant", "content": ""})
        try:
            async for piece in said:
                if isinstance(piece, str):
                    yield self._chunk({"content": piece} if self._chat else piece)
                    continue
                yield self._chunk({} if self._chat else "", piece.reason)
                if self._asked.stream_options.include_usage:
                    yield self._event({"choices": [], "usage": self._usage(piece)})
        except Exception as error:
            refusal = _refused(error) if isinstance(error, InputError) else Refusal(500, "The model failed.")
            yield _sse(refusal.body())
        yield "data: [DONE]\n\n"

    def _chunk(self, told: Any, reason: str | None = None) -> str:
        field = "delta" if self._chat else "text"
        return self._event(
            {"choices": [{"index": 0, field: told, "logprobs": None, "finish_reason": reason}]}
        )

    def _event(self, told: dict[str, Any]) -> str:
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        return _sse({**self._frame, "object": kind, **told})

    def _usage(self, ended: GenerationResult) -> dict[str, int]:
        return {
            "prompt_tokens": self._taken,
            "completion_tokens": ended.tokens,
            "total_tokens": self._taken + ended.tokens,
        }


class _Stream(StreamingResponse):
    """Server-sent events; `leave` is called at their end, also when the client breaks them off."""

    def __init__(self, events: AsyncIterator[str], leave: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"cache-control": "no-cache"})
        self._leave = leave

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


async def _unless_left(request: Request, answer: Any, leave: Callable[[], None]) -> Response:
    """The answer, or nothing for a client that is gone, whose generation is then ended."""
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


def _too_long(asked: ChatRequest | CompletionRequest, size: str, context: int) -> Refusal:
    told = (
        f"{asked.prompt_field}: {size} do not fit the model's context of {context:,} tokens with an answer."
    )
    return Refusal(400, told, asked.prompt_field, "context_length_exceeded")


def _refused(error: Exception) -> Refusal:
    """What the model itself refuses, such as a schema that llama.cpp cannot follow."""
    return Refusal(400, " ".join(str(error).split())[:300])


def _check_type(given: str) -> None:
    kind, _, rest = given.partition(";")
    charset = rest.strip().lower().removeprefix("charset=").strip('"') if rest else "utf-8"
    if kind.strip().lower() != "application/json" or charset not in ("utf-8", "utf8"):
        raise Refusal(415, "Content-Type is not application/json in UTF-8.", "Content-Type")


async def _http_error(request: Request, error: Exception) -> Response:
    """404 and 405 of the router, in OpenAI's shape."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    response = Refusal(status, f"There is no {request.method} {request.url.path[:100]}.").response()
    response.headers.update(getattr(error, "headers", None) or {})
    return response


def _sse(told: Any) -> str:
    return f"data: {json.dumps(told, ensure_ascii=False, separators=(',', ':'))}\n\n"
