"""The rich console of the commands; not imported for `zhllama --help`, since it costs as much as all of typer."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from zhllama.commands.terminal import shown


class SafeConsole(Console):
    """A rich console without markup and emoji codes, whose texts are escaped by `shown`.

    Plain strings are escaped before layout, so that column widths match the visible text; styled texts after it.
    rich's own styles and cursor movements pass. A table's cells are folded into their columns and never cut short, also
    where Chinese has no space to break at.
    """

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(shown(text, self.encoding), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for column in renderable.columns if isinstance(renderable, Table) else ():
            if not column.no_wrap:
                column.overflow = "fold"
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(shown(segment.text, self.encoding), segment.style)
