"""What is made here, and what it is made from: tasks, seeds, and files in Alpaca's form."""

import json
import lzma
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, StringConstraints, ValidationError

from zhllama.errors import InputError

Row = TypeVar("Row", bound=BaseModel)
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


@dataclass(frozen=True)
class Task:
    """An instruction, the text it works on (often none), and the answer."""

    instruction: str
    input: str = ""
    output: str = ""


@dataclass(frozen=True)
class Seed:
    """A task with a name to cite it by; `output` may be empty where only the instruction is asked to be used."""

    id: str
    task: Task
    category: str = ""
    is_classification: bool = False


class _Instance(BaseModel):
    input: str = ""
    output: Text


class _SeedRow(BaseModel):
    id: Text
    instruction: Text
    instances: list[_Instance]
    is_classification: bool
    category: str = ""


class _AlpacaRow(BaseModel):
    instruction: Text
    input: str | None = ""
    output: str | None = ""
    id: str | int | None = None


def read_seeds(path: Path) -> list[Seed]:
    """Seed tasks, one JSON object a line; the first instance of each is its example.

    Errors: InputError with file and line for a missing field, a second use of an id, or an empty file.
    """
    seeds: dict[str, Seed] = {}
    for number, row in read_rows(path):
        where = f"{path}:{number}"
        seed = checked(_SeedRow, row, where)
        if not seed.instances:
            raise InputError(where, "has no instances", "Give at least one input and output")
        if seed.id in seeds:
            raise InputError(where, f"uses the id {seed.id!r} again", "Give every seed an id of its own")
        first = seed.instances[0]
        task = Task(seed.instruction, first.input.strip(), first.output)
        seeds[seed.id] = Seed(seed.id, task, seed.category, seed.is_classification)
    if not seeds:
        raise InputError(path, "holds no seed task", "Give one JSON object a line")
    return list(seeds.values())


def read_alpaca(path: Path) -> list[Seed]:
    """Tasks of a file in Alpaca's form, a list or JSON lines, .xz too; a row without an id gets its number from 0.

    Errors: InputError with the row that lacks an instruction, or for an id used twice.
    """
    tasks: dict[str, Seed] = {}
    for number, row in read_rows(path):
        where = f"{path}:{number}"
        given = checked(_AlpacaRow, row, where)
        name = str(len(tasks) if given.id is None else given.id)
        if name in tasks:
            raise InputError(
                where, f"uses the id {name!r} again", "Give every row an id of its own, or none any"
            )
        tasks[name] = Seed(
            name, Task(given.instruction, (given.input or "").strip(), (given.output or "").strip())
        )
    if not tasks:
        raise InputError(path, "holds no task", "Give a list of {instruction, input, output}")
    return list(tasks.values())


def read_rows(path: Path) -> Iterable[tuple[int, Any]]:
    """Rows with their numbers from 1: lines of JSON, or the members of one JSON list."""
    try:
        raw = path.read_bytes()
        text = (lzma.decompress(raw) if path.suffix == ".xz" else raw).decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(path, "no such file", "Check the path") from None
    except (OSError, ValueError, EOFError, lzma.LZMAError) as error:
        raise InputError(path, f"cannot be read ({error})", "Give a JSON file in UTF-8") from error
    if text.lstrip().startswith("["):
        try:
            return list(enumerate(json.loads(text), 1))
        except ValueError as error:
            raise InputError(
                path, f"is not JSON ({error})", "Give a JSON list, or one object a line"
            ) from error
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                rows.append((number, json.loads(line)))
            except ValueError as error:
                raise InputError(
                    f"{path}:{number}", f"is not JSON ({error})", "Give one JSON object a line"
                ) from error
    return rows


def checked(kind: type[Row], row: Any, where: str) -> Row:
    """A row of the given kind; InputError with its place and the field that is wrong."""
    try:
        return kind.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "row"
        raise InputError(where, f"{field}: {first['msg'].lower()}", "Mend this row") from None
