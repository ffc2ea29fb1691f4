"""Tasks and seed tasks, and the readers of their files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, StringConstraints

from zhllama.errors import InputError
from zhllama.io.rows import checked, read_rows

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


@dataclass(frozen=True)
class Task:
    """An instruction, its input (often empty), and the output."""

    instruction: str
    input: str = ""
    output: str = ""


@dataclass(frozen=True)
class Unreadable:
    """A part of a model's reply that is not a task, and the reason."""

    text: str
    reason: str


@dataclass(frozen=True)
class SeedTask:
    """A task with an id; the output may be empty where only the instruction is used."""

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
    """Read seed tasks, one JSON object per line; the first instance of each becomes its input and output.

    Errors: InputError with file and line for a missing field, a repeated id, or an empty file.
    """
    seeds: dict[str, SeedTask] = {}
    for number, row in read_rows(path):
        where = f"{path}:{number}"
        seed = checked(_SeedRow, row, where)
        if not seed.instances:
            raise InputError(where, "has no instances", "Give at least one input and output")
        if seed.id in seeds:
            raise InputError(where, f"uses the id {seed.id!r} again", "Give every seed task a unique id")
        first = seed.instances[0]
        task = Task(seed.instruction, first.input.strip(), first.output)
        seeds[seed.id] = SeedTask(seed.id, task, seed.category, seed.is_classification)
    if not seeds:
        raise InputError(path, "contains no seed task", "Give one JSON object per line")
    return list(seeds.values())


def read_alpaca(path: Path) -> list[SeedTask]:
    """Read tasks in Alpaca format: a JSON list or JSON lines, also compressed (.xz). The default id is the row number, from 0.

    Errors: InputError with file and line for a row without an instruction or with a repeated id.
    """
    tasks: dict[str, SeedTask] = {}
    for number, row in read_rows(path):
        where = f"{path}:{number}"
        alpaca_row = checked(_AlpacaRow, row, where)
        id = str(len(tasks) if alpaca_row.id is None else alpaca_row.id)
        if id in tasks:
            raise InputError(
                where, f"uses the id {id!r} again", "Give every row a unique id, or no row an id"
            )
        input, output = (alpaca_row.input or "").strip(), (alpaca_row.output or "").strip()
        tasks[id] = SeedTask(id, Task(alpaca_row.instruction, input, output))
    if not tasks:
        raise InputError(path, "contains no task", "Give a list of {instruction, input, output}")
    return list(tasks.values())
