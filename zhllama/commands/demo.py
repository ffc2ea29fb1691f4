"""The command `demo`, which runs the whole pipeline at toy size."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from zhllama.commands.lineage import draw
from zhllama.commands.run import load, run_steps
from zhllama.commands.shared import note, say, screen
from zhllama.commands.translation import translated
from zhllama.extras import program, require
from zhllama.lineage import lineage as trace
from zhllama.manifest import read_manifest
from zhllama.pipeline import PipelineRecord, PipelineStep

TUTORIAL = "https://github.com/zhllama/zhllama/blob/main/docs/tutorial.md"
PAGES = {"page": "both vocabularies, text by text", "tuned": "the curves of fine-tuning"}
# What to do next: commands that work as they stand, and what each shows.
NEXT = {
    "chat {out}/plain": "talk with the result; a model of two layers babbles",
    "audit {out}/vocab": "prove the vocabulary again",
    "lineage {out}/plain": "all that the result was made from",
    "run chinese-llama-7b --dry-run": "the published pipeline for a 7B model, step by step",
}


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for all of it.", readable=False)] = Path(
        "runs/demo"
    ),
) -> None:
    """Run the whole pipeline at toy size on this machine: no model file, no network, no GPU; a few minutes.

    Ctrl-C stops it, and the same command resumes it.
    """
    require("demo", "train", "demo")
    from zhllama.demo import STEP_NOTES, proofs, two_layer_model

    note("A two-layer model with the embedded 32,000 pieces.", "bold")
    model = two_layer_model(out / "model")
    pipeline = load("demo", [f"model={model}"], out)

    def after(step: PipelineStep) -> None:
        if step.out:
            for proof in proofs(step.name, read_manifest(step.out)["figures"]):
                note(f"  proved: {proof}", "green")

    run_steps(pipeline, PipelineRecord(pipeline), STEP_NOTES, after)
    last = next(step.out for step in reversed(pipeline.steps) if step.out)
    note("\nLineage of the result:", "bold")
    draw(trace(last))
    show_next(out)


def show_next(out: Path) -> None:
    """Print the pages to open and the commands to try, as they are typed in this shell."""
    say("\nPages for a browser:")
    for step in PAGES:
        say_row((out / step / "report.html").resolve().as_uri(), PAGES[step])
    say("Commands to try:")
    for command in NEXT:
        say_row(f"{program()} {command.format(out=shlex.quote(str(out)))}", NEXT[command])
    say(f"With a model of your own: {TUTORIAL}")


def say_row(left: str, shows: str) -> None:
    """Print a command or address and, as a comment, what it shows."""
    screen.print(f"  {left}  # {translated(shows)}", soft_wrap=True)
