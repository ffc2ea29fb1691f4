"""The command line: the list of commands, and errors as one line."""

import errno
import re
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from zhllama.commands import advise, answer, audit, corpus, judge, report, vocab
from zhllama.commands import chat_serve as use
from zhllama.commands import gen_zh as generate
from zhllama.commands import grow_export_eval as model
from zhllama.commands import pretrain as training
from zhllama.commands import reward_dpo as align
from zhllama.commands import run as line
from zhllama.commands import sft as tune
from zhllama.commands import sharegpt as conversation
from zhllama.commands.shared import say
from zhllama.commands.terminal import complain, shown, terminal
from zhllama.errors import ZhllamaError
from zhllama.safe_path import leave_current_folder


class Commands(TyperGroup):
    """All commands; what typer says of a wrong option is escaped, since its value may come from a recipe file."""

    def make_context(self, *given: Any, **more: Any) -> Any:
        with _escaped_messages():
            return super().make_context(*given, **more)

    def invoke(self, ctx: Any) -> Any:
        with _escaped_messages():
            return super().invoke(ctx)


@contextmanager
def _escaped_messages() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if isinstance(getattr(error, "message", None), str) and hasattr(error, "exit_code"):
            error.message = shown(error.message)  # type: ignore[attr-defined]
        raise


app = typer.Typer(
    name="zhllama",
    cls=Commands,
    help="Give a language model Chinese, and prove every step.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

LONGEST = 2000  # characters of an error: a path has 4,096 at most, and a remedy comes last

VOCABULARY = "Vocabulary"
app.command("train-vocab", rich_help_panel=VOCABULARY)(vocab.train_vocab)
app.command("merge-vocab", rich_help_panel=VOCABULARY)(vocab.merge_vocab)
app.command("audit", rich_help_panel=VOCABULARY)(audit.audit)
app.command("report", rich_help_panel=VOCABULARY)(report.report)
app.command("advise", rich_help_panel=VOCABULARY)(advise.advise)

MODEL = "Model"
app.command("grow", rich_help_panel=MODEL)(model.grow)
app.command("export", rich_help_panel=MODEL)(model.export)
app.command("eval", rich_help_panel=MODEL)(model.evaluate)

TRAINING = "Training"
app.command("pretrain", rich_help_panel=TRAINING)(training.pretrain)
app.command("pack", rich_help_panel=TRAINING)(training.pack)
app.command("sft", rich_help_panel=TRAINING)(tune.sft)
app.command("reward", rich_help_panel=TRAINING)(align.reward)
app.command("dpo", rich_help_panel=TRAINING)(align.dpo)

DATA = "Data"
app.add_typer(corpus.app, name="corpus", rich_help_panel=DATA)
app.add_typer(conversation.app, name="sharegpt", rich_help_panel=DATA)
app.command("gen-zh", rich_help_panel=DATA)(generate.gen_zh)
app.command("refilter", rich_help_panel=DATA)(generate.refilter)

JUDGING = "Judging"
app.command("answer", rich_help_panel=JUDGING)(answer.answer)
app.command("judge", rich_help_panel=JUDGING)(judge.judge)

USE = "Use"
app.command("chat", rich_help_panel=USE)(use.chat)
app.command("serve", rich_help_panel=USE)(use.serve)

LINE = "The whole line"
app.command("demo", rich_help_panel=LINE)(line.demo)
app.command("run", rich_help_panel=LINE)(line.run)
app.command("lineage", rich_help_panel=LINE)(line.lineage)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        say(f"zhllama {version('zhllama')}")
        raise typer.Exit


@app.callback()
def _zhllama(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")] = False,
) -> None:
    """Give a language model Chinese, and prove every step."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run one command; exit 0 done, 1 the input or the world is at fault, 2 usage, 128 + n stopped by signal n."""
    leave_current_folder()
    sys.modules.setdefault("kernels", None)  # type: ignore[arg-type] # transformers fetches compiled code by this package
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given  # accepted anywhere, since it is added to a line that failed
    if not debug:  # what libraries will drop some day is no user's business
        warnings.filterwarnings("ignore", category=FutureWarning)
    with _signals():
        sys.exit(_run([a for a in given if a != "--debug"], debug))


def _run(given: list[str], debug: bool) -> int:
    """The exit code of a command, its error on one line of stderr."""
    code = 0
    try:
        with terminal(debug):
            try:
                app(given, prog_name="zhllama")
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 0
                if isinstance(ended, _Stopped):
                    complain("stopped. Whatever was finished stands.")
            except BrokenPipeError:
                code = 1
            except BaseException as error:  # a panic of a library in Rust is no Exception
                if debug:
                    raise
                complain(_one_line(error))
                code = 1
    except BrokenPipeError:
        code = 1
    except ZhllamaError as error:  # what was printed last did not reach standard output
        if debug:
            raise
        complain(_one_line(error))
        code = code or 1
    return code


class _Stopped(SystemExit):
    """A signal asked the command to end: an exception, so that run folders are left as they should be."""


@contextmanager
def _signals() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP end the command in order.

    One that repeats within a second is the same wish, passed on by a parent or pressed twice; a later one interrupts
    what still holds the command up.
    """
    last: float | None = None

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal last
        if last is None or time.monotonic() - last > 1:
            last = time.monotonic()
            raise _Stopped(128 + signum)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup asked to survive it
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _one_line(error: BaseException) -> str:
    if isinstance(error, ZhllamaError):
        told = str(error)
        return told if len(told) < LONGEST else f"{told[: LONGEST // 2]} ... {told[-LONGEST // 2 :]}"
    if isinstance(error, OSError) and error.strerror:
        remedy = "Free some room" if error.errno == errno.ENOSPC else "Check the path and its rights"
        return f"{error.filename2 or error.filename or 'the system'}: {error.strerror}. {remedy}."
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("zhllama"):
        return f"{error.name}: is needed for this and not installed. pip install 'zhllama[{_extra_of(error.name)}]'."
    if isinstance(error, MemoryError):
        return "memory: ran out. Give less at once."
    told = " ".join(f"{type(error).__name__}: {error}".split())
    return f"internal error: {told[:300]}. Run it again with --debug and report what it shows."


def _extra_of(module: str) -> str:
    """The extra of ours that brings a module's package; `all` where none is told by its name."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        named = requires("zhllama") or []
    except PackageNotFoundError:
        return "all"
    package = module.partition(".")[0].replace("_", "-")
    for told in named:
        needed, _, condition = told.partition(";")
        found = re.search(r"extra == ['\"](\w+)", condition)
        if (
            found
            and found[1] != "all"
            and re.match(rf"{re.escape(package)}(?![\w-])", needed.strip(), re.IGNORECASE)
        ):
            return found[1]
    return "all"


if __name__ == "__main__":
    main()
