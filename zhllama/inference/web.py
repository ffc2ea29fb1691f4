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
from zhllama.inference.web_words import CHOOSE_CHINESE, WORDS, words_for

POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
_READ = r"/|/theme\.css|/favicon\.ico|/(?:assets|static)/.+|/gradio_api/(?:queue/data|heartbeat/\w+)"
NEEDED = {"GET": _READ, "HEAD": _READ, "POST": r"/gradio_api/(?:queue/join|run/predict|cancel)"}
# System fonts only, including Chinese ones.
FONTS = ["system-ui", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif"]
# gradio's row shares its free height between the lines that it wraps into, which on a telephone leaves an area empty
# above the conversation, and a long list of earlier conversations pushes the present one off the screen.
STYLE = """
@media (max-width: 40rem) {
  #page-row { flex-flow: column nowrap; }
  #conversations { flex: none !important; width: 100%; max-height: 30vh; overflow-y: auto; } /* gradio's own is inline */
}
"""
# gradio's own shades of these have a contrast below 4.5 to 1.
LEGIBLE = {
    "button_primary_background_fill": "*primary_700",
    "button_primary_background_fill_dark": "*primary_700",
    "button_primary_background_fill_hover": "*primary_800",
    "button_primary_background_fill_hover_dark": "*primary_800",
    "body_text_color_subdued": "*neutral_500",
    "input_placeholder_color": "*neutral_500",
    "input_placeholder_color_dark": "*neutral_400",
}


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
        request: Any,
    ) -> Iterator[str]:
        options = Sampling(temperature, top_p, int(max_tokens), sampling.seed)
        chat = Chat(chat_model, options, (system or "").strip(), [_turn(entry) for entry in history])
        text = ""
        try:
            pieces = chat.say(message, Event())
            if chat.forgotten:
                own = words_for(request.headers.get("accept-language", ""))
                gr.Info(own["forgotten"].format(n=chat.forgotten // 2), title=own["notice"])
            for piece in pieces:
                text += piece
                yield text
        except ZhllamaError as error:
            raise gr.Error(str(error), print_exception=False) from error

    answer.__annotations__["request"] = gr.Request  # gradio fills a parameter of this type
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
    column = page.new_chat_button.parent
    column.elem_id, column.parent.elem_id = "conversations", "page-row"  # for STYLE
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
        theme=gr.themes.Default(font=FONTS, font_mono=["ui-monospace", "monospace"]).set(**LEGIBLE),
        css=STYLE,
    )
    return _with_content_policy(_choosing_chinese(app))


def _choosing_chinese(app: Any) -> Any:
    """The app with CHOOSE_CHINESE at the head of its page, ahead of gradio's own scripts."""

    async def choosing(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or (scope["method"], scope["path"]) != ("GET", "/"):
            await app(scope, receive, send)
            return
        start: dict[str, Any] = {}
        body = bytearray()

        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            page = bytes(body).replace(b"<head>", b"<head>" + CHOOSE_CHINESE.encode(), 1)
            others = [header for header in start["headers"] if header[0].lower() != b"content-length"]
            await send({**start, "headers": [*others, (b"content-length", str(len(page)).encode())]})
            await send({"type": "http.response.body", "body": page})

        # The page must come uncompressed.
        plain = [header for header in scope["headers"] if header[0] != b"accept-encoding"]
        await app({**scope, "headers": plain}, receive, sent)

    return choosing


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
