"""Every command that writes: stopped at any moment, without a place to write, and on a full disk."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.world import COMMANDS, Command, products
from tests.model_toys import line
from zhllama.run_folder import SPENT

# The others are tried beside a second start alone (test_second_starts.py): not yet stopped at random, or on a full disk.
NAMES = [
    name
    for name in COMMANDS
    if name not in ("reward", "dpo", "answer", "judge", "gen-zh", "refilter", "advise", "corpus fetch")
]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def stopped(world: Path, words: tuple[str, ...], number: int, after: float) -> int:
    """Run a command line in a child, send it a signal; what it ended with, negative for a signal."""
    child = os.fork()
    if child == 0:
        os._exit(line(world, *words).code)
    time.sleep(after)
    os.kill(child, number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def check_stops(
    world: Path,
    tmp_path: Path,
    command: Command,
    stops: int,
    seed: int,
    signals: tuple[signal.Signals, ...] = SIGNALS,
) -> None:
    """However often and wherever it is stopped, it then makes what an undisturbed run makes."""
    chance = random.Random(seed)
    begun = time.monotonic()
    told = line(world, *command.line(tmp_path / "whole"))
    taken = time.monotonic() - begun
    assert told.code == 0, told.err
    out = tmp_path / "stopped"
    for n in range(stops):
        number = signals[n % len(signals)]
        code = stopped(world, command.again(out), number, chance.uniform(0, taken))
        assert code in (0, 1, -number, 128 + number), (command, code)
        if code == 0:  # it was quicker than the signal
            shutil.rmtree(out)
    told = line(world, *command.again(out))
    assert told.code == 0, told.err
    assert products(out) == products(tmp_path / "whole")
    assert not [p for p in out.rglob(".*") if p.name != ".lock"], "something half is left"


@pytest.mark.parametrize("name", NAMES)
def test_stopped(world: Path, tmp_path: Path, name: str) -> None:
    check_stops(world, tmp_path, COMMANDS[name], stops=3, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_stopped_thirty_times(world: Path, tmp_path: Path, name: str) -> None:
    check_stops(world, tmp_path, COMMANDS[name], stops=30, seed=1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("out", ["/proc/nowhere", "/dev/null", "/dev/null/x"])
def test_nowhere_to_write(world: Path, name: str, out: str) -> None:
    told = line(world, *COMMANDS[name].line(Path(out)))
    assert told.code == 1, told.err
    assert told.err.splitlines()[-1].startswith("zhllama: ") and "Traceback" not in told.err


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 48 KB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", place], capture_output=True
    ).returncode:
        pytest.skip("no right to mount a small tmpfs")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


FITS = {"train-vocab", "pack", "sharegpt clean", "sharegpt split"}  # their products are smaller than the disk


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FITS])
def test_full_disk(world: Path, disk: Path, name: str) -> None:
    told = line(world, *COMMANDS[name].line(disk / "run"))
    assert told.code == 1, told.out
    assert told.err.splitlines()[-1].startswith("zhllama: ") and "internal error" not in told.err, told.err
    assert not (disk / "run" / "manifest.json").exists()
    assert not [p for p in (disk / "run").rglob(".*") if p.name not in (".lock", SPENT)]
    subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
    told = line(world, *COMMANDS[name].again(disk / "run"))
    assert told.code == 0, told.err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["corpus clean", "pack"])
def test_killed_forty_times(world: Path, tmp_path: Path, name: str) -> None:
    check_stops(world, tmp_path, COMMANDS[name], stops=40, seed=2, signals=(signal.SIGKILL,))
