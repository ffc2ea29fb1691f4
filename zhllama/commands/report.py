"""The command `report`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from zhllama.commands.shared import (
    AsJson,
    Config,
    Field,
    Force,
    MaxLineBytes,
    Out,
    Seed,
    options_of,
    print_json,
    progress,
    say,
    screen,
)
from zhllama.errors import OptionError
from zhllama.io.files import LONGEST_LINE
from zhllama.resources import SAMPLES, sample_files
from zhllama.run import Run

_UNTELLING = ("tokenizer", "tekken", "spiece", "model", "vocab")  # names of files that name no tokenizer


def report(
    context: typer.Context,
    tokenizer: Annotated[
        list[str],
        typer.Argument(
            help="Tokenizers, the first of them the one to compare with: a .model, tokenizer.json, tekken.json, .tiktoken "
            "or .gguf file, a folder, a hub name; or LABEL=any of these.",
            show_default=False,
        ),
    ],
    out: Out,
    text: Annotated[
        list[str] | None,
        typer.Option(
            "--text",
            help="A file, folder or glob, reported as one text; or LABEL=it. Without any: the texts of corpora/sample.",
            show_default=False,
        ),
    ] = None,
    sample_bytes: Annotated[
        int | None,
        typer.Option(
            "--sample-bytes",
            min=1,
            help="How much to draw, evenly, from each text; without it all of it is read.",
            show_default=False,
        ),
    ] = None,
    sentence: Annotated[
        list[str] | None,
        typer.Option(
            "--sentence", help="A sentence that the page shows cut by every tokenizer.", show_default=False
        ),
    ] = None,
    hidden: Annotated[
        int, typer.Option("--hidden", min=1, help="Hidden size of the model that costs are told for.")
    ] = 4096,
    layers: Annotated[int, typer.Option("--layers", min=1, help="Its layers.")] = 32,
    field: Field = "text",
    max_line_bytes: MaxLineBytes = LONGEST_LINE,
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Compare how finely tokenizers cut text: report.json, report.md and report.html."""
    from zhllama.efficiency.measure import MeasuredVocabulary, ModelCost
    from zhllama.efficiency.report import LabelledText, TextSource
    from zhllama.efficiency.report import report as measured
    from zhllama.efficiency.table import tables
    from zhllama.io.files import to_json
    from zhllama.io.text import find_files
    from zhllama.pages.report import report_page
    from zhllama.vocab.any_tokenizer import load_any_tokenizer, tokenizer_file

    named = _labelled(tokenizer, "TOKENIZER")
    texts = [
        LabelledText(label, find_files([name])) for label, name in _labelled(text or [], "--text").items()
    ]
    texts = texts or [LabelledText(label, sample_files(label)) for label in SAMPLES]
    files = {label: tokenizer_file(name) for label, name in named.items()}
    inputs = [*files.values(), *(file for one in texts for file in one.files)]
    with Run(out, "report", options_of(context), inputs, force, seed=seed) as run:
        vocabularies = [
            MeasuredVocabulary(label, name, load_any_tokenizer(files[label])) for label, name in named.items()
        ]
        source = TextSource(field, sample_bytes, seed)
        size = sum(file.stat().st_size for one in texts for file in one.files)
        with progress("counting", total=size) as bar:
            found = measured(vocabularies, texts, source, ModelCost(hidden, layers), sentence or [], bar)
        result = found.to_dict()
        run.write("report.json", to_json(result))
        run.write("report.md", tables(result))
        run.write("report.html", report_page(found))
        run.finish(
            {"tokenizers": len(vocabularies), "characters": sum(row.characters for row in found.texts)}
        )
    if as_json:
        print_json({"out": str(out), **result})
        return
    _draw(result)
    say(f"Written to {out}: report.html, report.md, report.json", "bold")


def _labelled(given: Sequence[str], where: str) -> dict[str, str]:
    """{label: name} of `label=name`, or of names alone, which give their own label."""
    found: dict[str, str] = {}
    for entry in given:
        label, equals, name = entry.partition("=")
        if not equals or Path(entry).exists():
            label, name = _own_label(entry), entry
        label = " ".join(label.split())
        if not label or not name:
            raise OptionError(f"{where} {entry}", "has an empty label or path", "Write it as LABEL=PATH")
        if label in found:
            raise OptionError(
                f"{where} {entry}",
                f"has the label {label!r}, which {found[label]} has already",
                "Give them labels: LABEL=PATH",
            )
        found[label] = name
    return found


def _own_label(name: str) -> str:
    """The stem of a file's name, or its folder's name where that one tells nothing."""
    path = Path(name)
    stem = path.name.split(".")[0] if path.is_file() else path.name
    stem = stem or path.name or path.resolve().name
    return path.resolve().parent.name if path.is_file() and stem in _UNTELLING else stem


def _draw(result: dict[str, Any]) -> None:
    from rich.table import Table

    languages = [row for row in result["languages"] if row["name"] != "other"]
    table = Table(
        box=None, padding=(0, 2, 0, 0), header_style="dim", title="characters per token", title_justify="left"
    )
    table.add_column("tokenizer", overflow="fold")
    for heading in ("size", *(row["name"] for row in languages), "tokens", "partial"):
        table.add_column(heading, justify="right", no_wrap=True)
    first = languages[0]["tokenizers"]
    for one in result["tokenizers"]:
        own = first[one["label"]]
        table.add_row(
            one["label"],
            f"{one['size']:,}",
            *(f"{row['tokenizers'][one['label']]['characters_per_token']:.3f}" for row in languages),
            f"{own['tokens_against_base']:.2f}×",
            f"{own['byte_share']:.1%}",
        )
    screen.print(table)
