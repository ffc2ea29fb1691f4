"""The command `lineage`, which draws the tree of runs that a run was made from."""

from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

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
INDENT = 4  # columns of a level


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
    tree = Tree(_label(ancestor, 0))
    _add_parents(tree, ancestor, 1)
    for row in screen.render_lines(tree, screen.options.update(width=WIDE), pad=False):
        screen.print(Segments([*row, Segment.line()]), crop=False)


def _add_parents(tree: Tree, ancestor: Ancestor, depth: int) -> None:
    for parent in ancestor.parents:
        _add_parents(tree.add(_label(parent, depth)), parent, depth + 1)
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


def _label(ancestor: Ancestor, depth: int) -> Text:
    """A run's command, folder and figures; these on a line of their own where one line would be too long."""
    head = Text("  ").join((_styled(ancestor.command, "bold"), _styled(_short(ancestor.folder), "")))
    told = [*_figures(ancestor), duration(ancestor.seconds)]
    measured = _styled(translated("(as above)") if ancestor.again else comma().join(told), "dim")
    fits = INDENT * depth + head.cell_len + 2 + measured.cell_len <= screen.width
    return Text("  " if fits else "\n").join((head, measured))


def _figures(ancestor: Ancestor) -> list[str]:
    """What a run's manifest says of its result, in words."""
    values = ancestor.figures
    names = [name for name in SHOWN.get(ancestor.command, ()) if isinstance(values.get(name), int | float)]
    return [WORDS[name](values[name]) for name in names]


# What a reader asks of a run first, by command.
TRAINED = ("steps", "tokens", "loss")
COUNTED = ("kept", "rejected")
SHOWN: dict[str, tuple[str, ...]] = {
    "train-vocab": ("pieces",),
    "merge-vocab": ("pieces", "left_out", "dead"),
    "grow": ("n_new", "rows"),
    "pretrain": TRAINED,
    "sft": ("samples", *TRAINED),
    "reward": ("pairs", *TRAINED),
    "dpo": ("pairs", *TRAINED),
    "kto": ("answers", *TRAINED),
    "export": ("difference", "bits_per_byte"),
    "gen-zh": COUNTED,
    "refilter": COUNTED,
    "review": COUNTED,
    "sharegpt clean": COUNTED,
    "sharegpt split": (*COUNTED, "parts"),
    "sharegpt export": COUNTED,
    "corpus fetch": ("documents",),
    "corpus clean": ("documents_in", "documents_out"),
    "pack": ("blocks", "tokens", "documents"),
    "report": ("tokenizers", "characters"),
    "advise": ("recommended",),
    "eval": ("texts",),
    "answer": ("questions", "answered"),
    "judge": ("questions", "replies"),
}
WORDS: dict[str, Callable[[Any], str]] = {
    "pieces": lambda n: translated(f"{n:,} pieces"),
    "left_out": lambda n: translated(f"{n:,} left out"),
    "dead": lambda n: translated(f"{n:,} dead"),
    "n_new": lambda n: translated(f"{n:,} new rows"),
    "rows": lambda n: translated(f"{n:,} rows in all"),
    "steps": lambda n: translated(f"{n:,} steps"),
    "tokens": lambda n: translated(f"{n:,} tokens"),
    "loss": lambda x: translated(f"loss {x:.3f}"),
    "samples": lambda n: translated(f"{n:,} samples"),
    "pairs": lambda n: translated(f"{n:,} pairs"),
    "answers": lambda n: translated(f"{n:,} answers"),
    "difference": lambda x: translated(f"logits differ by {x:.1e} of their RMS"),
    "bits_per_byte": lambda x: translated(f"{x:.3f} bits per byte"),
    "kept": lambda n: translated(f"{n:,} kept"),
    "rejected": lambda n: translated(f"{n:,} rejected"),
    "parts": lambda n: translated(f"{n:,} parts"),
    "documents": lambda n: translated(f"{n:,} documents"),
    "documents_in": lambda n: translated(f"{n:,} documents in"),
    "documents_out": lambda n: translated(f"{n:,} out"),
    "characters": lambda n: translated(f"{n:,} characters"),
    "blocks": lambda n: translated(f"{n:,} blocks"),
    "tokenizers": lambda n: translated(f"{n:,} tokenizers"),
    "recommended": lambda n: translated(f"{n:,} tokens recommended"),
    "texts": lambda n: translated(f"{n:,} texts"),
    "questions": lambda n: translated(f"{n:,} questions"),
    "answered": lambda n: translated(f"{n:,} answered"),
    "replies": lambda n: translated(f"{n:,} replies"),
}
