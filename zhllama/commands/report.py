"""The command `report`, which compares how efficiently tokenizers encode text."""

from typing import Any

from zhllama.commands.declare import command
from zhllama.commands.shared import (
    AsJson,
    Config,
    Force,
    Out,
    TextOptions,
    headings,
    print_json,
    progress,
    say,
    screen,
)
from zhllama.commands.translation import translated
from zhllama.efficiency.options import ReportOptions
from zhllama.options import recorded
from zhllama.resources import SAMPLES, sample_files
from zhllama.run import Run


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
    from zhllama.efficiency.labels import names_by_label
    from zhllama.efficiency.measure import MeasuredVocabulary, ModelCost
    from zhllama.efficiency.report import LabelledText, TextSource
    from zhllama.efficiency.report import report as measured
    from zhllama.efficiency.table import tables
    from zhllama.io.files import to_json
    from zhllama.io.text import find_files
    from zhllama.pages.report import report_page
    from zhllama.vocab.any_tokenizer import load_any_tokenizer, tokenizer_file

    tokenizers = names_by_label(options.tokenizer, "tokenizer")
    texts = [
        LabelledText(label, find_files([name]))
        for label, name in names_by_label(options.text, "text").items()
    ]
    texts = texts or [LabelledText(label, sample_files(label)) for label in SAMPLES]
    files = {label: tokenizer_file(name) for label, name in tokenizers.items()}
    inputs = [*files.values(), *(file for one in texts for file in one.files)]
    with Run(out, "report", recorded(options, reading), inputs, force, seed=options.seed) as run:
        vocabularies = [
            MeasuredVocabulary(label, name, load_any_tokenizer(files[label]), files[label].parent)
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


def _draw(result: dict[str, Any]) -> None:
    from rich.table import Table

    languages = [row for row in result["languages"] if row["name"] != "other"]
    table = Table(
        box=None,
        padding=(0, 2, 0, 0),
        header_style="dim",
        title=translated("characters per token"),
        title_justify="left",
    )
    table.add_column(translated("tokenizer"), overflow="fold")
    kinds = (row["name"] for row in languages)
    for heading in headings("size", *kinds, "tokens", "partial"):
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
