"""A chat page in the browser, in its language, by gradio: nothing is fetched from elsewhere, nothing is told to anyone."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

from zhllama.conversation.records import Role, Turn
from zhllama.errors import InputError, MissingPackage, ZhllamaError
from zhllama.use.chat import Chat, Sampling, Speaker

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
# System fonts alone, those for Chinese among them.
FONTS = ["system-ui", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif"]


def chat_page(speaker: Speaker, title: str, sampling: Sampling) -> Any:
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
    page.zhllama_words = words
    return page


@contextmanager
def open_page(page: Any, host: str, port: int) -> Iterator[str]:
    """Serve the page from a thread of this process while the body runs, and give its address.

    Errors: InputError where the server does not start.
    """
    gr = _gradio()
    import uvicorn
    from fastapi import FastAPI

    app = gr.mount_gradio_app(
        FastAPI(),
        page,
        path="/",
        server_name=host,
        server_port=port,
        footer_links=[],
        ssr_mode=False,
        i18n=page.zhllama_words,
        theme=gr.themes.Default(font=FONTS, font_mono=["ui-monospace", "monospace"]),
    )
    settings = uvicorn.Config(
        _closed_in(app), host=host, port=port, log_level="critical", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(settings)
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.05)
    try:
        if not server.started:
            raise InputError("the page", f"cannot be served on port {port}", "Give another --web-port")
        yield f"http://{host}:{port}/"
    finally:
        server.should_exit = True
        thread.join()


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
