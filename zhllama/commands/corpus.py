"""The commands `corpus list`, `show`, `fetch` and `clean`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from zhllama.commands.declare import command
from zhllama.commands.shared import (
    AsJson,
    Config,
    Force,
    Out,
    Resume,
    note,
    print_json,
    progress,
    say,
    screen,
)
from zhllama.commands.translation import comma, reason_shown, translated
from zhllama.corpus.options import (
    CorpusCleaningOptions,
    CorpusText,
    FetchOptions,
    ReadingOptions,
    TaskOptions,
)
from zhllama.extras import require
from zhllama.io.files import open_regular
from zhllama.manifest import read_manifest
from zhllama.options import recorded
from zhllama.run import Run
from zhllama.run_folder import CONFIG

app = typer.Typer(help="Find, fetch and clean text for training.", no_args_is_help=True)


@app.command("list")
def list_sources(as_json: AsJson = False) -> None:
    """List the known sources and whether their fetch was checked; `show` has the details of one."""
    from zhllama.corpus.sources import shipped_sources

    sources = shipped_sources()
    if as_json:
        print_json({"sources": [source.model_dump() for source in sources]})
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "title", "language", "domain", "checked"):
        table.add_column(translated(heading), no_wrap=heading == "name")
    for s in sources:
        checked = s.checked.split(";")[0].split(",")[0]
        table.add_row(s.name, s.title_zh, s.language, s.domain, translated(checked))
    screen.print(table)


@app.command("show")
def show(
    what: Annotated[
        str, typer.Argument(help="A source by name or .yaml file, or a folder of fetch or clean.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show the details of a source, or the figures and the first document of a run."""
    if (Path(what) / CONFIG).exists():
        _show_run(Path(what), as_json)
        return
    from zhllama.corpus.sources import find_source

    source = find_source(what).model_dump(exclude_none=True)
    if as_json:
        print_json(source)
        return
    table = Table.grid(padding=(0, 2))
    for field, value in source.items():
        table.add_row(field, str(value))
    screen.print(table)


@app.command("fetch")
@command
def fetch(
    options: FetchOptions,
    out: Out,
    force: Force = False,
    resume: Resume = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Stream a source into shards of JSON lines; an interrupted run continues with --resume."""
    require("corpus fetch", "corpus")
    from zhllama.corpus.documents import find_inputs
    from zhllama.corpus.fetch import fetch as fetch_source
    from zhllama.corpus.fetch import reach
    from zhllama.corpus.sources import find_source

    source = find_source(options.name)
    inputs = find_inputs([source.place]) if source.kind == "local" else []
    reach(source)
    with (
        Run(out, "corpus fetch", recorded(options), inputs, force, resume) as run,
        progress(f"Fetching {source.name}", options.limit, "documents") as bar,
    ):
        done = fetch_source(source, run, options.limit, bar.at)
        figures = {
            "source": source.model_dump(exclude_none=True),
            "documents": done.documents,
            "rows": done.rows,
            "without_text": done.without_text,
            "shards": done.shards,
        }
        run.finish(figures)
    if as_json:
        print_json({"out": str(out), **figures})
        return
    say(f"{done.documents:,} documents of {source.name} in {out}")
    if done.without_text:
        note(f"{done.without_text:,} rows contained no readable text.")


@app.command("clean")
@command
def clean(
    source: CorpusText,
    reading: ReadingOptions,
    options: CorpusCleaningOptions,
    tasks: TaskOptions,
    out: Out,
    force: Force = False,
    resume: Resume = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Clean a corpus: decode, repair, filter and deduplicate; rejected documents are kept with their reason.

    Texts are written to OUT/documents, rejects to OUT/rejected/STEP, and OUT/report.html shows the effect of each step.
    An interrupted run continues with --resume to the same bytes.
    """
    require("corpus clean", "corpus")
    from zhllama.corpus.clean_run import clean_corpus

    machines = tasks.machines()
    machines.check()
    settings = recorded(source, reading, options)
    lists = [*options.word_list, *options.url_list]
    run = Run(out, "corpus clean", settings, lists, force, resume)
    figures = clean_corpus(
        source.text, reading.reading(options.max_chars), options.cleaning(), machines, run, progress
    )
    if figures is None:
        say(
            "The phases are queued. When squeue shows none, add --resume to the same command and give it again."
        )
    elif as_json:
        print_json({"out": str(out), **figures})
    else:
        _print_steps(figures)
        say(f"{out / 'report.html'} shows examples.")


def _show_run(folder: Path, as_json: bool) -> None:
    manifest = read_manifest(folder)
    figures = manifest["figures"]
    if as_json:
        print_json({"command": manifest["command"], "seconds": manifest["seconds"], **figures})
        return
    if "steps" in figures:
        _print_steps(figures)
    else:
        say(f"{figures.get('documents', 0):,} documents")
    first = next(iter(sorted((folder / "documents").glob("*.jsonl"))), None)
    if first is not None:
        with open_regular(first) as file:
            screen.print(file.readline(2000).decode("utf-8", "ignore").rstrip("\n"), soft_wrap=True)


def _print_steps(figures: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column(translated("step"))
    for heading in ("documents", "changed", "dropped"):
        table.add_column(translated(heading), justify="right")
    table.add_column(translated("why"))
    for s in figures["steps"]:
        why = comma().join(f"{reason_shown(reason)} {count:,}" for reason, count in s["reasons"].items())
        counts = (s["documents"], s["changed"], s["dropped"])
        table.add_row(s["step"], *(f"{count:,}" if count else "" for count in counts), why)
    screen.print(table)
    say(
        f"{figures['documents_in']:,} documents in = {figures['documents_out']:,} out + "
        f"{figures['rejected']:,} rejected"
    )
