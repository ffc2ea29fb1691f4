"""Turns a function of option dataclasses into a typer command: one command-line option a field."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from typing import Any, get_args, get_origin, get_type_hints

import typer

from zhllama.errors import OptionError
from zhllama.options import declaration_of


def command(function: Callable[..., None]) -> Callable[..., None]:
    """The function as a typer command.

    Each parameter that is an option dataclass becomes the options of its fields; every other parameter stays as it is.
    An OptionError about a field is shown under the field's flag.
    """
    hints = get_type_hints(function, include_extras=True)
    signature = inspect.signature(function)
    groups: dict[str, Any] = {n: hint for n, hint in hints.items() if n != "return" and is_dataclass(hint)}
    flags = {declared.name: _flags(declared)[0] for group in groups.values() for declared in fields(group)}

    @wraps(function)
    def run(**values: Any) -> None:
        try:
            built = {name: group(**_values_of(group, values)) for name, group in groups.items()}
            others = {name: values[name] for name in signature.parameters if name not in groups}
            function(**built, **others)
        except OptionError as error:
            raise _with_flag(error, flags) from error

    parameters = [p for name, group in groups.items() for p in _parameters(group)]
    parameters += [
        p.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, p in signature.parameters.items()
        if name not in groups
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    del run.__wrapped__
    return run


def _values_of(group: type, values: dict[str, Any]) -> dict[str, Any]:
    """The values of a dataclass's fields; typer gives a list or None where the field is a tuple."""
    result = {}
    for declared in fields(group):
        value = values[declared.name]
        if isinstance(value, list):
            value = tuple(value)
        result[declared.name] = () if value is None and declared.default == () else value
    return result


def _parameters(group: type) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group)
    for declared in fields(group):
        declaration = declaration_of(declared)
        default = ... if declared.default is MISSING else declared.default
        settings: dict[str, Any] = {
            "help": declaration.help,
            "rich_help_panel": declaration.panel,
            "metavar": declaration.metavar,
            "show_default": declaration.show_default and default not in (None, (), "", ...),
            "min": declaration.minimum,
            "max": declaration.maximum,
        }
        annotation = _for_typer(hints[declared.name])
        if isinstance(default, tuple):
            default = list(default) or None
        if declaration.positional:
            shown: Any = typer.Argument(default, **settings)
        else:
            shown = typer.Option(default, *_flags(declared), **settings)
        yield inspect.Parameter(
            declared.name, inspect.Parameter.KEYWORD_ONLY, default=shown, annotation=annotation
        )
        for number, former in enumerate(declaration.former):
            yield _refused(f"former_{declared.name}_{number}", former, _flags(declared)[0], annotation)


def _for_typer(annotation: Any) -> Any:
    """typer knows lists of any length and no tuples of any length."""
    if get_origin(annotation) is tuple and get_args(annotation)[1:] == (...,):
        return list[get_args(annotation)[0]] | None  # type: ignore[misc]
    return annotation


def _flags(declared: "Field[Any]") -> tuple[str, ...]:
    return declaration_of(declared).flags or (f"--{declared.name.replace('_', '-')}",)


def _refused(name: str, former: str, flag: str, annotation: Any) -> inspect.Parameter:
    """A hidden option that takes what the former one took and names the new spelling."""

    def refuse(value: Any) -> None:
        if value:
            raise OptionError(former, f"is now {flag}", f"Give {flag}")

    takes = bool if annotation is bool else str | None
    default = typer.Option(False if takes is bool else None, former, hidden=True, callback=refuse)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=takes)


def _with_flag(error: OptionError, flags: dict[str, str]) -> OptionError:
    """The same error under the flag of the field that it names."""
    if error.where not in flags:
        return error
    return OptionError(flags[error.where], error.what, error.remedy)
