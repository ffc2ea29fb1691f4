"""Help and usage errors of typer in Chinese: help texts of commands, usage lines, and where lines may break."""

import gettext
import os
import re
from typing import Any

import typer

from zhllama.commands.translation import DOMAIN, LOCALE, chinese, translated

# rich breaks lines at spaces, which Chinese has not: a line may also break between Han characters, but not before closing
# punctuation or after opening punctuation.
_OPENING, _CLOSING = "（《“「【", "，。；：！？、）》”」】…"
_HAN = "\u3400-\u9fff"
WORD = re.compile(rf"\s*[{_OPENING}]*(?:[{_HAN}]|[^\s{_HAN}{_OPENING}{_CLOSING}]+)[{_CLOSING}]*\s*|\s*\S\s*")


def choose_language() -> None:
    """Let typer, which calls gettext, use the catalogue, and rich break Chinese lines; to be called before anything is drawn."""
    if not chinese():
        return
    import rich._wrap

    rich._wrap.re_word = WORD
    os.environ["LANGUAGE"] = "zh"  # read by gettext
    gettext.bindtextdomain(DOMAIN, LOCALE)
    gettext.textdomain(DOMAIN)


def localize(command: Any, path: str) -> None:
    """Translate the help of a typer command and of its subcommands, in place; `path` is how users call it."""
    if not chinese():
        return
    command.help = translated(command.help or "")
    command.rich_help_panel = translated(getattr(command, "rich_help_panel", None) or "") or None
    command.options_metavar = translated(command.options_metavar or "")
    if hasattr(command, "subcommand_metavar"):
        command.subcommand_metavar = translated(command.subcommand_metavar or "")
    usage = command.get_usage
    command.get_usage = lambda ctx: re.sub(r"^Usage: ", translated("Usage: "), usage(ctx))
    own = command.get_help_option(
        typer.Context(command, info_name=path)
    )  # is created when it is first asked for
    for parameter in [*command.params, *([own] if own else [])]:
        for name in ("help", "rich_help_panel", "show_default"):
            if isinstance(text := getattr(parameter, name, None), str):
                setattr(parameter, name, translated(text))
    for name, subcommand in getattr(command, "commands", {}).items():
        localize(subcommand, f"{path} {name}")


def localize_error(error: Any) -> None:
    """Translate the message of a usage error, in place."""
    if chinese():
        message = error.format_message()
        error.format_message = lambda: translated(message)
