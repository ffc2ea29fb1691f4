"""The command `audit`, which proves what an extension of a vocabulary changed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zhllama.commands.declare import command
from zhllama.commands.shared import AsJson, TextOptions, check_torch, print_json, progress, screen
from zhllama.resources import sample_lines
from zhllama.vocab.options import AuditOptions

if TYPE_CHECKING:
    from zhllama.model.row_audit import RowAudit
    from zhllama.vocab.audit import Audit


@command
def audit(
    options: AuditOptions,
    reading: TextOptions,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File for the audit as JSON.", show_default=False, readable=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prove what an extension changed and what it did not; exit 1 where a promise of its recipe is broken."""
    from zhllama.io.files import to_json, write_whole
    from zhllama.vocab.any_tokenizer import tokenizer_file
    from zhllama.vocab.folder import base_of
    from zhllama.vocab.word_lists import base_file

    if options.model is not None:
        check_torch("audit --model")
    file = tokenizer_file(options.tokenizer)
    base: Path | None = None if options.base else base_of(file.parent)
    if base is None and (options.base or options.model is None):
        base = base_file(options.base)
    result = None if base is None else _audit(options, reading, file, base)
    rows = None if options.model is None else _audit_rows(options.model, file, base)
    found: dict[str, Any] = {} if result is None else result.to_dict()
    if rows is not None:
        found["undertrained"] = rows.to_dict()
    if out is not None:
        write_whole(out, to_json(found))
    if as_json:
        print_json(found)
    else:
        from zhllama.commands.audit_screen import draw
        from zhllama.commands.row_audit_screen import draw_rows

        if result is not None:
            draw(screen, result, options.tokenizer, str(base))
        if rows is not None:
            draw_rows(screen, rows)
    old = None if rows is None else rows.old_rows
    undeclared = old is not None and bool(old.undeclared or old.undeclared_weights)
    if undeclared or (result is not None and not result.passed):
        raise typer.Exit(1)


def _audit(options: AuditOptions, reading: TextOptions, file: Path, base: Path) -> "Audit":
    """Compare the vocabulary with its base."""
    from zhllama.io.text import find_files, read_lines
    from zhllama.vocab.proof import audit_file
    from zhllama.vocab.read import read_vocabulary

    files = find_files(options.text)
    names = [f.name for f in files] if len({f.name for f in files}) == len(files) else list(map(str, files))
    texts = {
        name: read_lines([f], reading.field) for name, f in zip(names, files, strict=True)
    } or sample_lines()
    with progress("proving", unit="lines") as bar:
        return audit_file(file, read_vocabulary(base), texts, options.recipe, options.fuzz, options.seed, bar)


def _audit_rows(model: str, file: Path, base: Path | None) -> "RowAudit":
    """Find the tokens that the model hardly learned."""
    from zhllama.model.row_audit import audit_rows
    from zhllama.vocab.any_tokenizer import load_any_tokenizer
    from zhllama.vocab.folder import base_ids_of

    tokenizer = load_any_tokenizer(file)
    if base is None:
        return audit_rows(model, tokenizer)
    smaller = load_any_tokenizer(base)
    remaining = base_ids_of(file.parent, smaller.size)
    return audit_rows(model, tokenizer, smaller, smaller.size if remaining is None else len(remaining))
