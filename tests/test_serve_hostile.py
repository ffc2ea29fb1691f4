"""The API and the page against what no decent client sends: answered 4xx at once, and everybody else served as before."""

import gzip
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("uvicorn")

from tests.serve_toys import ASKED, Toy, ask, port_of, raw, read_reply, request, toy_server
from zhllama.inference import http_guard as guard
from zhllama.inference import http_server as listening
from zhllama.inference.http_guard import host_names


@pytest.fixture(scope="module")
def toy() -> Toy:
    return Toy()


@pytest.fixture(scope="module")
def url(toy: Toy) -> Iterator[str]:
    with toy_server(toy) as started:
        yield started


@pytest.fixture(autouse=True)
def still_well(url: str) -> Iterator[None]:
    """After whatever a test did, the next client is answered at once."""
    yield
    begun = time.monotonic()
    reply = ask(url, {**ASKED, "max_tokens": 2})
    assert reply.status == 200 and json.loads(reply.body)["choices"][0]["message"]["content"] == "好好"
    assert time.monotonic() - begun < 5


def turn(**changed: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "好", **changed}]}


# What is changed in a good body, the field that the refusal names, and the status where it is not 400.
MALFORMED: list[tuple[dict[str, Any], str | None]] = [
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_tokens": "9"}, "max_tokens"),
    ({"max_tokens": True}, "max_tokens"),
    ({"max_tokens": []}, "max_tokens"),
    ({"max_tokens": 10**30}, "max_tokens"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"max_completion_tokens": {}}, "max_completion_tokens"),
    ({"temperature": -1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": 1e308}, "temperature"),
    ({"temperature": "warm"}, "temperature"),
    ({"temperature": False}, "temperature"),
    ({"temperature": [1]}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.01}, "top_p"),
    ({"top_p": "1"}, "top_p"),
    ({"seed": 1.5}, "seed"),
    ({"seed": 10**30}, "seed"),
    ({"seed": -(10**19)}, "seed"),
    ({"seed": "1"}, "seed"),
    ({"stop": 5}, "stop"),
    ({"stop": [5]}, "stop.0"),
    ({"stop": ""}, "stop.0"),
    ({"stop": ["a"] * 100_000}, "stop"),
    ({"stop": ["x" * 1000]}, "stop.0"),
    ({"stop": {}}, "stop"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"frequency_penalty": "0"}, "frequency_penalty"),
    ({"logit_bias": {"a": 1}}, "logit_bias"),
    ({"logit_bias": {"-1": 1}}, "logit_bias"),
    ({"logit_bias": {"1": 1e9}}, "logit_bias"),
    ({"logit_bias": {"1": None}}, "logit_bias.1"),
    ({"logit_bias": [1]}, "logit_bias"),
    ({"logit_bias": {str(id): 1 for id in range(1000)}}, "logit_bias"),
    ({"n": 1000}, "n"),
    ({"n": 0}, "n"),
    ({"n": True}, "n"),
    ({"stream": "yes"}, "stream"),
    ({"stream": 1}, "stream"),
    ({"stream_options": {"include_usage": True}}, None),
    ({"stream": True, "stream_options": []}, "stream_options"),
    ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ({"stream": True, "stream_options": {"chunks": 1}}, "stream_options.chunks"),
    ({"messages": []}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"messages": {}}, "messages"),
    ({"messages": [None]}, "messages.0"),
    ({"messages": ["hello"]}, "messages.0"),
    ({"messages": [[]]}, "messages.0"),
    ({"messages": [{}]}, "messages.0.role"),
    ({"messages": [{"role": "user"}]}, "messages.0.content"),
    (turn(content=None), "messages.0.content"),
    (turn(content=5), "messages.0.content"),
    (turn(content={}), "messages.0.content"),
    (turn(content=[5]), "messages.0.content"),
    (turn(content=[{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]), "messages.0.content"),
    (turn(content=[{"type": "input_audio", "input_audio": {}}]), "messages.0.content"),
    (turn(content=[{"type": "text"}]), "messages.0.content"),
    (turn(role="robot"), "messages.0.role"),
    (turn(role="tool"), "messages.0.role"),
    (turn(role=None), "messages.0.role"),
    (turn(role=["user"]), "messages.0.role"),
    (turn(tool_calls=[{"id": "1"}]), "messages.0.tool_calls"),
    (turn(name="Bob"), "messages.0.name"),
    (turn(content="模板"), "messages"),
    (turn(content=""), "messages"),
    (turn(content="长" * 600), "messages"),
    ({"messages": [{"role": "user", "content": ""}] * 600}, "messages"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"tools": 5}, "tools"),
    ({"functions": [{}]}, "functions"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"response_format": {"type": 5}}, "response_format"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {"type": "json_schema"}}, "response_format"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"enum": ["x"] * 100_000}}}},
        "response_format",
    ),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": 5}}}, "response_format"),
    ({"logprobs": True}, "logprobs"),
    ({"top_logprobs": 5}, "top_logprobs"),
    ({"modalities": ["audio"]}, "modalities"),
    ({"store": True}, "store"),
    ({"generation_config": '{"num_beams": 99}'}, "generation_config"),
    ({"chat_template_kwargs": {"x": 1}}, "chat_template_kwargs"),
    ({"x" * 1_000_000: 1}, "x" * 60),
    ({"model": None}, "model"),
    ({"model": 5}, "model"),
    ({"model": ["toy"]}, "model"),
    ({"user": 5}, "user"),
]


@pytest.mark.parametrize("number", range(len(MALFORMED)))
def test_a_malformed_body_is_a_400_that_names_the_field(url: str, toy: Toy, number: int) -> None:
    changed, field = MALFORMED[number]
    before = len(toy.asked)
    reply = ask(url, {**ASKED, **changed})
    assert (reply.status, reply.error["param"]) == (400, field), reply.body[:300]
    assert len(reply.body) < 1000 and (field or "").rpartition(".")[2] in reply.error["message"]
    assert len(toy.asked) == before


COMPLETIONS: list[tuple[dict[str, Any], str | None]] = [
    ({"prompt": None}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": ["好"]}, "prompt"),
    ({"prompt": [1, 2]}, "prompt"),
    ({"prompt": "长" * 512}, "prompt"),
    ({"prompt": "长" * 600_000}, "prompt"),
    ({"best_of": 5}, "best_of"),
    ({"echo": True}, "echo"),
    ({"logprobs": 1}, "logprobs"),
    ({"suffix": "x"}, "suffix"),
    ({"max_completion_tokens": 5}, "max_completion_tokens"),
]


@pytest.mark.parametrize(("changed", "field"), COMPLETIONS)
def test_a_malformed_completion(url: str, changed: dict[str, Any], field: str) -> None:
    reply = ask(url, {"model": "toy", "prompt": "好", **changed}, "/v1/completions")
    assert (reply.status, reply.error["param"]) == (400, field), reply.body


@pytest.mark.parametrize(
    "model", ["other", "", "toy ", "../toy", "meta-llama/Llama-2-7b", "x" * 100_000, "/etc"]
)
def test_another_model_is_opened_by_nothing(url: str, model: str) -> None:
    reply = ask(url, {**ASKED, "model": model})
    assert (reply.status, reply.error["code"], reply.error["param"]) == (404, "model_not_found", "model")
    assert len(reply.body) < 500


GOOD = json.dumps(ASKED).encode()
NOT_JSON = {
    "empty": b"",
    "words": b"hello",
    "half": GOOD[:-5],
    "two": GOOD + GOOD,
    "a list": b"[]",
    "a string": b'"toy"',
    "null": b"null",
    "a number": b"1e999",
    "NaN": GOOD[:-1] + b', "temperature": NaN}',
    "Infinity": GOOD[:-1] + b', "top_p": Infinity}',
    "a number of 100,000 digits": GOOD[:-1] + b', "seed": ' + b"9" * 100_000 + b"}",
    "deep lists": b"[" * 1_000_000,
    "deep objects": b'{"model":' * 500_000,
    "not UTF-8": GOOD.replace(b"toy", b"\xff\xfe"),
    "UTF-16": json.dumps(ASKED).encode("utf-16"),
    "half a surrogate pair": GOOD.replace(b"toy", rb"\ud800"),
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "zeros": bytes(100_000),
    "comments": b"/* */" + GOOD,
    "gzip": gzip.compress(GOOD),
    "a form": b"model=toy",
}


@pytest.mark.parametrize("name", NOT_JSON)
def test_what_is_no_json_object_is_a_400(url: str, name: str) -> None:
    reply = ask(url, NOT_JSON[name])
    assert reply.status == 400 and "JSON" in reply.error["message"], reply.body


@pytest.mark.parametrize(
    ("headers", "status", "param"),
    [
        ({"content_type": "text/plain"}, 415, "Content-Type"),
        ({"content_type": "application/x-www-form-urlencoded"}, 415, "Content-Type"),
        ({"content_type": "multipart/form-data; boundary=x"}, 415, "Content-Type"),
        ({"content_type": "application/json; charset=gbk"}, 415, "Content-Type"),
        ({"content_type": None}, 415, "Content-Type"),
        ({"content_encoding": "gzip"}, 415, "Content-Encoding"),
        ({"content_encoding": "identity"}, 200, None),
        ({"content_type": "Application/JSON; charset=UTF-8"}, 200, None),
        ({"origin": "http://evil.example"}, 403, "Origin"),
        ({"origin": "null"}, 403, "Origin"),
        ({"origin": "http://127.0.0.1:1"}, 403, "Origin"),
        ({"origin": "http://127.0.0.1"}, 200, None),
        ({"host": "evil.example"}, 403, "Host"),
        ({"host": "evil.example", "origin": "http://evil.example"}, 403, "Host"),
        ({"host": "127.0.0.1.evil.example"}, 403, "Host"),
        ({"host": "localhost.evil.example:80"}, 403, "Host"),
        ({"host": "192.168.0.1"}, 403, "Host"),
        ({"host": "0.0.0.0"}, 403, "Host"),
        ({"host": "127.0.0.1@evil.example"}, 403, "Host"),
        ({"host": "[::1"}, 403, "Host"),
        ({"host": "127.0.0.1:80:80"}, 403, "Host"),
        ({"host": ""}, 403, "Host"),
        ({"host": "localhost"}, 200, None),
        ({"host": "LocalHost:12345"}, 200, None),
        ({"host": "[::1]:8000"}, 200, None),
        ({"host": "proxy.example", "origin": "https://proxy.example"}, 200, None),
        ({"host": "evil.example", "x_forwarded_host": "127.0.0.1"}, 403, "Host"),
        ({"x_forwarded_for": "1.2.3.4", "forwarded": "for=1.2.3.4"}, 200, None),
        ({"authorization": "Bearer " + "x" * 10_000}, 200, None),
        ({"upgrade": "websocket", "connection": "upgrade"}, 200, None),
    ],
)
def test_headers(url: str, headers: dict[str, str], status: int, param: str | None) -> None:
    reply = ask(url, **headers)
    assert reply.status == status, reply.body
    assert status == 200 or reply.error["param"] == param


def test_names_of_a_server() -> None:
    """On all interfaces an address in numbers is right, which no rebound name is; on one, that one and the machine's name."""
    everywhere = host_names("0.0.0.0", "0.0.0.0", [])
    assert all(map(everywhere.allows, ("10.1.2.3:8000", "[fe80::1]:80", "localhost", socket.gethostname())))
    assert not everywhere.allows("evil.example") and not everywhere.allows("10.1.2.3.evil.example")
    one = host_names("192.168.7.7", "192.168.7.7", ["gpu.lan"])
    assert one.allows("192.168.7.7:1") and one.allows("GPU.lan") and not one.allows("192.168.7.8")
    assert not one.allows("localhost")
    assert host_names("::1", "::1", []).allows("[::1]:9") and host_names("::", "::", []).allows(
        "[2001:db8::1]"
    )


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/load_model", 404),
        ("POST", "/reset", 404),
        ("POST", "/v1/responses", 404),
        ("POST", "/v1/audio/transcriptions", 404),
        ("POST", "/v1/systemone", 404),
        ("POST", "/v1/chat/completions/", 404),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/", 404),
        ("GET", "/v1/models/..%2f..%2fetc%2fpasswd", 404),
        ("GET", "/v1/models/toy", 200),
        ("GET", "/v1/models/other", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "http://evil.example/v1/models", 404),
        ("GET", "/v1/models?" + "x" * 10_000, 200),
        ("GET", "/%00", 404),
        ("GET", "/%ff%fe", 404),
        ("HEAD", "/v1/models", 200),
        ("GET", "/v1/chat/completions", 405),
        ("PUT", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models/toy", 405),
        ("OPTIONS", "/v1/chat/completions", 405),
        ("TRACE", "/v1/models", 405),
        ("BREW", "/v1/models", 405),
        ("GET", "/health", 200),
    ],
)
def test_routes(url: str, method: str, path: str, status: int) -> None:
    reply = raw(url, request(method, path))
    assert reply.status == status, reply
    assert "access-control-allow-origin" not in reply.head and "server:" not in reply.head
    if status >= 400:
        assert reply.error["message"]


LINE = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /health HTTP/1.1\r\n\r\n",  # no Host
        b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nhost: evil.example\r\n\r\n",
        b"GET /health HTTP/1.0\r\n\r\n",
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # TLS
        LINE + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        LINE + b"content-length: -5\r\n\r\nhello",
        LINE + b"content-length: 9" + b"9" * 40 + b"\r\n\r\nhello",
        LINE + b"content-length: five\r\n\r\nhello",
        LINE + b"transfer-encoding: chunked\r\n\r\nZZ\r\nhello\r\n",
        LINE + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        LINE + b"x: " + b"y" * 100_000 + b"\r\n\r\n",
        LINE + b"".join(b"x%d: y\r\n" % n for n in range(20_000)) + b"\r\n",
        LINE + b"bad header\r\n\r\n",
        LINE + b"x: a\x00b\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(url: str, sent: bytes) -> None:
    assert 400 <= raw(url, sent).status < 500 or raw(url, sent).status == 501


def test_a_prompt_beyond_the_context_is_refused_at_once(url: str, toy: Toy) -> None:
    """1.8 MB for 512 tokens, ten at a time: nobody waits and no memory is kept."""
    large = json.dumps(
        {**ASKED, "messages": [{"role": "user", "content": "长" * 600_000}]}, ensure_ascii=False
    )
    before = len(toy.asked)
    with ThreadPoolExecutor(10) as clients:
        begun = time.monotonic()
        replies = list(clients.map(lambda _: ask(url, large.encode()), range(30)))
        assert time.monotonic() - begun < 10
    assert {reply.status for reply in replies} == {400}
    assert {reply.error["code"] for reply in replies} == {"context_length_exceeded"}
    assert len(toy.asked) == before


def test_a_body_that_is_too_large_is_a_413(url: str) -> None:
    size = guard.MAX_BODY_BYTES + 1
    head = request(content_length=str(size))
    assert raw(url, head, *[bytes(1 << 20)] * (size >> 20), b"x").status == 413
    # 300 MB that were announced, with and without the question whether to send them
    assert raw(url, request(content_length="300000000", expect="100-continue")).status == 413


def test_a_body_without_end_is_a_413_or_408(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "DRAIN_SECONDS", 0.5)
    monkeypatch.setattr(guard, "BODY_SECONDS", 1.0)
    with socket.create_connection(("127.0.0.1", port_of(url)), timeout=20) as sender:
        sender.sendall(LINE + b"transfer-encoding: chunked\r\n\r\n")
        try:
            while True:
                sender.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")
        except OSError:
            pass
    with socket.create_connection(("127.0.0.1", port_of(url)), timeout=20) as sender:
        sender.sendall(LINE + b"content-length: 100\r\n\r\n{")
        assert read_reply(sender).status == 408
    one_byte = b"1\r\n{\r\n" * 200_000
    assert raw(url, LINE + b"transfer-encoding: chunked\r\n\r\n", one_byte).status in (400, 408)


def test_many_large_bodies_at_once_are_a_503(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MAX_OPEN_BYTES", 1 << 20)
    held = []
    for _ in range(3):
        sender = socket.create_connection(("127.0.0.1", port_of(url)), timeout=20)
        sender.sendall(request(content_length="2000000") + bytes(500_000))
        held.append(sender)
    time.sleep(0.5)
    reply = ask(url)
    assert reply.status == 503 and "retry-after" in reply.head
    for sender in held:
        sender.close()
    time.sleep(0.3)


def test_slow_senders_of_headers_are_closed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred of them, byte by byte; and those that connect and say nothing, also after a first good request."""
    monkeypatch.setattr(listening, "HEAD_SECONDS", 1.0)
    slow = [socket.create_connection(("127.0.0.1", port_of(url)), timeout=20) for _ in range(100)]
    slow[0].sendall(request("GET", "/health", connection=None))
    assert read_reply(slow[0]).status == 200
    begun = time.monotonic()
    opened = list(slow)
    while opened and time.monotonic() - begun < 10:
        for sender in list(opened):
            try:
                sender.sendall(b"x")
                sender.setblocking(False)
                if sender.recv(1) == b"":
                    opened.remove(sender)
            except BlockingIOError:
                pass
            except OSError:
                opened.remove(sender)
        assert raw(url, request("GET", "/health")).status == 200
        time.sleep(0.1)
    assert not opened
    for sender in slow:
        sender.close()


def test_connections_are_bounded(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "CONNECTIONS", 5)
    several = [socket.create_connection(("127.0.0.1", port_of(url)), timeout=20) for _ in range(8)]
    closed = 0
    for sender in several[5:]:
        try:
            closed += sender.recv(1) == b""
        except ConnectionResetError:
            closed += 1
    assert closed == 3
    for sender in several:
        sender.close()
    time.sleep(0.2)


def test_pipelined_requests_are_answered_in_order(url: str) -> None:
    with socket.create_connection(("127.0.0.1", port_of(url)), timeout=20) as sender:
        first, second = (request("GET", path, connection=None) for path in ("/health", "/nothing"))
        sender.sendall(first + second + request(body=GOOD))
        data = b""
        while data.count(b"HTTP/1.1 ") < 3:
            data += sender.recv(1 << 16)
    assert [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]] == [200, 404, 200]


def test_expect_is_answered(url: str) -> None:
    with socket.create_connection(("127.0.0.1", port_of(url)), timeout=20) as sender:
        sender.sendall(request(content_length=str(len(GOOD)), expect="100-continue"))
        assert sender.recv(100).startswith(b"HTTP/1.1 100")
        sender.sendall(GOOD)
        assert read_reply(sender).status == 200


# ---- clients that leave, and many at once


@pytest.fixture
def slow() -> Iterator[tuple[Toy, str]]:
    toy = Toy(seconds=0.02)
    with toy_server(toy, waiting=25) as started:
        yield toy, started


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_is_broken_off_is_not_generated_on(slow: tuple[Toy, str], stream: bool) -> None:
    toy, url = slow
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port_of(url)), timeout=20) as sender:
            body = json.dumps({**ASKED, "stream": stream, "max_tokens": 500}).encode()
            sender.sendall(request(body=body))
            if stream:
                assert b"200 OK" in sender.recv(1 << 16)
            time.sleep(0.1)
    begun = time.monotonic()
    assert ask(url, {**ASKED, "max_tokens": 1}).status == 200
    assert time.monotonic() - begun < 2 and max(ended.tokens for ended in toy.ended) < 50


def test_who_leaves_the_queue_is_never_run(slow: tuple[Toy, str]) -> None:
    toy, url = slow
    first = socket.create_connection(("127.0.0.1", port_of(url)), timeout=20)
    first.sendall(request(body=json.dumps({**ASKED, "max_tokens": 50}).encode()))
    until(lambda: len(toy.asked) == 1)
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port_of(url)), timeout=20) as sender:
            sender.sendall(request(body=json.dumps({**ASKED, "max_tokens": 500}).encode()))
            time.sleep(0.01)
    assert read_reply(first).status == 200
    first.close()
    assert ask(url, {**ASKED, "max_tokens": 1}).status == 200
    assert len(toy.asked) == 2


def test_twenty_clients_at_once_each_get_their_answer(slow: tuple[Toy, str]) -> None:
    _, url = slow
    with ThreadPoolExecutor(20) as clients:
        replies = list(
            clients.map(lambda n: ask(url, {**ASKED, "max_tokens": n, "stream": n % 2 == 0}), range(1, 21))
        )
    assert [reply.status for reply in replies] == [200] * 20
    assert [reply.body.decode().count("好") for reply in replies] == list(range(1, 21))


def test_more_than_can_wait_are_a_503_at_once(slow: tuple[Toy, str]) -> None:
    toy, url = slow

    def client(_: int) -> int:
        return ask(url, {**ASKED, "max_tokens": 5}).status

    with ThreadPoolExecutor(40) as clients:
        found = list(clients.map(client, range(40)))
    assert set(found) == {200, 503} and found.count(200) >= 26
    assert len(toy.asked) == found.count(200)


def test_a_client_that_does_not_read_holds_nobody_up(
    slow: tuple[Toy, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    toy, url = slow
    toy.seconds = 0
    monkeypatch.setattr(listening, "READ_SECONDS", 1.0)
    toy.context = 1 << 20
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    deaf.connect(("127.0.0.1", port_of(url)))
    deaf.sendall(request(body=json.dumps({**ASKED, "stream": True, "max_tokens": 20_000}).encode()))
    assert ask(url, {**ASKED, "max_tokens": 1}).status == 200
    time.sleep(1.5)
    data = b""
    while more := deaf.recv(1 << 20):
        data += more
    assert b"200 OK" in data and b"[DONE]" not in data
    deaf.close()


def test_a_model_that_fails_is_a_500_and_serves_on(url: str) -> None:
    reply = ask(url, {**ASKED, "messages": [{"role": "user", "content": "坏"}]})
    assert reply.status == 500 and "fell over" not in reply.error["message"]
    reply = ask(url, {**ASKED, "messages": [{"role": "user", "content": "坏"}], "stream": True})
    assert reply.status == 200 and b'"error"' in reply.body and b"data: [DONE]" in reply.body


def test_what_is_asked_is_what_the_model_gets(url: str, toy: Toy) -> None:
    asked = {
        "temperature": 0.25, "top_p": 0.5, "seed": 3, "max_tokens": 4, "presence_penalty": 1, "logit_bias": {"7": -1},
        "user": "me", "n": 1, "tools": [], "stop": None, "frequency_penalty": None, "response_format": {"type": "text"},
    }  # fmt: skip
    parts = [{"type": "text", "text": "一"}, {"type": "text", "text": "二"}]
    turns = [{"role": "developer", "content": "规则"}, {"role": "user", "content": parts, "name": None}]
    assert ask(url, {**ASKED, **asked, "messages": turns}).status == 200
    prompt, sampling = toy.asked[-1]
    assert [(turn.role, turn.text) for turn in prompt if not isinstance(turn, str)] == [
        ("system", "规则"),
        ("user", "一\n二"),
    ]
    assert (sampling.temperature, sampling.top_p, sampling.seed, sampling.max_tokens) == (0.25, 0.5, 3, 4)
    assert (sampling.presence_penalty, sampling.frequency_penalty, dict(sampling.bias)) == (1, 0, {7: -1})
    assert sampling.response_format is None
    ask(url, {**ASKED, "max_tokens": 10**6})  # at most as many as the context has left
    prompt, sampling = toy.asked[-1]
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.6, 7)
    assert sampling.max_tokens == 510 and not sampling.greedy
