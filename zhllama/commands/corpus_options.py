"""The options of `corpus clean`: how files are read, which steps are taken, and where they run."""

from pathlib import Path
from typing import Annotated, Literal

import typer

KEPT = "Files"
STEPS = "Steps"
WHERE = "Machines"

Fields = Annotated[
    list[str],
    typer.Option("--field", help="Field that holds the text; several are joined.", rich_help_panel=KEPT),
]
Unit = Annotated[
    Literal["blank-line", "line", "file"],
    typer.Option("--unit", help="Where a document of plain text ends.", rich_help_panel=KEPT),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        "--encoding",
        help="Encoding of all files, taken strictly. Without it each file's is detected.",
        show_default=False,
        rich_help_panel=KEPT,
    ),
]
Markup = Annotated[
    Literal["keep", "html", "all"],
    typer.Option("--markup", help="Remains to take out: of HTML, or of Markdown too.", rich_help_panel=STEPS),
]
Width = Annotated[
    Literal["keep", "letters", "all"],
    typer.Option(
        "--width",
        help="Full-width letters and digits to ASCII; all: also , ; : ? ! after Han to full width.",
        rich_help_panel=STEPS,
    ),
]
Boilerplate = Annotated[
    bool,
    typer.Option(
        "--boilerplate/--no-boilerplate",
        help="Take out lines of navigation and copyright.",
        rich_help_panel=STEPS,
    ),
]
Convert = Annotated[
    Literal["t2s", "s2t", "tw2s", "s2tw", "hk2s", "s2hk"] | None,
    typer.Option(
        "--convert", help="Into the other script by OpenCC.", show_default=False, rich_help_panel=STEPS
    ),
]
Mask = Annotated[
    bool,
    typer.Option(
        "--mask/--no-mask",
        help="Mask e-mail addresses, phone and identity numbers.",
        rich_help_panel=STEPS,
    ),
]
Languages = Annotated[
    Literal["zh+en", "zh", "en", "any"],
    typer.Option("--language", help="Languages that stay.", rich_help_panel=STEPS),
]
MinHan = Annotated[
    float,
    typer.Option(
        "--min-han", min=0, max=1, help="Share of Han in the letters of Chinese.", rich_help_panel=STEPS
    ),
]
Script = Annotated[
    Literal["any", "simplified", "traditional"],
    typer.Option("--script", help="The Chinese script that stays.", rich_help_panel=STEPS),
]
MinChars = Annotated[
    int, typer.Option("--min-chars", min=1, help="Characters at least.", rich_help_panel=STEPS)
]
MaxChars = Annotated[
    int, typer.Option("--max-chars", min=1, help="Characters at most.", rich_help_panel=STEPS)
]
MaxRepeated = Annotated[
    float,
    typer.Option(
        "--max-repeated",
        min=0,
        max=1,
        help="Share of repeated runs of 10 characters; 1: all stay.",
        rich_help_panel=STEPS,
    ),
]
WordList = Annotated[
    list[Path] | None,
    typer.Option(
        "--word-list",
        help="File of words, one a line: advertising, adult ...",
        show_default=False,
        rich_help_panel=STEPS,
    ),
]
WordHits = Annotated[
    int,
    typer.Option("--word-hits", min=1, help="Words of one list that drop a document.", rich_help_panel=STEPS),
]
UrlList = Annotated[
    list[Path] | None,
    typer.Option(
        "--url-list",
        help="File of sites or addresses, one a line, to drop.",
        show_default=False,
        rich_help_panel=STEPS,
    ),
]
Exact = Annotated[
    bool, typer.Option("--exact/--no-exact", help="Drop exact duplicates.", rich_help_panel=STEPS)
]
Near = Annotated[
    bool,
    typer.Option(
        "--near/--no-near", help="Drop near duplicates (Jaccard about .7 up).", rich_help_panel=STEPS
    ),
]
Executor = Annotated[
    Literal["local", "ray", "slurm"],
    typer.Option("--executor", help="Where the tasks run.", rich_help_panel=WHERE),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Tasks at a time. By default the cores here.",
        show_default=False,
        rich_help_panel=WHERE,
    ),
]
MemoryGb = Annotated[
    int, typer.Option("--memory-gb", min=1, help="Memory of a task (Ray, Slurm).", rich_help_panel=WHERE)
]
Partition = Annotated[
    str, typer.Option("--partition", help="Slurm partition.", show_default=False, rich_help_panel=WHERE)
]
Time = Annotated[str, typer.Option("--time", help="Slurm time limit of a task.", rich_help_panel=WHERE)]
