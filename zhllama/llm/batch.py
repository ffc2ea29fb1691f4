"""A client for a provider's Batch API: half the price, replies within a day."""

import asyncio
import json
import os
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from zhllama.io.files import RESUME_ROOM, RESUME_WRITABLE, not_written, read_utf8, write_whole
from zhllama.io.json import as_object, parse_json
from zhllama.llm.completions_api import request_body
from zhllama.llm.connection import Connection, ServerError, redact_key
from zhllama.llm.read_reply import ErrorReply, UnreadableReply, read_reply
from zhllama.llm.requests import Key, Reply, Request
from zhllama.llm.server_errors import ErrorMessage, find_error

FINAL_STATUSES = ("completed", "failed", "expired", "cancelled")
GATHER = 0.2  # seconds without a new request after which the waiting requests are sent as one batch
POLL = 30.0  # seconds
BATCHES = "batches.jsonl"

_Waiting = dict[Key, tuple[Request, asyncio.Future[Reply], Callable[[bytes], None]]]


class BatchClient:
    """Sends the requests of a round as one batch.

    `log` is a JSON-lines file that records the uploaded file of each batch before the batch is created, and the batch id
    as soon as the provider returns it. A resumed run therefore waits for its batch instead of paying for a second one; a
    batch whose id was never received is looked up by its file. Errors: ServerError if the provider has no Batch API,
    refuses the batch, or lets it expire.
    """

    def __init__(
        self,
        connection: Connection,
        log: Path,
        poll: float = POLL,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        from openai import AsyncOpenAI

        self.connection, self.url = connection, connection.base_urls[0]
        self._log, self._poll, self._sleep = log, poll, sleep
        self._client = AsyncOpenAI(
            base_url=self.url, api_key=connection.key or "none", max_retries=5, timeout=connection.timeout
        )
        self._waiting: _Waiting = {}
        self._sender: asyncio.Task[None] | None = None
        self._entries = _read_log(log)

    async def ask(
        self,
        request: Request,
        is_allowed: Callable[[], Awaitable[bool]] | None = None,
        store: Callable[[bytes], None] = lambda body: None,
    ) -> Reply | None:
        """The reply to one request, once its batch has ended; None if `is_allowed` forbids the request.

        `store` gets the response body before anything of it is judged.
        """
        if is_allowed is not None and not await is_allowed():
            return None
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[request.key] = request, future, store
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_waiting())
        return await future

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sender is not None:
            self._sender.cancel()
        await self._client.close()

    async def _send_waiting(self) -> None:
        """Send the waiting requests batch by batch until none is left; a failure is passed to all of them."""
        from openai import OpenAIError

        batch: _Waiting = {}
        try:
            while self._waiting:
                count = -1
                while count != len(self._waiting):
                    count = len(self._waiting)
                    await asyncio.sleep(GATHER)
                batch, self._waiting = self._waiting, {}
                await self._process_batch(batch)
        except Exception as error:
            failure: Exception = error
            if isinstance(error, OpenAIError | ValueError | LookupError):
                message = redact_key(" ".join(str(error).split())[:300], self.connection.key)
                failure = ServerError(
                    self.url, f"batch failed ({message})",
                    f"Check {self.connection.key_env}, and that the server has a Batch API",
                )  # fmt: skip
            for _, future, _ in [*batch.values(), *self._waiting.values()]:
                if not future.done():
                    future.set_exception(failure)

    async def _process_batch(self, requests: _Waiting) -> None:
        id = await self._find_batch(requests.keys())
        if id is None:
            id = await self._create_batch([request for request, _, _ in requests.values()])
        while (batch := await self._client.batches.retrieve(id)).status not in FINAL_STATUSES:
            await self._sleep(self._poll)
        if batch.status != "completed":
            self._append_entry({"id": id, "ended": batch.status})
        for file in (batch.output_file_id, batch.error_file_id):
            for line in (await self._client.files.content(file)).text.split("\n") if file else ():
                if line.strip():
                    self._resolve(line, requests)
        if missing := [key for key, (_, future, _) in requests.items() if not future.done()]:
            reason = batch.errors.data[0].message if batch.errors and batch.errors.data else batch.status
            raise ServerError(
                self.url,
                f"batch {id} left {len(missing):,} requests unanswered ({reason})",
                "Look up the cause at the provider",
            )

    async def _create_batch(self, requests: list[Request]) -> str:
        """Upload the requests and create a batch of them; returns its id."""
        from openai import APIConnectionError

        endpoint: Any = "/v1/chat/completions" if self.connection.api == "chat" else "/v1/completions"
        lines = [
            {
                "custom_id": f"{request.round}-{request.index}",
                "method": "POST",
                "url": endpoint,
                "body": request_body(self.connection, request),
            }
            for request in requests
        ]
        content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        file = await self._client.files.create(file=("zhllama.jsonl", content), purpose="batch")
        self._append_entry({"file": file.id, "requests": [list(request.key) for request in requests]})
        try:
            # No blind retries: if only the response was lost, the batch exists, and a retry would pay for it twice.
            client = self._client.with_options(max_retries=0)
            batch = await client.batches.create(
                input_file_id=file.id, endpoint=endpoint, completion_window="24h"
            )
        except APIConnectionError:
            if (id := await self._find_batch_of_file(file.id)) is None:
                raise
            return id
        self._append_entry({"id": batch.id, "file": file.id})
        return batch.id

    async def _find_batch_of_file(self, file: str) -> str | None:
        """The id of the provider's batch for an uploaded file, logged; None if there is none."""
        async for batch in self._client.batches.list(limit=100):
            if batch.input_file_id == file:
                self._append_entry({"id": batch.id, "file": file})
                return batch.id
        self._append_entry({"file": file, "ended": "never made"})  # the value stays: older logs contain it
        return None

    def _resolve(self, line: str, requests: _Waiting) -> None:
        """Pass one row of a batch's output to the request that waits for it; a row without its key belongs to none."""
        if not (found := re.search(r'"custom_id"\s*:\s*"(\d+)-(\d+)"', line)):
            return
        key = int(found[1]), int(found[2])
        if key not in requests or requests[key][1].done():
            return
        request, future, store = requests[key]
        store(redact_key(line, self.connection.key).encode("utf-8", "replace"))
        try:
            reply = _read_row(line, request, self.connection.key)
        except (UnreadableReply, ErrorReply) as error:
            refusal = redact_key(f"refused: {error}", self.connection.key)
            usage = error.usage if isinstance(error, UnreadableReply) else None
            reply = Reply(text=None, refusal=refusal)
            reply = reply.with_usage(usage) if usage else reply
        future.set_result(reply)

    async def _find_batch(self, keys: Collection[Key]) -> str | None:
        """The id of an earlier batch that contains all these requests; None if there is none."""
        entries = self._entries
        ended = {entry.get("id") or entry["file"] for entry in entries if "ended" in entry}
        ids = {entry["file"]: str(entry["id"]) for entry in entries if "file" in entry and "id" in entry}
        for entry in [entry for entry in entries if "requests" in entry]:
            file = entry["file"]
            if not set(keys) <= {(round, index) for round, index in entry["requests"]} or file in ended:
                continue
            id = ids.get(file) or await self._find_batch_of_file(file)
            if id is not None and id not in ended:
                return id
        return None

    def _append_entry(self, entry: dict[str, Any]) -> None:
        try:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise not_written(self._log, error, RESUME_WRITABLE, RESUME_ROOM) from error
        self._entries.append(entry)


def _read_log(path: Path) -> list[dict[str, Any]]:
    """The entries of an earlier start. An incomplete last line is removed, since the next entry would be joined to it."""
    if not path.exists():
        return []
    text = read_utf8(path)
    lines = [line for line in text.split("\n") if line.endswith("}")]
    if text and not text.endswith("\n"):
        write_whole(path, "".join(line + "\n" for line in lines))
    return [as_object(parse_json(line, path, "Remove that line"), path) for line in lines]


def _read_row(line: str, request: Request, key: str | None) -> Reply:
    """The reply in one row of a batch's output. Errors: UnreadableReply, ErrorReply."""
    try:
        row = json.loads(line, strict=False)
    except (ValueError, RecursionError):
        raise UnreadableReply("not JSON") from None
    row = row if isinstance(row, Mapping) else {}
    response = row.get("response")
    response = response if isinstance(response, Mapping) else {}
    body = response.get("body")
    if response.get("status_code") == 200:
        return read_reply(json.dumps(body).encode(), request.prompt, key)
    errors = ({"error": row.get("error")}, body if isinstance(body, Mapping) else {}, {"error": response})
    found = (error for value in errors if (error := find_error(value)))
    raise ErrorReply(next(found, ErrorMessage("a row without a response")))
