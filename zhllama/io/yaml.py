"""Reads YAML that people write: one mapping, mistakes told with their line, and no aliases, which can blow a small file up."""

from pathlib import Path
from typing import Any

import yaml

from zhllama.errors import InputError

DEEPEST = 20


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """The mapping in a file; `what` it should hold goes into the InputError for anything else."""
    return read_with_lines(path, what)[0]


def read_with_lines(path: Path, what: str) -> tuple[dict[str, Any], yaml.MappingNode]:
    """The same, and the nodes it was made from, which know the line of every part (`node.start_mark.line`, from 0)."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(path, "no such file", "Check its name") from None
    except (OSError, ValueError) as error:
        raise InputError(path, f"cannot be read ({error})", "Give a text file in UTF-8") from error
    try:
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise InputError(_at(path, event.start_mark), "is nested too deep", "Write it flatter")
            if isinstance(event, yaml.AliasEvent):
                raise InputError(_at(path, event.start_mark), "uses an alias (*name)", "Write the value out")
        node = yaml.compose(text, yaml.SafeLoader)
        if isinstance(node, yaml.MappingNode):
            loaded = yaml.SafeLoader("").construct_document(node)
            _refuse_twice(path, node)
            return {str(key): value for key, value in loaded.items()}, node
    except yaml.MarkedYAMLError as error:
        where = _at(path, error.problem_mark or error.context_mark)
        raise InputError(where, f"is not readable YAML ({error.problem})", "Mend that line") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        told = " ".join(str(error).split())[:200]
        raise InputError(path, f"is not readable YAML ({told})", "Mend the file") from error
    raise InputError(path, f"is not {what}", "Write one `name: value` a line")


def _at(path: Path, mark: Any) -> str:
    return f"{path}:{mark.line + 1}" if mark else str(path)


def _refuse_twice(path: Path, node: yaml.Node) -> None:
    """YAML lets the later of two equal names win, in silence."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if str(key.value) in seen:
                where = _at(path, key.start_mark)
                raise InputError(where, f"names {key.value!r} a second time", "Take one of them out")
            seen.add(str(key.value))
            _refuse_twice(path, value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_twice(path, value)
