"""The entry point of the command line: signals, exit codes, and errors as one line each."""

import errno
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from zhllama.commands.chinese_help import choose_language
from zhllama.commands.table import app
from zhllama.commands.terminal import complain, terminal
from zhllama.commands.translation import error_line, translated
from zhllama.errors import ZhllamaError
from zhllama.safe_path import leave_current_folder
from zhllama.start_time import STARTED

LONGEST = 1400  # characters of an error: a path has 4,096 at most, and a remedy comes last


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run one command; exit 0 done, 1 an error of the input or the environment, 2 usage, 128 + n stopped by signal n."""
    STARTED.set(time.monotonic())
    leave_current_folder()
    choose_language()
    sys.modules.setdefault("kernels", None)  # type: ignore[arg-type] # transformers downloads compiled code with this package
    # Without torch, transformers tells on each import that models are not available, also where none is needed.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words  # accepted anywhere, since users append it to a command that failed
    if not debug:  # deprecations in libraries do not concern users
        warnings.filterwarnings("ignore", category=FutureWarning)
    with _signals():
        sys.exit(_run([word for word in words if word != "--debug"], debug))


def _run(words: list[str], debug: bool) -> int:
    """The exit code of a command, its error on one line of stderr."""
    code = 0
    try:
        with terminal(debug):
            try:
                app(words, prog_name="zhllama")
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 0
                if isinstance(ended, _Stopped):
                    complain(translated("stopped. Finished results are kept."))
            except BrokenPipeError:
                code = 1
            except BaseException as error:  # a panic in a Rust library is not an Exception
                if debug:
                    raise
                complain(_one_line(error))
                code = 1
    except BrokenPipeError:
        code = 1
    except ZhllamaError as error:  # the last output did not reach standard output
        if debug:
            raise
        complain(_one_line(error))
        code = code or 1
    return code


class _Stopped(SystemExit):
    """A signal stopped the command: an exception, so that run folders are left in a consistent state."""


@contextmanager
def _signals() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP end the command cleanly.

    A signal that repeats within a second is the same request, forwarded by a parent process or pressed twice; a later
    one interrupts the cleanup.
    """
    last: float | None = None

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal last
        if last is None or time.monotonic() - last > 1:
            last = time.monotonic()
            raise _Stopped(128 + signum)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # set by nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _one_line(error: BaseException) -> str:
    text = _text_of(error)
    return text if len(text) < LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def _text_of(error: BaseException) -> str:
    if isinstance(error, ZhllamaError):
        return error_line(error.where, error.what, error.remedy)
    if isinstance(error, OSError) and error.strerror:
        remedy = "Free some room" if error.errno == errno.ENOSPC else "Check the path and its rights"
        return error_line(str(error.filename2 or error.filename or "the system"), error.strerror, remedy)
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("zhllama"):
        from zhllama.extras import extra_of, install_command  # reads the packages' metadata

        install = install_command(extra_of(error.name))
        return error_line(error.name, "is needed for this and not installed", install)
    if isinstance(error, MemoryError):
        return error_line("memory", "ran out", "Give less at once")
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return error_line("internal error", text[:300], "Run it again with --debug and report what it shows")


if __name__ == "__main__":
    main()
