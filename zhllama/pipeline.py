"""A line of steps in one YAML file: each a command with its options, made in a folder of its own, skipped where it is done.

    out: runs/trial
    values: {base: path/to/llama.model}
    steps:
      vocab: {command: merge-vocab, base: "${base}", recipe: safe}
      check: {command: report, tokenizer: ["${previous.out}"], text: ["zh=corpus.txt"]}

`${base}` is a value, `${vocab.out}` the folder of a step, `${previous.out}` that of the step before; `${corpora}` and
`${seeds_zh}` are what is shipped.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.exceptions import TyperException

from zhllama.errors import InputError, OptionError
from zhllama.io.files import to_json, write_whole
from zhllama.io.json import read_object
from zhllama.io.yaml import read_with_lines
from zhllama.manifest import changed_inputs, read_manifest
from zhllama.resources import Folder, shipped
from zhllama.run_folder import MANIFEST, begun, is_bare, replaces

REFERENCE = re.compile(r"\$\{([^}]*)\}")
PREVIOUS = "previous"
STEERED = {"out", "force", "resume", "help"}  # the line's own business
SHIPPED: tuple[Folder, ...] = ("corpora", "seeds_zh")
State = Literal["done", "new", "unfinished", "changed"]


@dataclass(frozen=True)
class PipelineStep:
    """One command line. `out` is its run folder, None for a command that writes none; `needs` are steps it reads from."""

    name: str
    command: tuple[str, ...]
    arguments: tuple[str, ...]
    out: Path | None
    needs: tuple[str, ...]
    resumes: bool
    where: str

    def command_line(self, *steering: str) -> list[str]:
        """What to run after `zhllama`."""
        out = ("--out", str(self.out)) if self.out else ()
        return [*self.command, *self.arguments, *out, *steering]


@dataclass(frozen=True)
class Pipeline:
    """The steps of a file in their order, and the folder that holds theirs."""

    out: Path
    steps: tuple[PipelineStep, ...]


def read_pipeline(
    path: Path, commands: TyperGroup, given: Mapping[str, str] | None = None, out: Path | None = None
) -> Pipeline:
    """Read and check a whole line before anything runs; `given` overrides its `values`, `out` its folder.

    Errors: InputError with file and line for an unknown command, option or reference, and for a value that a command
    would not take; OptionError for a given value that the line does not name.
    """
    whole, node = read_with_lines(path, "a line of steps")
    unknown = sorted(whole.keys() - {"out", "values", "steps", "about"})
    if unknown:
        raise InputError(path, f"has an unknown part {unknown[0]!r}", "Known are about, out, values, steps")
    lines = _lines_of(node)
    values, steps = whole.get("values") or {}, whole.get("steps")
    if not isinstance(values, dict) or not isinstance(steps, dict) or not steps:
        raise InputError(path, "has no mapping of steps", "Write `steps:` and under it NAME: {command: ...}")
    if stray := sorted((given or {}).keys() - values.keys()):
        known = ", ".join(values) or "none"
        raise OptionError(f"--set {stray[0]}", f"is no value of {path}", f"Its values are: {known}")
    folder = out or Path(str(whole.get("out") or f"runs/{path.stem}"))
    held: dict[str, str] = {name: str(shipped(name)) for name in SHIPPED}
    held |= {
        str(name): str(value) for name, value in {**values, **(given or {})}.items() if value is not None
    }
    read: list[PipelineStep] = []
    for name, options in steps.items():
        where = f"{path}:{lines.get(str(name), 1)}"
        if not re.fullmatch(r"[A-Za-z0-9][\w-]*", str(name)) or name == PREVIOUS:
            raise InputError(where, f"{name!r} cannot name a step", "Use letters, digits, - and _")
        if not isinstance(options, dict) or not isinstance(options.get("command"), str):
            raise InputError(where, f"step {name!r} has no command", "Write e.g. `command: merge-vocab`")
        read.append(_Reader(where, str(name), folder, held, tuple(read)).read(options, commands))
    return Pipeline(folder, tuple(read))


@dataclass(frozen=True)
class _Reader:
    """One step on its way from YAML to a command line."""

    where: str
    name: str
    folder: Path
    values: Mapping[str, str]
    earlier: tuple[PipelineStep, ...]

    def read(self, options: Mapping[str, Any], commands: TyperGroup) -> PipelineStep:
        words = tuple(options["command"].split())
        command = self._find(words, commands)
        known = {_key(p): p for p in command.params}
        flags: list[str] = []
        places: dict[str, list[str]] = {}
        needs: list[str] = []
        for key, value in options.items():
            if key == "command":
                continue
            param = known.get(str(key).replace("-", "_"))
            if param is None or _key(param) in STEERED:
                hidden = {key for key, param in known.items() if getattr(param, "hidden", False)}
                names = ", ".join(sorted(known.keys() - STEERED - hidden))
                raise InputError(
                    self.where, f"{key!r} is no option of {' '.join(words)} here", f"Known are: {names}"
                )
            texts = [self._filled(v, needs) for v in (value if isinstance(value, list) else [value])]
            if isinstance(param, TyperArgument):
                places[str(param.name)] = texts
            elif isinstance(param, TyperOption):
                flags += _flag(param, texts)
        for param in command.params:  # arguments stand in the command's own order
            if isinstance(param, TyperArgument):
                flags += places.get(str(param.name), [])
        writes = "force" in known
        step = PipelineStep(
            self.name, words, tuple(flags), self.folder / self.name if writes else None,
            tuple(dict.fromkeys(needs)), "resume" in known, self.where,
        )  # fmt: skip
        self._check(step, command)
        return step

    def _find(self, words: Sequence[str], commands: TyperGroup) -> TyperCommand:
        found: Any = commands
        for word in words:
            found = found.commands.get(word) if isinstance(found, TyperGroup) else None
        if not isinstance(found, TyperCommand):
            raise InputError(self.where, f"{' '.join(words)!r} is no command", "See zhllama --help")
        return found

    def _filled(self, value: Any, needs: list[str]) -> str:
        """A value as text, its references replaced, and what it needs noted."""
        if isinstance(value, dict | list):
            raise InputError(
                self.where, f"{value!r} is no plain value", "Write text, a number, or a list of them"
            )
        if isinstance(value, bool):
            return "true" if value else "false"

        def replaced(match: re.Match[str]) -> str:
            name, dot, part = match[1].partition(".")
            if not dot and name in self.values:
                return self.values[name]
            steps = {step.name: step for step in self.earlier if step.out}
            if name == PREVIOUS and steps:
                name = next(reversed(steps))
            if part == "out" and name in steps:
                needs.append(name)
                return str(steps[name].out)
            known = [*self.values, *(f"{step}.out" for step in steps)]
            remedy = (
                f"Known here are: {', '.join(known) or 'none'}" if name not in self.values else "Give --set"
            )
            raise InputError(self.where, f"{match[0]} names nothing", remedy)

        return REFERENCE.sub(replaced, str(value))

    def _check(self, step: PipelineStep, command: TyperCommand) -> None:
        try:
            command.make_context(" ".join(step.command), step.command_line()[len(step.command) :])
        except TyperException as error:
            told = error.format_message().rstrip(".")
            raise InputError(self.where, f"step {self.name!r}: {told}", "Mend that step") from None


def _key(param: Any) -> str:
    """What a line calls an option or an argument: the name that --help shows."""
    if isinstance(param, TyperArgument):
        return str(param.metavar or param.name).strip("[].").lower()
    return str(max(param.opts, key=len)).lstrip("-").replace("-", "_")


def _flag(param: TyperOption, texts: Sequence[str]) -> list[str]:
    """One option as the command line has it: a switch, or its name before each value."""
    name = max(param.opts, key=len)
    if param.is_flag:
        if texts[0] == "true":
            return [name]
        return [max(param.secondary_opts, key=len)] if param.secondary_opts else []
    return [word for text in texts for word in (name, text)]


def _lines_of(node: yaml.MappingNode) -> dict[str, int]:
    """The line, from 1, on which each step begins."""
    steps = next((value for key, value in node.value if key.value == "steps"), None)
    if not isinstance(steps, yaml.MappingNode):
        return {}
    return {str(key.value): key.start_mark.line + 1 for key, _ in steps.value}


class PipelineRecord:
    """What a line has made so far: `line.json` in its folder holds the command line of every step that was begun."""

    def __init__(self, line: Pipeline) -> None:
        self.path = line.out / "line.json"
        self._held: dict[str, Any] = {}
        remedy = "Remove it; finished steps are then made again"
        try:
            held = read_object(self.path, remedy) if self.path.exists() else {}
            self._held = {
                name: {"line": one["line"], "finished": one["finished"]} for name, one in held.items()
            }
        except (KeyError, TypeError) as error:
            told = f"is broken ({type(error).__name__}: {error})"
            raise InputError(self.path, told, remedy) from error

    def state(self, step: PipelineStep, remade: set[str]) -> State:
        """Whether a step stands as its line now says it; `remade` are steps that were made anew just now."""
        noted = self._held.get(step.name)
        if noted is None and not (step.out is not None and begun(step.out)):
            return "new"
        if noted is None or noted["line"] != step.command_line() or remade & set(step.needs):
            return "changed"
        if step.out is None:
            return "done" if noted["finished"] else "unfinished"
        if not (step.out / MANIFEST).is_file():
            return "unfinished"
        return "changed" if changed_inputs(read_manifest(step.out)) else "done"

    def steering(self, step: PipelineStep, state: State) -> tuple[str, ...]:
        """The flag with which to make a step that is not done: go on where that is possible, else anew."""
        if step.out is None or not begun(step.out):
            return ()
        # Killed before it wrote anything, a run that --force began has nothing to resume from.
        lost = replaces(step.out) and is_bare(step.out)
        return ("--resume",) if state == "unfinished" and step.resumes and not lost else ("--force",)

    def note(self, step: PipelineStep, finished: bool) -> None:
        """Write down that a step is begun, or done."""
        self._held[step.name] = {"line": step.command_line(), "finished": finished}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, to_json(self._held))


def plan_pipeline(line: Pipeline, record: PipelineRecord) -> Iterator[tuple[PipelineStep, State]]:
    """Every step with its state, as it would be found if all that is not done were made now."""
    remade: set[str] = set()
    for step in line.steps:
        state = record.state(step, remade)
        if state != "done":
            remade.add(step.name)
        yield step, state
