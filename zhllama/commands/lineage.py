"""The command `lineage`, which draws the tree of runs that a run was made from."""

from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer
from rich.segment import Segment, Segments
from rich.text import Text
from rich.tree import Tree

from zhllama.commands.progress import duration
from zhllama.commands.shared import AsJson, print_json, screen
from zhllama.commands.translation import comma, translated
from zhllama.lineage import Ancestor
from zhllama.lineage import lineage as trace

WIDE = 10_000  # columns of a tree: more than any path has


def lineage(
    folder: Annotated[
        Path, typer.Argument(help="A finished run.", metavar="RUN", show_default=False, readable=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Draw the runs that a run was made from, with their figures, and the files that no run wrote."""
    ancestor = trace(folder)
    print_json(ancestor.as_json()) if as_json else draw(ancestor)


def draw(ancestor: Ancestor) -> None:
    """Print the tree on stdout; paths longer than a line are not folded."""
    tree = Tree(_label(ancestor))
    _add_parents(tree, ancestor)
    for row in screen.render_lines(tree, screen.options.update(width=WIDE), pad=False):
        screen.print(Segments([*row, Segment.line()]), crop=False)


def _add_parents(tree: Tree, ancestor: Ancestor) -> None:
    for parent in ancestor.parents:
        _add_parents(tree.add(_label(parent)), parent)
    for folder, files in groupby(ancestor.files, key=lambda path: path.parent):
        paths = list(files)
        if len(paths) > 3:
            tree.add(_styled(translated(f"{_short(folder)}: {len(paths)} files"), "dim"))
        else:
            for path in paths:
                tree.add(_styled(_short(path), "dim"))
    for path in ancestor.changed:
        tree.add(_styled(translated(f"{_short(path)} has changed since, or is gone"), "yellow"))


def _short(path: Path) -> str:
    """A path relative to the current folder, if it lies below."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _styled(text: str, style: str) -> Text:
    return screen.render_str(text, style=style)


def _label(ancestor: Ancestor) -> Text:
    figures = [
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value:.4g}"
        for name, value in ancestor.figures.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    measured = (
        translated("(as above)")
        if ancestor.again
        else comma().join([*figures[:4], duration(ancestor.seconds)])
    )
    return Text("  ").join(
        (_styled(ancestor.command, "bold"), _styled(_short(ancestor.folder), ""), _styled(measured, "dim"))
    )
