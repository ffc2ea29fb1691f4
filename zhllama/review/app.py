"""The review page and its requests as an ASGI app; serve it behind a Guard that allows only `page_needs`."""

import asyncio
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from zhllama.errors import InputError, OutputError, ZhllamaError
from zhllama.inference.http_guard import Refusal
from zhllama.io.files import json_line
from zhllama.io.json import parse_row
from zhllama.review.filters import RowQuery
from zhllama.review.session import ReviewSession

PAGE = 200  # rows of one request for the list
READS = ("/", "/api/summary", "/api/select", "/api/rows", "/api/row", "/api/next")


class _Numbers(BaseModel):
    """The parameters beside a query; the others are fields of RowQuery."""

    model_config = ConfigDict(extra="forbid")

    version: int = 0
    start: int = Field(0, ge=0)
    count: int = Field(50, ge=1, le=PAGE)
    row: int | None = Field(None, ge=0)
    whole: bool = False


class _DecisionRequest(BaseModel):
    """The body of a decision."""

    model_config = ConfigDict(extra="forbid", strict=True)

    row: int = Field(ge=0)
    key: str
    verdict: str | None
    edit: dict[str, str]
    comment: str = Field(max_length=10_000)


def page_needs(method: str, path: str) -> bool:
    """Whether the page needs a route."""
    return (method in ("GET", "HEAD") and path in READS) or (method == "POST" and path == "/api/decide")


def review_app(session: ReviewSession, page: str) -> Starlette:
    """The app over a session; `page` is its HTML."""

    async def show(_: Request) -> Response:
        return HTMLResponse(page, headers={"cache-control": "no-store"})

    def answer(function: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def route(request: Request) -> Response:
            try:
                return _json(await run_in_threadpool(function, request))
            except ValidationError as error:
                first = error.errors()[0]
                raise Refusal(400, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
            except IndexError:
                raise Refusal(404, "There is no such row.") from None

        return route

    def select(request: Request) -> Any:
        query, numbers = _query(request)
        return session.select(query, numbers.row)

    def rows(request: Request) -> Any:
        query, numbers = _query(request)
        return session.rows(query, numbers.version, numbers.start, numbers.count)

    def row(request: Request) -> Any:
        _, numbers = _query(request)
        return session.row(numbers.row or 0, numbers.whole)

    def undecided(request: Request) -> Any:
        query, numbers = _query(request)
        return session.next_undecided(query, numbers.version, numbers.start)

    async def decide(request: Request) -> Response:
        if not request.headers.get("content-type", "").startswith("application/json"):
            raise Refusal(415, "Content-Type is not application/json.", "Content-Type")
        try:
            decision = _DecisionRequest.model_validate(parse_row(await request.body()))
        except ValueError as error:  # pydantic's is one
            raise Refusal(400, f"The body is not a decision: {' '.join(str(error).split())[:200]}") from None
        # The decision is stored even where the client leaves meanwhile.
        storing = run_in_threadpool(session.decide, decision.row, decision.key, decision.verdict, decision.edit, decision.comment)  # fmt: skip
        try:
            return _json(await asyncio.shield(asyncio.ensure_future(storing)))
        except IndexError:
            raise Refusal(404, "There is no such row.") from None

    return Starlette(
        routes=[
            Route("/", show),
            Route("/api/summary", answer(lambda _: session.summary())),
            Route("/api/select", answer(select)),
            Route("/api/rows", answer(rows)),
            Route("/api/row", answer(row)),
            Route("/api/next", answer(undecided)),
            Route("/api/decide", decide, methods=["POST"]),
        ],
        exception_handlers={
            Refusal: lambda _, refusal: refusal.response(),
            ZhllamaError: lambda _, error: _refused(error).response(),
            Exception: lambda _, __: Refusal(500, "The server failed.").response(),
        },
    )


def _json(value: Any) -> Response:
    """A reply that is not stored; unlike JSONResponse it can contain lone surrogates, which rows may have."""
    return Response(json_line(value), media_type="application/json", headers={"cache-control": "no-store"})


def _query(request: Request) -> tuple[RowQuery, _Numbers]:
    """The query and the numbers of a request. Errors: ValidationError."""
    values = {name: value for name, value in request.query_params.items() if value != ""}
    numbers = {name: values.pop(name) for name in list(values) if name in _Numbers.model_fields}
    return RowQuery.model_validate(values), _Numbers.model_validate(numbers)


def _refused(error: ZhllamaError) -> Refusal:
    """A refusal: 409 for a row that is not the one shown, 507 where the journal cannot be written."""
    status = 409 if isinstance(error, InputError) else 507 if isinstance(error, OutputError) else 500
    return Refusal(status, str(error)[:500])
