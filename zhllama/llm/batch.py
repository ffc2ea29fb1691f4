"""A provider's Batch API instead of single calls: half the price, within a day, and gone on with by the batch's id."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from zhllama.errors import OutputError
from zhllama.io.files import read_utf8, write_whole
from zhllama.io.json import as_object, parse_json
from zhllama.llm.client import Connection, ServerError, body_of, read_reply, without_key
from zhllama.llm.journal import Key, Reply, Request

ENDED = ("completed", "failed", "expired", "cancelled")
GATHER = 0.2  # seconds without a further request, after which those waiting go off together
POLL = 30.0  # seconds
BATCHES = "batches.jsonl"

_Waiting = dict[Key, tuple[Request, asyncio.Future[Reply]]]


class BatchClient:
    """Sends the requests of a round as one batch; `notes` is a file that says which requests each batch holds.

    The file of requests is noted before a batch is made of it, and the batch as soon as the provider has named it: a run
    that is gone on with waits for it instead of paying for another, and looks a batch that it was never told of up
    by that file. Errors: ServerError where the provider has no Batch API, refuses a batch, or lets it expire.
    """

    def __init__(
        self,
        to: Connection,
        notes: Path,
        poll: float = POLL,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        from openai import AsyncOpenAI

        self.to, self.url, self._notes, self._poll, self._sleep = to, to.base_urls[0], notes, poll, sleep
        self._client = AsyncOpenAI(
            base_url=self.url, api_key=to.key or "none", max_retries=5, timeout=to.timeout
        )
        self._waiting: _Waiting = {}
        self._work: asyncio.Task[None] | None = None
        self._noted = _read(notes)

    async def ask(self, request: Request, may: Callable[[], Awaitable[bool]] | None = None) -> Reply | None:
        """The reply to one request, once its batch has ended; None where `may` forbids to send it at all."""
        if may is not None and not await may():
            return None
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[request.key] = request, future
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._go())
        return await future

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._work is not None:
            self._work.cancel()
        await self._client.close()

    async def _go(self) -> None:
        """Send what is waiting until nothing more comes; a failure goes to all who wait."""
        from openai import OpenAIError

        together: _Waiting = {}
        try:
            while self._waiting:
                count = -1
                while count != len(self._waiting):
                    count = len(self._waiting)
                    await asyncio.sleep(GATHER)
                together, self._waiting = self._waiting, {}
                await self._batch(together)
        except Exception as error:
            told: Exception = error
            if isinstance(error, OpenAIError | ValueError | LookupError):
                said = without_key(" ".join(str(error).split())[:300], self.to.key)
                remedy = "Check the key and that the server has a Batch API"
                told = ServerError(self.url, f"batch failed ({said})", remedy)
            for _, future in [*together.values(), *self._waiting.values()]:
                if not future.done():
                    future.set_exception(told)

    async def _batch(self, together: _Waiting) -> None:
        name = await self._known(together.keys()) or await self._create(
            [request for request, _ in together.values()]
        )
        while (batch := await self._client.batches.retrieve(name)).status not in ENDED:
            await self._sleep(self._poll)
        if batch.status != "completed":
            self._note({"id": name, "ended": batch.status})
        for file in (batch.output_file_id, batch.error_file_id):
            for line in (await self._client.files.content(file)).text.split("\n") if file else ():
                if line.strip():
                    self._take(
                        parse_json(line, f"{self.url}: batch {name}", "Ask again", any_number=True), together
                    )
        if missing := [key for key, (_, future) in together.items() if not future.done()]:
            told = batch.errors.data[0].message if batch.errors and batch.errors.data else batch.status
            raise ServerError(
                self.url,
                f"batch {name} left {len(missing):,} requests unanswered ({told})",
                "Read why at the provider's",
            )

    async def _create(self, requests: list[Request]) -> str:
        from openai import APIConnectionError

        endpoint: Any = "/v1/chat/completions" if self.to.api == "chat" else "/v1/completions"
        lines = [
            {
                "custom_id": f"{r.round}-{r.index}",
                "method": "POST",
                "url": endpoint,
                "body": body_of(self.to, r),
            }
            for r in requests
        ]
        content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        file = await self._client.files.create(file=("zhllama.jsonl", content), purpose="batch")
        self._note({"file": file.id, "requests": [list(r.key) for r in requests]})
        try:
            # Not tried again blindly: where the answer alone was lost, the batch stands and would be paid for twice.
            once = self._client.with_options(max_retries=0)
            batch = await once.batches.create(
                input_file_id=file.id, endpoint=endpoint, completion_window="24h"
            )
        except APIConnectionError:
            if (name := await self._made_of(file.id)) is None:
                raise
            return name
        self._note({"id": batch.id, "file": file.id})
        return batch.id

    async def _made_of(self, file: str) -> str | None:
        """The batch that stands for a file at the provider's, noted; None where there is none."""
        async for batch in self._client.batches.list(limit=100):
            if batch.input_file_id == file:
                self._note({"id": batch.id, "file": file})
                return batch.id
        self._note({"file": file, "ended": "never made"})
        return None

    def _take(self, line: Mapping[str, Any], together: _Waiting) -> None:
        round_, _, index = str(line.get("custom_id", "")).partition("-")
        key = int(round_), int(index)
        if key not in together or together[key][1].done():
            return
        request, future = together[key]
        response = line.get("response") or {}
        if response.get("status_code") == 200:
            future.set_result(read_reply(json.dumps(response["body"]).encode(), request.prompt, self.to.key))
        else:
            said = line.get("error") or (response.get("body") or {}).get("error") or response
            future.set_result(
                Reply(
                    text=None,
                    refusal=without_key(
                        f"refused: {json.dumps(said, ensure_ascii=False)[:200]}", self.to.key
                    ),
                )
            )

    async def _known(self, keys: Any) -> str | None:
        """A batch that was sent earlier and holds all these requests."""
        ended = {note.get("id") or note["file"] for note in self._noted if "ended" in note}
        named = {note["file"]: str(note["id"]) for note in self._noted if "file" in note and "id" in note}
        for note in [note for note in self._noted if "requests" in note]:
            if not set(keys) <= {(r, i) for r, i in note["requests"]} or note["file"] in ended:
                continue
            name = named.get(note["file"]) or await self._made_of(note["file"])
            if name is not None and name not in ended:
                return name
        return None

    def _note(self, note: dict[str, Any]) -> None:
        try:
            with self._notes.open("a", encoding="utf-8") as file:
                file.write(json.dumps(note) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(
                self._notes, f"cannot be written ({error.strerror})", "Free some room, then --resume"
            ) from error
        self._noted.append(note)


def _read(path: Path) -> list[dict[str, Any]]:
    """The notes of an earlier start; a last line that was cut off is taken away, or the next would be joined to it."""
    if not path.exists():
        return []
    text = read_utf8(path)
    lines = [line for line in text.split("\n") if line.endswith("}")]
    if text and not text.endswith("\n"):
        write_whole(path, "".join(line + "\n" for line in lines))
    return [as_object(parse_json(line, path, "Remove that line"), path) for line in lines]
