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
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from zhllama.errors import OptionError

FORMER = "former_"  # prefix of the parameters for spellings of earlier versions


@dataclass(frozen=True)
class Declaration:
    """How an option appears on the command line.

    `key` is its name in recipes and config.yaml, by default the field's name; `flags` are its spellings, by default
    `--key` with hyphens; `former` are spellings of earlier versions, which are refused with the new one. An option that
    is not `recorded` does not change the run's result: a run may be resumed with another value. `show_default` is the
    text that --help shows instead of the default.
    """

    help: str
    panel: str | None = None
    key: str | None = None
    flags: tuple[str, ...] = ()
    former: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    metavar: str | None = None
    positional: bool = False
    recorded: bool = True
    show_default: bool | str = True


def option(default: Any, help: str, **declaration: Any) -> Any:
    """A dataclass field that is a command-line option; `declaration` are fields of `Declaration`."""
    return field(default=default, metadata={"option": Declaration(help, **declaration)})


def required(help: str, **declaration: Any) -> Any:
    """A dataclass field that is a required option, or with `positional` an argument."""
    return field(metadata={"option": Declaration(help, **declaration)})


def variant(base: type, name: str, default: Any = MISSING, **changes: Any) -> Any:
    """The option `name` of the dataclass `base`, redeclared in a subclass with another default, help, key or bound."""
    declared = next(one for one in fields(base) if one.name == name)
    changed = replace(declaration_of(declared), **changes)
    return field(default=declared.default if default is MISSING else default, metadata={"option": changed})


def key_of(declared: "Field[Any]") -> str:
    """The name of an option in recipes, config.yaml and manifests."""
    return declaration_of(declared).key or declared.name


def flags_of(declared: "Field[Any]") -> tuple[str, ...]:
    """The spellings of an option on the command line, the usual one first."""
    return declaration_of(declared).flags or (f"--{key_of(declared).replace('_', '-')}",)


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
        if value != value:
            _refuse(declared, value, "is not a number")
        if bounds.minimum is not None and value < bounds.minimum:
            _refuse(declared, value, f"is below {bounds.minimum:g}")
        if bounds.maximum is not None and value > bounds.maximum:
            _refuse(declared, value, f"is above {bounds.maximum:g}")
        if bounds.above is not None and not value > bounds.above:
            _refuse(declared, value, f"is not above {bounds.above:g}")
        if bounds.below is not None and not value < bounds.below:
            _refuse(declared, value, f"is not below {bounds.below:g}")


def _refuse(declared: "Field[Any]", value: float, problem: str) -> None:
    default = "" if declared.default in (MISSING, None) else f"Give e.g. {declared.default}"
    raise OptionError(declared.name, f"{value:g} {problem}", default)


def recorded(*groups: Any) -> dict[str, Any]:
    """The recorded options of several dataclasses as plain values, for config.yaml and the manifest."""
    return {
        key_of(declared): _plain(getattr(options, declared.name))
        for options in groups
        for declared in fields(options)
        if declaration_of(declared).recorded
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return value
