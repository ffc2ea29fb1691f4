"""What every command shares: common options, the screen and the progress bar."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from zhllama.commands.recipes import use_recipe
from zhllama.commands.terminal import SafeConsole, json_text, shown
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


def say_part(text: str) -> None:
    """Print a part of a line on stdout immediately, as a model's answer streams."""
    sys.stdout.write(shown(text, screen.encoding))
    sys.stdout.flush()


def headings(*names: str) -> list[str]:
    """The names of a table's columns in the user's language."""
    return [translated(name) for name in names]


def note(text: str, style: str | None = None) -> None:
    """Print progress on stderr in the user's language."""
    notes.print(translated(text), style=style, soft_wrap=True)


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
    Path, typer.Option("--out", "-o", help="Folder for the results, with their manifest.", show_default=False)
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite a folder that contains an earlier run.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the unfinished run in --out.")]
MaybeOut = Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the run.", show_default=False)]


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


@contextmanager
def progress(title: str, total: float | None = None, unit: str = "bytes") -> Iterator["Bar"]:
    """A progress bar on stderr while the body runs; none where stderr is not a terminal."""
    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %") if unit == "bytes" else MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    ]
    with Progress(*columns, console=notes, transient=True, disable=not notes.is_terminal) as bars:
        yield Bar(bars, bars.add_task(translated(title), total=total, note=""))


class Bar:
    """A progress bar: `bar(n)` advances by n, `bar.at(n)` moves to n, `bar.note(text)` shows a text next to it."""

    def __init__(self, bars: Progress, task: Any) -> None:
        self._bars, self._task = bars, task

    def __call__(self, step: float = 1) -> None:
        self._bars.advance(self._task, step)

    def at(self, done: float, total: float | None = None) -> None:
        self._bars.update(self._task, completed=done, total=total)

    def note(self, text: str) -> None:
        self._bars.update(self._task, note=translated(text))
