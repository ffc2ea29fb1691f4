"""Draws `zhllama --help` as rich would, without rich's console, whose import costs as much as all of typer."""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise

from rich._wrap import divide_line  # breaks Chinese lines as chinese_help says
from rich.cells import cell_len

FRAMES = {True: tuple("╭╮╰╯─│"), False: tuple("++++-|")}  # with and without Unicode
BOLD, NAME, DIM = "1", "1;36", "2"


def help_page(head: Sequence[str], panels: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    """The lines above the panels, and a frame around each panel's names and texts, as wide as the terminal."""
    width = terminal_width()
    lines = [""]
    for text in head:
        lines += [*(_styled(f" {line}", BOLD) for line in _wrapped(text, width - 2)), ""]
    names = max(cell_len(name) for rows in panels.values() for name, _ in rows)
    for title, rows in panels.items():
        lines += _panel(title, rows, width, names)
    return "\n".join(lines)


def _panel(title: str, rows: Sequence[tuple[str, str]], width: int, names: int) -> list[str]:
    unicode = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    left, right, bottom_left, bottom_right, bar, side = FRAMES[unicode]
    texts = max(width - names - 6, 1)
    edge = _styled(side, DIM)
    lines = [_styled(f"{left}{bar} {title} {bar * (width - 5 - cell_len(title))}{right}", DIM)]
    for name, text in rows:
        for number, line in enumerate(_wrapped(text, texts)):
            first = _styled(name, NAME) + " " * (names - cell_len(name)) if number == 0 else " " * names
            lines.append(f"{edge} {first}  {line}{' ' * (texts - cell_len(line))} {edge}")
    return [*lines, _styled(f"{bottom_left}{bar * (width - 2)}{bottom_right}", DIM)]


def _wrapped(text: str, width: int) -> list[str]:
    places = [0, *divide_line(text, width), len(text)]
    return [text[start:end].rstrip() for start, end in pairwise(places)]


def _styled(text: str, codes: str) -> str:
    """The text in a style where standard output is a terminal with colors."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") in ("dumb", "unknown")
    colored = os.environ.get("FORCE_COLOR") or (sys.stdout.isatty() and not plain)
    return f"\x1b[{codes}m{text}\x1b[0m" if colored else text


def terminal_width() -> int:
    """The columns by COLUMNS, else those of the terminal that any standard stream is connected to, else 80."""
    if os.environ.get("COLUMNS", "").isdigit():
        return max(int(os.environ["COLUMNS"]), 1)
    for stream in (sys.__stdin__, sys.__stdout__, sys.__stderr__):
        with suppress(OSError, ValueError, AttributeError):
            return os.get_terminal_size(stream.fileno()).columns or 80  # type: ignore[union-attr]
    return 80
