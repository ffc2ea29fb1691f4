"""Prints which tokens a model hardly learned."""

from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from zhllama.commands.translation import translated
from zhllama.vocab.vocabulary import SPACE

if TYPE_CHECKING:
    from zhllama.model.old_rows import OldRows
    from zhllama.model.row_audit import HardlyLearned, RowAudit

SHOWN, UNUSED = (
    24,
    6,
)  # tokens of each part, and tokens that they are compared with; --json and --out have all


def draw_rows(screen: Console, audit: "RowAudit") -> None:
    """Print the measures, and the tokens that they name."""
    parts: list[Table | Text] = [_measures(audit)]
    for added in (False, True):
        named = [token for token in audit.tokens if token.added == added]
        if named:
            parts += [Text(), _tokens(named, added)]
    title = Text.assemble(
        (audit.model, "bold"), translated(f"  {len(audit.tokens):,} tokens that were hardly learned")
    )
    screen.print(Panel(Group(*parts), title=title))


def _measures(audit: "RowAudit") -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    sizes, names = {"base": audit.base, "added": audit.added}, _names()
    for one in audit.measures:
        label = f"{names[one.matrix]}, {names[one.measure]}"
        if one.limit is None:
            table.add_row(names[one.rows], label, translated(one.reason or ""))
            continue
        summary = f"{one.below:,} of {sizes[one.rows]:,} rows up to {one.limit:.3f}; a typical row has {one.typical:.3f}"
        table.add_row(names[one.rows], label, translated(summary))
    if audit.unused:
        more = f" and {len(audit.unused) - UNUSED:,} more" if len(audit.unused) > UNUSED else ""
        table.add_row(translated("unused tokens"), "", " ".join(audit.unused[:UNUSED]) + translated(more))
    if audit.start is not None:
        table.add_row(translated("rows before training"), "", names[audit.start])
    if (old := audit.old_rows) is not None:
        for matrix, changed in (("embedding", old.embedding), ("LM head", old.head)):
            table.add_row(translated("old rows"), names[matrix], _changes(old, changed))
        if old.weights:
            table.add_row(translated("other weights"), "", _changed_weights(old))
    return table


def _changes(old: "OldRows", changed: tuple[int, ...]) -> str:
    if not changed:
        return translated(f"all {old.rows:,} equal to the byte")
    undeclared = len(set(changed) & set(old.undeclared))
    if undeclared:
        return translated(f"{len(changed):,} of {old.rows:,} changed, {undeclared:,} of them undeclared")
    return translated(f"{len(changed):,} of {old.rows:,} changed, all declared")


def _changed_weights(old: "OldRows") -> str:
    changed, undeclared = len(old.changed_weights), len(old.undeclared_weights)
    if not changed:
        return translated(f"all {old.weights:,} equal to the byte")
    if undeclared:
        return translated(f"{changed:,} of {old.weights:,} changed, {undeclared:,} of them undeclared")
    return translated(f"{changed:,} of {old.weights:,} changed, all declared")


def _tokens(named: "list[HardlyLearned]", added: bool) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    heading = translated("added piece") if added else translated("token of the base")
    names = _names()
    table.add_column("ID", justify="right")
    table.add_column(heading)
    for label in ("kind", "matrix"):
        table.add_column(translated(label))
    table.add_column(translated("measure"), justify="right")
    for token in named[:SHOWN]:
        cells = (names[token.kind], names[token.matrix], f"{token.value:.4f}")
        table.add_row(str(token.id), Text(token.piece.replace(SPACE, "▁")), *cells)
    if len(named) > SHOWN:
        table.add_row("", translated(f"and {len(named) - SHOWN:,} more"))
    return table


def _names() -> dict[str, str]:
    """The names in an audit's data in the user's language."""
    return {
        "base": translated("base"),
        "added": translated("added rows"),
        "tied matrix": translated("tied matrix"),
        "LM head": translated("LM head"),
        "embedding": translated("embedding"),
        "distance to unused rows": translated("distance to unused rows"),
        "length": translated("length of the row"),
        "change": translated("change"),
        "own change": translated("own share of the change"),
        "token": translated("token"),
        "special": translated("special"),
        "part of a character": translated("part of a character"),
        "unreachable": translated("unreachable"),
        "a stored model": translated("those of the model that training began with"),
        "the mean of base tokens": translated("taken as the mean of the base's tokens"),
    }
