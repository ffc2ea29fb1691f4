"""The client against a faulty server, and the rate limiter."""

import asyncio
import socket
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import pytest

from tests.serving import Served, served
from zhllama.errors import InputError, OptionError
from zhllama.llm.client import Client
from zhllama.llm.connection import Connection, ServerError, read_api_key
from zhllama.llm.rate_limiter import RateLimiter
from zhllama.llm.read_reply import read_reply
from zhllama.llm.requests import Reply, Request
from zhllama.llm.spending import Price, Spending, read_price

__all__ = ["served"]
HERE = Path(__file__).parent


def test_the_fake_server_ends_with_a_process_that_is_killed() -> None:
    code = "import time\nfrom tests.faults.world import serve\nprint(serve(), flush=True)\ntime.sleep(60)"
    starter = subprocess.Popen(
        [sys.executable, "-c", code], cwd=HERE.parent, stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    port = int(urlsplit(starter.stdout.readline()).netloc.rpartition(":")[2])
    socket.create_connection(("127.0.0.1", port), timeout=10).close()
    starter.kill()
    starter.wait()
    deadline = time.monotonic() + 30
    with pytest.raises(ConnectionRefusedError):
        while time.monotonic() < deadline:
            socket.create_connection(("127.0.0.1", port), timeout=10).close()
            time.sleep(0.1)


def question(index: int) -> Request:
    return Request(0, index, "answer", f"问题 {index}", {}, {"max_tokens": 10, "top_k": 5})


async def asked(to: Connection, count: int) -> tuple[list[Reply | None], Client]:
    async def quick(seconds: float) -> None:
        await asyncio.sleep(seconds / 20)

    async with Client(to, Random(0), sleep=quick) as client:
        return await asyncio.gather(*(client.ask(question(i)) for i in range(count))), client


def ask(to: Connection, count: int = 1) -> tuple[list[Reply | None], Client]:
    return asyncio.run(asked(to, count))


def test_transient_errors_are_retried(served: Served) -> None:
    url = served(busy=0.2, broken=0.1, cut=0.1, garbage=0.1, keep_alive=3, key="secret-1")
    replies, client = ask(Connection((url,), "m", "secret-1", extra_body={"enable_thinking": False}), 60)
    assert all(reply and reply.text for reply in replies)
    assert client.rate_limited > 2 and client.retries > 10 and client.successes == 60


def test_several_servers_share_the_load(served: Served) -> None:
    urls = served(delay=0.02), served(delay=0.02)
    _, client = ask(Connection(urls, "m", concurrency=8), 40)
    done = [server.limiter._completed for server in client.servers]
    assert sum(done) == 40 and min(done) >= 12


def test_a_dead_server_does_not_attract_calls(served: Served) -> None:
    to = Connection(("http://127.0.0.1:9/v1", served(delay=0.02)), "m", concurrency=8)
    replies, client = ask(to, 60)
    assert all(reply and reply.text for reply in replies) and client.retries < 40


def test_completion_models(served: Served) -> None:
    replies, _ = ask(Connection((served(text="好"),), "m", api="completion"))
    assert replies[0] is not None and replies[0].text == "好"


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (
            401,
            {"message": "bad key secret-1"},
            "refuses the key (bad key [key]). Check the key in OPENAI_API_KEY",
        ),
        (402, {"message": "Insufficient Balance"}, "has no quota left for this key"),
        (429, {"message": "You exceeded", "code": "insufficient_quota"}, "has no quota left for this key"),
        (403, {"message": "no access"}, "forbids this key the model 'm'"),
        (404, {"message": "model not found"}, "knows no model 'm', or is not the right URL"),
        (400, {"message": "unknown parameter"}, "refuses the request"),
        (500, {"message": "down"}, "gives no reply (HTTP 500: down)"),
        (200, {"message": "odd"}, "gives no reply (an error instead of a reply: odd)"),
    ],
)
def test_permanent_errors_end_the_run(served: Served, status: int, error: dict[str, str], said: str) -> None:
    with pytest.raises(ServerError) as raised:
        ask(Connection((served(status=status, error=error),), "m", "secret-1"))
    assert said in str(raised.value) and "secret-1" not in str(raised.value)


def test_a_content_filter_refuses_one_request(served: Served) -> None:
    replies, _ = ask(
        Connection((served(status=400, error={"message": "bad words", "code": "content_filter"}),), "m")
    )
    assert replies == [Reply(text=None, refusal="refused: bad words")]


def test_no_server_and_a_server_that_times_out(served: Served) -> None:
    with pytest.raises(ServerError, match="gives no reply"):
        ask(Connection(("http://127.0.0.1:9/v1",), "m"))
    with pytest.raises(ServerError, match=r"nothing after 0\.2 s"):
        ask(Connection((served(delay=5),), "m", timeout=0.2))


@pytest.mark.parametrize(
    ("body", "text", "finish"),
    [
        (
            b'\n\n{"choices": [{"message": {"content": "\\ud83d\xe5\xa5\xbd"}, "finish_reason": "length"}]}',
            "\ufffd好",
            "length",
        ),
        (b'{"choices": [{"message": {"content": null}}], "usage": null, "model": null}', "", None),
        (
            b'{"choices": [{"text": "secret"}], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}',
            "[key]",
            None,
        ),
    ],
)
def test_unusual_response_bodies(body: bytes, text: str, finish: str | None) -> None:
    reply = read_reply(body, "四个汉字", "secret")
    assert (reply.text, reply.finish) == (text, finish) and reply.prompt_tokens in (22, 7)


def test_retry_after_pauses_all_requests(served: Served) -> None:
    url, began = served(busy=1.0, retry_after=1.0), time.monotonic()
    replies, _ = ask(Connection((url,), "m"), 3)
    assert all(replies) and time.monotonic() - began >= 1.0


def test_invalid_connections() -> None:
    for given, said in [
        (((), "m"), "base_url: is missing"),
        ((("localhost:80",), "m"), "is not a URL"),
        ((("http://me:pass@host/v1",), "m"), "base_url: contains a user name or password"),
        ((("https://api.example.com/v1",), "m"), "needs a key, and none is set"),
    ]:
        with pytest.raises(OptionError) as error:
            Connection(*given)
        assert said in str(error.value) and "pass@" not in str(error.value)
    assert "k-1" not in repr(Connection(("http://h/v1",), "m", "k-1"))


def test_read_api_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("# mine\nexport OTHER = 'x'\nMY_KEY=\"abc\"\n", encoding="utf-8")
    monkeypatch.delenv("MY_KEY", raising=False)
    assert (
        read_api_key("MY_KEY", tmp_path / ".env") == "abc" and read_api_key("OTHER", tmp_path / ".env") == "x"
    )
    assert (
        read_api_key("NONE", tmp_path / ".env") is None and read_api_key("MY_KEY", tmp_path / "none") is None
    )
    monkeypatch.setenv("MY_KEY", "from outside")
    assert read_api_key("MY_KEY", tmp_path / ".env") == "from outside"


def test_rate_limiter() -> None:
    now = 0.0
    limiter = RateLimiter(32, lambda: now)

    async def window(calls: int) -> None:
        for _ in range(calls):
            assert await limiter.acquire()
            limiter.record_success()
            limiter.release()

    async def work() -> None:
        nonlocal now
        await window(24)
        assert limiter.limit == 32, "before any complaint each success adds one"
        assert await limiter.acquire() and await limiter.acquire()
        limiter.back_off(0)
        limiter.back_off(0)
        assert limiter.limit == pytest.approx(22.4), "once a window"
        limiter.release()
        limiter.release()
        await window(22)
        assert 23.3 < limiter.limit < 23.5, "a window of successes adds one"
        limiter.back_off(5)
        assert limiter.load > 999
        now = 5.0
        assert limiter.load == 0
        for _ in range(int(limiter.limit)):
            assert await limiter.acquire()
        waiting = [asyncio.create_task(limiter.acquire()) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        waiting[0].cancel()
        limiter.release()
        await asyncio.sleep(0.01)
        assert waiting[1].done() and not waiting[1].result(), (
            "the turn of one who left goes to the next, who chooses anew"
        )
        waiting[2].cancel()

    asyncio.run(work())


def test_spending(tmp_path: Path) -> None:
    spending = Spending(Price(input=1.0, output=2.0), token_budget=1000, max_cost=0.01)
    assert (
        spending.allows(0, worst=900)
        and not spending.allows(1, worst=900)
        and not spending.allows(0, worst=8000)
    )
    spending.count(Reply(text="好", prompt_tokens=100, completion_tokens=200))
    assert spending.cost == pytest.approx(0.0005) and spending.allows(1, 0) and not spending.allows(2, 0)
    assert not Spending(Price(input=1.0, output=2.0), max_cost=0.0).allows(0, 10)
    with pytest.raises(OptionError, match="max_cost: needs to know"):
        Spending(max_cost=1.0)
    (tmp_path / "p.yaml").write_text("m: {input: 1, output: 2}\nn: {input: x}\n", encoding="utf-8")
    assert read_price(tmp_path / "p.yaml", "m") == Price(input=1, output=2)
    for model in ("n", "o"):
        with pytest.raises(InputError, match=model):
            read_price(tmp_path / "p.yaml", model)


@pytest.mark.slow
def test_rate_and_memory_over_20_000_requests(served: Served) -> None:
    """At 32 under way and 200 ms a reply, 160 replies a second are ideal."""
    to = Connection((served(delay=0.2, text="好"),), "m", concurrency=32)

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096 / 1e6

    async def work() -> tuple[float, list[float]]:
        sizes = []
        async with Client(to, Random(0)) as client:
            await asyncio.gather(*(client.ask(question(i)) for i in range(256)))
            began = time.monotonic()
            for block in range(20):
                await asyncio.gather(
                    *(client.ask(question(i)) for i in range(block * 1000, block * 1000 + 1000))
                )
                sizes.append(resident())
            return 20_000 / (time.monotonic() - began), sizes

    rate, sizes = asyncio.run(work())
    print(
        f"{rate:.0f} replies/s, {rate / 160:.0%} of ideal; MB after each 1,000: {sizes[0]:.0f} ... {sizes[9]:.0f} ... {sizes[-1]:.0f}"
    )
    assert rate >= 0.85 * 160 and sizes[-1] < sizes[1] * 1.05
