"""The commands `run`, `lineage` and `demo`."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.segment import Segment, Segments
from rich.text import Text
from rich.tree import Tree
from typer.core import TyperGroup

from zhllama.commands.shared import AsJson, note, print_json, say, screen
from zhllama.errors import InputError, OptionError, ZhllamaError
from zhllama.lineage import Ancestor
from zhllama.lineage import lineage as trace
from zhllama.manifest import read_manifest
from zhllama.pipeline import Pipeline, PipelineRecord, PipelineStep, plan_pipeline, read_pipeline

WIDE = 10_000  # columns of a tree: more than any path has
LINES = Path(__file__).parent.parent / "recipes" / "lines"


def run(
    line: Annotated[str, typer.Argument(help="A YAML file, or a shipped line by name.", show_default=False)],
    given: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE for one of the line's values.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of all steps; else what the line says.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all steps, show their command lines, run none.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make the steps of a line one after another; steps that stand already are skipped.

    A step is made anew when its options, its inputs or a step that it reads from have changed; one that was killed goes on.
    Shipped lines: chinese-llama-7b, llama-3-8b, qwen, cpu-trial, demo.
    """
    held = load(line, given or [], out)
    record = PipelineRecord(held)
    if dry_run:
        _show_plan(held, record, as_json)
        return
    make(held, record)
    if as_json:
        print_json(
            {"out": str(held.out), "steps": {s.name: str(s.out) if s.out else None for s in held.steps}}
        )


def lineage(
    folder: Annotated[Path, typer.Argument(help="A finished run.", metavar="RUN", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Draw what a run was made from: the runs before it, their figures, and the files that nobody here made."""
    found = trace(folder)
    print_json(found.as_json()) if as_json else _draw(found)


def load(line: str, given: Sequence[str], out: Path | None) -> Pipeline:
    """A line by file or shipped name, with NAME=VALUE pairs set."""
    from zhllama.cli import app

    values: dict[str, str] = {}
    for pair in given:
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
        raise InputError(line, "is neither a .yaml file nor a shipped line", f"Shipped are: {known}")
    return path


def make(
    line: Pipeline,
    record: PipelineRecord,
    before: Mapping[str, str] | None = None,
    after: Callable[[PipelineStep], None] | None = None,
) -> None:
    """Run every step that does not stand; `before` is what to say before some of them, `after` is told of each.

    Errors: ZhllamaError that names the step which failed.
    """
    remade: set[str] = set()
    for number, step in enumerate(line.steps, 1):
        state = record.state(step, remade)
        title = f"[{number}/{len(line.steps)}] {step.name}"
        if state == "done":
            note(f"{title}: stands already", "dim")
            if after:
                after(step)
            continue
        if before and step.name in before:
            note(f"\n{before[step.name]}", "bold")
        words = step.command_line(*record.restart_flags(step, state))
        note(f"{title}: zhllama {' '.join(words)}", "cyan")
        record.note(step, finished=False)
        begun = time.monotonic()
        code = _wait_for([sys.executable, "-P", "-m", "zhllama", *words])
        if code:
            raise ZhllamaError(
                step.where,
                f"step {step.name!r} ended with {code}",
                "Mend it and run the line again: it goes on there",
            )
        record.note(step, finished=True)
        remade.add(step.name)
        note(f"{title}: done in {time.monotonic() - begun:.0f} s", "dim")
        if after:
            after(step)


def _wait_for(words: Sequence[str]) -> int:
    """Run a step as a process of its own, so that its memory goes with it; one that we must leave is stopped first."""
    sys.stdout.flush()
    process = subprocess.Popen(words)
    try:
        return process.wait()
    except BaseException:
        process.send_signal(signal.SIGTERM)
        process.wait()
        raise


def _show_plan(line: Pipeline, record: PipelineRecord, as_json: bool) -> None:
    planned = list(plan_pipeline(line, record))
    if as_json:
        print_json({"out": str(line.out), "steps": [_as_json(step, state) for step, state in planned]})
        return
    width = max(len(step.name) for step, _ in planned)
    for step, state in planned:
        words = " ".join(("zhllama", *step.command_line()))
        say(f"{step.name:<{width}}  {state:<10}  {words}")


def _as_json(step: PipelineStep, state: str) -> dict[str, Any]:
    return {"name": step.name, "state": state, "command": step.command_line()}


def _draw(found: Ancestor) -> None:
    """The tree on stdout; a path is longer than a line often enough, and is not folded."""
    tree = Tree(_told(found))
    _grow(tree, found)
    for row in screen.render_lines(tree, screen.options.update(width=WIDE), pad=False):
        screen.print(Segments([*row, Segment.line()]), crop=False)


def _grow(tree: Tree, found: Ancestor) -> None:
    for parent in found.parents:
        _grow(tree.add(_told(parent)), parent)
    for folder, held in groupby(found.files, key=lambda path: path.parent):
        paths = list(held)
        if len(paths) > 3:
            tree.add(_styled(f"{_short(folder)}: {len(paths)} files", "dim"))
        else:
            for path in paths:
                tree.add(_styled(_short(path), "dim"))
    for path in found.changed:
        tree.add(_styled(f"{_short(path)} has changed since, or is gone", "yellow"))


def _short(path: Path) -> str:
    """A path from here, if it lies below."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _styled(text: str, style: str) -> Text:
    return screen.render_str(text, style=style)


def _told(found: Ancestor) -> Text:
    figures = [
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value:.4g}"
        for name, value in found.figures.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    measured = "(as above)" if found.again else ", ".join([*figures[:4], f"{found.seconds:,.0f} s"])
    return Text("  ").join(
        (_styled(found.command, "bold"), _styled(_short(found.folder), ""), _styled(measured, "dim"))
    )


NEXT = """
The same for a model of your own:
  zhllama advise --base YOUR_MODEL --text YOUR_TEXT                 whether to extend, and how far
  zhllama run chinese-llama-7b --dry-run                            the published line, step by step
  zhllama run llama-3-8b --set model=PATH --set zh=TEXT --set en=TEXT"""


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for all of it.")] = Path("runs/demo"),
) -> None:
    """Run the whole line at toy size on this machine: no model file, no network, no GPU; a few minutes.

    Ctrl-C stops it, and the same command goes on.
    """
    from zhllama.demo import STEP_NOTES, proof_summary, two_layer_model

    note("A two-layer model with the embedded 32,000 pieces.", "bold")
    model = two_layer_model(out / "model")
    held = load("demo", [f"model={model}"], out)

    def after(step: PipelineStep) -> None:
        if step.out and (told := proof_summary(step.name, read_manifest(step.out)["figures"])):
            note(f"  proved: {told}", "green")

    make(held, PipelineRecord(held), STEP_NOTES, after)
    last = next(step.out for step in reversed(held.steps) if step.out)
    note("\nAll of it, traced back:", "bold")
    _draw(trace(last))
    say(NEXT)
