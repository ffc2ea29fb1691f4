"""Reads a pipeline: steps in one YAML file, each a command with options and a run folder, skipped when finished.

    out: runs/trial
    values: {base: path/to/llama.model}
    steps:
      vocab: {command: merge-vocab, base: "${base}", recipe: safe}
      check: {command: report, tokenizer: ["${previous.out}"], text: ["zh=corpus.txt"]}

`${base}` is a value, `${vocab.out}` the folder of a step, `${previous.out}` the folder of the step before; `${corpora}`
and `${seeds_zh}` are folders that zhllama ships.
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
from zhllama.run_folder import MANIFEST, has_no_output, has_replaced_run, is_run_folder

REFERENCE = re.compile(r"\$\{([^}]*)\}")
PREVIOUS = "previous"
RESERVED = {"out", "force", "resume", "help"}  # options that the pipeline sets itself
SHIPPED: tuple[Folder, ...] = ("corpora", "seeds_zh")
State = Literal["done", "new", "unfinished", "changed"]


@dataclass(frozen=True)
class PipelineStep:
    """One command line; `out` is its run folder or None for a command without one; `needs` are the steps it reads from."""

    name: str
    command: tuple[str, ...]
    arguments: tuple[str, ...]
    out: Path | None
    needs: tuple[str, ...]
    resumes: bool
    where: str

    def command_line(self, *flags: str) -> list[str]:
        """The words after `zhllama`."""
        out = ("--out", str(self.out)) if self.out else ()
        return [*self.command, *self.arguments, *out, *flags]


@dataclass(frozen=True)
class Pipeline:
    """The steps of a file in order, and the folder that contains their run folders."""

    out: Path
    steps: tuple[PipelineStep, ...]


def read_pipeline(
    path: Path, commands: TyperGroup, overrides: Mapping[str, str] | None = None, out: Path | None = None
) -> Pipeline:
    """Read and check a whole pipeline before anything runs; `overrides` replace its `values`, `out` its folder.

    Errors: InputError with file and line for an unknown command, option or reference, and for an invalid option value;
    OptionError for an override of an unknown value.
    """
    whole, node = read_with_lines(path, "a pipeline")
    unknown = sorted(whole.keys() - {"out", "values", "steps", "about"})
    if unknown:
        raise InputError(path, f"has an unknown key {unknown[0]!r}", "Its keys are about, out, values, steps")
    lines = _lines_of(node)
    values, steps = whole.get("values") or {}, whole.get("steps")
    if not isinstance(values, dict) or not isinstance(steps, dict) or not steps:
        raise InputError(path, "has no mapping of steps", "Write `steps:` and under it NAME: {command: ...}")
    if stray := sorted((overrides or {}).keys() - values.keys()):
        known = ", ".join(values) or "none"
        raise OptionError(f"--set {stray[0]}", f"is not a value of {path}", f"Its values are: {known}")
    folder = out or Path(str(whole.get("out") or f"runs/{path.stem}"))
    try:
        folder.exists()
    except OSError as error:
        message = f"has an `out` that cannot be a folder ({error.strerror})"
        raise InputError(path, message, "Name another folder") from None
    known_values: dict[str, str] = {name: str(shipped(name)) for name in SHIPPED}
    known_values |= {
        str(name): str(value) for name, value in {**values, **(overrides or {})}.items() if value is not None
    }
    read: list[PipelineStep] = []
    for name, options in steps.items():
        where = f"{path}:{lines.get(str(name), 1)}"
        if not re.fullmatch(r"[A-Za-z0-9][\w-]{0,79}", str(name)) or name == PREVIOUS:
            raise InputError(where, f"{name!r} cannot name a step", "Use up to 80 letters, digits, - and _")
        if not isinstance(options, dict) or not isinstance(options.get("command"), str):
            raise InputError(where, f"step {name!r} has no command", "Write e.g. `command: merge-vocab`")
        read.append(_StepReader(where, str(name), folder, known_values, tuple(read)).read(options, commands))
    return Pipeline(folder, tuple(read))


@dataclass(frozen=True)
class _StepReader:
    """Turns one step's YAML into a command line."""

    where: str
    name: str
    folder: Path
    values: Mapping[str, str]
    earlier: tuple[PipelineStep, ...]

    def read(self, options: Mapping[str, Any], commands: TyperGroup) -> PipelineStep:
        words = tuple(options["command"].split())
        command = self._find(words, commands)
        params = {_key(p): p for p in command.params}
        flags: list[str] = []
        arguments: dict[str, list[str]] = {}
        needs: list[str] = []
        for key, value in options.items():
            if key == "command":
                continue
            param = params.get(str(key).replace("-", "_"))
            if param is None or _key(param) in RESERVED:
                hidden = {key for key, param in params.items() if getattr(param, "hidden", False)}
                names = ", ".join(sorted(params.keys() - RESERVED - hidden))
                raise InputError(
                    self.where,
                    f"{key!r} is not an option of {' '.join(words)} here",
                    f"Its options are: {names}",
                )
            texts = [self._substituted(v, needs) for v in (value if isinstance(value, list) else [value])]
            if isinstance(param, TyperArgument):
                arguments[str(param.name)] = texts
            elif isinstance(param, TyperOption):
                flags += _flag(param, texts)
        for param in command.params:  # positional arguments in the command's order
            if isinstance(param, TyperArgument):
                flags += arguments.get(str(param.name), [])
        writes = "force" in params
        step = PipelineStep(
            self.name, words, tuple(flags), self.folder / self.name if writes else None,
            tuple(dict.fromkeys(needs)), "resume" in params, self.where,
        )  # fmt: skip
        self._check(step, command)
        return step

    def _find(self, words: Sequence[str], commands: TyperGroup) -> TyperCommand:
        command: Any = commands
        for word in words:
            command = command.commands.get(word) if isinstance(command, TyperGroup) else None
        if not isinstance(command, TyperCommand):
            raise InputError(self.where, f"{' '.join(words)!r} is not a command", "See zhllama --help")
        return command

    def _substituted(self, value: Any, needs: list[str]) -> str:
        """A value as text with its references replaced; the steps it refers to are added to `needs`."""
        if isinstance(value, dict | list):
            raise InputError(
                self.where, f"{value!r} is not a plain value", "Write text, a number, or a list of them"
            )
        if isinstance(value, bool):
            return "true" if value else "false"

        def target(match: re.Match[str]) -> str:
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
                f"Defined here are: {', '.join(known) or 'none'}" if name not in self.values else "Give --set"
            )
            raise InputError(self.where, f"{match[0]} is not defined", remedy)

        return REFERENCE.sub(target, str(value))

    def _check(self, step: PipelineStep, command: TyperCommand) -> None:
        try:
            command.make_context(" ".join(step.command), step.command_line()[len(step.command) :])
        except TyperException as error:
            reason = error.format_message().rstrip(".")
            raise InputError(self.where, f"in step {self.name!r}: {reason}", "Correct that step") from None


def _key(param: Any) -> str:
    """The key of an option or argument in a pipeline: the name that --help shows."""
    if isinstance(param, TyperArgument):
        return str(param.metavar or param.name).strip("[].").lower()
    return str(max(param.opts, key=len)).lstrip("-").replace("-", "_")


def _flag(param: TyperOption, texts: Sequence[str]) -> list[str]:
    """The words of one option: a switch, or its name before each value."""
    name = max(param.opts, key=len)
    if param.is_flag:
        if texts[0] == "true":
            return [name]
        return [max(param.secondary_opts, key=len)] if param.secondary_opts else []
    return [word for text in texts for word in (name, text)]


def _lines_of(node: yaml.MappingNode) -> dict[str, int]:
    """The line on which each step begins, from 1."""
    steps = next((value for key, value in node.value if key.value == "steps"), None)
    if not isinstance(steps, yaml.MappingNode):
        return {}
    return {str(key.value): key.start_mark.line + 1 for key, _ in steps.value}


class PipelineRecord:
    """The progress of a pipeline: `line.json` in its folder contains the command line of every started step."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.path = pipeline.out / "line.json"
        self._steps: dict[str, Any] = {}
        remedy = "Remove it; finished steps then run again"
        try:
            recorded = read_object(self.path, remedy) if self.path.exists() else {}
            self._steps = {
                name: {"line": one["line"], "finished": one["finished"]} for name, one in recorded.items()
            }
        except (KeyError, TypeError) as error:
            reason = f"is broken ({type(error).__name__}: {error})"
            raise InputError(self.path, reason, remedy) from error

    def state(self, step: PipelineStep, rerun: set[str]) -> State:
        """The state of a step; `rerun` are the steps that ran again in this invocation."""
        recorded = self._steps.get(step.name)
        if recorded is None and not (step.out is not None and is_run_folder(step.out)):
            return "new"
        if recorded is None or recorded["line"] != step.command_line() or rerun & set(step.needs):
            return "changed"
        if step.out is None:
            return "done" if recorded["finished"] else "unfinished"
        if not (step.out / MANIFEST).is_file():
            return "unfinished"
        return "changed" if changed_inputs(read_manifest(step.out)) else "done"

    def restart_flags(self, step: PipelineStep, state: State) -> tuple[str, ...]:
        """The flag for a step that is not done: --resume where that is possible, else --force."""
        if step.out is None or not is_run_folder(step.out):
            return ()
        # A --force run that was killed before it wrote anything cannot be resumed.
        lost = has_replaced_run(step.out) and has_no_output(step.out)
        return ("--resume",) if state == "unfinished" and step.resumes and not lost else ("--force",)

    def note(self, step: PipelineStep, finished: bool) -> None:
        """Record that a step started or finished."""
        self._steps[step.name] = {"line": step.command_line(), "finished": finished}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, to_json(self._steps))


def plan_pipeline(pipeline: Pipeline, record: PipelineRecord) -> Iterator[tuple[PipelineStep, State]]:
    """Every step with the state that it would have if all unfinished steps ran now."""
    rerun: set[str] = set()
    for step in pipeline.steps:
        state = record.state(step, rerun)
        if state != "done":
            rerun.add(step.name)
        yield step, state
