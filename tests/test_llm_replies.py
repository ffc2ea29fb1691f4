"""Response bodies as servers send them: each is read, or rejected with its reason and what it cost; none is lost."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.serving import Served, served
from tests.test_gen_zh import gen_zh, imported, rows, stats
from tests.test_llm_client import ask, asked, question
from zhllama.llm.connection import Connection, ServerError
from zhllama.llm.journal import BODIES, Journal
from zhllama.llm.read_reply import ErrorReply, UnreadableReply, read_reply
from zhllama.llm.requests import Reply
from zhllama.llm.rounds import Rounds
from zhllama.llm.spending import Spending

__all__ = ["asked", "imported", "served"]
PROMPT = "写一首诗。"  # 5 characters, 15 bytes: 8 + 16 tokens when estimated


def body(content: Any = "春风又绿江南岸", usage: Any = None, **choice: Any) -> bytes:
    chosen = {"message": {"role": "assistant", "content": content}, "finish_reason": "stop", **choice}
    return json.dumps({"model": "m", "choices": [chosen], "usage": usage}, ensure_ascii=False).encode()


def events(*chunks: Any, end: str = "data: [DONE]\n\n") -> bytes:
    return ("".join(f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n" for chunk in chunks) + end).encode()


def delta(text: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"index": 0, "delta": {"content": text}, **more}]}


READ: list[tuple[bytes, str, str | None]] = [
    (body(), "春风又绿江南岸", "stop"),
    (body([{"type": "text", "text": "春风"}, {"type": "text", "text": "又绿"}]), "春风又绿", "stop"),
    (body(["春风", "又绿"]), "春风又绿", "stop"),
    (body([{"type": "thinking", "thinking": "想"}, {"type": "text", "text": "春风"}]), "春风", "stop"),
    (body([{"type": "output_text", "text": {"value": "春风"}}]), "春风", "stop"),
    (body({"type": "text", "text": "春风"}), "春风", "stop"),
    (body([]), "", "stop"),
    (body(None), "", "stop"),
    (b"\xef\xbb\xbf" + body("好"), "好", "stop"),
    (body("好") + b"\x00\n\n", "好", "stop"),
    (b": keep-alive\n\n: keep-alive\n" + body("好"), "好", "stop"),
    (body("好坏").replace("坏".encode(), b"\xe5\x9d"), "好�", "stop"),
    (b'{"choices": [{"message": {"content": "\xff\xfe\xe5\xa5\xbd"}}]}', "��好", None),
    (b'{"choices": [{"message": {"content": "a\nb"}}]}', "a\nb", None),
    (b'{"choices": [{"text": "a"}], "choices": [{"text": "b"}]}', "b", None),
    (b'{"choices": {"message": {"content": "a"}}}', "a", None),
    (b'{"choices": [{"message": "a"}]}', "a", None),
    (b'{"error": null, "detail": null, "choices": [{"text": "a"}], "created": NaN}', "a", None),
    (body("好", finish_reason="max_tokens"), "好", "length"),
    (body("好", finish_reason="MAX_TOKENS"), "好", "length"),
    (body("好", finish_reason="model_length"), "好", "length"),
    (body("好", finish_reason=["stop"]), "好", None),
    (body("好", finish_reason=3), "好", None),
    (events(delta("春"), delta("风", finish_reason="stop")), "春风", "stop"),
    (events(delta("春"), delta("\u2028风", finish_reason="stop"), end=""), "春\u2028风", "stop"),
    (events(delta("春"), delta("风", finish_reason="stop")).replace(b"\n", b"\r\n"), "春风", "stop"),
    (events(delta("春"), delta("风", finish_reason="stop")).replace(b"\n\n", b"\n"), "春风", "stop"),
    (events(delta("春"), delta("风"), end=""), "春风", "length"),
    (events(delta("春"), {"error": {"message": "overloaded"}}, end=""), "春", "length"),
    (events({"choices": [{"index": 0, "text": "春", "finish_reason": "length"}]}), "春", "length"),
    (events(json.loads(body("春风"))), "春风", "stop"),
    (events(delta("春"), {"choices": [{"index": 1, "delta": {"content": "秋"}}]}, delta("风", finish_reason="stop")), "春风", "stop"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "text", "finish"), READ)
def test_readable_bodies(raw: bytes, text: str, finish: str | None) -> None:
    reply = read_reply(raw, PROMPT)
    assert (reply.text, reply.finish, reply.estimated) == (text, finish, True)


@pytest.mark.parametrize(
    ("raw", "reason", "paid"),
    [
        (b"<html>Bad gateway</html>", "not a completion: <html>", False),
        (b"", "not a completion", False),
        (b"[1]", "not a completion: [1]", False),
        (b'{"object": "list"}', "not a completion", False),
        (b'{"choices": [{"message": {"cont', "not a completion", False),
        (b"[" * 100_000, "not a completion", False),
        (b'{"choices": []}', "without text ([])", True),
        (b'{"choices": null}', "without text (null)", True),
        (b'{"choices": [7]}', "without text ([7])", True),
        (body(7), "without text (7)", True),
        (body(True), "without text (true)", True),
        (body([{"type": "text", "text": 7}]), "without text", True),
        (body("好", finish_reason="network_error"), "finish_reason network_error", True),
        (
            body("好", finish_reason="error", error={"message": "provider down"}),
            "error (provider down)",
            True,
        ),
    ],
)
def test_unreadable_bodies(raw: bytes, reason: str, paid: bool) -> None:
    with pytest.raises(UnreadableReply) as raised:
        read_reply(raw, PROMPT)
    assert reason in str(raised.value) and (raised.value.usage is not None) == paid


@pytest.mark.parametrize("finish", ["content_filter", "sensitive", "SAFETY", "RECITATION"])
def test_filtered_replies_are_refusals(finish: str) -> None:
    reply = read_reply(body("半句", finish_reason=finish), PROMPT)
    assert (reply.text, reply.refusal) == (None, "refused: content filter") and reply.prompt_tokens == 24
    assert read_reply(body(None, message={"refusal": "不行"}), PROMPT).refusal == "refused: 不行"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"error": {"message": "odd", "code": 1}}', "odd"),
        (b'{"error": "model not loaded"}', "model not loaded"),
        (b'{"detail": "Not authenticated"}', "Not authenticated"),
        (b'{"detail": [{"loc": ["body"], "msg": "field required", "type": "missing"}]}', "field required"),
        (b'{"object": "error", "message": "too long", "code": 400}', "too long"),
        (b'{"code": 1301, "msg": "\xe6\x95\x8f\xe6\x84\x9f", "success": false}', "敏感"),
        (b'{"choices": null, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}', "insufficient balance"),
        (b'{"error": {"code": "x", "innererror": {"code": "y"}}}', "x, y"),
        (b'{"errors": [{"message": "first"}, {"message": "second"}]}', "first"),
        (b'{"error_code": 18, "error_msg": "qps limit"}', "qps limit"),
        (b'data: {"error": {"message": "odd"}}\n\n', "odd"),
    ],
)  # fmt: skip
def test_errors_in_disguise(raw: bytes, message: str) -> None:
    with pytest.raises(ErrorReply) as raised:
        read_reply(raw, PROMPT)
    assert raised.value.error.message == message


ODD = [
    body("诗。", usage={"prompt_tokens": None, "completion_tokens": None}),
    body("诗。", usage={"prompt_tokens": 3.5, "completion_tokens": 2.5}),
    body([{"type": "text", "text": "诗。"}]),
    body("诗。").replace("诗".encode(), b"\xe8\xaf"),
    events(delta("诗"), delta("。", finish_reason="stop")),
    body(7),
    b'{"choices": []}',
    body("诗。", usage="none"),
]


def test_odd_replies_are_stored_first_and_end_no_run(served: Served, tmp_path: Path) -> None:
    url, out = served(bodies=[one.decode("latin-1") for one in ODD]), tmp_path / "run"
    code, told, said = gen_zh(url, out, "--n", 60, "--concurrency", 1, "--json")
    assert code == 0 and json.loads(told)["kept"] == 60, said
    stored = rows(out / BODIES)
    assert len(stored) == stats(url)["requests"] and stats(url)["twice"] == 0
    assert [row["body"].encode() for row in stored[:3]] == ODD[:3] and "base64" in stored[3]
    replies = [row["reply"] for row in rows(out / "journal.jsonl")]
    assert [reply["text"] for reply in replies[:5]] == ["诗。", "诗。", "诗。", "�。", "诗。"]
    assert len(stored) == len(replies) + 2, "the two without text were asked again"
    assert replies[1]["prompt_tokens"] + replies[1]["completion_tokens"] > 100, "4 + 3 tokens cannot be true"


def test_an_unreadable_completion_is_rejected_and_paid_for(served: Served, tmp_path: Path) -> None:
    url, out = served(bodies=[body(7, usage={"prompt_tokens": 1000, "completion_tokens": 9}).decode()], forever=True), tmp_path / "run"  # fmt: skip
    code, told, said = gen_zh(url, out, "--n", 1, "--json")
    result = json.loads(told)
    assert code == 1 and result["kept"] == 0 and result["reasons"]["no reply"] == result["replies"] > 0, said
    assert result["prompt_tokens"] == 1000 * stats(url)["requests"] == 1000 * len(rows(out / BODIES))
    assert "a completion without text (7)" in rows(out / "rejected.jsonl")[0]["detail"]


class Silent:
    """A source that must not be queried."""

    async def ask(self, *_: object) -> Reply | None:
        raise AssertionError("queried for a reply that is stored")


class Once:
    """A plan of one request."""

    def __init__(self) -> None:
        self.records: list[Any] = []

    def requests(self, round: int) -> list[Any]:
        return [] if round else [question(0)]

    def accept(self, record: Any) -> None:
        self.records.append(record)


def test_a_body_stored_before_a_kill_is_the_reply(tmp_path: Path) -> None:
    """The process died between the body and its record: the resumed run reads the body and asks nothing."""
    import asyncio

    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.store(question(0), b'{"choices": []}')
        journal.store(question(0), body("春\u2028风", usage={"prompt_tokens": 7, "completion_tokens": 2}))
        journal.store(question(1), b"\xff")
    whole = (tmp_path / BODIES).read_bytes()
    (tmp_path / BODIES).write_bytes(whole + b'{"round": 0, "index": 2, "print": "')
    with Journal(path) as journal:
        assert (tmp_path / BODIES).read_bytes() == whole, "the torn line is removed"
        assert journal.bodies(question(1)) == [b"\xff"] and len(journal) == 0
        plan, spending = Once(), Spending()
        assert asyncio.run(Rounds(plan, journal, Silent(), spending).run())
        assert plan.records[0].reply.text == "春\u2028风" and len(journal) == 1
        assert spending.completion_tokens == 2 and spending.prompt_tokens == 7 + 20, "two calls were paid for"


def test_the_key_is_in_no_stored_body(served: Served, tmp_path: Path) -> None:
    url, out = served(bodies=[body("key secret-1").decode("latin-1")]), tmp_path / "run"
    assert gen_zh(url, out, "--n", 1, env={"OPENAI_API_KEY": "secret-1"})[0] == 0
    assert b"secret-1" not in (out / BODIES).read_bytes() and b"[key]" in (out / BODIES).read_bytes()


def test_a_page_of_html_ends_a_run_that_had_no_success(served: Served) -> None:
    with pytest.raises(ServerError, match=r"gives no reply \(not a completion: <html>"):
        ask(Connection((served(bodies=["<html>"], forever=True),), "m"))
