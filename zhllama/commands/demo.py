"""The command `demo`, which runs the whole pipeline at toy size."""

from pathlib import Path
from typing import Annotated

import typer

from zhllama.commands.lineage import draw
from zhllama.commands.run import load, run_steps
from zhllama.commands.shared import note, say
from zhllama.extras import require
from zhllama.lineage import lineage as trace
from zhllama.manifest import read_manifest
from zhllama.pipeline import PipelineRecord, PipelineStep

NEXT = """
The same for a model of your own:
  zhllama advise --base YOUR_MODEL --text YOUR_TEXT                 whether to extend, and how far
  zhllama run chinese-llama-7b --dry-run                            the published pipeline, step by step
  zhllama run llama-3-8b --set model=PATH --set zh=TEXT --set en=TEXT"""


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for all of it.")] = Path("runs/demo"),
) -> None:
    """Run the whole pipeline at toy size on this machine: no model file, no network, no GPU; a few minutes.

    Ctrl-C stops it, and the same command resumes it.
    """
    require("demo", "train", "demo")
    from zhllama.demo import STEP_NOTES, proof_summary, two_layer_model

    note("A two-layer model with the embedded 32,000 pieces.", "bold")
    model = two_layer_model(out / "model")
    pipeline = load("demo", [f"model={model}"], out)

    def after(step: PipelineStep) -> None:
        if step.out and (proof := proof_summary(step.name, read_manifest(step.out)["figures"])):
            note(f"  proved: {proof}", "green")

    run_steps(pipeline, PipelineRecord(pipeline), STEP_NOTES, after)
    last = next(step.out for step in reversed(pipeline.steps) if step.out)
    note("\nLineage of the result:", "bold")
    draw(trace(last))
    say(NEXT)
