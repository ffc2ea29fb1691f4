"""One phase of cleaning on this machine, on a Ray cluster or under Slurm, through datatrove's executors."""

import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from zhllama.corpus import workers
from zhllama.errors import MissingPackage, OptionError, OutputError, ZhllamaError

Where = Literal["local", "ray", "slurm"]
Advance = Callable[[int], None]  # told how many tasks are done


@dataclass(frozen=True)
class Machines:
    """Where the tasks run: how many at once, and what Slurm must know."""

    where: Where = "local"
    workers: int = 2
    memory_gb: int = 2
    partition: str = ""
    time: str = "24:00:00"

    def check(self) -> None:
        """Refuse what cannot start, before any work. Errors: OptionError, MissingPackage."""
        if self.where == "slurm" and not self.partition:
            raise OptionError("executor slurm", "needs `partition`", "Name a partition; sinfo lists them")
        if self.where == "slurm" and shutil.which("sbatch") is None:
            raise OptionError(
                "executor slurm", "finds no sbatch here", "Run it on a login node of the cluster"
            )
        if self.where == "ray":
            try:
                import ray  # noqa: F401
            except ImportError:
                raise MissingPackage("--executor ray", "ray", "ray") from None


@dataclass(frozen=True)
class Phase:
    """One pipeline that runs as `tasks` independent tasks; a finished task leaves a mark under `logs`/completions.

    `small` tasks go many to a job where a job is dear: a Ray actor costs seconds to start.
    """

    name: str
    pipeline: Sequence[Any]
    tasks: int
    logs: Path
    small: bool = False

    def done(self) -> int:
        """How many tasks are finished."""
        marks = self.logs / "completions"
        return len(list(marks.iterdir())) if marks.is_dir() else 0


def run_phases(phases: Sequence[Phase], machines: Machines, advance: Advance) -> bool:
    """Run what is unfinished of each phase in turn; True when all is done, False when Slurm has it in its queue.

    Errors: OutputError when a task failed.
    """
    workers.quiet()
    if machines.where == "slurm":
        return _slurm(phases, machines)
    with _ray(machines) if machines.where == "ray" else _forkserver():
        before = 0
        for phase in phases:
            with _counting(phase, before, advance):
                try:
                    _executor(phase, machines).run()
                except ZhllamaError:
                    raise
                except OSError as error:
                    raise OutputError(
                        error.filename or phase.logs,
                        f"{error.strerror or error}",
                        "Free some room, then give --resume",
                    ) from error
            if phase.done() < phase.tasks:
                lost = f"{phase.tasks - phase.done()} of {phase.tasks} tasks of {phase.name} failed"
                raise OutputError(phase.logs / "logs", lost, "Read why there, then give --resume")
            before += phase.tasks
    return True


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
        # The first of them is launched before the second depends on it, so that each knows the job that it waits for.
        before.run()
    return all(phase.done() == phase.tasks for phase in phases)


@contextmanager
def _forkserver() -> Iterator[None]:
    """datatrove's pool and its manager start from a fork server that has the pipeline loaded.

    A plain fork would carry the lock of the run folder into the manager, which lives on when this process is killed.
    """
    import multiprocess  # type: ignore[import-untyped]

    before = multiprocess.get_start_method(allow_none=True)
    multiprocess.set_forkserver_preload(["zhllama.corpus.preload"])
    multiprocess.set_start_method("forkserver", force=True)
    try:
        yield
    finally:
        multiprocess.set_start_method(before, force=True)


@contextmanager
def _ray(machines: Machines) -> Iterator[None]:
    """The cluster that RAY_ADDRESS names, or one of this machine's own."""
    import ray

    started = not ray.is_initialized()
    if started:
        own: dict[str, Any] = {"num_cpus": machines.workers, "include_dashboard": False}
        given = {} if os.environ.get("RAY_ADDRESS") else own
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **given)
        except Exception as error:  # Ray raises plain ones
            told = f"cannot start or reach Ray ({' '.join(str(error).split())[:200]})"
            raise OptionError("executor ray", told, "See `ray status` and RAY_ADDRESS") from error
    try:
        yield
    finally:
        if started:
            ray.shutdown()


@contextmanager
def _counting(phase: Phase, before: int, advance: Advance) -> Iterator[None]:
    """Tell how many tasks are done while the executor, which does not tell, is at work."""
    stop = threading.Event()

    def count() -> None:
        while not stop.wait(0.5):
            with suppress(OSError):
                advance(before + phase.done())

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    advance(before + phase.done())
