"""A chat page in the browser's language, by gradio, without external resources or telemetry."""

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
    "system_hint": "The role of the model, e.g. a patient teacher of Chinese",
    "settings": "Settings",
    "temperature": "Temperature (0: always the most probable token)",
    "top_p": "Top-p",
    "max_tokens": "Maximum tokens of an answer",
    "message": "Say something",
    "new_chat": "New chat",
}
SIMPLIFIED = {
    "system": "系统提示词",
    "system_hint": "希望模型扮演什么角色，例如：一位耐心的语文老师",
    "settings": "设置",
    "temperature": "温度（0表示每次取概率最高的词元）",
    "top_p": "Top-p",
    "max_tokens": "回答的最大词元数",
    "message": "说点什么吧",
    "new_chat": "新对话",
}
TRADITIONAL = {
    "system": "系統提示詞",
    "system_hint": "希望模型扮演什麼角色，例如：一位有耐心的國文老師",
    "settings": "設定",
    "temperature": "溫度（0表示每次取機率最高的詞元）",
    "top_p": "Top-p",
    "max_tokens": "回答的最大詞元數",
    "message": "說點什麼吧",
    "new_chat": "新對話",
}
# By browser language; gradio itself speaks no other Chinese, and shows English to a browser set to zh-HK or zh-SG.
WORDS = {"en": ENGLISH, "zh": SIMPLIFIED, "zh-CN": SIMPLIFIED, "zh-TW": TRADITIONAL}
FORGOTTEN = "对话太长，最早的{n}轮模型已看不到。 The conversation is long: the model no longer sees the first {n} exchanges."
POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
_READ = r"/|/theme\.css|/favicon\.ico|/(?:assets|static)/.+|/gradio_api/(?:queue/data|heartbeat/\w+)"
NEEDED = {"GET": _READ, "HEAD": _READ, "POST": r"/gradio_api/(?:queue/join|run/predict|cancel)"}
# System fonts only, including Chinese ones.
FONTS = ["system-ui", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif"]


def chat_page(chat_model: ChatModel, title: str, sampling: Sampling) -> Any:
    """The page as gradio blocks: streaming, stop, retry, earlier conversations, system prompt, sampling.

    Errors: MissingPackage.
    """
    gr = _gradio()
    words = gr.I18n(**WORDS)

    def answer(
        message: str,
        history: list[dict[str, Any]],
        system: str,
        temperature: float,
        top_p: float,
        max_tokens: float,
    ) -> Iterator[str]:
        options = Sampling(temperature, top_p, int(max_tokens), sampling.seed)
        chat = Chat(chat_model, options, (system or "").strip(), [_turn(entry) for entry in history])
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
    page.new_chat_button.icon = None  # gradio's icon is a file, and no route to files is open
    page.zhllama_words = words
    page.queue(max_size=WAITING)
    return page


@contextmanager
def gradio_home() -> Iterator[None]:
    """Make a temporary folder gradio's, and remove it with its content at the end.

    It must be open before gradio is imported.
    """
    with TemporaryDirectory(prefix="zhllama-serve-") as home:
        os.environ["GRADIO_TEMP_DIR"] = home
        yield


def page_needs(method: str, path: str) -> bool:
    """Whether the page needs a route; some of gradio's other routes upload files, fetch addresses or stop other visitors' work."""
    return re.fullmatch(NEEDED.get(method, ""), path) is not None


def page_app(page: Any) -> Any:
    """The page as an ASGI app; serve it behind a Guard that allows only `page_needs`."""
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
    return _with_content_policy(app)


def _with_content_policy(app: Any) -> Any:
    """The app with a content security policy that blocks external resources, such as images in a model's answer."""

    async def closed(scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY)]
            await send(message)

        await app(scope, receive, sent)

    return closed


def _turn(entry: dict[str, Any]) -> Turn:
    """A turn from gradio's history, whose text may be in parts."""
    content = entry["content"]
    role: Role = "assistant" if entry["role"] == "assistant" else "user"
    parts = [content] if isinstance(content, str) else [part.get("text", "") for part in content]
    return Turn(role, "".join(parts))


def _gradio() -> Any:
    # gradio reads this at import: no telemetry, and no check for new versions.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError:
        raise MissingPackage("`web`", "gradio", "web") from None
    return gradio
