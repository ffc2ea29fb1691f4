"""Runs a cleaning phase on this machine, on a Ray cluster or under Slurm, with datatrove's executors."""

import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from zhllama.corpus import workers
from zhllama.errors import OptionError, OutputError, ZhllamaError
from zhllama.extras import require
from zhllama.io.files import RESUME_ROOM, RESUME_WRITABLE, remedy_of_writing

Where = Literal["local", "ray", "slurm"]
Advance = Callable[[int], None]  # called with the number of finished tasks


@dataclass(frozen=True)
class Machines:
    """Where the tasks run, how many at once, and the options of Slurm."""

    where: Where = "local"
    workers: int = 2
    memory_gb: int = 2
    partition: str = ""
    time: str = "24:00:00"

    def check(self) -> None:
        """Check that the executor can start, before any work. Errors: OptionError, MissingPackage."""
        if self.where == "slurm" and not self.partition:
            raise OptionError("executor slurm", "needs `partition`", "Give a partition; sinfo lists them")
        if self.where == "slurm" and shutil.which("sbatch") is None:
            raise OptionError(
                "executor slurm", "did not find sbatch", "Run it on a login node of the cluster"
            )
        if self.where == "ray":
            require("`executor` ray", "ray")


@dataclass(frozen=True)
class Phase:
    """One pipeline that runs as `tasks` independent tasks; a finished task writes a mark to `logs`/completions.

    small: run many tasks in one job where jobs are expensive; a Ray actor takes seconds to start.
    """

    name: str
    pipeline: Sequence[Any]
    tasks: int
    logs: Path
    small: bool = False

    def done(self) -> int:
        """The number of finished tasks."""
        marks = self.logs / "completions"
        return len(list(marks.iterdir())) if marks.is_dir() else 0


def run_phases(phases: Sequence[Phase], machines: Machines, advance: Advance) -> bool:
    """Run the unfinished tasks of each phase in turn; True if all are finished, False if Slurm has queued them.

    Errors: OutputError if a task failed.
    """
    workers.quiet()
    if machines.where == "slurm":
        return _slurm(phases, machines)
    with _counting(phases, advance):
        if machines.where == "ray":
            with _ray(machines):
                _run_each(phases, machines)
        else:
            workers.run_apart(partial(_run_each, phases, machines))
    return True


def _run_each(phases: Sequence[Phase], machines: Machines) -> None:
    for phase in phases:
        try:
            _executor(phase, machines).run()
        except ZhllamaError:
            raise
        except OSError as error:
            remedy = remedy_of_writing(error, RESUME_WRITABLE, RESUME_ROOM)
            raise OutputError(error.filename or phase.logs, f"{error.strerror or error}", remedy) from error
        if phase.done() < phase.tasks:
            message = f"{phase.tasks - phase.done()} of {phase.tasks} tasks of {phase.name} failed"
            raise OutputError(phase.logs / "logs", message, "See the reason there, then give `resume`")


def _executor(phase: Phase, machines: Machines) -> Any:
    if machines.where == "ray":
        from datatrove.executor import RayPipelineExecutor

        return RayPipelineExecutor(
            list(phase.pipeline),
            tasks=phase.tasks,
            workers=machines.workers,
            mem_per_cpu_gb=machines.memory_gb,
            tasks_per_job=-(-phase.tasks // machines.workers) if phase.small else 1,
            logging_dir=str(phase.logs),
        )
    from datatrove.executor import LocalPipelineExecutor

    return LocalPipelineExecutor(
        list(phase.pipeline),
        tasks=phase.tasks,
        workers=min(machines.workers, phase.tasks),
        logging_dir=str(phase.logs),
        start_method="fork",  # what `workers.run_apart` has imported is shared by all workers
    )


def _slurm(phases: Sequence[Phase], machines: Machines) -> bool:
    """Queue the unfinished phases, each after the one before it."""
    from datatrove.executor import SlurmPipelineExecutor

    before: Any = None
    for phase in phases:
        if phase.done() == phase.tasks:
            continue
        before = SlurmPipelineExecutor(
            list(phase.pipeline),
            tasks=phase.tasks,
            workers=machines.workers,
            time=machines.time,
            partition=machines.partition,
            mem_per_cpu_gb=machines.memory_gb,
            job_name=f"zhllama-{phase.name}",
            qos="",
            env_command=f"export PATH={Path(sys.executable).parent}:$PATH",
            logging_dir=str(phase.logs),
            depends=before,
        )
        # Launched before the next one is built, which needs its job id.
        before.run()
    return all(phase.done() == phase.tasks for phase in phases)


@contextmanager
def _ray(machines: Machines) -> Iterator[None]:
    """Connect to the cluster of RAY_ADDRESS, or start one on this machine."""
    import ray

    started = not ray.is_initialized()
    if started:
        own: dict[str, Any] = {"num_cpus": machines.workers, "include_dashboard": False}
        options = {} if os.environ.get("RAY_ADDRESS") else own
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except Exception as error:  # Ray raises many kinds
            message = f"cannot start or reach Ray ({' '.join(str(error).split())[:200]})"
            raise OptionError("executor ray", message, "See `ray status` and RAY_ADDRESS") from error
    try:
        yield
    finally:
        if started:
            ray.shutdown()


@contextmanager
def _counting(phases: Sequence[Phase], advance: Advance) -> Iterator[None]:
    """Report the number of finished tasks while the executor runs, which does not report it."""
    stop = threading.Event()

    def count() -> None:
        while not stop.wait(0.5):
            with suppress(OSError):
                advance(sum(phase.done() for phase in phases))

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    advance(sum(phase.done() for phase in phases))
