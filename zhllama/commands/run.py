"""The command `run`, which runs the steps of a pipeline."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.cells import cell_len
from typer.core import TyperGroup

from zhllama.commands.shared import AsJson, note, print_json, say
from zhllama.commands.table import app
from zhllama.commands.translation import translated
from zhllama.errors import InputError, OptionError, ZhllamaError
from zhllama.pipeline import Pipeline, PipelineRecord, PipelineStep, plan_pipeline, read_pipeline

LINES = Path(__file__).parent.parent / "recipes" / "lines"


def run(
    line: Annotated[
        str, typer.Argument(help="A YAML file, or a shipped pipeline by name.", show_default=False)
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE for one of the pipeline's values.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder of all steps; by default the pipeline's own.", readable=False
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check all steps and show their command lines without running them."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the steps of a pipeline one after another; finished steps are skipped.

    A step runs again when its options, its inputs or a step that it reads from have changed; a killed one is resumed.
    Shipped pipelines: chinese-llama-7b, llama-3-8b, qwen, cpu-trial, demo.
    """
    pipeline = load(line, settings or [], out)
    record = PipelineRecord(pipeline)
    if dry_run:
        _show_plan(pipeline, record, as_json)
        return
    run_steps(pipeline, record)
    if as_json:
        print_json(
            {
                "out": str(pipeline.out),
                "steps": {s.name: str(s.out) if s.out else None for s in pipeline.steps},
            }
        )


def load(line: str, settings: Sequence[str], out: Path | None) -> Pipeline:
    """Read a pipeline by file or shipped name, with NAME=VALUE pairs set."""
    values: dict[str, str] = {}
    for pair in settings:
        name, equals, value = pair.partition("=")
        if not equals:
            raise OptionError(f"--set {pair}", "has no value", "Write NAME=VALUE")
        values[name] = value
    commands = typer.main.get_command(app)
    assert isinstance(commands, TyperGroup)
    return read_pipeline(_find(line), commands, values, out)


def _find(line: str) -> Path:
    if Path(line).suffix in (".yaml", ".yml"):
        return Path(line)
    path = LINES / f"{line}.yaml"
    if Path(line).name != line or not path.is_file():
        known = ", ".join(sorted(p.stem for p in LINES.glob("*.yaml")))
        raise InputError(line, "is neither a .yaml file nor a shipped pipeline", f"Shipped are: {known}")
    return path


def run_steps(
    pipeline: Pipeline,
    record: PipelineRecord,
    before: Mapping[str, str] | None = None,
    after: Callable[[PipelineStep], None] | None = None,
) -> None:
    """Run every unfinished step; `before` has notes to print before some of them, `after` is called after each.

    Errors: ZhllamaError that names the failed step.
    """
    repeated: set[str] = set()
    for number, step in enumerate(pipeline.steps, 1):
        state = record.state(step, repeated)
        title = f"[{number}/{len(pipeline.steps)}] {step.name}"
        if state == "done":
            note(f"{title}: already finished", "dim")
            if after:
                after(step)
            continue
        if before and step.name in before:
            note(f"\n{before[step.name]}", "bold")
        words = step.command_line(*record.restart_flags(step, state))
        note(f"{title}: zhllama {' '.join(words)}", "cyan")
        record.note(step, finished=False)
        start = time.monotonic()
        code = _wait_for([sys.executable, "-P", "-m", "zhllama", *words])
        if code:
            raise ZhllamaError(
                step.where,
                f"step {step.name!r} ended with {code}",
                "Fix it and run the pipeline again: it resumes there",
            )
        record.note(step, finished=True)
        repeated.add(step.name)
        note(f"{title}: done in {time.monotonic() - start:.0f} s", "dim")
        if after:
            after(step)


def _wait_for(words: Sequence[str]) -> int:
    """Run a step in its own process, which frees its memory at the end; it is stopped before an exception propagates."""
    sys.stdout.flush()
    process = subprocess.Popen(words)
    try:
        return process.wait()
    except BaseException:
        process.send_signal(signal.SIGTERM)
        process.wait()
        raise


def _show_plan(pipeline: Pipeline, record: PipelineRecord, as_json: bool) -> None:
    planned = list(plan_pipeline(pipeline, record))
    if as_json:
        print_json({"out": str(pipeline.out), "steps": [_as_json(step, state) for step, state in planned]})
        return
    width = max(len(step.name) for step, _ in planned)
    states = max(cell_len(translated(state)) for _, state in planned)
    for step, state in planned:
        words = " ".join(("zhllama", *step.command_line()))
        said = translated(state)
        say(f"{step.name:<{width}}  {said}{' ' * (states - cell_len(said))}  {words}")


def _as_json(step: PipelineStep, state: str) -> dict[str, Any]:
    return {"name": step.name, "state": state, "command": step.command_line()}
