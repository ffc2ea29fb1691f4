"""The Batch API client: one batch per round, resumed by id; unanswered requests are sent again."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.serving import Served, served
from tests.test_gen_zh import stats
from tests.test_llm_client import question
from zhllama.errors import OutputError
from zhllama.llm.batch import BATCHES, BatchClient
from zhllama.llm.connection import Connection, ServerError
from zhllama.llm.requests import Reply

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


def test_a_round_is_one_batch_and_is_resumed(served: Served, tmp_path: Path) -> None:
    url = served()
    replies = ask(url, tmp_path, 0, 1, 2)
    assert all(reply and reply.text and reply.model == "batch" for reply in replies)
    assert notes(tmp_path) == [
        {"file": "file-0", "requests": [[0, 0], [0, 1], [0, 2]]},
        {"id": "batch-1", "file": "file-0"},
    ]
    assert ask(url, tmp_path, 2, 1) == [replies[2], replies[1]], "from the batch that is paid for"
    assert len(notes(tmp_path)) == 2 and "secret-1" not in (tmp_path / BATCHES).read_text(encoding="utf-8")
    ask(url, tmp_path, 1, 3)
    assert [note["id"] for note in notes(tmp_path) if "id" in note] == ["batch-1", "batch-2"]


def test_answered_requests_of_an_expired_batch_are_not_sent_again(served: Served, tmp_path: Path) -> None:
    url = served(batch="expired")
    with pytest.raises(ServerError, match="batch batch-1 left 1 requests unanswered"):
        ask(url, tmp_path, 0, 1)
    assert notes(tmp_path)[-1] == {"id": "batch-1", "ended": "expired"}
    with pytest.raises(ServerError, match="batch batch-2"):
        ask(url, tmp_path, 1)


CHILD = """
import sys
from pathlib import Path
from tests.test_llm_batch import ask
ask(sys.argv[1], Path(sys.argv[2]), 0, 1, 2)
"""


def killed(url: str, folder: Path, when: Callable[[], bool]) -> None:
    """A process that asks three questions, and is killed as soon as `when` says so."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, url, str(folder)], cwd=Path(__file__).parent.parent
    )
    try:
        deadline = time.monotonic() + 60
        while not when():
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        child.kill()
        child.wait()


def test_killed_before_the_batch_id_arrives_pays_once(served: Served, tmp_path: Path) -> None:
    url = served(hold=3)
    killed(url, tmp_path, lambda: stats(url).get("batches", 0) == 1)
    assert [sorted(note) for note in notes(tmp_path)] == [["file", "requests"]], "noted before it is made"
    replies = ask(url, tmp_path, 0, 1, 2)
    assert all(reply and reply.text for reply in replies)
    assert stats(url)["batches"] == 1 and notes(tmp_path)[-1] == {"id": "batch-1", "file": "file-0"}


def test_a_batch_that_was_not_created_is_created_on_resume(served: Served, tmp_path: Path) -> None:
    url = served()
    (tmp_path / BATCHES).write_text('{"file": "file-9", "requests": [[0, 0], [0, 1]]}\n', encoding="utf-8")
    for _ in range(2):
        assert all(ask(url, tmp_path, 0, 1))
    assert [note.get("ended") for note in notes(tmp_path)] == [None, "never made", None, None]
    assert stats(url)["batches"] == 1


def test_a_lost_batch_id_is_looked_up_among_many(served: Served, tmp_path: Path) -> None:
    url = served(lost=True)
    for index in range(4):
        assert all(ask(url, tmp_path, index))
    assert stats(url)["batches"] == 4
    (tmp_path / BATCHES).write_text('{"file": "file-0", "requests": [[0, 0]]}\n', encoding="utf-8")
    assert all(ask(url, tmp_path, 0)) and notes(tmp_path)[-1] == {"id": "batch-1", "file": "file-0"}
    assert stats(url)["batches"] == 4, "found on the second page"


def test_an_incomplete_log_entry_is_ignored(served: Served, tmp_path: Path) -> None:
    url = served()
    assert all(ask(url, tmp_path, 0))
    with (tmp_path / BATCHES).open("a", encoding="utf-8") as file:
        file.write('{"file": "file-')
    assert all(ask(url, tmp_path, 1)) and all(ask(url, tmp_path, 1)) and all(ask(url, tmp_path, 0))
    assert stats(url)["batches"] == 2


def test_a_full_disk_is_one_line(served: Served) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        ask(served(), Path("/proc"), 0)


def test_no_batch_api(served: Served, tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="batch failed"):
        ask("http://127.0.0.1:9/v1", tmp_path, 0)
