"""The processes of the local executor, in a session of their own: Ctrl-C does not reach them, and they end with the command."""

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import dill  # type: ignore[import-untyped]
import multiprocess  # type: ignore[import-untyped]  # multiprocessing with dill, since pipelines of datatrove do not pickle
from loguru import logger
from multiprocess import resource_tracker
from multiprocess.pool import Pool  # type: ignore[import-untyped]

from zhllama.errors import OutputError
from zhllama.signals import deferred_signals

REMEDY = "Give `resume`, with fewer `workers` if memory ran out"


def quiet() -> None:
    """Disable datatrove's log in this process and those forked from it.

    Its stats contain the same information, and errors reach the command. Under Ray and Slurm they do not, so the log
    stays enabled there.
    """
    logger.disable("datatrove")


def run_apart(work: Callable[[], None]) -> None:
    """Call `work`, which dill must be able to pickle, in a process that leads a session of its own.

    datatrove's manager, pool and tasks print tracebacks when a signal interrupts them or one of them ends before the others.
    Therefore signals reach this process alone, which then kills the whole group at once.
    Errors: whatever `work` raises; OutputError where a process of the group was killed.
    """
    spawn = multiprocess.get_context("spawn")
    receiving, sending = spawn.Pipe(duplex=False)
    leader = spawn.Process(target=_lead, args=(sending, work))
    try:
        resource_tracker.ensure_running()  # it unblocks signals when it starts with the first process
        with deferred_signals():
            leader.start()
        sending.close()
        error = _error_of(leader, receiving)
    finally:
        _kill_group(leader)
    if error is not None:
        raise error


def _error_of(leader: Any, receiving: Any) -> BaseException | None:
    """What `work` raised, or None once it has returned."""
    while not receiving.poll(0.2):
        # The process is left for `_kill_group` to wait for, so that its id stays that of the group.
        if os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) and not receiving.poll():
            return _killed()
    try:
        error: BaseException | None = receiving.recv()
    except EOFError:
        return _killed()
    return error


def _kill_group(leader: Any) -> None:
    if leader.pid is None:
        return
    with suppress(ProcessLookupError, PermissionError):  # it has not become a group yet: then it is alone
        os.killpg(leader.pid, signal.SIGKILL)
    leader.kill()
    leader.join()


def _killed() -> OutputError:
    return OutputError("a worker process", "was killed", REMEDY)


def _lead(sending: Any, work: Callable[[], None]) -> None:
    os.setsid()
    # SIGINT stays blocked; datatrove's manager is ended by SIGTERM.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    multiprocess.set_start_method("fork", force=True)  # for datatrove's manager
    _end_with_parent()
    import charset_normalizer  # noqa: F401  so that no worker imports it anew
    import orjson  # noqa: F401

    quiet()

    def end(error: BaseException | None) -> None:
        sending.send(error)
        signal.pause()  # until the other side ends the group

    def become_worker() -> None:
        threading.excepthook = threading.__excepthook__
        _end_with_parent()

    def leave_pool(pool: Any, kind: object, error: BaseException | None, trace: object) -> None:
        # `terminate`, which the pool would call here, waits forever for a lock that a worker had when it was ended.
        if error is not None:
            end(_sendable(error))
        pool.close()
        pool.join()

    os.register_at_fork(after_in_child=become_worker)
    Pool.__exit__ = leave_pool
    _watch_workers(end)
    # A thread of the pool that ends by an error leaves it waiting forever too.
    threading.excepthook = lambda failed: end(_sendable(failed.exc_value or RuntimeError(failed.exc_type)))
    try:
        work()
    except BaseException as error:
        end(_sendable(error))
    end(None)


def _sendable(error: BaseException) -> BaseException:
    """The error with its traceback as a note, or its text where it does not survive pickling."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        dill.loads(dill.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _end_with_parent() -> None:
    """After SIGKILL no process can stop its children: one that continued would write the files that a resumed run writes."""
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    os.killpg(0, signal.SIGKILL)


def _watch_workers(end: Callable[[BaseException], None]) -> None:
    """The pool would start another worker, and wait forever for the task of one that was killed or has crashed."""
    kind = multiprocess.get_context("fork").Process
    start, started = kind.start, []

    def start_watched(worker: Any) -> None:
        start(worker)
        started.append(worker)

    def watch() -> None:
        while not any(worker.exitcode not in (None, 0, -signal.SIGTERM) for worker in started):
            time.sleep(0.1)
        end(_killed())

    kind.start = start_watched
    threading.Thread(target=watch, daemon=True).start()
