"""Reads recipes, the YAML files of `--config`, and names the file and the key in an error about one of their values."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import typer

from zhllama.errors import InputError, OptionError, ZhllamaError
from zhllama.options import FORMER

RECIPE = "zhllama.recipe"  # key in `context.meta`, which a command shares with the group above it


@dataclass(frozen=True)
class Recipe:
    """The file that `--config` names, with its values by parameter, and the command that uses it."""

    context: Any
    name: str
    values: Mapping[str, Any]

    def used(self) -> dict[str, Any]:
        """The parameters, by name, whose value comes from the recipe and was not replaced by a flag."""
        sources = {p: self.context.get_parameter_source(p.name) for p in self.context.command.params}
        return {
            param.name: param
            for param, source in sources.items()
            if param.name in self.values and source is not None and source.name == "DEFAULT_MAP"
        }


@contextmanager
def errors_that_name_the_recipe(context: Any) -> Iterator[None]:
    """Put `RECIPE (KEY): ` before an error about a value of the recipe."""
    try:
        yield
    except Exception as error:
        if RECIPE in context.meta:
            _name_recipe(error, context.meta[RECIPE])
        raise


def _name_recipe(error: Exception, recipe: Recipe) -> None:
    params = recipe.used()
    if isinstance(error, ZhllamaError):
        if place := _key_of(error, recipe, params):
            error.where = f"{recipe.name} ({place}): {error.where}"
            error.args = (error.text(),)
    elif isinstance(error, OSError) and error.strerror and error.filename2 is None:
        named = ZhllamaError(error.filename, error.strerror)
        if place := _key_of(named, recipe, params):
            error.filename = f"{recipe.name} ({place}): {error.filename}"
    elif (key := getattr(getattr(error, "param", None), "name", None)) in params:
        error.message = f"{recipe.name} ({key}): {error.message}"  # type: ignore[attr-defined]


def _key_of(error: ZhllamaError, recipe: Recipe, params: Mapping[str, Any]) -> str:
    """The key of the recipe's value that an error is about, or an empty text."""
    shares = {key: _share(error, param, recipe.values[key]) for key, param in params.items()}
    key = max(shares, key=lambda key: shares[key], default="")
    return key if key and shares[key] else ""


def _share(error: ZhllamaError, param: Any, value: Any) -> float:
    """How much of an error's place is the parameter's flag, its value, or a file that the value names, in characters.

    The place may go on with a line number or a file in that folder. Below 1 for a flag that only the problem or the
    remedy names; 0 for an error about something else.
    """
    if error.where.partition(" ")[0] in param.opts:
        return len(error.where)
    texts = [str(text) for text in (value if isinstance(value, list) else [value])]
    places = {place for text in texts for place in _places(text)} - {"", ".", "/"}
    named = set(re.findall(r"--[a-z0-9-]+", f"{error.what} {error.remedy}")) & set(param.opts)
    return max((len(place) for place in places if _begins(error.where, place)), default=0.5 * bool(named))


def _begins(where: str, place: str) -> bool:
    followed = where.startswith((f"{place}/", f"{place}:", f"{place} "))
    return where == place or followed or fnmatchcase(re.sub(r":\d+$", "", where), place)


def _places(value: str) -> Iterator[str]:
    """How errors may spell a value: whole, or the path in `NAME=PATH`, `PATH:WEIGHT` and `~/PATH`."""
    for text in (value, value.partition("=")[2]):
        for path in (text, re.sub(r":[\d.]+$", "", text)):
            yield path
            yield str(Path(path))
            yield str(Path(path).expanduser())
            yield str(Path(path).absolute())


def read_recipe(name: str) -> dict[str, Any]:
    """The options in a YAML file, or in a shipped recipe (zhllama/recipes) by its name."""
    shipped = Path(__file__).parent.parent / "recipes"
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = shipped / f"{name}.yaml"
        if Path(name).name != name or not path.is_file():
            known = ", ".join(sorted(p.stem for p in shipped.glob("*.yaml"))) or "none yet"
            raise InputError(name, "is neither a .yaml file nor a shipped recipe", f"Shipped are: {known}")
    from zhllama.io.yaml import read_yaml

    return read_yaml(path, "a mapping of options")


def key_of_flag(flag: str) -> str:
    """A flag as recipes spell it."""
    return flag.lstrip("-").replace("-", "_")


def use_recipe(context: typer.Context, value: str | None) -> str | None:
    """Make a recipe's values the defaults of this command; flags override them."""
    if value is None or context.resilient_parsing:
        return value
    recipe = {str(key).replace("-", "_"): v for key, v in read_recipe(value).items() if key != "command"}
    known = {p.name: p for p in context.command.params if p.name and not p.name.startswith(FORMER)}
    for param in context.command.params:
        if param.name and param.name.startswith(FORMER) and (former := key_of_flag(param.opts[0])) in recipe:
            new = param.name.removeprefix(FORMER).rpartition("_")[0]
            raise OptionError(value, f"the option {former!r} is now {new!r}", f"Write {new}")
    unknown = sorted(recipe.keys() - known.keys())
    if unknown:
        raise OptionError(
            value,
            f"unknown option {unknown[0]!r} for {context.info_name}",
            f"Known are: {', '.join(sorted(known))}",
        )
    for name, setting in recipe.items():
        if isinstance(setting, list) != bool(known[name].multiple or known[name].nargs == -1):
            recipe[name] = setting if isinstance(setting, list) else [setting]
    context.default_map = {**(context.default_map or {}), **recipe}
    context.meta[RECIPE] = Recipe(context, value, recipe)
    return value
