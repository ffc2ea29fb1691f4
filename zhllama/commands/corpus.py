"""The commands `corpus list`, `show`, `fetch` and `clean`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from zhllama.commands.corpus_options import (
    Boilerplate,
    Convert,
    Encoding,
    Exact,
    Executor,
    Fields,
    Languages,
    Markup,
    Mask,
    MaxChars,
    MaxRepeated,
    MemoryGb,
    MinChars,
    MinHan,
    Near,
    Partition,
    Script,
    Time,
    Unit,
    UrlList,
    Width,
    WordHits,
    WordList,
    Workers,
)
from zhllama.commands.shared import (
    AsJson,
    Config,
    Force,
    Out,
    Resume,
    note,
    options_of,
    print_json,
    progress,
    say,
    screen,
)
from zhllama.errors import InputError, OptionError
from zhllama.io.files import open_regular
from zhllama.manifest import read_manifest
from zhllama.run import Run
from zhllama.run_folder import CONFIG, MANIFEST

if TYPE_CHECKING:
    from zhllama.corpus.clean import CleaningOptions

app = typer.Typer(help="Find, fetch and clean text for training.", no_args_is_help=True)

MACHINES = ("executor", "workers", "memory_gb", "partition", "time")  # how it runs, not what comes out


@app.command("list")
def list_sources(as_json: AsJson = False) -> None:
    """List the sources that are known, what they are, and whether they were ever fetched here; `show` tells all."""
    from zhllama.corpus.sources import shipped_sources

    sources = shipped_sources()
    if as_json:
        print_json({"sources": [source.model_dump() for source in sources]})
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "title", "language", "domain", "checked"):
        table.add_column(heading, no_wrap=heading == "name")
    for s in sources:
        table.add_row(s.name, s.title_zh, s.language, s.domain, s.checked.split(";")[0].split(",")[0])
    screen.print(table)


@app.command("show")
def show(
    what: Annotated[
        str, typer.Argument(help="A source by name or .yaml file, or a folder of fetch or clean.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show all that is known of a source, or what a run did and its first document."""
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
def fetch(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A source by name or .yaml file, or a folder on this machine.")],
    out: Out,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Documents to fetch at most.", show_default=False)
    ] = None,
    force: Force = False,
    resume: Resume = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Stream a source into shards of JSON lines; cut off, it goes on with --resume."""
    from zhllama.corpus.documents import find_inputs
    from zhllama.corpus.fetch import fetch as fetch_source
    from zhllama.corpus.fetch import reach
    from zhllama.corpus.sources import find_source

    source = find_source(name)
    inputs = find_inputs([source.place]) if source.kind == "local" else []
    reach(source)
    with (
        Run(out, "corpus fetch", options_of(context), inputs, force, resume) as run,
        progress(f"Fetching {source.name}", limit, "documents") as bar,
    ):
        done = fetch_source(source, run, limit, bar.at)
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
        note(f"{done.without_text:,} rows held no readable text.")


@app.command("clean")
def clean(
    context: typer.Context,
    text: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders, globs, or runs of corpus fetch: text in any encoding, JSON lines, Parquet; "
            "also .gz, .bz2, .xz, .zst.",
            show_default=False,
        ),
    ],
    out: Out,
    field: Fields = ["text"],  # noqa: B006
    unit: Unit = "blank-line",
    encoding: Encoding = None,
    markup: Markup = "all",
    width: Width = "letters",
    boilerplate: Boilerplate = True,
    convert: Convert = None,
    mask: Mask = True,
    language: Languages = "zh+en",
    min_han: MinHan = 0.3,
    script: Script = "any",
    min_chars: MinChars = 20,
    max_chars: MaxChars = 5_000_000,
    max_repeated: MaxRepeated = 0.3,
    word_list: WordList = None,
    word_hits: WordHits = 3,
    url_list: UrlList = None,
    exact: Exact = True,
    near: Near = True,
    executor: Executor = "local",
    workers: Workers = None,
    memory_gb: MemoryGb = 2,
    partition: Partition = "",
    time: Time = "24:00:00",
    force: Force = False,
    resume: Resume = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Clean a corpus: decode, repair, filter and take out duplicates; what is dropped is kept with its reason.

    Texts go to OUT/documents, rejects to OUT/rejected/STEP, and OUT/report.html tells what each step did. Killed
    anywhere, it goes on with --resume to the same bytes.
    """
    import os

    from zhllama.corpus.decode import known_encoding
    from zhllama.corpus.documents import Reading
    from zhllama.corpus.executors import Machines

    machines = Machines(executor, workers or os.cpu_count() or 1, memory_gb, partition, time)
    reading = Reading(tuple(field), unit, known_encoding(encoding) if encoding else None, 4 * max_chars)
    how = _cleaning(context.params)
    machines.check()
    options = {key: value for key, value in options_of(context).items() if key not in MACHINES}
    lists = [*(word_list or []), *(url_list or [])]
    figures = _clean(text, lists, reading, how, machines, options, out, force, resume)
    if figures is None:
        say("The phases are queued. When squeue shows none, give the same command with --resume.")
    elif as_json:
        print_json({"out": str(out), **figures})
    else:
        _print_steps(figures)
        say(f"{out / 'report.html'} shows examples.")


def _cleaning(given: dict[str, Any]) -> "CleaningOptions":
    from zhllama.corpus.clean import CleaningOptions
    from zhllama.corpus.filters import read_words

    if given["min_chars"] > given["max_chars"]:
        raise OptionError("--min-chars", "is more than --max-chars", "Give a smaller one")
    languages = [] if given["language"] == "any" else given["language"].split("+")
    return CleaningOptions(
        given["markup"], given["width"], given["boilerplate"], given["convert"], given["mask"], tuple(languages),
        given["script"], given["min_han"], given["min_chars"], given["max_chars"], given["max_repeated"],
        read_words(given["word_list"] or []), given["word_hits"],
        frozenset(word for _, words in read_words(given["url_list"] or []) for word in words),
        given["exact"], given["near"],
    )  # fmt: skip


def _clean(
    text: list[str],
    lists: list[Path],
    reading: Any,
    how: "CleaningOptions",
    machines: Any,
    options: dict[str, Any],
    out: Path,
    force: bool,
    resume: bool,
) -> dict[str, Any] | None:
    """Run the phases; the figures, or None while Slurm has them."""
    from zhllama.corpus import clean as pipeline
    from zhllama.corpus.documents import find_inputs, split_files
    from zhllama.corpus.executors import run_phases
    from zhllama.corpus.stats import collect_stats
    from zhllama.pages.cleaning import cleaning_page

    inputs = find_inputs([_place(name) for name in text])
    shards = pipeline.shard(split_files(inputs, reading))
    pipeline.check_out(out)
    with Run(out, "corpus clean", options, [*_lineage(text, inputs), *lists], force, resume) as run:
        phases = pipeline.phases(shards, reading, how, out)
        pipeline.keep_plan(run, shards)
        with progress("Cleaning", sum(phase.tasks for phase in phases), "tasks") as bar:
            if not run_phases(phases, machines, bar.at):
                return None
        books = collect_stats(phases, out)
        run.write("report.html", cleaning_page(books, ", ".join(text)))
        pipeline.sweep(out)
        run.finish(books.figures())
        return books.figures()


def _place(name: str) -> str:
    """A path as it is, or the folder of a local source; one that lies elsewhere must be fetched first."""
    if Path(name).expanduser().exists() or any(sign in name for sign in "*?[/"):
        return name
    from zhllama.corpus.sources import find_source

    source = find_source(name)
    if source.kind != "local":
        raise InputError(
            name, "is not on this machine", f"Fetch it first: zhllama corpus fetch {name} --out FOLDER"
        )
    return source.place


def _lineage(text: list[str], inputs: list[Path]) -> list[Path]:
    """The inputs, and the manifests of the runs that they come from."""
    manifests = [Path(name) / MANIFEST for name in text]
    return [*inputs, *(path for path in manifests if path.is_file() and path not in inputs)]


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
            say(file.readline(2000).decode("utf-8", "ignore").rstrip("\n"))


def _print_steps(figures: dict[str, Any]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("step")
    for heading in ("documents", "changed", "dropped"):
        table.add_column(heading, justify="right")
    table.add_column("why")
    for s in figures["steps"]:
        why = ", ".join(f"{reason} {count:,}" for reason, count in s["reasons"].items())
        counts = (s["documents"], s["changed"], s["dropped"])
        table.add_row(s["step"], *(f"{count:,}" if count else "" for count in counts), why)
    screen.print(table)
    say(
        f"{figures['documents_in']:,} documents in = {figures['documents_out']:,} out + "
        f"{figures['rejected']:,} rejected"
    )
