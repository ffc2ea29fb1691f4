"""Options as dataclass fields: name, default, bounds and help are declared once, for Python and for the command line.

    @dataclass(frozen=True)
    class PackingOptions:
        \"\"\"How documents are packed.\"\"\"

        block_size: int = option(512, "Tokens of a block.", minimum=8)

        def __post_init__(self) -> None:
            check_bounds(self)

A command that takes `options: PackingOptions` has `--block-size` (`zhllama/commands/declare.py`). Errors name the
field, `block_size`; the command line shows the flag.
"""

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from zhllama.errors import OptionError


@dataclass(frozen=True)
class Declaration:
    """How an option appears on the command line.

    `flags` are its spellings, by default `--field-name`; `former` are spellings of earlier versions, which are refused
    with the new one. An option that is not `recorded` steers the run without changing its result: a run may be resumed
    with another value.
    """

    help: str
    panel: str | None = None
    flags: tuple[str, ...] = ()
    former: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    metavar: str | None = None
    positional: bool = False
    recorded: bool = True
    show_default: bool = True


def option(default: Any, help: str, **declaration: Any) -> Any:
    """A dataclass field that is a command-line option; `declaration` are fields of `Declaration`."""
    return field(default=default, metadata={"option": Declaration(help, **declaration)})


def required(help: str, **declaration: Any) -> Any:
    """A dataclass field that is a required option, or with `positional` an argument."""
    return field(metadata={"option": Declaration(help, **declaration)})


def declaration_of(declared: "Field[Any]") -> Declaration:
    """The declaration of a field made by `option` or `required`."""
    result: Declaration = declared.metadata["option"]
    return result


def check_bounds(options: Any) -> None:
    """Raise OptionError, naming the field, where a value lies outside its declared bounds; None lies inside."""
    for declared in fields(options):
        value, bounds = getattr(options, declared.name), declaration_of(declared)
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        if bounds.minimum is not None and value < bounds.minimum:
            _refuse(declared, value, f"is below {bounds.minimum:g}")
        if bounds.maximum is not None and value > bounds.maximum:
            _refuse(declared, value, f"is above {bounds.maximum:g}")
        if bounds.above is not None and not value > bounds.above:
            _refuse(declared, value, f"is not above {bounds.above:g}")
        if bounds.below is not None and not value < bounds.below:
            _refuse(declared, value, f"is not below {bounds.below:g}")


def _refuse(declared: "Field[Any]", value: float, what: str) -> None:
    default = "" if declared.default in (MISSING, None) else f"Give e.g. {declared.default}"
    raise OptionError(declared.name, f"{value:g} {what}", default)


def recorded(*groups: Any) -> dict[str, Any]:
    """The recorded options of several dataclasses as plain values, for config.yaml and the manifest."""
    return {
        declared.name: _plain(getattr(options, declared.name))
        for options in groups
        for declared in fields(options)
        if declaration_of(declared).recorded
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return value
