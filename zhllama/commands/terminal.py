"""The terminal: data is escaped, no encoding ends a command, and a failed write is an error.

Every text that reaches standard output or standard error passes through `shown` (screen text) or `json_text` (--json):
a name in a file, a reply of a server or an answer of a model may contain an escape sequence that clears the screen or
rewrites the line above it.
"""

import json
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from zhllama.errors import OutputError

# Controls except newline and tab; soft hyphen, marks and overrides of direction, zero-width and tag characters; lone
# surrogates, which stand for the bytes of a file name that is not UTF-8. The joiners belong to emoji and to Arabic and Indic
# scripts, and deceive only after a Latin, Han, kana, hangul or full-width character.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]|(?<=[\x00-\u02ff\u2e80-\u9fff\uac00-\ud7af\uff00-\uffef])[\u200c\u200d]"
)


def shown(text: str, encoding: str = "utf-8") -> str:
    """The text with what could steer or deceive a terminal, or has no code in `encoding`, as backslash escapes."""
    text = _UNSAFE.sub(_escape, text)
    if encoding.lower() in ("utf-8", "utf8"):
        return text
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def json_text(value: Any, encoding: str = "utf-8") -> str:
    """JSON on one line, without characters that steer a terminal; ASCII only if `encoding` is not UTF-8.

    What `shown` escapes can only occur inside strings, where JSON's own escape means the same character.
    """
    text = json.dumps(value, ensure_ascii=encoding.lower() not in ("utf-8", "utf8"))
    return _UNSAFE.sub(lambda match: json.dumps(match[0])[1:-1].replace("\x7f", "\\u007f"), text)


class _Stream:
    """A standard stream whose failed writes name the stream; with `quiet` they are ignored.

    A failed write to standard output fails the command, since its result did not arrive. A failed write to standard error
    does not: it cannot be reported, and work continues although nobody reads its progress.
    """

    def __init__(self, stream: TextIO | None, name: str, quiet: bool) -> None:
        self._closed = stream is None
        self._stream = stream or cast(TextIO, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
        self._name, self._quiet = name, quiet
        if hasattr(self._stream, "reconfigure"):
            self._stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if self._closed and not self._quiet:
            raise OutputError(self._name, "is closed", "Redirect it to a file or to /dev/null")
        try:
            return self._stream.write(text)
        except OSError as error:
            self._failed(error)
            return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        """Redirect the descriptor to /dev/null: buffered text can never be written, and Python flushes it again at exit."""
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self._stream.flush()
        if self._quiet:
            return
        if isinstance(error, BrokenPipeError):  # the reader has had enough, as `head` does
            raise error
        raise OutputError(self._name, error.strerror or str(error), "Redirect it elsewhere") from error


class _Record(logging.LogRecord):
    """A log record of a library, whose message may contain data."""

    def getMessage(self) -> str:
        return shown(super().getMessage())


@contextmanager
def terminal(debug: bool = False) -> Iterator[None]:
    """Standard streams, warnings, logs and stray exceptions made safe while the body runs.

    With `debug`, exceptions of threads and finalizers keep their tracebacks.
    Errors: OutputError when standard output takes no more, also at the end; BrokenPipeError when its reader has closed it.
    """
    _fill_descriptors()
    before = sys.stdout, sys.stderr
    hooks = warnings.formatwarning, logging.getLogRecordFactory(), threading.excepthook, sys.unraisablehook
    format_warning = warnings.formatwarning
    out = _Stream(sys.stdout, "standard output", quiet=False)
    sys.stdout = cast(TextIO, out)
    sys.stderr = cast(TextIO, _Stream(sys.stderr, "standard error", quiet=True))
    warnings.formatwarning = lambda *about, **more: shown(format_warning(*about, **more))
    logging.setLogRecordFactory(_Record)
    if not debug:
        threading.excepthook = lambda args: _stray(args.exc_type, args.exc_value)
        sys.unraisablehook = lambda args: _stray(args.exc_type, args.exc_value)
    try:
        yield
    finally:
        try:
            out.flush()
        finally:
            sys.stdout, sys.stderr = before
            warnings.formatwarning, factory, threading.excepthook, sys.unraisablehook = hooks
            logging.setLogRecordFactory(factory)


def _stray(kind: type[BaseException], error: BaseException | None) -> None:
    """An exception that nothing can catch, in a thread or a finalizer, as one line."""
    if not issubclass(kind, SystemExit):
        complain(
            f"internal error: {kind.__name__}: {str(error)[:300]}. Run it again with --debug and report what it shows."
        )


def say_part(text: str) -> None:
    """Print text on stdout immediately and without wrapping, as a model's answer streams."""
    sys.stdout.write(shown(text, sys.stdout.encoding or "utf-8"))
    sys.stdout.flush()


def complain(line: str) -> None:
    """Print the text on one line of standard error, if there is one."""
    if sys.stderr is not None:
        encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        with suppress(OSError):
            sys.stderr.write(shown(f"zhllama: {' '.join(line.split())}\n", encoding))
            sys.stderr.flush()


def _fill_descriptors() -> None:
    """Open /dev/null where standard input, output or error is closed: the next file opened would take its number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
