"""Progress on standard error: a moving bar on a terminal, and a line now and then in a file or pipe."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from zhllama.commands.translation import chinese, comma, in_unit, labelled, translated

EVERY = 60.0  # seconds between the lines in a file or pipe
BAR = 20  # columns, so that the whole line fits into 80


class _Bars(Progress):
    """Bars, each with its note on a line of its own: beside it, the figures of both are torn at 80 columns."""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield from super().get_renderables()
        for task in self.tasks:
            if task.fields["note"]:
                yield Text(f"  {task.fields['note']}")


class Bar:
    """The progress of a command: `bar(n)` advances by n, `bar.at(n)` moves to n; `stage` names what is being done.

    `bar.note(text)` shows a text below it. All may be called from any thread, as often as work is done.
    """

    def __init__(self, bars: Progress, stage: str, total: float | None, unit: str) -> None:
        self._bars, self._unit = bars, unit
        self._task = bars.add_task(translated(stage), total=total, note="", unit=unit)

    def __call__(self, step: float = 1) -> None:
        self._bars.advance(self._task, step)

    def at(self, done: float, total: float | None = None) -> None:
        self._bars.update(self._task, completed=done, total=total)

    def note(self, text: str) -> None:
        self._bars.update(self._task, note=translated(text))

    def stage(self, name: str, total: float | None = None, unit: str = "share", done: int = 0) -> None:
        """Name what is being done; a new name begins a count, a rate and a remaining time of its own.

        `done`: what was done of the stage before this run, which says nothing about its rate.
        """
        if translated(name) != self._bars.tasks[0].description:
            self._bars.reset(
                self._task, total=total, completed=done, description=translated(name), note="", unit=unit
            )

    def line(self) -> str:
        """The stage, what is done of it, its rate and its remaining time on one line."""
        task = self._bars.tasks[0]
        parts = [_done(task), _rate(task)]
        if task.time_remaining:
            parts.append(translated(f"{duration(task.time_remaining)} left"))
        if not any(parts):
            parts.append(duration(task.elapsed or 0))
        told = comma().join(part for part in (*parts, task.fields["note"]) if part)
        return labelled(task.description, told)


@contextmanager
def progress_on(console: Console, stage: str, total: float | None, unit: str) -> Iterator[Bar]:
    """A bar on the console while the body runs; where that is no terminal, a line every minute."""
    columns = [
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(BAR),
        _Column(_done),
        _Column(_rate),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    ]
    with _Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = Bar(bars, stage, total, unit)
        if console.is_terminal:
            yield bar
            return
        ended = Event()
        thread = Thread(target=_tell, args=(console, bar, ended), daemon=True)
        thread.start()
        try:
            yield bar
        finally:
            ended.set()
            thread.join()


def _tell(console: Console, bar: Bar, ended: Event) -> None:
    while not ended.wait(EVERY):
        console.print(f"{time.strftime('%H:%M:%S')} {bar.line()}", soft_wrap=True)


class _Column(ProgressColumn):
    """A column that shows a text of the task."""

    def __init__(self, text: Any) -> None:
        super().__init__()
        self._text = text

    def render(self, task: Any) -> Text:
        return Text(self._text(task))


def _done(task: Any) -> str:
    """What is done of a stage: a share where the unit is bytes or a share, else a count."""
    if not task.total and not task.completed:
        return ""
    if task.fields["unit"] in ("bytes", "share") and task.total:
        return f"{task.percentage:.0f} %"
    if task.fields["unit"] == "bytes":
        return f"{task.completed / 1e6:.1f} MB"
    done = f"{task.completed:,.0f}" + (f"/{task.total:,.0f}" if task.total else "")
    return f"{done}{'' if chinese() else ' '}{translated(task.fields['unit'])}"


def _rate(task: Any) -> str:
    """What is done in a second."""
    speed, unit = task.speed or task.finished_speed, task.fields["unit"]
    if not speed or unit == "share":
        return ""
    if unit == "bytes":
        return f"{speed / 1e6:.1f} MB/s" if speed >= 1e5 else f"{speed / 1e3:.1f} kB/s"
    return f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.2g}/s"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 42 s, 5 min, 1.5 h, 3.2 days."""
    for unit, length in (("days", 86400), ("h", 3600)):
        if seconds >= length * 1.5:
            return in_unit(f"{seconds / length:.1f}", unit)
    return in_unit(f"{seconds / 60:.0f}", "min") if seconds >= 100 else in_unit(f"{seconds:.0f}", "s")
