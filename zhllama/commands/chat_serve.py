"""The commands `chat` and `serve`."""

import codecs
import io
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zhllama.commands.shared import (
    AsJson,
    Config,
    check_torch,
    note,
    notes,
    print_json,
    say,
    say_part,
    warn,
)
from zhllama.errors import InputError, MissingPackage, OptionError, ZhllamaError

if TYPE_CHECKING:
    from zhllama.inference.chat import Chat
    from zhllama.inference.llamacpp_chat_model import LlamaCppChatModel
    from zhllama.inference.transformers_chat_model import TransformersChatModel

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Folder, hub name, run of ours, or a .gguf file.", show_default=False
    ),
]
Template = Annotated[
    str | None,
    typer.Option(
        "--template",
        help="alpaca, vicuna, chatml or llama3, in place of the model's own.",
        show_default=False,
    ),
]
HELP = """/reset        begin anew, under the same system prompt
/system TEXT  tell the model who it is; alone: show it
/save FILE    write the conversation as a line of JSON, in ShareGPT's form
/help         this
/quit         leave; so does Ctrl-D
Ctrl-C stops an answer."""


def chat(
    model: Model,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="Ask this one thing and leave.", show_default=False)
    ] = None,
    system: Annotated[str, typer.Option("--system", help="System prompt.", show_default=False)] = "",
    template: Template = None,
    temperature: Annotated[float, typer.Option("--temperature", help="0: always the likeliest.")] = 0.7,
    top_p: Annotated[float, typer.Option("--top-p", help="Choose among the likeliest of this share.")] = 0.9,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Tokens of an answer, at most.")] = 512,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Equal answers each time.", show_default=False)
    ] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Always the likeliest token.")] = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Talk with a model in the terminal, by the template that it was trained with.

    Lines from a pipe are taken as turns one after the other. In the conversation, /help tells what else there is.
    """
    from zhllama.inference.chat import Chat, Sampling

    if as_json and prompt is None:
        raise OptionError("--json", "needs --prompt", "Give one, or leave --json out")
    if prompt is not None and not prompt.strip():
        raise OptionError("--prompt", "is empty", "Say something")
    sampling = Sampling(temperature, top_p, max_tokens, seed, greedy)
    with notes.status("loading"):
        speaker = _speaker(model, template, "chat")
    talk = Chat(speaker, sampling, system)
    if prompt is None:
        _converse(talk)
    elif as_json:
        answer = "".join(talk.say(prompt, Event()))
        print_json({"model": model, "system": system, "prompt": prompt, "answer": answer})
    else:
        _say(talk, prompt, Event())


def serve(
    model: Model,
    host: Annotated[str, typer.Option("--host", help="0.0.0.0 lets others in.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Of the API; 0: any free one.")
    ] = 8000,
    web: Annotated[bool, typer.Option("--web", help="Open a chat page too.")] = False,
    web_port: Annotated[
        int, typer.Option("--web-port", min=0, max=65535, help="Of the page; 0: any free one.")
    ] = 7860,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            help="Another name that clients call this machine by, such as that of a proxy.",
            show_default=False,
        ),
    ] = None,
    template: Template = None,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Serve a model over OpenAI's API, by the template that it was trained with, and with --web as a page to chat on.

    transformers runs it, and llama.cpp a .gguf file, one answer at a time. With --json the addresses are printed as JSON
    once all is up. Ctrl-C ends it.
    """
    try:
        from zhllama.inference.http_server import bind_socket, serve_app
        from zhllama.inference.serve import api, served_name
    except ModuleNotFoundError as error:
        raise MissingPackage("serve", str(error.name), "serve") from None
    from zhllama.inference.generation_queue import Engine
    from zhllama.inference.http_guard import Guard, host_names

    with ExitStack() as opened:
        taken = opened.enter_context(bind_socket("--port", host, port))
        page_taken = opened.enter_context(bind_socket("--web-port", host, web_port)) if web else None
        if web:
            _check_gradio()
        with notes.status("loading"):
            engine = opened.enter_context(closing(Engine(_speaker(model, template, "serve"))))
        name, named = served_name(model), host_names(host, taken.getsockname()[0], allow_host or [])
        url = opened.enter_context(serve_app(Guard(api(name, engine), named), taken))
        told = {"model": name, "api": f"{url}/v1"}
        if page_taken is not None:
            from zhllama.inference.chat import Sampling
            from zhllama.inference.generation_queue import EngineChatModel
            from zhllama.inference.web import chat_page, gradio_home, page_app, page_needs

            opened.enter_context(gradio_home())
            page = chat_page(EngineChatModel(engine), name, Sampling())
            at = opened.enter_context(serve_app(Guard(page_app(page), named, page_needs), page_taken))
            told["page"] = f"{at}/"
        if as_json:
            print_json(told)
        else:
            say("\n".join(f"{what:6} {where}" for what, where in told.items()))
        sys.stdout.flush()
        Event().wait()


def _converse(talk: "Chat") -> None:
    """Turns from the keyboard, or from a pipe, until there are no more."""
    keyboard = _open_keyboard()
    if keyboard:
        import readline  # noqa: F401  # gives input() its line editing and history

        note("/help tells what there is besides talking; /quit leaves.")
    saved: set[Path] = set()
    with _interrupts() as stop:
        while (said := _read_turn(keyboard)) is not None:
            stop.clear()
            try:
                if said.startswith("/"):
                    if _command(talk, said, saved):
                        return
                elif said:
                    _say(talk, said, stop)
            except ZhllamaError as error:
                if not keyboard:
                    raise
                warn(str(error))


def _open_keyboard() -> bool:
    """Check that standard input can be read as text, and return whether it is a keyboard."""
    if sys.stdin is None:
        raise InputError("standard input", "is closed", "Give --prompt, or a conversation by a pipe")
    if isinstance(sys.stdin, io.TextIOWrapper):  # Python replaces what a POSIX locale has no code for
        ascii = codecs.lookup(sys.stdin.encoding).name == "ascii"
        sys.stdin.reconfigure(encoding="utf-8" if ascii else None, errors="strict")
    return sys.stdin.isatty()


def _read_turn(keyboard: bool) -> str | None:
    """The next line without the spaces around it, None at the end."""
    try:
        return input("> " if keyboard else "").strip()
    except EOFError:
        return None
    except KeyboardInterrupt:
        note("\n/quit or Ctrl-D leaves.")
        return ""
    except UnicodeDecodeError as error:
        encoding = error.encoding.upper()
        raise InputError(
            "standard input", f"is not {encoding} ({error.reason})", "Convert it first"
        ) from error
    except OSError as error:
        told = error.strerror or str(error)
        raise InputError("standard input", f"cannot be read ({told})", "Give --prompt, or a pipe") from error


@contextmanager
def _interrupts() -> Iterator[Event]:
    """Ctrl-C sets the event while an answer comes, and at the prompt interrupts the line."""
    stop = Event()
    stop.set()

    def interrupt(signum: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _say(talk: "Chat", text: str, stop: Event) -> None:
    """Say something and print the answer as it comes."""
    forgotten = talk.forgotten
    pieces = talk.say(text, stop)
    if talk.forgotten > forgotten:
        count = (talk.forgotten - forgotten) // 2
        note(f"(the conversation is long: the oldest {count} exchange{'s' * (count > 1)} forgotten)")
    for piece in pieces:
        say_part(piece)
    say_part("\n")


def _command(talk: "Chat", given: str, saved: set[Path]) -> bool:
    """Do what a line with / says; True when it says to leave."""
    name, _, rest = given.partition(" ")
    rest = rest.strip()
    if name in ("/quit", "/exit"):
        return True
    if name == "/reset":
        talk.reset()
        told = "begun anew"
    elif name == "/system":
        talk.system = rest or talk.system
        told = f"system prompt: {talk.system}" if talk.system else "no system prompt"
    elif name == "/save":
        told = f"saved to {_save(talk, rest, saved)}"
    elif name == "/help":
        told = HELP
    else:
        told = f"no command {name}; /help lists them"
    note(told)
    return False


def _save(talk: "Chat", name: str, saved: set[Path]) -> Path:
    """Write the conversation; a file that was there before this conversation is never overwritten."""
    from zhllama.conversation.sharegpt import sharegpt_row
    from zhllama.io.files import json_line, write_whole

    if not name:
        raise InputError("/save", "names no file", "Write /save FILE")
    path = Path(name).expanduser()
    if path.exists() and path not in saved:
        raise InputError(path, "is there already", "Choose another name")
    try:
        write_whole(path, json_line(sharegpt_row(talk.conversation())))
    except OSError as error:
        raise InputError(
            path, f"cannot be written ({error.strerror or error})", "Choose another place"
        ) from error
    saved.add(path)
    return path


def _speaker(model: str, template: str | None, command: str) -> "TransformersChatModel | LlamaCppChatModel":
    from zhllama.inference.llamacpp_chat_model import LlamaCppChatModel, is_gguf

    if is_gguf(model):
        return LlamaCppChatModel(Path(model), _jinja(template))
    check_torch(command)
    from transformers.utils import logging

    from zhllama.inference.transformers_chat_model import open_chat_model

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]

    speaker = open_chat_model(model, template)
    if speaker.assumed:
        _tell_assumed(model, speaker.template.name)
    return speaker


def _jinja(template: str | None) -> str | None:
    """A template for llama.cpp, which puts the begin of text before it by itself."""
    from zhllama.conversation.template import FRAMED, PLAIN

    if template in (None, "own"):
        return None
    known = {**PLAIN, **{name: jinja for name, (jinja, _) in FRAMED.items()}}
    if template not in known:
        raise OptionError("--template", f"{template!r} is not known", f"Give one of {', '.join(known)}")
    return known[template]


def _tell_assumed(model: str, template: str) -> None:
    warn(
        f"{model} has no chat template, so it may never have learned to answer; it is asked by {template}'s. "
        "--template names another."
    )


def _check_gradio() -> None:
    from importlib.util import find_spec

    if find_spec("gradio") is None:
        raise MissingPackage("--web", "gradio", "web")
