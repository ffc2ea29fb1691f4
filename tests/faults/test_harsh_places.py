"""Commands that are stopped by Ctrl-C, lose their folder, find a full disk, few file handles, or no home."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.world import COMMANDS, products
from tests.model_toys import Told, line

SOME = ("corpus clean", "merge-vocab", "pack")  # in every suite; the others are slow
Wait = Callable[[], Told]


def start(
    world: Path, name: str, out: Path, told_in: Path, first: Callable[[], object] = int
) -> tuple[int, Wait]:
    """A command in a forked process that calls `first` before; its id, and what waits for its end."""
    child = os.fork()
    if child == 0:
        first()
        told = line(world, *COMMANDS[name].line(out))
        told_in.write_text(told.err, encoding="utf-8")
        os._exit(told.code)

    def wait() -> Told:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return Told(code, "", told_in.read_text(encoding="utf-8"))

    return child, wait


def until_begun(out: Path) -> None:
    while not (out / "config.yaml").exists():
        time.sleep(0.002)


def until_signals_are_caught(child: int) -> None:
    """`advise` writes nothing before its result: it has begun when SIGTERM has a handler, which pytest does not set."""
    caught = 0
    while not caught & 1 << (signal.SIGTERM - 1):
        status = Path(f"/proc/{child}/status").read_text(encoding="utf-8")
        caught = int(status.partition("SigCgt:")[2].split()[0], 16)
        time.sleep(0.002)


LONGER = {
    "pack": 400,
    "advise": 100,
    "corpus fetch": 2000,
    "sharegpt split": 400,
}  # times the text and the conversations


def longer_work(world: Path, folder: Path, times: int) -> Path:
    """The world with more text and conversations, for commands that otherwise end within some milliseconds."""
    for name in ("base", "bigger"):
        shutil.copytree(world / name, folder / name)
    text = (world / "text.txt").read_text(encoding="utf-8")
    (folder / "text.txt").write_text(text * times, encoding="utf-8")
    talks = (world / "talks.json").read_text(encoding="utf-8").strip()[1:-1]
    (folder / "talks.json").write_text(f"[{','.join([talks] * times)}]", encoding="utf-8")
    return folder


def one_line(told: Told) -> str:
    """The last line, which is the only one that reports how the command ended; warnings may come before it."""
    last = told.err.splitlines()[-1]
    assert last.startswith("zhllama: ") and told.err.count("zhllama: stopped") < 2, told.err
    assert "Traceback" not in told.err and "internal error" not in told.err, told.err
    return last


def some_and_slow(some: tuple[str, ...]) -> list[object]:
    return [name if name in some else pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS]


@pytest.mark.parametrize("name", some_and_slow(("pretrain", "gen-zh", "corpus clean")))
def test_ctrl_c(world: Path, tmp_path: Path, name: str) -> None:
    """As a terminal sends it: to the command and to every process that it has started."""
    out, caught = tmp_path / "run", 0
    if name in LONGER:
        world = longer_work(world, tmp_path, LONGER[name])
    for seed in range(12):
        if seed > 2 and caught:
            break  # the further and earlier moments are for commands that are done in a tenth of a second
        child, wait = start(world, name, out, tmp_path / "err", os.setsid)
        until_signals_are_caught(child) if name == "advise" else until_begun(out)
        time.sleep(random.Random(seed).uniform(0, 0.3 / max(1, seed - 1) ** 2))
        os.killpg(child, signal.SIGINT)
        told = wait()
        assert told.code in (0, 130), told.err
        if told.code == 130:
            caught += 1
            assert one_line(told) == "zhllama: stopped. Finished results are kept."
        shutil.rmtree(out, ignore_errors=True)
    assert caught, "it always was quicker"


@pytest.mark.parametrize("name", some_and_slow(SOME))
def test_a_folder_removed_while_running(world: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "run"
    for seed in range(3):
        _, wait = start(world, name, out, tmp_path / "err")
        until_begun(out)
        time.sleep(random.Random(seed).uniform(0, 0.1))
        out.rename(tmp_path / "gone")  # a removal would leave what is written while it goes on
        shutil.rmtree(tmp_path / "gone")
        told = wait()
        assert told.code in (0, 1), told.err
        if told.code == 1:
            assert str(out) in one_line(told), told.err
        else:
            assert not (out / "manifest.json").exists(), "it was finished before its folder went"
        shutil.rmtree(out, ignore_errors=True)


@pytest.mark.parametrize("name", some_and_slow(SOME))
def test_with_sixty_four_file_handles(world: Path, tmp_path: Path, name: str) -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    assert line(world, *COMMANDS[name].line(tmp_path / "whole")).code == 0
    # A process of its own: a fork of this one would share its fork server, which is not its child.
    words = [sys.executable, "-m", "zhllama", *COMMANDS[name].line(tmp_path / "run")]
    result = subprocess.run(words, cwd=world, capture_output=True, text=True, preexec_fn=few)
    assert result.returncode == 0, result.stderr
    assert products(tmp_path / "run") == products(tmp_path / "whole")


@pytest.mark.parametrize("home", ["/proc/nowhere", "read-only", None])
@pytest.mark.parametrize("name", some_and_slow(("pack",)))
def test_without_a_home_to_write_in(world: Path, tmp_path: Path, name: str, home: str | None) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "HOME" and not k.startswith("XDG_")}
    if home == "read-only":
        (tmp_path / "home").mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=4k,ro", "tmpfs", str(tmp_path / "home")]
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("no right to mount a small tmpfs")
    environment |= {} if home is None else {"HOME": str(tmp_path / "home") if home == "read-only" else home}
    words = [sys.executable, "-m", "zhllama", *COMMANDS[name].line(tmp_path / "run")]
    try:
        told = subprocess.run(words, cwd=world, env=environment, capture_output=True, text=True)
    finally:
        subprocess.run(["umount", "-l", tmp_path / "home"], capture_output=True)
    assert told.returncode == 0, told.stderr
    assert (tmp_path / "run" / "manifest.json").is_file()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A disk of so many KiB, which grows by and by."""
    place = tmp_path / "disk"
    place.mkdir()

    def of(size: int) -> Path:
        options = f"{'remount,' if place.is_mount() else ''}size={size}k"
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True
        ).returncode:
            pytest.skip("no right to mount a small tmpfs")
        return place

    yield of
    subprocess.run(["umount", "-l", place], check=True)


SIZES = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 8192)


@pytest.mark.parametrize("name", some_and_slow(("merge-vocab", "sharegpt clean", "refilter")))
def test_disks_of_many_sizes(world: Path, tmp_path: Path, disk: Callable[[int], Path], name: str) -> None:
    """Too small ones are told in one line; when it fits at last, the product is that of an undisturbed run."""
    assert line(world, *COMMANDS[name].line(tmp_path / "whole")).code == 0
    tried = 0
    for size in SIZES:
        out = disk(size) / "run"
        again = COMMANDS[name].resumes and out.exists()
        told = line(world, *COMMANDS[name].line(out, *(["--resume"] if again else [])))
        if told.code == 0:
            assert products(out) == products(tmp_path / "whole")
            break
        tried += 1
        assert told.code == 1 and not (out / "manifest.json").exists()
        assert one_line(told).startswith(f"zhllama: {disk(size)}"), told.err
        assert COMMANDS[name].resumes or not out.exists()
    else:
        pytest.fail("it fits no disk")
    assert tried >= 1
