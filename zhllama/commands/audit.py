"""The command `audit`, which proves what an extension of a vocabulary changed."""

from pathlib import Path
from typing import Annotated

import typer

from zhllama.commands.declare import command
from zhllama.commands.shared import AsJson, TextOptions, print_json, progress, screen
from zhllama.resources import sample_lines
from zhllama.vocab.options import AuditOptions


@command
def audit(
    options: AuditOptions,
    reading: TextOptions,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File for the audit as JSON.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prove what an extension changed and what it did not; exit 1 where a promise of its recipe is broken."""
    from zhllama.io.files import to_json, write_whole
    from zhllama.io.text import find_files, read_lines
    from zhllama.vocab.any_tokenizer import tokenizer_file
    from zhllama.vocab.folder import base_of
    from zhllama.vocab.proof import audit_file
    from zhllama.vocab.read import read_vocabulary
    from zhllama.vocab.word_lists import base_file

    file = tokenizer_file(options.tokenizer)
    base = (None if options.base else base_of(file.parent)) or base_file(options.base)
    files = find_files(options.text)
    names = [f.name for f in files] if len({f.name for f in files}) == len(files) else list(map(str, files))
    texts = {
        name: read_lines([f], reading.field) for name, f in zip(names, files, strict=True)
    } or sample_lines()
    with progress("audit", unit="lines") as bar:
        result = audit_file(
            file, read_vocabulary(base), texts, options.recipe, options.fuzz, options.seed, bar
        )
    if out is not None:
        write_whole(out, to_json(result.to_dict()))
    if as_json:
        print_json(result.to_dict())
    else:
        from zhllama.commands.audit_screen import draw

        draw(screen, result, options.tokenizer, str(base))
    if not result.passed:
        raise typer.Exit(1)
