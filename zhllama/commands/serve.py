"""The command `serve`, which serves a model over OpenAI's API, and a page to chat on."""

import sys
from contextlib import ExitStack, closing
from threading import Event

from zhllama.commands.chat_model import extra_for, open_model
from zhllama.commands.declare import command
from zhllama.commands.shared import AsJson, Config, print_json, say_addresses, waiting
from zhllama.extras import require
from zhllama.inference.options import ChatModelOptions, ServeOptions


@command
def serve(
    model: ChatModelOptions,
    options: ServeOptions,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Serve a model over OpenAI's API, by the template that it was trained with, and with --web as a page to chat on.

    transformers runs it, and llama.cpp a .gguf file, one answer at a time. With --json the addresses are printed as JSON
    once all is ready. Ctrl-C ends it.
    """
    require("serve", extra_for(model), "web" if options.web else "serve")
    from zhllama.inference.generation_queue import Engine
    from zhllama.inference.http_guard import Guard, host_names
    from zhllama.inference.http_server import bind_socket, serve_app
    from zhllama.inference.serve import api, served_name

    with ExitStack() as opened:
        socket = opened.enter_context(bind_socket("port", options.host, options.port))
        page_socket = (
            opened.enter_context(bind_socket("web_port", options.host, options.web_port))
            if options.web
            else None
        )
        with waiting("loading"):
            engine = opened.enter_context(closing(Engine(open_model(model, "serve"))))
        name, allowed = (
            served_name(model.model),
            host_names(options.host, socket.getsockname()[0], options.allow_host),
        )
        url = opened.enter_context(serve_app(Guard(api(name, engine), allowed), socket))
        addresses = {"model": name, "api": f"{url}/v1"}
        if page_socket is not None:
            from zhllama.inference.chat import Sampling
            from zhllama.inference.generation_queue import EngineChatModel
            from zhllama.inference.web import chat_page, gradio_home, page_app, page_needs

            opened.enter_context(gradio_home())
            page = chat_page(EngineChatModel(engine), name, Sampling())
            url = opened.enter_context(serve_app(Guard(page_app(page), allowed, page_needs), page_socket))
            addresses["page"] = f"{url}/"
        if as_json:
            print_json(addresses)
        else:
            say_addresses(addresses)
        sys.stdout.flush()
        Event().wait()
