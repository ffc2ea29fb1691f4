"""The options that gen-zh and refilter share: the filters of tasks."""

from pathlib import Path
from typing import Annotated

import typer

FILTERS = "Filters"

MinInstruction = Annotated[
    int, typer.Option(help="Characters of an instruction at least.", rich_help_panel=FILTERS)
]
MaxInstruction = Annotated[
    int, typer.Option(help="Characters of an instruction at most.", rich_help_panel=FILTERS)
]
MaxInput = Annotated[int, typer.Option(help="Characters of an input at most.", rich_help_panel=FILTERS)]
MinOutput = Annotated[int, typer.Option(help="Characters of an output at least.", rich_help_panel=FILTERS)]
MaxOutput = Annotated[int, typer.Option(help="Characters of an output at most.", rich_help_panel=FILTERS)]
MinHan = Annotated[
    float,
    typer.Option(
        help="Han among the letters at least, code and other languages let be.", rich_help_panel=FILTERS
    ),
]
MaxRepeats = Annotated[
    float, typer.Option(help="Share of an output's 8-grams said before, at most.", rich_help_panel=FILTERS)
]
Threshold = Annotated[
    float,
    typer.Option(help="ROUGE-L from which an instruction is a near duplicate.", rich_help_panel=FILTERS),
]
Blacklist = Annotated[
    list[Path] | None,
    typer.Option(
        help="File of more words that no instruction may hold.", rich_help_panel=FILTERS, show_default=False
    ),
]
KeepTraditional = Annotated[
    bool,
    typer.Option(
        "--keep-traditional", help="Leave Traditional characters as they are.", rich_help_panel=FILTERS
    ),
]
DropPersonal = Annotated[
    bool,
    typer.Option(
        "--drop-personal",
        help="Reject what holds personal data instead of flagging it.",
        rich_help_panel=FILTERS,
    ),
]
Without = Annotated[
    list[str] | None,
    typer.Option(
        help="A filter to leave out, by its reason, such as 'repeats'.",
        rich_help_panel=FILTERS,
        show_default=False,
    ),
]
