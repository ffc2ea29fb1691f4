"""What every command shares: common options, the screen and the progress bar."""

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.cells import cell_len

from zhllama.commands.console import SafeConsole
from zhllama.commands.progress import Bar, progress_on
from zhllama.commands.recipes import use_recipe
from zhllama.commands.terminal import json_text
from zhllama.commands.translation import translated
from zhllama.errors import MissingPackage
from zhllama.extras import require
from zhllama.io.files import LONGEST_LINE
from zhllama.notices import print_notices
from zhllama.options import check_bounds, option

screen = SafeConsole()
notes = SafeConsole(stderr=True)


def say(text: str, style: str | None = None) -> None:
    """Print a part of the result on stdout in the user's language; paths are not wrapped."""
    screen.print(translated(text), style=style, soft_wrap=True)


def say_addresses(addresses: Mapping[str, str]) -> None:
    """Print where a server is found, each address behind its name in the user's language."""
    width = 2 + max(cell_len(translated(name)) for name in addresses)
    for name, address in addresses.items():
        label = translated(name)
        screen.print(f"{label}{' ' * (width - cell_len(label))}{address}", soft_wrap=True)


def headings(*names: str) -> list[str]:
    """The names of a table's columns in the user's language."""
    return [translated(name) for name in names]


def note(text: str, style: str | None = None) -> None:
    """Print progress on stderr in the user's language."""
    notes.print(translated(text), style=style, soft_wrap=True)


def waiting(text: str) -> AbstractContextManager[Any]:
    """A spinner on stderr with a text in the user's language while the body runs."""
    return notes.status(translated(text))


def warn(text: str) -> None:
    """Print a warning on one line of stderr."""
    note(f"zhllama: {translated(' '.join(text.split()))}", "yellow")


def check_torch(command: str, *extras: str) -> None:
    """Raise MissingPackage where a package of `train` or of `extras` is missing; turn off transformers' progress bars."""
    require(command, "train", *extras)
    try:
        import torch  # noqa: F401
        from transformers.utils import logging
    except ImportError:  # zhllama itself is not installed, so nothing is known of its extras
        raise MissingPackage(command, "torch", "train") from None
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    print_notices(note)


Out = Annotated[
    Path,
    typer.Option(
        "--out", "-o", help="Folder for the results, with their manifest.", show_default=False, readable=False
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite a folder that contains an earlier run.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the unfinished run in --out.")]
MaybeOut = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="Folder of the run. Required, except for a plan.",
        show_default=False,
        readable=False,
    ),
]


@dataclass(frozen=True, kw_only=True)
class LineOptions:
    """The longest line that readers of text and JSON accept, for the whole process."""

    max_line_bytes: int = option(
        LONGEST_LINE, "A longer line of text or JSON is refused.", minimum=1, recorded=False
    )

    def __post_init__(self) -> None:
        from zhllama.io.text import limit_lines

        check_bounds(self)
        limit_lines(self.max_line_bytes)


@dataclass(frozen=True, kw_only=True)
class TextOptions(LineOptions):
    """How text files are read."""

    field: str = option("text", "Field of .json, .jsonl and .parquet that contains the text.")


AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Config = Annotated[
    str | None,
    typer.Option(
        "--config",
        help="YAML file with the same keys as the flags, or a shipped recipe. A flag wins.",
        is_eager=True,
        callback=use_recipe,
        show_default=False,
    ),
]


def print_json(result: Mapping[str, Any]) -> None:
    """One JSON object on stdout and nothing else."""
    sys.stdout.write(json_text(result, screen.encoding) + "\n")


def progress(stage: str, total: float | None = None, unit: str = "bytes") -> AbstractContextManager[Bar]:
    """A bar on stderr while the body runs; a line every minute where stderr is not a terminal."""
    return progress_on(notes, stage, total, "share" if total == 1 else unit)
