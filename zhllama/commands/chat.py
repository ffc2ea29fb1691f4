"""The command `chat`, which talks with a model in the terminal."""

import codecs
import io
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from zhllama.commands.chat_model import open_model
from zhllama.commands.declare import command
from zhllama.commands.shared import AsJson, Config, note, print_json, waiting, warn
from zhllama.commands.terminal import say_part
from zhllama.commands.translation import error_line
from zhllama.errors import InputError, OptionError, ZhllamaError
from zhllama.inference.options import ChatModelOptions, SamplingOptions

if TYPE_CHECKING:
    from zhllama.inference.chat import Chat

HELP = """/reset        start over with the same system prompt
/system TEXT  set the system prompt; without TEXT: show it
/save FILE    write the conversation as a line of JSON, in ShareGPT's form
/help         list the commands
/quit         leave, like Ctrl-D
Ctrl-C stops an answer."""


@command
def chat(
    model: ChatModelOptions,
    options: SamplingOptions,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Talk with a model in the terminal, by the template that it was trained with.

    Lines from a pipe are read as turns one after the other. In the conversation, /help lists the commands.
    """
    from zhllama.inference.chat import Chat, Sampling

    if as_json and options.prompt is None:
        raise OptionError("--json", "needs --prompt", "Give a prompt, or leave --json out")
    if options.prompt is not None and not options.prompt.strip():
        raise OptionError("prompt", "is empty", "Give some text")
    sampling = Sampling(options.temperature, options.top_p, options.max_tokens, options.seed, options.greedy)
    with waiting("loading"):
        chat_model = open_model(model, "chat")
    conversation = Chat(chat_model, sampling, options.system)
    if options.prompt is None:
        _converse(conversation)
    elif as_json:
        answer = "".join(conversation.say(options.prompt, Event()))
        print_json(
            {"model": model.model, "system": options.system, "prompt": options.prompt, "answer": answer}
        )
    else:
        _say(conversation, options.prompt, Event())


def _converse(conversation: "Chat") -> None:
    """Read turns from the keyboard, or from a pipe, until the end."""
    keyboard = _open_keyboard()
    if keyboard:
        import readline  # noqa: F401  # gives input() its line editing and history

        note("/help lists the commands; /quit leaves.")
    saved: set[Path] = set()
    with _interrupts() as stop:
        while (turn := _read_turn(keyboard)) is not None:
            stop.clear()
            try:
                if turn.startswith("/"):
                    if _command(conversation, turn, saved):
                        return
                elif turn:
                    _say(conversation, turn, stop)
            except ZhllamaError as error:
                if not keyboard:
                    raise
                warn(error_line(error.where, error.what, error.remedy))


def _open_keyboard() -> bool:
    """Check that standard input can be read as text, and return whether it is a keyboard."""
    if sys.stdin is None:
        raise InputError("standard input", "is closed", "Give --prompt, or a conversation by a pipe")
    if isinstance(sys.stdin, io.TextIOWrapper):
        # In a POSIX locale, Python would replace characters that it cannot decode.
        ascii = codecs.lookup(sys.stdin.encoding).name == "ascii"
        sys.stdin.reconfigure(encoding="utf-8" if ascii else None, errors="strict")
    return sys.stdin.isatty()


def _read_turn(keyboard: bool) -> str | None:
    """The next line without surrounding spaces; None at the end of input."""
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
        reason = error.strerror or str(error)
        raise InputError(
            "standard input", f"cannot be read ({reason})", "Give --prompt, or a pipe"
        ) from error


@contextmanager
def _interrupts() -> Iterator[Event]:
    """Ctrl-C sets the event while an answer streams, and interrupts the line at the prompt."""
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


def _say(conversation: "Chat", text: str, stop: Event) -> None:
    """Send a turn and print the answer as it streams."""
    forgotten = conversation.forgotten
    pieces = conversation.say(text, stop)
    if conversation.forgotten > forgotten:
        count = (conversation.forgotten - forgotten) // 2
        note(f"(the conversation is long: the oldest {count} exchange{'s' * (count > 1)} dropped)")
    for piece in pieces:
        say_part(piece)
    say_part("\n")


def _command(conversation: "Chat", line: str, saved: set[Path]) -> bool:
    """Execute a line that starts with /; True for the one that leaves."""
    name, _, rest = line.partition(" ")
    rest = rest.strip()
    if name in ("/quit", "/exit"):
        return True
    if name == "/reset":
        conversation.reset()
        message = "conversation reset"
    elif name == "/system":
        conversation.system = rest or conversation.system
        message = f"system prompt: {conversation.system}" if conversation.system else "no system prompt"
    elif name == "/save":
        message = f"saved to {_save(conversation, rest, saved)}"
    elif name == "/help":
        message = HELP
    else:
        message = f"no command {name}; /help lists them"
    note(message)
    return False


def _save(conversation: "Chat", name: str, saved: set[Path]) -> Path:
    """Write the conversation; a file that existed before this conversation is never overwritten."""
    from zhllama.conversation.sharegpt import sharegpt_row
    from zhllama.io.files import json_line, write_whole

    if not name:
        raise InputError("/save", "names no file", "Write /save FILE")
    path = Path(name).expanduser()
    if path.exists() and path not in saved:
        raise InputError(path, "exists already", "Choose another name")
    try:
        write_whole(path, json_line(sharegpt_row(conversation.conversation())))
    except OSError as error:
        raise InputError(
            path, f"cannot be written ({error.strerror or error})", "Choose another place"
        ) from error
    saved.add(path)
    return path
