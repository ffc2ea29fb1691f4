"""The Batch API: a round is one batch, found again by its id, and what it left out is sent again."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.serving import Served, served
from tests.test_generate_api import question
from zhllama.generate.api import Connection, ServerError
from zhllama.generate.batch import BATCHES, BatchClient
from zhllama.generate.journal import Reply

__all__ = ["served"]


async def at_once(seconds: float) -> None:
    await asyncio.sleep(0)


def ask(url: str, folder: Path, *indices: int) -> list[Reply | None]:
    async def work() -> list[Reply | None]:
        async with BatchClient(
            Connection((url,), "m", "secret-1"), folder / BATCHES, sleep=at_once
        ) as client:
            return await asyncio.gather(*(client.ask(question(i)) for i in indices))

    return asyncio.run(work())


def notes(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / BATCHES).read_text(encoding="utf-8").splitlines()]


def test_a_round_is_one_batch_and_found_again(served: Served, tmp_path: Path) -> None:
    url = served()
    replies = ask(url, tmp_path, 0, 1, 2)
    assert all(reply and reply.text and reply.model == "batch" for reply in replies)
    assert notes(tmp_path) == [{"id": "batch-1", "requests": [[0, 0], [0, 1], [0, 2]]}]
    assert ask(url, tmp_path, 2, 1) == [replies[2], replies[1]], "from the batch that is paid for"
    assert len(notes(tmp_path)) == 1 and "secret-1" not in (tmp_path / BATCHES).read_text(encoding="utf-8")
    ask(url, tmp_path, 1, 3)
    assert [note["id"] for note in notes(tmp_path)] == ["batch-1", "batch-2"]


def test_an_expired_batch_is_not_asked_twice(served: Served, tmp_path: Path) -> None:
    url = served(batch="expired")
    with pytest.raises(ServerError, match="batch batch-1 left 1 requests unanswered"):
        ask(url, tmp_path, 0, 1)
    assert notes(tmp_path)[-1] == {"id": "batch-1", "ended": "expired"}
    with pytest.raises(ServerError, match="batch batch-2"):
        ask(url, tmp_path, 1)


def test_no_batch_api(served: Served, tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="batch failed"):
        ask("http://127.0.0.1:9/v1", tmp_path, 0)
