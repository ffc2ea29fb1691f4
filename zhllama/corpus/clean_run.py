"""Runs the cleaning of a corpus in a run folder: its inputs, the phases on the chosen machines, the page and the figures."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from zhllama.corpus import clean as pipeline
from zhllama.corpus.documents import Reading, find_inputs, split_files
from zhllama.corpus.executors import Machines, run_phases
from zhllama.corpus.sources import find_source
from zhllama.corpus.stats import collect_stats
from zhllama.errors import InputError
from zhllama.pages.cleaning import cleaning_page
from zhllama.run import Run
from zhllama.run_folder import MANIFEST


def clean_corpus(
    names: Sequence[str],
    reading: Reading,
    options: pipeline.CleaningOptions,
    machines: Machines,
    run: Run,
    progress: Callable[[str, float, str], AbstractContextManager[Any]],
) -> dict[str, Any] | None:
    """Clean files, folders or sources into `run.out`; return the figures, or None while Slurm has the phases queued.

    `run` is not open yet: its inputs are completed here. `progress(title, total, unit)` opens a progress bar.
    Errors: InputError for a remote source, and for other files than those of the start that is resumed.
    """
    inputs = find_inputs([_local_path(name) for name in names])
    shards = pipeline.shard(split_files(inputs, reading))
    pipeline.check_out(run.out)
    run.inputs = [*_with_manifests(names, inputs), *run.inputs]
    with run:
        phases = pipeline.phases(shards, reading, options, run.out)
        pipeline.keep_plan(run, shards)
        with progress("Cleaning", sum(phase.tasks for phase in phases), "parts") as bar:
            if not run_phases(phases, machines, bar.at):
                return None
        statistics = collect_stats(phases, run.out)
        run.write("report.html", cleaning_page(statistics, ", ".join(names)))
        pipeline.sweep(run.out)
        run.finish(statistics.figures())
        return statistics.figures()


def _local_path(name: str) -> str:
    """A path unchanged, or the folder of a local source; a remote source must be fetched first."""
    if Path(name).expanduser().exists() or any(character in name for character in "*?[/"):
        return name
    source = find_source(name)
    if source.kind != "local":
        raise InputError(
            name, "is not on this machine", f"Fetch it first: zhllama corpus fetch {name} --out FOLDER"
        )
    return source.place


def _with_manifests(names: Sequence[str], inputs: list[Path]) -> list[Path]:
    """The inputs, and the manifests of the runs that they come from."""
    manifests = [Path(name) / MANIFEST for name in names]
    return [*inputs, *(path for path in manifests if path.is_file() and path not in inputs)]
