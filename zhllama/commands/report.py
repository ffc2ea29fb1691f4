"""The command `report`, which compares how efficiently tokenizers encode text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zhllama.commands.declare import command
from zhllama.commands.shared import AsJson, Config, Force, Out, TextOptions, print_json, progress, say, screen
from zhllama.efficiency.options import ReportOptions
from zhllama.errors import OptionError
from zhllama.options import recorded
from zhllama.resources import SAMPLES, sample_files
from zhllama.run import Run

_GENERIC = ("tokenizer", "tekken", "spiece", "model", "vocab")  # file names that do not identify a tokenizer


@command
def report(
    options: ReportOptions,
    reading: TextOptions,
    out: Out,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Compare how efficiently tokenizers encode text: report.json, report.md and report.html."""
    from zhllama.efficiency.measure import MeasuredVocabulary, ModelCost
    from zhllama.efficiency.report import LabelledText, TextSource
    from zhllama.efficiency.report import report as measured
    from zhllama.efficiency.table import tables
    from zhllama.io.files import to_json
    from zhllama.io.text import find_files
    from zhllama.pages.report import report_page
    from zhllama.vocab.any_tokenizer import load_any_tokenizer, tokenizer_file

    tokenizers = _labelled(options.tokenizer, "tokenizer")
    texts = [
        LabelledText(label, find_files([name])) for label, name in _labelled(options.text, "text").items()
    ]
    texts = texts or [LabelledText(label, sample_files(label)) for label in SAMPLES]
    files = {label: tokenizer_file(name) for label, name in tokenizers.items()}
    inputs = [*files.values(), *(file for one in texts for file in one.files)]
    with Run(out, "report", recorded(options, reading), inputs, force, seed=options.seed) as run:
        vocabularies = [
            MeasuredVocabulary(label, name, load_any_tokenizer(files[label]))
            for label, name in tokenizers.items()
        ]
        source = TextSource(reading.field, options.sample_bytes, options.seed)
        size = sum(file.stat().st_size for one in texts for file in one.files)
        with progress("counting", total=size) as bar:
            comparison = measured(
                vocabularies, texts, source, ModelCost(options.hidden, options.layers), options.sentence, bar
            )
        result = comparison.to_dict()
        run.write("report.json", to_json(result))
        run.write("report.md", tables(result))
        run.write("report.html", report_page(comparison))
        run.finish(
            {"tokenizers": len(vocabularies), "characters": sum(row.characters for row in comparison.texts)}
        )
    if as_json:
        print_json({"out": str(out), **result})
        return
    _draw(result)
    say(f"Written to {out}: report.html, report.md, report.json", "bold")


def _labelled(entries: Sequence[str], field: str) -> dict[str, str]:
    """Names by label, of `label=name`, or of names alone, whose label comes from the file name."""
    names: dict[str, str] = {}
    for entry in entries:
        label, equals, name = entry.partition("=")
        if not equals or Path(entry).exists():
            label, name = _own_label(entry), entry
        label = " ".join(label.split())
        if not label or not name:
            raise OptionError(f"{field} {entry}", "has an empty label or path", "Write it as LABEL=PATH")
        if label in names:
            raise OptionError(
                f"{field} {entry}",
                f"has the label {label!r}, which {names[label]} has already",
                "Give them labels: LABEL=PATH",
            )
        names[label] = name
    return names


def _own_label(name: str) -> str:
    """The stem of a file's name, or its folder's name where the file has a generic one."""
    path = Path(name)
    stem = path.name.split(".")[0] if path.is_file() else path.name
    stem = stem or path.name or path.resolve().name
    return path.resolve().parent.name if path.is_file() and stem in _GENERIC else stem


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
