"""The chat page in the browser, by gradio, in the browser's language; nothing is loaded from or sent elsewhere."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

from zhllama.conversation.records import Role, Turn
from zhllama.errors import MissingPackage, ZhllamaError
from zhllama.inference.chat import Chat, ChatModel, Sampling
from zhllama.inference.generation_queue import WAITING

ENGLISH = {
    "system": "System prompt",
    "system_hint": "Who the model is to be, e.g. a patient teacher of Chinese",
    "settings": "Settings",
    "temperature": "Temperature (0: always the likeliest)",
    "top_p": "Top-p",
    "max_tokens": "Tokens of an answer, at most",
    "message": "Say something",
    "new_chat": "New chat",
}
CHINESE = {
    "system": "系统提示词",
    "system_hint": "希望模型扮演什么角色，例如：一位耐心的语文老师",
    "settings": "设置",
    "temperature": "温度（0 表示总取最可能的词）",
    "top_p": "Top-p",
    "max_tokens": "回答的最大词元数",
    "message": "说点什么吧",
    "new_chat": "新对话",
}
FORGOTTEN = "对话太长，最早的 {n} 轮模型已看不到。 The conversation is long: the model no longer sees the first {n} exchanges."
POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
_READ = r"/|/theme\.css|/favicon\.ico|/(?:assets|static)/.+|/gradio_api/(?:queue/data|heartbeat/\w+)"
NEEDED = {"GET": _READ, "HEAD": _READ, "POST": r"/gradio_api/(?:queue/join|run/predict|cancel)"}
# System fonts alone, those for Chinese among them.
FONTS = ["system-ui", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif"]


def chat_page(speaker: ChatModel, title: str, sampling: Sampling) -> Any:
    """The page as gradio blocks: streaming, stop, retry, earlier conversations, system prompt, sampling.

    Errors: MissingPackage.
    """
    gr = _gradio()
    words = gr.I18n(**{"en": ENGLISH, "zh": CHINESE, "zh-CN": CHINESE})

    def answer(
        message: str,
        history: list[dict[str, Any]],
        system: str,
        temperature: float,
        top_p: float,
        most: float,
    ) -> Iterator[str]:
        chosen = Sampling(temperature, top_p, int(most), sampling.seed)
        chat = Chat(speaker, chosen, (system or "").strip(), [_turn(entry) for entry in history])
        text = ""
        try:
            pieces = chat.say(message, Event())
            if chat.forgotten:
                gr.Info(FORGOTTEN.format(n=chat.forgotten // 2))
            for piece in pieces:
                text += piece
                yield text
        except ZhllamaError as error:
            raise gr.Error(str(error), print_exception=False) from error

    page = gr.ChatInterface(
        answer,
        title=title,
        chatbot=gr.Chatbot(show_label=False, scale=1, buttons=["copy"], render=False),
        textbox=gr.Textbox(
            placeholder=words("message"),
            show_label=False,
            container=False,
            submit_btn=True,
            stop_btn=True,
            render=False,
        ),
        additional_inputs=[
            gr.Textbox(label=words("system"), placeholder=words("system_hint"), lines=2, render=False),
            gr.Slider(
                0, 2, 0 if sampling.greedy else sampling.temperature, label=words("temperature"), render=False
            ),
            gr.Slider(0.05, 1, sampling.top_p, step=0.05, label=words("top_p"), render=False),
            gr.Slider(1, 4096, sampling.max_tokens, step=1, label=words("max_tokens"), render=False),
        ],
        additional_inputs_accordion=gr.Accordion(label=words("settings"), open=False, render=False),
        save_history=True,
        analytics_enabled=False,
        api_visibility="private",
    )
    page.new_chat_button.value = words("new_chat")
    page.new_chat_button.icon = None  # a file of gradio's: no route to files is open
    page.zhllama_words = words
    page.queue(max_size=WAITING)
    return page


@contextmanager
def gradio_home() -> Iterator[None]:
    """A temporary folder of ours as gradio's, gone at the end with whatever was put there.

    It must be open before gradio is imported.
    """
    with TemporaryDirectory(prefix="zhllama-serve-") as home:
        os.environ["GRADIO_TEMP_DIR"] = home
        yield


def page_needs(method: str, path: str) -> bool:
    """Whether the page needs a route: of gradio's others some take files, fetch addresses or end other visitors' work."""
    return re.fullmatch(NEEDED.get(method, ""), path) is not None


def page_app(page: Any) -> Any:
    """The page as an ASGI app. It is to be served behind a Guard that passes on `page_needs` and nothing else."""
    gr = _gradio()
    from fastapi import FastAPI

    app = gr.mount_gradio_app(
        FastAPI(),
        page,
        path="/",
        footer_links=[],
        ssr_mode=False,
        i18n=page.zhllama_words,
        theme=gr.themes.Default(font=FONTS, font_mono=["ui-monospace", "monospace"]),
    )
    return _closed_in(app)


def _closed_in(app: Any) -> Any:
    """The app, its pages told to load nothing from elsewhere: not even a picture that a model's answer names."""

    async def closed(scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY)]
            await send(message)

        await app(scope, receive, sent)

    return closed


def _turn(entry: dict[str, Any]) -> Turn:
    """What gradio remembers of a turn: its text, alone or as parts."""
    said = entry["content"]
    role: Role = "assistant" if entry["role"] == "assistant" else "user"
    parts = [said] if isinstance(said, str) else [part.get("text", "") for part in said]
    return Turn(role, "".join(parts))


def _gradio() -> Any:
    # Read when gradio is imported or first used: no telemetry, and no look for newer versions.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError:
        raise MissingPackage("--web", "gradio", "web") from None
    return gradio
