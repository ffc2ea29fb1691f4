"""The commands `sharegpt clean`, `sharegpt split` and `sharegpt export`."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from zhllama.commands.declare import command
from zhllama.commands.progress import Bar
from zhllama.commands.shared import AsJson, Config, Force, LineOptions, Out, print_json, progress, say, warn
from zhllama.commands.translation import reason_shown
from zhllama.conversation.options import CleanOptions, ConversationFiles, ConversionOptions, SplitOptions
from zhllama.io.files import JsonLines, to_json
from zhllama.options import recorded
from zhllama.run import Run

if TYPE_CHECKING:
    from zhllama.conversation.clean_files import Write

app = typer.Typer(help="Clean, split and convert conversations, ShareGPT's and others.", no_args_is_help=True)

ACCEPTED, REJECTED = "conversations.jsonl", "rejected.jsonl"
# What `export` reads of a run: first of review, which may contain rows of all kinds.
RUN_OUTPUTS = (
    "reviewed.jsonl",
    "instructions.jsonl",
    "conversations.jsonl",
    "comparisons.json",
    "pairs.jsonl",
    "labelled.jsonl",
)


@app.command("clean")
@command
def clean(
    conversations: ConversationFiles,
    options: CleanOptions,
    reading: LineOptions,
    out: Out,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Clean conversations: HTML to Markdown, roles in order, chosen languages, no duplicates, no listed words.

    Accepted conversations are written to OUT/conversations.jsonl in ShareGPT's form, all others to OUT/rejected.jsonl,
    each row with its reason. A conversation that begins with an answer, or ends with a question, is accepted without
    that turn.
    """
    from zhllama.conversation.clean import ConversationCleaner, ConversationCleaning
    from zhllama.conversation.clean_files import clean_files
    from zhllama.conversation.row_files import find_row_files
    from zhllama.corpus.filters import read_words

    found = find_row_files(conversations.files)
    languages: Any = () if options.keep == "any" else tuple(options.keep.split("+"))
    words = read_words(options.word_list)
    cleaning = ConversationCleaning(
        languages, options.min_share, options.min_chars, words, options.word_hits, options.drop_ai, options.exact,
        options.near,
    )  # fmt: skip
    cleaner = ConversationCleaner(cleaning)
    settings = recorded(conversations, options, reading)
    with Run(out, "sharegpt clean", settings, [*found.inputs, *options.word_list], force) as run:
        with _written(out, "Cleaning", found.files) as (accept, reject, bar):
            counts = clean_files(found, cleaner, accept, reject, bar)
        figures = counts.figures() | {"mended": dict(cleaner.edits.most_common())}
        run.finish(figures)
    if as_json:
        print_json({"out": str(out), **figures})
        return
    _show_counts(out, figures)
    for edit, count in figures["mended"].items():
        say(f"  {count:>7,}  repaired: {reason_shown(edit)}")


@app.command("split")
@command
def split(
    conversations: ConversationFiles,
    options: SplitOptions,
    reading: LineOptions,
    out: Out,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Split long conversations by tokens before a user's turn; no turn is lost, the last pair included.

    Each part has the id and the system prompt of its conversation, and `part` and `parts`. A pair that alone is too
    long is truncated, and its part has `cut`.
    """
    from zhllama.conversation.clean_files import split_files
    from zhllama.conversation.row_files import find_row_files
    from zhllama.conversation.token_length import length_function, tokenizer_path
    from zhllama.vocab.any_tokenizer import tokenizer_file

    place = tokenizer_path(options.tokenizer)
    length = length_function(options.tokenizer, options.template)
    found = find_row_files(conversations.files)
    inputs = [*found.inputs, *([tokenizer_file(place)] if place.exists() else [])]
    settings = recorded(conversations, options, reading)
    with Run(out, "sharegpt split", settings, inputs, force) as run:
        with _written(out, "Splitting", found.files) as (accept, reject, bar):
            counts = split_files(found, length, options.max_length, accept, reject, bar)
        figures = counts.figures()
        run.finish(figures)
    if as_json:
        print_json({"out": str(out), **figures})
        return
    _show_counts(out, figures)
    say(
        f"{counts.parts:,} parts of at most {options.max_length:,} tokens: {counts.long:,} conversations split, "
        f"{counts.cut:,} pairs truncated"
    )
    if options.template is None:
        warn(
            "counted without a chat template, so parts may be too long for sft: give --template, as for sft."
        )


@app.command("export")
@command
def export(
    conversations: ConversationFiles,
    options: ConversionOptions,
    reading: LineOptions,
    out: Out,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Convert rows of any format into that of LLaMA-Factory, TRL or OpenAI.

    OUT contains conversations.jsonl, pairs.jsonl (ranked answers) and labelled.jsonl (good and bad answers), as far as
    there are any, for LLaMA-Factory with dataset_info.json, and rejected.jsonl: the rows that the form cannot express.
    """
    from zhllama.conversation.export_files import described, export_files
    from zhllama.conversation.row_fields import parse_field_map
    from zhllama.conversation.row_files import find_row_files

    found = find_row_files(conversations.files, RUN_OUTPUTS)
    field_map = parse_field_map(options.field_map)
    settings = recorded(conversations, options, reading)
    with Run(out, "sharegpt export", settings, found.inputs, force) as run:
        with ExitStack() as opened:  # files without a row are removed at its end
            bar = opened.enter_context(
                progress("Converting", sum(path.stat().st_size for path in found.files))
            )
            files = {kind: opened.enter_context(JsonLines(path)) for kind, path in described(out).items()}
            rejected = opened.enter_context(JsonLines(out / REJECTED))
            writers = {kind: file.write for kind, file in files.items()}
            counts = export_files(found, options.export_to, field_map, writers, rejected.write, bar)
            for file in (*(file for kind, file in files.items() if counts.written[kind]), rejected):
                file.close()
        if options.export_to == "llama-factory":
            run.write("dataset_info.json", to_json(counts.dataset_info()))
        figures = counts.figures()
        run.finish(figures)
    if as_json:
        print_json({"out": str(out), **figures})
        return
    _show_counts(out, figures)
    for name, count in figures["written"].items():
        say(f"  {count:>7,}  {name}")
    if counts.without_ids:
        warn(
            f"{counts.without_ids:,} rows lost the ids of their tool calls, for which LLaMA-Factory has no form"
        )


@contextmanager
def _written(out: Path, title: str, files: Sequence[Path]) -> Iterator[tuple["Write", "Write", Bar]]:
    """What writes an accepted and a rejected row, and the progress bar over bytes read; both files are whole at the end."""
    with (
        JsonLines(out / ACCEPTED) as accepted,
        JsonLines(out / REJECTED) as rejected,
        progress(title, sum(path.stat().st_size for path in files)) as bar,
    ):
        yield accepted.write, rejected.write, bar
        accepted.close()
        rejected.close()


def _show_counts(out: Path, figures: dict[str, Any]) -> None:
    say(
        f"{out}: {figures['rows']:,} rows in = {figures['kept']:,} accepted + {figures['rejected']:,} rejected"
    )
    for name, count in figures["unused_fields"].items():
        warn(f"the field {name!r} of {count:,} rows is not used")
    for reason, count in figures["reasons"].items():
        say(f"  {count:>7,}  {reason_shown(reason)}")
