"""The chat page: what it needs is open and nothing else; an answer that is stopped or left is generated no further."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

from tests.serve_toys import Toy, port_of, raw, request
from tests.test_report_page import CONTRASTS
from tests.test_serve import browser  # noqa: F401  # a fixture
from zhllama.inference.chat import Sampling
from zhllama.inference.generation_queue import Engine, EngineChatModel
from zhllama.inference.http_guard import MAX_BODY_BYTES, Guard, host_names
from zhllama.inference.http_server import bind_socket, serve_app
from zhllama.inference.web import chat_page, gradio_home, page_app, page_needs
from zhllama.inference.web_words import ENGLISH, SIMPLIFIED, TRADITIONAL, words_for


@pytest.fixture(scope="module")
def toy() -> Toy:
    return Toy(seconds=0.05, context=4096)


@pytest.fixture(scope="module")
def page(toy: Toy) -> Iterator[str]:
    with ExitStack() as opened:
        opened.enter_context(gradio_home())
        engine = opened.enter_context(closing(Engine(toy)))
        app = page_app(chat_page(EngineChatModel(engine), "toy", Sampling(max_tokens=4000)))
        taken = opened.enter_context(bind_socket("--web-port", "127.0.0.1", 0))
        named = host_names("127.0.0.1", "127.0.0.1", [])
        yield opened.enter_context(serve_app(Guard(app, named, page_needs), taken))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/gradio_api/upload"),
        ("POST", "/upload"),
        ("POST", "/gradio_api/upload/"),
        ("POST", "/gradio_api//upload"),
        ("POST", "/gradio_api/queue/../upload"),
        ("POST", "/gradio_api/queue/join/../../upload"),
        ("POST", "/gradio_api/%75pload"),
        ("POST", "/gradio_api/reset"),
        ("POST", "/reset"),
        ("POST", "/gradio_api/stream/1"),
        ("POST", "/gradio_api/call/answer"),
        ("POST", "/gradio_api/api/predict"),
        ("POST", "/gradio_api/process_recording"),
        ("POST", "/gradio_api/vibe-edit"),
        ("POST", "/login"),
        ("POST", "/gradio_api/component_server"),
        ("GET", "/gradio_api/file=/etc/passwd"),
        ("GET", "/gradio_api/file=https://evil.example/"),
        ("HEAD", "/gradio_api/file=/etc/passwd"),
        ("GET", "/file=/etc/passwd"),
        ("GET", "/gradio_api/proxy=https://evil.example/"),
        ("GET", "/gradio_api/info"),
        ("GET", "/gradio_api/runs"),
        ("GET", "/gradio_api/deep_link"),
        ("GET", "/gradio_api/upload_progress"),
        ("GET", "/monitoring"),
        ("GET", "/config"),
        ("GET", "/docs"),
        ("PUT", "/"),
        ("DELETE", "/"),
        ("OPTIONS", "/gradio_api/queue/join"),
        ("TRACE", "/"),
    ],
)
def test_what_the_page_does_not_need_is_closed(page: str, method: str, path: str) -> None:
    reply = raw(page, request(method, path, body=b"{}" if method == "POST" else b""))
    assert reply.status == 404, reply
    assert b"/work/" not in reply.body


@pytest.mark.parametrize("path", ["/assets/..%2f..%2f..%2fetc%2fpasswd", "/static/../../../../etc/passwd"])
def test_no_file_outside_is_read(page: str, path: str) -> None:
    reply = raw(page, request("GET", path))
    assert reply.status in (403, 404) and b"root:" not in reply.body


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "SELF"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "evil.example:7860"}, 403),
        ({"host": "evil.example", "origin": "http://evil.example"}, 403),
    ],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("POST", "/gradio_api/cancel")])
def test_only_the_page_itself_may_ask(
    page: str, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    own = f"127.0.0.1:{port_of(page)}"
    told = {"host": own, **headers}
    if headers.get("origin") == "SELF":
        told["origin"] = f"http://{own}"
    body = json.dumps({"session_hash": "x", "fn_index": 0, "event_id": "y"}).encode()
    reply = raw(page, request(method, path, body=body if method == "POST" else b"", **told))
    assert reply.status == status
    assert "access-control-allow-origin: http://evil" not in reply.head


def test_nothing_is_kept_of_a_large_body(page: str) -> None:
    import os

    home = Path(os.environ["GRADIO_TEMP_DIR"])
    size = MAX_BODY_BYTES + 1
    for path in ("/gradio_api/upload", "/gradio_api/queue/join"):
        reply = raw(page, request(path=path, content_length=str(size)), *[bytes(1 << 20)] * 8, b"x")
        assert reply.status in (404, 413)
    assert list(home.rglob("*")) == []


def opened(browser: Any, page: str, **options: Any) -> Any:  # noqa: F811
    shown = browser.new_page(locale="en-US", **options)
    shown.set_default_timeout(60_000)
    shown.goto(page)
    shown.get_by_placeholder("Say something").wait_for()
    return shown


@pytest.mark.parametrize(
    ("accepted", "words"),
    [
        ("zh-TW,zh;q=0.9,en;q=0.8", TRADITIONAL), ("zh-HK", TRADITIONAL), ("zh-MO,zh;q=0.9", TRADITIONAL),
        ("zh-Hant-HK;q=0.9", TRADITIONAL), ("ZH-hk", TRADITIONAL), ("zh-CN,zh;q=0.9", SIMPLIFIED),
        ("zh-SG", SIMPLIFIED), ("zh", SIMPLIFIED), ("zh-Hans-HK", SIMPLIFIED), ("en-US,zh-TW;q=0.9", ENGLISH),
        ("de-DE", ENGLISH), ("zha", ENGLISH), ("*", ENGLISH), ("", ENGLISH),
    ],
)  # fmt: skip
def test_a_header_chooses_the_words(accepted: str, words: dict[str, str]) -> None:
    assert words_for(accepted) is words


@pytest.mark.parametrize(
    ("locale", "language", "words"),
    [
        ("zh-HK", "zh-TW", TRADITIONAL), ("zh-MO", "zh-TW", TRADITIONAL), ("zh-Hant-HK", "zh-TW", TRADITIONAL),
        ("zh-TW", "zh-TW", TRADITIONAL), ("zh-SG", "zh-CN", SIMPLIFIED), ("zh-Hans-HK", "zh-CN", SIMPLIFIED),
    ],
)  # fmt: skip
def test_every_chinese_browser_gets_its_script(
    page: str,
    browser: Any,  # noqa: F811
    locale: str,
    language: str,
    words: dict[str, str],
) -> None:
    """gradio's own texts too, which know zh-CN and zh-TW alone."""
    context = browser.new_context(locale=locale)
    shown = context.new_page()
    shown.goto(page)
    shown.get_by_placeholder(words["message"]).wait_for()
    assert shown.evaluate("document.documentElement.lang") == language
    context.close()


def test_what_was_forgotten_is_told_in_the_language_of_the_browser(browser: Any) -> None:  # noqa: F811
    with ExitStack() as opened_:
        opened_.enter_context(gradio_home())
        engine = opened_.enter_context(closing(Engine(Toy(context=40))))
        app = page_app(chat_page(EngineChatModel(engine), "toy", Sampling(max_tokens=6)))
        guarded = Guard(app, host_names("127.0.0.1", "127.0.0.1", []), page_needs)
        url = opened_.enter_context(
            serve_app(guarded, opened_.enter_context(bind_socket("--web-port", "127.0.0.1", 0)))
        )
        for locale, told in (
            ("zh-HK", "對話太長，模型已看不到最早的1組問答。"),
            ("zh-SG", "对话太长，模型已看不到最早的1组问答。"),
            ("en-US", "the model no longer sees the first 1 exchanges."),
        ):
            context = browser.new_context(locale=locale)
            shown = context.new_page()
            shown.goto(url)
            box = shown.locator("textarea").first
            for number in (1, 2):
                box.fill("一二三四五六七八九十一二三四五六七八")
                box.press("Enter")
                shown.locator(".bot.message").filter(has_text="好好好好好好").nth(number - 1).wait_for()
            toast = shown.get_by_test_id("toast-body")
            toast.wait_for()
            assert told in toast.inner_text()
            context.close()


def free(toy: Toy, before: int) -> None:
    """Wait until a generation more has ended."""
    deadline = time.monotonic() + 20
    while len(toy.ended) == before:
        assert time.monotonic() < deadline, "it is generated on"
        time.sleep(0.1)


def test_a_telephone_shows_the_conversation_without_an_empty_area(page: str, browser: Any) -> None:  # noqa: F811
    for scheme, width in (("light", 390), ("dark", 390), ("light", 1280), ("dark", 1280)):
        shown = opened(browser, page, viewport={"width": width, "height": 844}, color_scheme=scheme)
        new = shown.get_by_role("button", name="New chat")
        box, column = new.bounding_box(), shown.locator("#conversations").bounding_box()
        talk = shown.locator(".bubble-wrap").bounding_box()
        if width == 390:
            # Two of the gaps of 16 px between its parts: there are no earlier conversations yet.
            assert 0 < talk["y"] - (box["y"] + box["height"]) < 36 and talk["width"] > 300
        else:
            assert abs(talk["y"] - column["y"]) < 5 and talk["x"] > column["x"] + column["width"]
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        assert shown.evaluate("document.documentElement.scrollHeight") <= 844
        shown.get_by_text("Settings").click()
        shown.get_by_label("System prompt").wait_for()
        contrasts = shown.evaluate(CONTRASTS)
        assert min(contrasts.values()) >= 4.5, contrasts
        shown.close()


def test_stop_retry_and_leaving(page: str, toy: Toy, browser: Any) -> None:  # noqa: F811
    shown = opened(browser, page)
    refused: list[str] = []
    shown.on("response", lambda reply: refused.append(reply.url) if reply.status >= 400 else None)
    box = shown.locator("textarea").first
    before = len(toy.ended)
    box.fill("第一个问题")
    box.press("Enter")
    shown.locator(".bot.message").filter(has_text="好好好").wait_for()  # it streams
    shown.locator("button.stop-button").click()
    free(toy, before)
    assert toy.ended[-1].reason == "stop" and toy.ended[-1].tokens < 400
    shown.get_by_role("button", name="Retry").click()
    shown.locator("button.stop-button").wait_for()
    before = len(toy.ended)
    time.sleep(1)
    assert len(toy.ended) == before
    shown.close()  # the tab goes while an answer comes
    free(toy, before)
    assert toy.ended[-1].reason == "stop" and toy.ended[-1].tokens < 400
    # gradio's own script also asks for this when it stops; the generation ends without it.
    assert {url.removeprefix(page) for url in refused} <= {"/gradio_api/reset"}


def test_a_page_elsewhere_reaches_nothing(page: str, toy: Toy, browser: Any) -> None:  # noqa: F811
    """A real browser on another origin: plain posts, uploads, and the same machine under another name."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    class Evil(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Evil) as evil:
        Thread(target=evil.serve_forever, daemon=True).start()
        shown = browser.new_page()
        shown.goto(f"http://127.0.0.1:{evil.server_address[1]}/")
        statuses: list[int] = []
        shown.on("response", lambda reply: statuses.append(reply.status))
        shown.evaluate(
            """async page => {
                const form = new FormData(); form.append("files", new Blob(["x".repeat(1000)]), "x.txt")
                const body = JSON.stringify({data: ["hi"], fn_index: 0, session_hash: "abc"})
                for (const [path, body_] of [["upload", form], ["reset", "{}"], ["queue/join", body], ["cancel", body]])
                    await fetch(page + "/gradio_api/" + path, {method: "POST", mode: "no-cors", body: body_}).catch(() => 0)
            }""",
            page,
        )
        shown.wait_for_timeout(200)
        assert statuses == [403] * 4
        evil.shutdown()
    rebound = browser.new_page()
    reply = rebound.goto(
        f"http://rebound.localhost:{port_of(page)}/"
    )  # browsers take any such name for 127.0.0.1
    assert reply is not None and reply.status == 403
