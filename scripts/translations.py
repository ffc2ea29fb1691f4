"""Updates zhllama/locale/zh/LC_MESSAGES/zhllama.po from the source and --help, and compiles it to zhllama.mo.

    python scripts/translations.py

New texts get an empty translation, which a test refuses; texts that are gone are removed.
"""

import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

sys.path.insert(0, str(Path(__file__).parent.parent))

from scripts.message_texts import printed_texts
from zhllama.commands.extras import PURPOSES
from zhllama.commands.merge_vocab import ADDED_AS
from zhllama.commands.table import ENTRIES, app
from zhllama.commands.translation import DOMAIN, LOCALE, PART
from zhllama.io.text import NO_TEXT

STABLE = datetime(2026, 1, 1, tzinfo=UTC)  # the compiled file depends on the texts alone
PO = LOCALE / "zh" / "LC_MESSAGES" / f"{DOMAIN}.po"
HEADER = (
    "# The command line of zhllama in Simplified Chinese. Texts are extracted by scripts/translations.py."
)

# What typer, click and the system print around our texts.
LIBRARIES = (
    "Usage: zhllama [OPTIONS] COMMAND [ARGS]...", "Usage: ", "[OPTIONS]", "COMMAND [ARGS]...", "Options", "Arguments",
    "Commands", "Error", "[default: {}]", "[required]", "Show this message and exit.", "Aborted.",
    "Try [blue]'{command_path} {help_option}'[/] for help.", "Missing command.", "No such command {name}.", "No such command {name}. Did you mean {other}?",
    "No such option: {name}", "No such option: {name} (Possible options: {possible})", "No such option: {name}. Did you mean {ours}?", "No such option: {name}. Give the value alone: {given}",
    "Missing argument {name}.",
    "Missing option {name}.", "Missing option {name}. Choose from:\n\t{choices}", "Missing argument {name}. Choose from:\n\t{choices}",
    "Invalid value: {message}", "Invalid value for {name}: {message}", "Option {name} requires an argument.",
    "Option {name} does not take a value.", "Got unexpected extra argument(s) ({arguments})",
    "No such file or directory", "Permission denied", "Is a directory", "Not a directory", "No space left on device",
    "Read-only file system", "File exists", "Too many open files",
)  # fmt: skip

# Names that results contain as keys, and tables show.
KEYS = (
    "frozen", "dequantized", "matrices", "adapters", "gradients", "optimizer", "loss", "activations", "masks", "reference",
    "simplified", "traditional", "english", "code", *ADDED_AS.values(), "steps", "lines", "rows", "answers",
    "verdicts", "replies", "documents", "parts", "new", "done", "unfinished", "changed", "running", "stopped", "finished",
    "accuracy", "margin", "likelier", "page", "reviewer", "decisions", "model", "api",
    "not fetched here", "written for this project and read here", *PURPOSES.values(),
)  # fmt: skip

# Reasons that results count: of a corpus's filters, of splitting and of reviewing. Those of sharegpt clean are found.
REASONS = (
    "broken characters", "mostly symbols and digits", "Japanese", "Korean", "too little Chinese", "too little English",
    "Traditional", "Simplified", "empty", "too short", "too long", "repeated lines", "repeated characters",
    "mostly links", "words of {name}", "listed address", "listed site", "binary file", "unknown encoding",
    "broken {encoding}", "duplicate", "bad row", "not for training", "system prompt too long", "rejected", "not reviewed", "reviewers disagree",
    "kept", "edited", "dropped", "tie", "chosen",
)  # fmt: skip

# How a list of words was read, in the words of zhllama/vocab/word_table.py.
READINGS = (
    "the pieces of a SentencePiece model", "a word a line", "word, count or tag, separated by spaces",
    "column {number} of {width}, separated by tabs", "column {number} of {width}, separated by commas",
    "column {number} of {width}, separated by semicolons", "column {number} of {width}, separated by tabs, with the header {header}",
    "column {number} of {width}, separated by commas, with the header {header}",
    "column {number} of {width}, separated by semicolons, with the header {header}",
)  # fmt: skip

NOT_JSON = (
    "Expecting value", "Expecting property name enclosed in double quotes", "Expecting ',' delimiter", "Expecting ':' delimiter",
    "Unterminated string starting at", "Invalid control character at", "Invalid \\escape", "Invalid \\uXXXX escape", "Extra data",
)  # fmt: skip

LIBRARY_PARTS = (
    "{value} is not one of {choices}.", "{value} is not in the range {range}.", "Value {value} is not a valid {type}.",
    "{value} is not a valid {type}.", "Input should be a valid integer, unable to parse string as an integer",
    "Input should be a valid number, unable to parse string as a number", "Input should be {choices}",
    *(f"{reason}{place}" for reason in NOT_JSON for place in ("", ": line {line} column {column} (char {char})")),
    "Permission denied", "Read-only file system", "No space left on device", "Is a directory", "Not a directory",
    "No such file or directory", "File name too long", "Too many open files", "Disk quota exceeded", "Input/output error",
    "kto_tag or label", "Connection refused", "Connection reset by peer", "Connection timed out", "Network is unreachable", "No route to host",
    "Name or service not known", "Temporary failure in name resolution", "Server disconnected",
    "Input should be greater than or equal to {bound}", "Input should be less than or equal to {bound}",
)  # fmt: skip


def help_texts() -> Iterator[str]:
    """The texts of every --help."""
    import typer

    group = typer.main.get_command(app)
    yield from (text for entry in ENTRIES for text in (entry.help, entry.panel))
    yield from _texts_of(group)


def _texts_of(command: Any) -> Iterator[str]:
    yield command.help or ""
    for parameter in command.params:
        if not getattr(parameter, "hidden", False):
            texts = (getattr(parameter, name, None) for name in ("help", "rich_help_panel", "show_default"))
            yield from (text for text in texts if isinstance(text, str))
    for name in getattr(command, "commands", {}):
        yield from _texts_of(command.commands[name])


def template() -> Catalog:
    """All texts without translations."""
    catalog = Catalog(
        locale="zh", domain=DOMAIN, header_comment=HEADER, project="zhllama", charset="utf-8", fuzzy=False
    )
    for text in sorted(set(help_texts()) - {""}):
        catalog.add(text, locations=[("--help", None)])
    for text in LIBRARIES + KEYS + REASONS:
        catalog.add(text, locations=[("typer" if text in LIBRARIES else "keys of results", None)])
    for text in (*LIBRARY_PARTS, *READINGS, *NO_TEXT.values()):
        catalog.add(text, context=PART, locations=[("typer", None)])
    for (text, part), files in printed_texts().items():
        catalog.add(text, context=PART if part else None, locations=[(file, None) for file in files])
    for message in catalog:
        message.flags.discard("python-brace-format")
        message.flags.discard("python-format")
    return catalog


def updated() -> Catalog:
    """All texts with the translations that the .po file has for them."""
    known = read()
    catalog = template()
    for message in catalog:
        if message.id and (old := known.get(message.id, message.context)):
            message.string = old.string
    return catalog


def read() -> Catalog:
    """The translations as they are."""
    if not PO.exists():
        return Catalog(locale="zh")
    with PO.open("rb") as file:
        return read_po(file, locale="zh", domain=DOMAIN)


def po_bytes(catalog: Catalog) -> bytes:
    """The .po file."""
    file = BytesIO()
    write_po(file, catalog, width=0, omit_header=True, sort_output=True, include_lineno=False)
    head = f'{HEADER}\nmsgid ""\nmsgstr ""\n"Language: zh\\n"\n"Content-Type: text/plain; charset=utf-8\\n"\n"Content-Transfer-Encoding: 8bit\\n"\n\n'
    return head.encode() + file.getvalue().strip() + b"\n"


def mo_bytes(catalog: Catalog) -> bytes:
    """The compiled file that gettext reads."""
    compiled = Catalog(locale="zh", charset="utf-8", creation_date=STABLE, revision_date=STABLE)
    for message in catalog:
        if message.id and message.string:
            compiled.add(message.id, message.string, context=message.context)
    file = BytesIO()
    write_mo(file, compiled)
    return file.getvalue()


if __name__ == "__main__":
    os.environ["ZHLLAMA_LANG"] = "en"
    PO.write_bytes(po_bytes(updated()))
    PO.with_suffix(".mo").write_bytes(mo_bytes(read()))
    missing = [message.id for message in read() if message.id and not message.string]
    print(*(f"no translation: {text}" for text in missing), sep="\n")
