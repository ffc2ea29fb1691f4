"""The command `audit`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from zhllama.commands.shared import (
    AsJson,
    Field,
    MaxLineBytes,
    Seed,
    print_json,
    progress,
    screen,
)
from zhllama.io.files import LONGEST_LINE
from zhllama.resources import SAMPLES, sample_files
from zhllama.vocab.vocabulary import Recipe


def audit(
    tokenizer: Annotated[
        str, typer.Argument(help="The extended vocabulary: a folder of merge-vocab, or a .model.")
    ],
    base: Annotated[
        str | None,
        typer.Option(
            "--base", help="What it was made from. Without it: the base in its manifest.", show_default=False
        ),
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            "--text",
            help="Files, folders or globs. Without any: the texts of corpora/sample.",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        Recipe | None,
        typer.Option(
            "--recipe",
            help="Whose promises to hold it to. Without it: the recipe in its manifest.",
            show_default=False,
        ),
    ] = None,
    fuzz: Annotated[
        int, typer.Option("--fuzz", min=0, help="Fuzzed strings in the proof of parity.")
    ] = 20_000,
    field: Field = "text",
    max_line_bytes: MaxLineBytes = LONGEST_LINE,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File for the audit as JSON.", show_default=False)
    ] = None,
    seed: Seed = 0,
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

    file = tokenizer_file(tokenizer)
    base_path = (None if base else base_of(file.parent)) or base_file(base)
    files = find_files(text or [])
    names = [f.name for f in files] if len({f.name for f in files}) == len(files) else list(map(str, files))
    texts = {name: read_lines([f], field) for name, f in zip(names, files, strict=True)} or sample_texts()
    with progress("audit", unit="lines") as bar:
        found = audit_file(file, read_vocabulary(base_path), texts, recipe, fuzz, seed, bar)
    if out is not None:
        write_whole(out, to_json(found.to_dict()))
    if as_json:
        print_json(found.to_dict())
    else:
        from zhllama.commands.audit_screen import draw

        draw(screen, found, tokenizer, str(base_path))
    if not found.passed:
        raise typer.Exit(1)


def sample_texts() -> dict[str, Iterator[str]]:
    """The lines of corpora/sample by language."""
    from zhllama.io.text import read_lines

    return {label: read_lines(sample_files(label)) for label in SAMPLES}
