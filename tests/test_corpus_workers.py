"""Tasks of the local executor that are killed, crash or raise: their command reports it and never waits forever."""

import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from zhllama import errors
from zhllama.corpus.workers import run_apart


class DoesNotUnpickle(Exception):
    """Built from two arguments, and pickled with one."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one)


def in_pool(task: Callable[[int], object]) -> None:
    from multiprocess import get_context

    with get_context("fork").Pool(2) as pool:
        list(pool.imap_unordered(task, range(4)))


def killed(number: int, task: int) -> None:
    if task == 2:
        os.kill(os.getpid(), number)
    time.sleep(0.01)


def exits(task: int) -> None:
    os._exit(3)


def raises(error: Exception, task: int) -> None:
    raise error


def missing(task: int) -> None:
    raise errors.MissingPackage("a", "b", "c")


def unpicklable(task: int) -> None:
    raise DoesNotUnpickle("one", "two")


@pytest.mark.parametrize("task", [partial(killed, signal.SIGKILL), partial(killed, signal.SIGSEGV), exits])
def test_a_worker_that_is_lost_is_reported(task: Callable[[int], object]) -> None:
    with pytest.raises(errors.OutputError, match=r"a worker process: was killed\. Give `resume`"):
        run_apart(partial(in_pool, task))


def test_the_leader_killed_is_reported() -> None:
    with pytest.raises(errors.OutputError, match="a worker process: was killed"):
        run_apart(partial(killed, signal.SIGKILL, 2))


@pytest.mark.parametrize(
    "error",
    [errors.InputError("a.txt:3", "is broken", "Mend it"), OSError(28, "No space left on device", "here")],
)
def test_an_error_comes_back(error: Exception) -> None:
    for work in (partial(in_pool, partial(raises, error)), partial(raises, error, 1)):
        with pytest.raises(type(error)) as found:
            run_apart(work)
        assert str(found.value) == str(error)
        assert "in raises" in "".join(found.value.__notes__), "the traceback is there for --debug"


def test_an_error_that_does_not_unpickle_is_no_hang() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        run_apart(partial(in_pool, unpicklable))
    with pytest.raises(RuntimeError, match="DoesNotUnpickle: one"):
        run_apart(partial(unpicklable, 1))
    with pytest.raises(errors.MissingPackage, match="a: needs the package b"):
        run_apart(partial(in_pool, missing))


def test_every_error_of_ours_survives_pickling() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    ours = [kind for kind in kinds if issubclass(kind, errors.ZhllamaError)]
    assert len(ours) >= 6
    for kind in ours:
        error = kind("where", "what", "remedy")
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind and str(again) == str(error) and vars(again) == vars(error)


def write_on(path: Path) -> None:
    def write() -> None:
        while True:
            path.write_text(str(time.monotonic()), encoding="utf-8")

    if os.fork() == 0:
        write()
    threading.Thread(target=write, daemon=True).start()
    while not path.exists():
        time.sleep(0.01)


def test_nothing_of_the_group_is_left(tmp_path: Path) -> None:
    run_apart(partial(write_on, tmp_path / "clock"))
    before = (tmp_path / "clock").read_text(encoding="utf-8")
    time.sleep(0.2)
    assert (tmp_path / "clock").read_text(encoding="utf-8") == before
