"""Turns a function of option dataclasses into a typer command with one command-line option for each field."""

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from typing import Any, get_args, get_origin, get_type_hints

import typer

from zhllama.errors import OptionError, ZhllamaError
from zhllama.options import FORMER, check_bounds, declaration_of, flags_of, key_of


def command(function: Callable[..., None]) -> Callable[..., None]:
    """The function as a typer command.

    Each parameter that is an option dataclass becomes the options of its fields; every other parameter stays as it is.
    An OptionError about a field is shown under the field's flag, and so is a field in backticks in the text of any error.
    """
    hints = get_type_hints(function, include_extras=True)
    signature = inspect.signature(function)
    groups: dict[str, Any] = {n: hint for n, hint in hints.items() if n != "return" and is_dataclass(hint)}
    flags = {declared.name: _shown_name(declared) for group in groups.values() for declared in fields(group)}

    @wraps(function)
    def run(**values: Any) -> None:
        try:
            built = {name: group(**_values_of(group, values)) for name, group in groups.items()}
            for options in built.values():
                check_bounds(options)
            others = {name: values[name] for name in signature.parameters if name not in groups}
            function(**built, **others)
        except ZhllamaError as error:
            _name_flags(error, flags)
            raise

    parameters = [p for group in groups.values() for p in _parameters(group)]
    parameters += [
        p.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, p in signature.parameters.items()
        if name not in groups
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    del run.__wrapped__
    return run


def _shown_name(declared: "Field[Any]") -> str:
    """What --help calls an option or an argument."""
    declaration = declaration_of(declared)
    if declaration.positional:
        return declaration.metavar or key_of(declared).upper()
    return flags_of(declared)[0].partition("/")[0]


def _values_of(group: type, values: dict[str, Any]) -> dict[str, Any]:
    """The values of a dataclass's fields; typer gives a list or None where the field is a tuple."""
    result = {}
    for declared in fields(group):
        value = values[key_of(declared)]
        if isinstance(value, list):
            value = tuple(value)
        result[declared.name] = () if value is None and declared.default == () else value
    return result


def _parameters(group: type) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group)
    for declared in fields(group):
        declaration, key = declaration_of(declared), key_of(declared)
        default = ... if declared.default is MISSING else declared.default
        settings: dict[str, Any] = {
            "help": declaration.help,
            "rich_help_panel": declaration.panel,
            "metavar": declaration.metavar,
            "show_default": declaration.show_default
            if isinstance(declaration.show_default, str)
            else declaration.show_default and default not in (None, (), "", ...),
            "min": declaration.minimum,
            "max": declaration.maximum,
            "readable": False,  # the command says on one line which file cannot be read, and what to do
        }
        annotation = _for_typer(hints[declared.name])
        if isinstance(default, tuple):
            default = list(default) or None
        if declaration.positional:
            shown: Any = typer.Argument(default, **settings)
        else:
            shown = typer.Option(default, *flags_of(declared), **settings)
        yield inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=shown, annotation=annotation)
        for number, former in enumerate(declaration.former):
            yield _refused(f"{FORMER}{key}_{number}", former, flags_of(declared)[0], annotation)


def _for_typer(annotation: Any) -> Any:
    """Tuples of any length as lists, which is the only form that typer accepts."""
    if get_origin(annotation) is tuple and get_args(annotation)[1:] == (...,):
        return list[get_args(annotation)[0]] | None  # type: ignore[misc]
    return annotation


def _refused(name: str, former: str, flag: str, annotation: Any) -> inspect.Parameter:
    """A hidden option that takes the values of the former one and names the new spelling."""

    def refuse(value: Any) -> None:
        if value:
            raise OptionError(former, f"is now {flag}", f"Give {flag}")

    accepted = bool if annotation is bool else str | None
    default = typer.Option(
        False if accepted is bool else None, former, hidden=True, callback=refuse, expose_value=False
    )
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=accepted)


def _name_flags(error: ZhllamaError, flags: dict[str, str]) -> None:
    """Put flags in place of the fields that an error names."""

    def flag(match: re.Match[str]) -> str:
        return flags.get(match[1], match[0])

    if isinstance(error, OptionError):
        name, space, value = error.where.partition(" ")
        error.where = flags.get(name, name) + space + value
    error.where, error.what, error.remedy = (
        re.sub(r"`(\w+)`", flag, text) for text in (error.where, error.what, error.remedy)
    )
    error.args = (error.text(),)
