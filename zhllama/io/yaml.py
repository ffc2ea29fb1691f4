"""Reads YAML that users write: one mapping of plain values; mistakes are reported with their line.

Aliases and tags are refused: aliases let a small file expand without limit, and a tag (`!!timestamp`, `!!python/object`)
constructs another type. A date is read as text.
"""

import math
from pathlib import Path
from typing import Any

import yaml

from zhllama.errors import InputError
from zhllama.io.files import read_utf8

DEEPEST = 20
LARGEST = 1 << 22  # bytes; the parser takes seconds for each million


class _Loader(yaml.SafeLoader):
    """SafeLoader without dates: their constructor fails on 2001-99-99 and returns values that JSON does not have."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_yaml(path: Path, what: str, remedy: str = "Correct the file") -> dict[str, Any]:
    """The mapping in a file. Errors: InputError for anything else; `what` names the expected content."""
    return read_with_lines(path, what, remedy)[0]


def read_with_lines(
    path: Path, what: str, remedy: str = "Correct the file"
) -> tuple[dict[str, Any], yaml.MappingNode]:
    """The mapping in a file, and its nodes, which contain the line of every part (`node.start_mark.line`, from 0)."""
    return _parsed(read_utf8(path, LARGEST), path, what, remedy)


def parse_yaml(text: str, path: Path) -> dict[str, Any]:
    """The mapping in a text that `path` contains, such as the head of a model card. Errors: InputError for anything else."""
    return _parsed(text, path, "a mapping of options", "Correct the file")[0]


def _parsed(text: str, path: Path, what: str, remedy: str) -> tuple[dict[str, Any], yaml.MappingNode]:
    try:
        _refuse_aliases_and_tags(path, text)
        node = yaml.compose(text, _Loader)
        if isinstance(node, yaml.MappingNode):
            _refuse_duplicates_and_nan(path, node)
            loaded = _Loader("").construct_document(node)
            return {str(key): value for key, value in loaded.items()}, node
    except InputError:
        raise
    except yaml.MarkedYAMLError as error:
        where = _at(path, error.problem_mark or error.context_mark)
        raise InputError(where, f"is not readable YAML ({error.problem})", "Correct that line") from error
    # Constructors raise KeyError, TypeError, AttributeError, OverflowError and others.
    except Exception as error:
        detail = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(path, f"is not readable YAML ({detail})", remedy) from error
    raise InputError(path, f"is not {what}", "Write one `name: value` a line")


def _refuse_aliases_and_tags(path: Path, text: str) -> None:
    """Errors: InputError with the line of an alias, a tag, or a part that is nested too deep."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        at = _at(path, event.start_mark)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise InputError(at, "is nested too deep", "Write it with fewer levels")
        if isinstance(event, yaml.AliasEvent):
            raise InputError(at, "uses an alias (*name)", "Write the value out")
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise InputError(at, f"uses a tag ({ascii(tag)[:60]})", "Write the value without it")


def _at(path: Path, mark: Any) -> str:
    return f"{path}:{mark.line + 1}" if mark else str(path)


def _refuse_duplicates_and_nan(path: Path, node: yaml.Node) -> None:
    """Errors: InputError for a duplicate name, whose last value YAML silently uses, and for NaN and infinity."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if str(key.value) in seen:
                where = _at(path, key.start_mark)
                raise InputError(where, f"names {key.value!r} a second time", "Remove one of them")
            seen.add(str(key.value))
            _refuse_duplicates_and_nan(path, value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_duplicates_and_nan(path, value)
    elif (
        isinstance(node, yaml.ScalarNode)
        and node.tag == "tag:yaml.org,2002:float"
        and not math.isfinite(_Loader("").construct_yaml_float(node))
    ):
        where = _at(path, node.start_mark)
        raise InputError(
            where, f"contains {str(node.value)[:20]}, which is not a finite number", "Write a number"
        )
