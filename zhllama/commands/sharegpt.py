"""The commands `sharegpt clean` and `sharegpt split`."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from zhllama.commands.shared import (
    AsJson,
    Config,
    Force,
    MaxLineBytes,
    Out,
    options_of,
    print_json,
    progress,
    say,
    warn,
)
from zhllama.errors import OptionError
from zhllama.io.files import LONGEST_LINE, JsonLines
from zhllama.run import Run
from zhllama.run_folder import CONFIG

if TYPE_CHECKING:
    from zhllama.conversation.split import Length

app = typer.Typer(help="Clean and split conversations, ShareGPT's and others.", no_args_is_help=True)

KEPT, REJECTED = "conversations.jsonl", "rejected.jsonl"
Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE...",
        help="Conversations as JSON lines or one JSON list, also .gz, .xz, .zst; folders, globs, runs of sharegpt clean.",
        show_default=False,
    ),
]


@app.command("clean")
def clean(
    context: typer.Context,
    files: Files,
    out: Out,
    keep: Annotated[
        Literal["zh+en", "zh", "en", "any"], typer.Option("--keep", help="Languages that stay.")
    ] = "zh+en",
    min_share: Annotated[
        float,
        typer.Option(
            "--min-share", min=0, max=1, help="Share of Han in the letters of Chinese; code is left out."
        ),
    ] = 0.3,
    min_chars: Annotated[
        int, typer.Option("--min-chars", min=1, help="Characters of all turns together, at least.")
    ] = 10,
    word_list: Annotated[
        list[Path] | None,
        typer.Option("--word-list", help="Black list: a file of words, one a line.", show_default=False),
    ] = None,
    word_hits: Annotated[
        int, typer.Option("--word-hits", min=1, help="Words of one list that drop a conversation.")
    ] = 1,
    drop_ai: Annotated[
        bool, typer.Option("--drop-ai", help="Drop what says 作为一个人工智能语言模型 and the like.")
    ] = False,
    exact: Annotated[bool, typer.Option("--exact/--no-exact", help="Drop exact duplicates.")] = True,
    near: Annotated[
        bool, typer.Option("--near/--no-near", help="Drop near duplicates (Jaccard about .7 up).")
    ] = True,
    max_line_bytes: MaxLineBytes = LONGEST_LINE,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Clean conversations: HTML to Markdown, roles in order, one's languages, no duplicates, no listed words.

    What stays goes to OUT/conversations.jsonl in ShareGPT's form, all the rest to OUT/rejected.jsonl, each row with its
    reason. A conversation that begins with an answer, or ends with a question, loses that turn and stays.
    """
    from zhllama.conversation.clean import ConversationCleaner, ConversationCleaning, Rejected
    from zhllama.conversation.sharegpt import sharegpt_row
    from zhllama.corpus.filters import read_words
    from zhllama.io.rows import NotJson, read_rows_or_faults
    from zhllama.io.text import find_files

    paths = find_files(files)
    languages: Any = () if keep == "any" else tuple(keep.split("+"))
    words = read_words(word_list or [])
    cleaner = ConversationCleaner(
        ConversationCleaning(languages, min_share, min_chars, words, word_hits, drop_ai, exact, near)
    )
    kept, reasons = 0, Counter[str]()
    with (
        Run(out, "sharegpt clean", options_of(context), [*paths, *(word_list or [])], force) as run,
        JsonLines(out / KEPT) as good,
        JsonLines(out / REJECTED) as bad,
        progress("Cleaning", sum(path.stat().st_size for path in paths)) as bar,
    ):
        for path in paths:
            for number, row in read_rows_or_faults(path, bar):
                where = f"{path}:{number}"
                made = cleaner(row, where)
                if isinstance(made, Rejected):
                    reasons[made.reason] += 1
                    plain = None if isinstance(row, NotJson) else row
                    bad.write({"reason": made.reason, "detail": made.detail, "where": where, "row": plain})
                else:
                    kept += 1
                    good.write(sharegpt_row(made))
        good.close()
        bad.close()
        figures = _figures(kept, reasons) | {"mended": dict(cleaner.edits.most_common())}
        run.finish(figures)
    if as_json:
        print_json({"out": str(out), **figures})
        return
    _tell(out, figures)
    for what, count in figures["mended"].items():
        say(f"  {count:>7,}  mended: {what}")


@app.command("split")
def split(
    context: typer.Context,
    files: Files,
    out: Out,
    tokenizer: Annotated[
        str,
        typer.Option(
            "--tokenizer",
            "-t",
            help="The one of the training: a folder, file, hub name or run.",
            show_default=False,
        ),
    ],
    max_length: Annotated[int, typer.Option("--max-length", min=8, help="Tokens of a part, at most.")] = 2048,
    template: Annotated[
        str | None,
        typer.Option(
            "--template",
            help="Count its text too: alpaca, vicuna, chatml, llama3 or own, as sft will. Else each turn's text alone.",
            show_default=False,
        ),
    ] = None,
    max_line_bytes: MaxLineBytes = LONGEST_LINE,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Split long conversations by tokens where a user begins to speak; no turn is lost, the last pair included.

    Each part keeps the id and the system prompt, and tells `part` and `parts`. A pair that alone is too long is cut, and
    its part has `cut`.
    """
    from zhllama.conversation.read_conversations import BadRow, order_fault, read_conversations
    from zhllama.conversation.sharegpt import sharegpt_row
    from zhllama.conversation.split import split as parts_of
    from zhllama.io.text import find_files
    from zhllama.vocab.any_tokenizer import tokenizer_file

    place = _place(tokenizer)
    length = _length(tokenizer, place, template)
    paths = find_files(files)
    inputs = [*paths, *([tokenizer_file(place)] if place.exists() else [])]
    kept, parts, long, cut, reasons = 0, 0, 0, 0, Counter[str]()
    with (
        Run(out, "sharegpt split", options_of(context), inputs, force) as run,
        JsonLines(out / KEPT) as good,
        JsonLines(out / REJECTED) as bad,
        progress("Splitting", sum(path.stat().st_size for path in paths)) as bar,
    ):
        for path in paths:
            for read in read_conversations(path, lambda found: order_fault(found.turns), bar):
                made = None if isinstance(read, BadRow) else parts_of(read, length, max_length)
                if isinstance(read, BadRow) or made is None:
                    reason = read.reason if isinstance(read, BadRow) else "system prompt too long"
                    reasons["bad row" if isinstance(read, BadRow) else reason] += 1
                    turns = {} if isinstance(read, BadRow) else sharegpt_row(read)
                    bad.write({"reason": reason, "where": read.where, **turns})
                    continue
                kept, parts, long = kept + 1, parts + len(made), long + (len(made) > 1)
                for part in made:
                    cut += part.cut
                    more = {"part": part.number, "parts": part.of} | ({"cut": True} if part.cut else {})
                    good.write(sharegpt_row(part.conversation, **more))
        good.close()
        bad.close()
        figures = _figures(kept, reasons) | {"parts": parts, "long": long, "cut": cut}
        run.finish(figures)
    if as_json:
        print_json({"out": str(out), **figures})
        return
    _tell(out, figures)
    say(f"{parts:,} parts of at most {max_length:,} tokens: {long:,} conversations split, {cut:,} pairs cut")
    if template is None:
        warn("counted without a template; give --template as sft will, or parts may be too long.")


def _place(tokenizer: str) -> Path:
    """The folder of a tokenizer; of a run, that of its model."""
    from zhllama.model.chain import resolve_chain
    from zhllama.model.load import VOCABULARY_FILES

    path = Path(tokenizer)
    if (path / CONFIG).is_file() and not any((path / name).is_file() for name in VOCABULARY_FILES):
        return resolve_chain(path).tokenizer
    return path


def _length(tokenizer: str, path: Path, template: str | None) -> "Length":
    from zhllama.conversation.split import template_length, text_length
    from zhllama.model.load import load_transformers_tokenizer
    from zhllama.vocab.any_tokenizer import load_any_tokenizer

    if template is None:
        return text_length(load_any_tokenizer(path if path.exists() else tokenizer))
    if not path.is_dir():
        raise OptionError(
            "--template", "needs a tokenizer's folder", "Name one that has tokenizer_config.json"
        )
    from zhllama.conversation.template import template_for

    opened = load_transformers_tokenizer(path)
    return template_length(opened, template_for(template, opened))


def _figures(kept: int, reasons: "Counter[str]") -> dict[str, Any]:
    rejected = reasons.total()
    return {
        "rows": kept + rejected,
        "kept": kept,
        "rejected": rejected,
        "reasons": dict(reasons.most_common()),
    }


def _tell(out: Path, figures: dict[str, Any]) -> None:
    say(f"{out}: {figures['rows']:,} rows in = {figures['kept']:,} kept + {figures['rejected']:,} rejected")
    for reason, count in figures["reasons"].items():
        say(f"  {count:>7,}  {reason}")
