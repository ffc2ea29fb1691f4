"""The command line: the list of commands, and errors become one line."""

import errno
import os
import re
import signal
import sys
import warnings
from types import FrameType
from typing import Annotated, NoReturn

import typer

from zhllama.commands import (
    advise,
    align,
    answer,
    audit,
    conversation,
    corpus,
    generate,
    judge,
    line,
    model,
    report,
    training,
    tune,
    use,
    vocab,
)
from zhllama.errors import ZhllamaError
from zhllama.safe_path import leave_current_folder

app = typer.Typer(
    name="zhllama",
    help="Give a language model Chinese, and prove every step.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

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

        typer.echo(f"zhllama {version('zhllama')}")
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
    """Run one command; exit 0 done, 1 the input or the world is at fault, 2 usage, 130 Ctrl-C."""
    leave_current_folder()
    sys.modules.setdefault("kernels", None)  # type: ignore[arg-type] # transformers fetches compiled code by this package
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given  # accepted anywhere, since it is added to a line that failed
    if not debug:  # what libraries will drop some day is no user's business
        warnings.filterwarnings("ignore", category=FutureWarning)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _stopped)
    try:
        app([a for a in given if a != "--debug"], prog_name="zhllama")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        _say(_one_line(error))
        sys.exit(1)
    sys.exit(0)


def _one_line(error: Exception) -> str:
    if isinstance(error, ZhllamaError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        remedy = "Free some room" if error.errno == errno.ENOSPC else "Check the path and its rights"
        return f"{error.filename2 or error.filename or 'file'}: {error.strerror}. {remedy}."
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


def _say(line: str) -> None:
    print(f"zhllama: {line}", file=sys.stderr)


def _stopped(signum: int, frame: FrameType | None) -> NoReturn:
    _say("stopped. Whatever was finished stands.")
    raise SystemExit(128 + signum)  # an exception, so that run folders are left as they should be


if __name__ == "__main__":
    main()
