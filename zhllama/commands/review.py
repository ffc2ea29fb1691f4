"""The command `review`, which shows data to a person on a local page, stores decisions, and exports the reviewed data."""

import getpass
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Annotated

import typer

from zhllama.commands.declare import command
from zhllama.commands.shared import (
    AsJson,
    Config,
    Force,
    LineOptions,
    print_json,
    progress,
    say,
    say_addresses,
    waiting,
    warn,
)
from zhllama.commands.translation import reason_shown
from zhllama.errors import InputError, OptionError
from zhllama.extras import require
from zhllama.io.files import JsonLines, to_json
from zhllama.options import recorded
from zhllama.review.options import PageOptions, ReviewExportOptions, ReviewOptions
from zhllama.run import Run

if TYPE_CHECKING:
    from zhllama.review.row_index import RowIndex

ExportOut = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="Folder of the reviewed data. Required with --export.",
        show_default=False,
        readable=False,
    ),
]


@command
def review(
    options: ReviewOptions,
    page: PageOptions,
    export: ReviewExportOptions,
    reading: LineOptions,
    out: ExportOut = None,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Review data on a local page: keep, drop, edit, comment, or choose the better answer; then export it.

    All can be done by keyboard. Each decision is written to the reviewer's journal in DATA.review at once. With --export
    the reviewed data is written to OUT. Ctrl-C ends the page.
    """
    if export.export:
        if out is None:
            raise OptionError("--out", "is missing", "Name a folder for the reviewed data")
        _export(options, export, reading, out, force, as_json)
    elif out is not None:
        raise OptionError("--out", "is used with --export alone", "Give --export, or leave it out")
    else:
        _serve(options, page, as_json)


def _serve(options: ReviewOptions, listen: PageOptions, as_json: bool) -> None:
    require("review", "serve")
    from zhllama.inference.http_guard import Guard, host_names
    from zhllama.inference.http_server import bind_socket, serve_app
    from zhllama.pages.review import review_page
    from zhllama.review.app import page_needs, review_app
    from zhllama.review.decisions import OwnJournal
    from zhllama.review.session import ReviewSession

    reviewer = options.reviewer or getpass.getuser()
    with ExitStack() as opened:
        index = opened.enter_context(_index(options))
        socket = opened.enter_context(bind_socket("port", listen.host, listen.port))
        with waiting("reading"):
            index.require_rows()
        journal = opened.enter_context(OwnJournal(options.folder, reviewer))
        session = opened.enter_context(closing(ReviewSession(index, options.folder, reviewer, journal)))
        session.summary()  # a broken journal is reported here
        allowed = host_names(listen.host, socket.getsockname()[0], listen.allow_host)
        app = Guard(review_app(session, review_page(options.data.name)), allowed, page_needs)
        url = opened.enter_context(serve_app(app, socket))
        addresses = {"page": f"{url}/", "reviewer": reviewer, "decisions": str(journal.path)}
        if as_json:
            print_json(addresses)
        else:
            say_addresses(addresses)
        sys.stdout.flush()
        Event().wait()


@contextmanager
def _index(options: ReviewOptions) -> Iterator["RowIndex"]:
    """The index of the data, which a thread fills."""
    from zhllama.review.row_index import RowIndex
    from zhllama.review.sources import VERDICTS, find_sources, judged_texts

    sources, judged = find_sources(options.data), None
    if sources[0].path.name == VERDICTS and sources[0].path != options.data:
        try:
            judged = judged_texts(options.data.expanduser())
        except InputError as error:
            warn(f"{error} The page shows verdicts without the answers.")
    with closing(RowIndex(sources, judged)) as index:
        Thread(target=index.build, daemon=True).start()
        yield index


def _export(
    options: ReviewOptions,
    export: ReviewExportOptions,
    reading: LineOptions,
    out: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    from zhllama.review.decisions import journals
    from zhllama.review.export import agreement_figures, export_rows, placed_decisions
    from zhllama.review.sources import REJECTED, REVIEWED

    assert out is not None
    paths = journals(options.folder)
    if options.reviewer is not None:
        if options.reviewer not in paths:
            message = f"{options.reviewer!r} has no decisions in {options.folder}"
            raise OptionError("reviewer", message, f"Choose from: {', '.join(paths) or 'nobody yet'}")
        paths = {options.reviewer: paths[options.reviewer]}
    if not paths:
        raise InputError(
            options.folder, "contains no decisions", "Review the data first, or give `decisions`"
        )
    with _index(options) as index:
        with waiting("reading"):
            index.done.wait()
        index.require_rows()
        index.refuse_faults()
        placed = placed_decisions(index, paths)
        inputs = [*(source.path for source in index.sources), *paths.values()]
        with (
            Run(out, "review", recorded(options, export, reading), inputs, force) as run,
            JsonLines(out / REVIEWED) as kept,
            JsonLines(out / REJECTED) as rejected,
            JsonLines(out / "decisions.jsonl") as decisions,
            progress("Writing", len(index), "rows") as bar,
        ):
            counts = export_rows(
                index, placed, export.undecided, kept.write, rejected.write, decisions.write, bar
            )
            for file in (kept, rejected, decisions):
                file.close()
            agreement = agreement_figures(placed)
            run.write("agreement.json", to_json(agreement))
            figures = counts.figures() | {"decisions": sum(len(one.by_row) for one in placed.values()),
                                          "decisions_not_found": sum(one.lost for one in placed.values())}  # fmt: skip
            run.finish(figures)
    if as_json:
        print_json({"out": str(out), **figures, **agreement})
        return
    say(f"{out}: {figures['rows']:,} rows in = {figures['kept']:,} kept + {figures['rejected']:,} rejected")
    for name, count in (*figures["kept_rows"].items(), *figures["reasons"].items()):
        say(f"  {count:>7,}  {reason_shown(name)}")
    for one in agreement["agreement"]:
        kappa = "" if one["kappa"] is None else f", Cohen's kappa {one['kappa']:.2f}"
        say(f"{one['first']} and {one['second']}: {one['agreed']:,} of {one['rows']:,} rows agree{kappa}")
    if counts.unreadable:
        warn(
            f"{counts.unreadable[0]}: and {len(counts.unreadable) - 1:,} more kept rows would be refused by training"
        )
    if figures["decisions_not_found"]:
        warn(f"{figures['decisions_not_found']:,} decisions belong to rows that are no longer in the data")
