"""Notices of the core: what a command does that the user did not ask for by name, as a line of the logger `zhllama`.

The command line prints them on stderr; in Python they go where `logging` sends them, by default nowhere.
"""

import logging
from collections.abc import Callable


def note(text: str) -> None:
    """Tell one line."""
    logging.getLogger("zhllama").info(text)


def print_notices(show: Callable[[str], None]) -> None:
    """From now on, call `show` with each notice of this process."""

    class Shown(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            show(record.getMessage())

    logger = logging.getLogger("zhllama")
    logger.handlers = [Shown()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
