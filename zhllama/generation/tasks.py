"""What is made here, and what it is made from: tasks, seeds, and files in Alpaca's form."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, StringConstraints

from zhllama.errors import InputError
from zhllama.io.rows import checked, read_rows

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


@dataclass(frozen=True)
class Task:
    """An instruction, the text it works on (often none), and the answer."""

    instruction: str
    input: str = ""
    output: str = ""


@dataclass(frozen=True)
class SeedTask:
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


def read_seeds(path: Path) -> list[SeedTask]:
    """Seed tasks, one JSON object a line; the first instance of each is its example.

    Errors: InputError with file and line for a missing field, a second use of an id, or an empty file.
    """
    seeds: dict[str, SeedTask] = {}
    for number, row in read_rows(path):
        where = f"{path}:{number}"
        seed = checked(_SeedRow, row, where)
        if not seed.instances:
            raise InputError(where, "has no instances", "Give at least one input and output")
        if seed.id in seeds:
            raise InputError(where, f"uses the id {seed.id!r} again", "Give every seed an id of its own")
        first = seed.instances[0]
        task = Task(seed.instruction, first.input.strip(), first.output)
        seeds[seed.id] = SeedTask(seed.id, task, seed.category, seed.is_classification)
    if not seeds:
        raise InputError(path, "holds no seed task", "Give one JSON object a line")
    return list(seeds.values())


def read_alpaca(path: Path) -> list[SeedTask]:
    """Tasks of a file in Alpaca's form, a list or JSON lines, .xz too; a row without an id gets its number from 0.

    Errors: InputError with the row that lacks an instruction, or for an id used twice.
    """
    tasks: dict[str, SeedTask] = {}
    for number, row in read_rows(path):
        where = f"{path}:{number}"
        given = checked(_AlpacaRow, row, where)
        name = str(len(tasks) if given.id is None else given.id)
        if name in tasks:
            raise InputError(
                where, f"uses the id {name!r} again", "Give every row an id of its own, or none any"
            )
        tasks[name] = SeedTask(
            name, Task(given.instruction, (given.input or "").strip(), (given.output or "").strip())
        )
    if not tasks:
        raise InputError(path, "holds no task", "Give a list of {instruction, input, output}")
    return list(tasks.values())
