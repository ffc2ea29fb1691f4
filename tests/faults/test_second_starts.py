"""A second start on a folder that is at work, with any flag: refused in one line, and not one file is touched."""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.faults.world import COMMANDS, products
from tests.model_toys import line

Tree = dict[str, bytes]
FLAGS = ("", "--resume", "--force")


def tree(folder: Path) -> Tree:
    """Every file of a folder, the lock included, by its content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def check_second_starts(world: Path, name: str, out: Path) -> int:
    """Start the command on its folder with every flag that it has; how many starts there were."""
    before = tree(out)
    assert before
    flags = [flag for flag in FLAGS if flag != "--resume" or COMMANDS[name].resumes]
    for flag in flags:
        told = line(world, *COMMANDS[name].line(out, *([flag] if flag else [])))
        last = told.err.splitlines()[-1]
        assert told.code == 1 and last.startswith(f"zhllama: {out}: another run is writing here"), told.err
        assert tree(out) == before, (name, flag)
    return len(flags)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Another process has the folder's lock."""
    import fcntl

    ready, written = os.pipe()
    child = os.fork()
    if child == 0:
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.write(written, b"1")
        signal.pause()
    os.read(ready, 1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(written)


HELD = ("journal.jsonl", "log.jsonl", "checkpoints/checkpoint-2/trained.safetensors", "work/plan.json", "documents/00000.jsonl",
        ".rejected.jsonl.part", ".report.html.abcd1234", ".replaced/journal.jsonl", ".replaced/manifest.json")  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("begun", ["unfinished", "finished", "no config yet"])
def test_a_folder_that_another_process_holds(world: Path, tmp_path: Path, name: str, begun: str) -> None:
    out = tmp_path / "run"
    out.mkdir()
    if begun != "no config yet":
        (out / "config.yaml").write_text(f"command: {name}\n", encoding="utf-8")
        for file in (*HELD, *(["manifest.json"] if begun == "finished" else [])):
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            (out / file).write_text(f"paid for: {file}", encoding="utf-8")
    with locked(out):
        check_second_starts(world, name, out)


def family(process: int) -> list[int]:
    """A process and all that it has started, in whatever session."""
    found = [process]
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # ended meanwhile
            found += [one for child in task.read_text(encoding="ascii").split() for one in family(int(child))]
    return found


def send(process: int, number: signal.Signals) -> None:
    for one in family(process):
        with suppress(ProcessLookupError):
            os.kill(one, number)


@contextmanager
def at_work(world: Path, name: str, out: Path, chance: random.Random) -> Iterator[int]:
    """The command in a process of its own, stopped by SIGSTOP somewhere between its start and its end."""
    for attempt in range(20):
        child = os.fork()
        if child == 0:
            os.setsid()
            os._exit(line(world, *COMMANDS[name].line(out)).code)
        while not (out / "config.yaml").exists():
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.5 / (attempt + 1)))
        for _ in range(2):  # again for what was started meanwhile, by a parent that now starts no more
            send(child, signal.SIGSTOP)
        time.sleep(0.05)
        if not (out / "manifest.json").exists() and (out / "config.yaml").exists():
            try:
                yield child
            finally:
                send(child, signal.SIGCONT)
            return
        send(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for path in sorted(out.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        out.rmdir()
    pytest.fail(f"{name} was never caught at work")


def check_at_work(world: Path, tmp_path: Path, name: str, seed: int) -> int:
    """Second starts beside a real first process, which then makes what an undisturbed one makes."""
    whole, out = tmp_path / "whole", tmp_path / "run"
    if not whole.exists():
        told = line(world, *COMMANDS[name].line(whole))
        assert told.code == 0, told.err
    with at_work(world, name, out, random.Random(seed)) as child:
        starts = check_second_starts(world, name, out)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert products(out) == products(whole)
    return starts


@pytest.mark.parametrize("name", ["pretrain", "gen-zh"])
def test_a_folder_at_work(world: Path, tmp_path: Path, name: str) -> None:
    assert check_at_work(world, tmp_path, name, seed=0) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_at_work_of_every_command(world: Path, tmp_path: Path, name: str) -> None:
    """At least 100 starts over all commands."""
    for seed in range(2):
        check_at_work(world, tmp_path, name, seed)
        (tmp_path / "run").rename(tmp_path / f"run-{seed}")


@pytest.mark.parametrize("flag", ["--resume", "--force"])
def test_a_start_that_fails_leaves_an_unfinished_run_as_it_was(
    world: Path, tmp_path: Path, flag: str
) -> None:
    """The server is gone: nothing is asked, and what was paid for before stays."""
    out = tmp_path / "run"
    told = line(world, *COMMANDS["gen-zh"].line(out))
    assert told.code == 0, told.err
    (out / "manifest.json").unlink()
    for name in ("journal.jsonl", "raw_replies.jsonl"):  # the other replies were never sent
        (out / name).write_bytes((out / name).read_bytes().split(b"\n")[0] + b"\n")
    before = tree(out)
    (tmp_path / "gone.yaml").write_text(
        "base_url: ['http://127.0.0.1:9/v1']\nmodel: fake\n", encoding="utf-8"
    )
    told = line(world, "gen-zh", "--config", tmp_path / "gone.yaml", "--n", "40", "--out", out, flag)
    assert told.code == 1 and "internal error" not in told.err, told.err
    after = tree(out)
    assert after["journal.jsonl"] == before["journal.jsonl"] and after["config.yaml"] == before["config.yaml"]
