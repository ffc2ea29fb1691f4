"""serve: a model asked by the openai client under its template; the page used in a real browser."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.chat_toys import BY_PIECES, write_parrot
from tests.model_toys import line, write_run
from tests.serve_toys import port_of
from tests.test_chat import Counting
from zhllama.conversation.records import Turn
from zhllama.extras import install_command
from zhllama.inference.chat import Sampling

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] + ':' + m['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n' }}{% endif %}"
)


class Serving:
    """`zhllama serve` as users start it, and what it told."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "zhllama", "serve", *map(str, arguments), "--port", "0", "--json"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(folder), "HF_HUB_OFFLINE": "1"},
            start_new_session=True,
        )
        assert self.process.stdout is not None and self.process.stderr is not None
        self.told = self.process.stdout.readline()
        assert self.told, self.process.stderr.read()

    def __getitem__(self, name: str) -> str:
        return str(json.loads(self.told)[name])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serve")


@pytest.fixture(scope="module")
def serving(folder: Path) -> Iterator[Serving]:
    """A run of ours on a model with a template of its own."""
    pytest.importorskip("gradio")
    write_parrot(folder / "base", BY_PIECES, template=TEMPLATE)
    write_run(folder / "my run", folder / "base", new=range(650, 652))
    started = Serving(folder, "my run", "--web", "--web-port", "0")
    yield started
    started.process.kill()
    started.process.wait()


def client(url: str) -> Any:
    from openai import DefaultHttpxClient, OpenAI

    return OpenAI(
        base_url=url, api_key="none", max_retries=0, http_client=DefaultHttpxClient(trust_env=False)
    )


def test_the_openai_client_is_answered_under_the_template(serving: Serving, folder: Path) -> None:
    asked = client(serving["api"])
    assert serving["model"] == "my-run" and [model.id for model in asked.models.list()] == ["my-run"]
    messages: Any = [{"role": "system", "content": "规则"}, {"role": "user", "content": "你好"}]
    whole = asked.chat.completions.create(model="my-run", messages=messages, temperature=0)
    assert whole.choices[0].message.content == BY_PIECES and whole.choices[0].finish_reason == "stop"
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "base")
    text = "<s>system:规则</s>user:你好</s>\n"
    assert whole.usage is not None
    assert whole.usage.prompt_tokens == len(tokenizer(text, add_special_tokens=False).input_ids)
    chunks = asked.chat.completions.create(model="my-run", messages=messages, stream=True, max_tokens=40)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "".join(piece or "" for piece in pieces) == BY_PIECES and len(pieces) > 5


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if BROWSER is None:
        pytest.skip("no chromium here: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        opened = started.chromium.launch(executable_path=BROWSER, args=flags)
        yield opened
        opened.close()


@pytest.mark.parametrize(
    ("locale", "message", "settings", "system", "anew"),
    [
        ("zh-CN", "说点什么吧", "设置", "系统提示词", "新对话"),
        ("zh-TW", "說點什麼吧", "設定", "系統提示詞", "新對話"),
        ("en-US", "Say something", "Settings", "System prompt", "New chat"),
    ],
)
def test_the_page_is_used(
    serving: Serving, browser: Any, locale: str, message: str, settings: str, system: str, anew: str
) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=60_000)

    context = browser.new_context(locale=locale, viewport={"width": 1200, "height": 850})
    page = context.new_page()
    page.set_default_timeout(60_000)
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    elsewhere: list[str] = []
    page.on(
        "request", lambda asked: None if local(asked.url, serving["page"]) else elsewhere.append(asked.url)
    )
    page.goto(serving["page"])
    page.get_by_placeholder(message).wait_for()
    box = page.locator("textarea").first  # gradio takes the words out of it with the first message
    for number in (1, 2):
        ask(page, box, number)
        expect(page.get_by_text("第1个问题")).to_have_count(2)  # in the conversation, and beside as its title
    assert page.locator(".user.message").all_inner_texts() == ["第1个问题", "第2个问题"]
    page.get_by_role("button", name=settings).click()
    page.get_by_label(system).fill("你是一位老师。")
    ask(page, box, 3)
    page.get_by_role("button", name=anew).click()
    page.locator(".bot.message").first.wait_for(state="detached")
    # The earlier conversation stands beside, to be taken up again; its messages leave the page a moment later.
    expect(page.get_by_text("第1个问题")).to_have_count(1)
    assert complaints == [] and elsewhere == []
    context.close()


def ask(page: Any, box: Any, number: int) -> None:
    """Send a message and wait until gradio has saved the conversation in the browser.

    It saves after its answer; a message or a new chat before that would start a second entry of the same conversation.
    """
    stored = "JSON.stringify(localStorage)"
    before = page.evaluate(stored)
    box.fill(f"第{number}个问题")
    box.press("Enter")
    page.locator(".bot.message").filter(has_text=BY_PIECES).nth(number - 1).wait_for()
    page.wait_for_function(f"before => {stored} !== before", arg=before)


def local(url: str, page: str) -> bool:
    return url.startswith((page, "data:", "blob:"))


def test_ctrl_c_ends_both_and_leaves_nothing(serving: Serving, folder: Path) -> None:
    """The last test with this server: it stops what the others use."""
    ports = [port_of(serving[name]) for name in ("api", "page")]
    assert list(folder.glob("zhllama-serve-*"))
    serving.process.send_signal(signal.SIGINT)
    assert serving.process.wait(60) == 130
    assert serving.process.stderr is not None
    assert serving.process.stderr.read() == "zhllama: stopped. Finished results are kept.\n"
    assert list(folder.glob("zhllama-serve-*")) == [] and list(folder.glob("gradio*")) == []
    for port in ports:
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", port))


# ---- without a server


def test_one_line_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for words, told in (
            ((".", "--port", port), f"--port {port}: cannot be used on 127.0.0.1 (Address already in use)"),
            ((".", "--port", 0, "--web", "--web-port", port), f"--web-port {port}: cannot be used"),
            ((".", "--port", 0, "--host", "203.0.113.1"), "--port 0: cannot be used on 203.0.113.1"),
            (("none", "--port", 0), "none: is not a model folder"),
            (("none.gguf", "--port", 0), "none.gguf: no such file"),
        ):
            result = line(tmp_path, "serve", *words)
            assert result.code == 1 and told in result.err and result.err.count("\n") == 1, result.err

    def found(name: str) -> str:
        if name == "gradio":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr("zhllama.extras.version", found)
    told = line(tmp_path, "serve", ".", "--port", 0, "--web", "--web-port", 0).err
    assert told == f"zhllama: serve: needs the package gradio. {install_command('web')}\n"


def test_names_for_clients(tmp_path: Path) -> None:
    from zhllama.inference.serve import served_name

    (tmp_path / "模型 7B").mkdir()
    assert served_name(str(tmp_path / "模型 7B")) == "7B" and served_name("org/name-1.5") == "name-1.5"


def test_weights_that_are_cut_off_are_one_line(tmp_path: Path) -> None:
    base = write_parrot(tmp_path / "m", BY_PIECES, template=TEMPLATE)
    weights = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    told = line(tmp_path, "serve", "m", "--port", 0)
    assert told.code == 1 and "m/model.safetensors: is cut off: " in told.err
    assert told.err.count("\n") == 1 and list(tmp_path.glob("zhllama-serve-*")) == []


def test_the_page_asks_with_history_system_and_settings() -> None:
    pytest.importorskip("gradio")
    from zhllama.inference.web import chat_page

    speaker = Counting([["你", "好"], ["！"]], context=4096)
    page, asking = chat_page(speaker, "title", Sampling()), SimpleNamespace(headers={})
    assert list(page.fn("问", [], None, 0.5, 0.8, 7, asking)) == ["你", "你好"]
    history = [
        {"role": "user", "content": "问"},
        {"role": "assistant", "content": [{"type": "text", "text": "你好"}]},
    ]
    assert list(page.fn("再问", history, " 规则 ", 0.5, 0.8, 7, asking)) == ["！"]
    said = [Turn("system", "规则"), Turn("user", "问"), Turn("assistant", "你好"), Turn("user", "再问")]
    assert speaker.seen[1] == (said, 7)


@pytest.mark.slow
def test_a_soak(tmp_path: Path) -> None:
    """A whole process: 300 requests in a row, 20 clients at once, 100 left, 50 prompts of 1.8 MB, and no growth."""
    import time
    from concurrent.futures import ThreadPoolExecutor

    from tests.serve_toys import ask, request

    write_parrot(tmp_path / "m", BY_PIECES, template=TEMPLATE, endless=True)
    started = Serving(tmp_path, "m")
    url = started["api"].removesuffix("/v1")
    asked = {"model": "m", "messages": [{"role": "user", "content": "你好"}], "max_tokens": 12}
    large = {**asked, "messages": [{"role": "user", "content": "中国人民" * 150_000}]}

    def memory() -> int:
        status = Path(f"/proc/{started.process.pid}/status").read_text(encoding="utf-8")
        return int(status.partition("VmRSS:")[2].split()[0]) >> 10

    def leave(stream: bool) -> None:
        with socket.create_connection(("127.0.0.1", port_of(url)), timeout=60) as sender:
            body = json.dumps({**asked, "max_tokens": 400, "stream": stream}).encode()
            sender.sendall(request(body=body))
            time.sleep(0.1)

    def served(n: int) -> None:
        for number in range(n):
            reply = ask(url, {**asked, "stream": number % 2 == 0})
            assert reply.status == 200 and "我们" in reply.body.decode()

    try:
        served(20)
        before = memory()
        served(280)
        with ThreadPoolExecutor(20) as clients:
            list(clients.map(leave, [True, False] * 50))
            begun = time.monotonic()
            assert {reply.status for reply in clients.map(lambda _: ask(url, large), range(50))} == {400}
            refused = time.monotonic() - begun
            list(clients.map(served, [5] * 20))
        begun = time.monotonic()
        served(1)
        print(
            f"memory {before} MB before and {memory()} MB after; 50 prompts refused in {refused:.1f} s;",
            end=" ",
        )
        print(f"then one answer in {time.monotonic() - begun:.1f} s")
        assert memory() < before + 150 and time.monotonic() - begun < 10
    finally:
        started.process.kill()
        started.process.wait()


@pytest.fixture(scope="module")
def own_server(folder: Path) -> Iterator[Serving]:
    """A small model whose context has room for the prompts of gen-zh."""
    write_parrot(folder / "long", BY_PIECES, max_position_embeddings=16384)
    started = Serving(folder, "long", "--template", "vicuna")
    yield started
    started.process.kill()
    started.process.wait()


@pytest.mark.parametrize("api", ["chat", "completion"])
def test_gen_zh_is_served(own_server: Serving, folder: Path, tmp_path: Path, api: str) -> None:
    """What the small model says is rubbish, but each task is asked once, answered, journaled, and the run is finished."""
    given = [{"instruction": f"Name {n} rivers.", "input": "", "output": "The Nile."} for n in range(6)]
    (tmp_path / "given.json").write_text(json.dumps(given), encoding="utf-8")
    # Its own process: a browser's test before this one may have left an event loop in ours.
    told = subprocess.run(
        [sys.executable, "-m", "zhllama", "gen-zh", "--method", "translate", "--given", "given.json", "--base-url", own_server["api"], "--model", own_server["model"],
        "--api", api, "--temperature", "0", "--reply-tokens", "6", "--concurrency", "3", "--out", "made", "--json"],
        cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", timeout=300,
    )  # fmt: skip
    result = json.loads(told.stdout)
    assert told.returncode == (0 if result["kept"] else 1), (
        told.stderr
    )  # rubbish may be rejected to the last task
    assert result["finished"] and result["kept"] + result["rejected"] == 6
    rows = [
        json.loads(row)
        for row in (tmp_path / "made" / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    asked = [(row["round"], row["index"]) for row in rows]
    assert {(0, number) for number in range(6)} <= set(asked) and len(set(asked)) == len(asked) == result[
        "replies"
    ]
    for row in rows:
        assert row["reply"]["text"] and 1 <= row["reply"]["completion_tokens"] <= 6, (
            row
        )  # it may end by itself
    assert (tmp_path / "made" / "manifest.json").is_file()
