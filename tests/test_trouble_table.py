"""The table of server trouble in docs/generate.md: the client does with each row what the table says."""

import asyncio
import re
from pathlib import Path
from random import Random
from typing import Any

import httpx
import openai
import pytest

from tests.test_llm_client import question
from zhllama.llm import client as client_module
from zhllama.llm.client import Client
from zhllama.llm.connection import Connection, ServerError
from zhllama.llm.requests import Reply
from zhllama.llm.retry import FailedAttempt

PAGE = Path(__file__).parent.parent / "docs" / "generate.md"
SECTION = PAGE.read_text(encoding="utf-8").split("### Each kind of trouble", 1)[1].split("\n## ", 1)[0]
ROWS = re.findall(r"^\| `(.*?)`(?: `(retry-after: \d+)`)? \| ([^|]*) \| [^|]* \|$", SECTION, re.M)
REQUEST = httpx.Request("POST", "http://127.0.0.1:9/v1")


def attempt(sent: str, header: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[bytes]]:
    """What one attempt comes to when the server sends this, and the bodies that were stored."""
    status, _, text = sent.partition(" ")
    body = text.replace(": keep-alive ", ": keep-alive\n").encode()
    stored: list[bytes] = []

    async def send(*_: Any) -> bytes:
        if sent.startswith("nothing"):
            await asyncio.sleep(60)
        if sent.startswith("connection"):
            raise openai.APIConnectionError(request=REQUEST)
        if status == "200":
            return body
        headers = dict([header.split(": ")]) if header else {}
        response = httpx.Response(int(status), content=body, request=REQUEST, headers=headers)
        raise openai.APIStatusError("error", response=response, body=None)

    async def work() -> Reply | FailedAttempt:
        async with Client(Connection(("http://127.0.0.1:9/v1",), "m", timeout=0.05), Random(0)) as client:
            return await client._attempt(client.servers[0], question(0), stored.append)

    monkeypatch.setattr(client_module, "send_request", send)
    try:
        return asyncio.run(work()), stored
    except ServerError as error:
        return error, stored


def outcome(result: Any) -> str:
    if isinstance(result, ServerError):
        return "ends the run"
    if isinstance(result, Reply):
        return "is read" if result.text is not None else "rejects the request"
    if result.refusal:
        return "rejects the request"
    if result.adapted:
        return "is sent again with a change"
    return "is waited for" if result.rate_limited else "is tried again"


def test_the_table_has_all_outcomes() -> None:
    assert len(ROWS) >= 40 and len(ROWS) == SECTION.count("\n| `")
    assert len({row[2] for row in ROWS}) == 6


@pytest.mark.parametrize(("sent", "header", "expected"), ROWS)
def test_each_row_has_its_outcome(
    monkeypatch: pytest.MonkeyPatch, sent: str, header: str, expected: str
) -> None:
    result, stored = attempt(sent, header, monkeypatch)
    assert outcome(result) == expected, result
    assert len(stored) == sent.startswith("200"), "each successful response is stored before it is judged"
    if header and expected == "is waited for":
        assert result.wait == float(header.split()[1])
