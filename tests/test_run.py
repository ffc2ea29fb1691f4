"""A run folder is finished, unfinished or gone, and never a stranger's."""

import errno
import fcntl
import json
import multiprocessing
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from zhllama.errors import InputError, OutputError
from zhllama.manifest import check_outputs, read_config, read_manifest
from zhllama.run import Run
from zhllama.run_folder import Lock
from zhllama.start_time import STARTED

OPTIONS = {"size": 3, "text": [Path("a")]}


def finish(out: Path, **more: object) -> None:
    with Run(out, "demo", OPTIONS, **more) as run:  # type: ignore[arg-type]
        run.write("product.txt", "一")
        run.finish({"n": 1})


def test_config_products_manifest(tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("x", encoding="utf-8")
    finish(tmp_path / "out", inputs=[source], seed=7)
    assert read_config(tmp_path / "out") == {"command": "demo", "size": 3, "text": ["a"]}
    manifest = read_manifest(tmp_path / "out")
    assert manifest["inputs"][0]["sha256"].startswith("2d711642") and manifest["seed"] == 7
    assert set(manifest["outputs"]) == {"config.yaml", "product.txt"} and manifest["figures"] == {"n": 1}
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "config.yaml",
        "manifest.json",
        "product.txt",
    ]


def test_parents_are_the_runs_that_inputs_come_from(tmp_path: Path) -> None:
    finish(tmp_path / "one")
    finish(tmp_path / "two", inputs=[tmp_path / "one" / "product.txt"])
    assert read_manifest(tmp_path / "two")["parents"] == [str(tmp_path / "one")]


def test_finished_folder_needs_force(tmp_path: Path) -> None:
    finish(tmp_path)
    with pytest.raises(OutputError, match="contains a finished run"):
        finish(tmp_path)
    (tmp_path / "stale.txt").touch()
    finish(tmp_path, force=True)
    assert not (tmp_path / "stale.txt").exists()


def test_force_spares_strangers_and_inputs(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").touch()
    with pytest.raises(OutputError, match="do not belong to a zhllama run"):
        finish(tmp_path, force=True)
    finish(tmp_path / "run")
    with pytest.raises(OutputError, match="would remove the input"):
        finish(tmp_path / "run", force=True, inputs=[tmp_path / "run" / "product.txt"])


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), Run(tmp_path / "a" / "b", "demo", OPTIONS) as run:
        run.write("product.txt", "x")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_unfinished_goes_on_only_with_equal_options(tmp_path: Path) -> None:
    with pytest.raises(KeyError), Run(tmp_path, "demo", OPTIONS, resume=False) as run:
        run.write("part", "x")
        raise KeyError
    assert (tmp_path / "part").exists()
    with pytest.raises(OutputError, match="`resume` to continue"):
        Run(tmp_path, "demo", OPTIONS, resume=False).check()
    with pytest.raises(OutputError, match="size 3 → 4"):
        Run(tmp_path, "demo", OPTIONS | {"size": 4}, resume=True).check()
    with Run(tmp_path, "demo", OPTIONS, resume=True) as run:
        assert (tmp_path / "part").exists()
        run.finish()


def test_a_resumed_run_took_the_time_of_all_its_starts(tmp_path: Path) -> None:
    """50 seconds of a start that failed, 100 of one that was killed 100 seconds after it began, and the last start's."""
    began = STARTED.set(time.monotonic() - 50)
    with pytest.raises(KeyError), Run(tmp_path, "demo", OPTIONS, resume=False) as run:
        run.write("part", "x")
        raise KeyError
    STARTED.reset(began)
    STARTED.set(None)  # not that of a command which another test ran in this process
    lock = Lock(tmp_path)  # of a process that ends without releasing it
    lock.release(remove=False)
    os.utime(tmp_path / ".lock", (1e9, 1e9))
    for path in tmp_path.iterdir():
        if path.name != ".lock":
            os.utime(path, (1e9, 1e9))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "one").touch()
    for path in ((tmp_path / "checkpoints" / "one"), (tmp_path / "checkpoints")):
        os.utime(path, (1e9 + 100, 1e9 + 100))
    with Run(tmp_path, "demo", OPTIONS, resume=True) as run:
        manifest = run.finish()
    assert 150 <= manifest["seconds"] < 160
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "manifest.json",
        "part",
    ]
    with Run(tmp_path, "demo", OPTIONS, force=True, resume=False) as run:
        run.write("part", "x")
        assert run.finish()["seconds"] < 10


def test_killed_while_its_config_was_written_it_can_be_begun_again(tmp_path: Path) -> None:
    (tmp_path / ".config.yaml.abcd1234").write_text("comma", encoding="utf-8")
    finish(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.yaml", "manifest.json", "product.txt"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".letter.abcd1234").touch()
    with pytest.raises(OutputError, match="do not belong to a zhllama run"):
        finish(tmp_path / "other")


Tree = dict[str, bytes]


def tree(folder: Path) -> Tree:
    """Every file of a folder but the lock and the time spent, by its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".lock", ".seconds")
    }


def unfinished(out: Path) -> Tree:
    """A run that was stopped with something to resume from."""
    with pytest.raises(KeyError), Run(out, "demo", OPTIONS, resume=False) as run:
        run.write("journal.jsonl", "paid for")
        run.write("checkpoints/checkpoint-2/trained", "weights")
        raise KeyError
    return tree(out)


def test_a_failed_run_puts_back_what_force_set_aside(tmp_path: Path) -> None:
    finish(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(KeyError), Run(tmp_path, "demo", OPTIONS, force=True) as run:
        assert not (
            tmp_path / "manifest.json"
        ).exists()  # nobody takes what is half written for a finished run
        run.write("other.txt", "half")
        raise KeyError
    assert tree(tmp_path) == before
    with pytest.raises(KeyError), Run(tmp_path, "demo", OPTIONS, force=True, resume=False):
        raise KeyError  # one that could resume, if it had written anything
    assert tree(tmp_path) == before


def test_a_run_that_replaces_another_keeps_it_until_it_is_finished(tmp_path: Path) -> None:
    old = unfinished(tmp_path)
    with (
        pytest.raises(KeyError),
        Run(tmp_path, "demo", OPTIONS | {"size": 4}, force=True, resume=False) as run,
    ):
        run.write("journal.jsonl", "new")
        raise KeyError
    assert tree(tmp_path / ".replaced") == old
    with Run(tmp_path, "demo", OPTIONS | {"size": 4}, resume=True) as run:
        assert (tmp_path / "journal.jsonl").read_text(encoding="utf-8") == "new"
        manifest = run.finish()
    assert sorted(manifest["outputs"]) == ["config.yaml", "journal.jsonl"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.yaml", "journal.jsonl", "manifest.json"]


class Killed(BaseException):
    """Stands for SIGKILL: what is left is what was there when it was raised."""


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the process die before its `step`-th change of a name in a file system; the changes that it made."""
    made: list[str] = []

    def patched(name: str) -> None:
        real = getattr(Path, name)

        def change(path: Path, *rest: object, **more: object) -> object:
            if len(made) >= step:
                raise Killed
            made.append(f"{name} {path.name}")
            return real(path, *rest, **more)

        monkeypatch.setattr(Path, name, change)

    for name in ("unlink", "rename", "mkdir", "rmdir", "replace"):
        patched(name)
    return made


@pytest.mark.parametrize("flags", [{"force": True}, {"force": True, "resume": False}])
def test_killed_at_any_step_of_a_start_with_force_the_old_run_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: dict[str, bool]
) -> None:
    for step in range(100):
        out = tmp_path / str(step)
        old = unfinished(out)
        with monkeypatch.context() as patch:
            made = killed_at(step, patch)
            try:
                with Run(out, "demo", OPTIONS | {"size": 9}, **flags):  # type: ignore[arg-type]
                    made.append("entered")
                    raise Killed
            except Killed:
                pass
        # Whoever comes next finds the old run, and is refused for what it is.
        with pytest.raises(OutputError, match="size 3 → 5"):
            Run(out, "demo", OPTIONS | {"size": 5}, resume=True).__enter__()
        assert tree(out) == old, made
        if "entered" in made and step > len(made) + 20:
            return
    raise AssertionError("it was never entered")


def test_killed_at_any_step_of_putting_back_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run that is put back was itself begun by --force, and holds the one before it."""
    for step in range(60):
        out = tmp_path / str(step)
        unfinished(out)
        with pytest.raises(KeyError), Run(out, "demo", OPTIONS, force=True, resume=False) as run:
            run.write("journal.jsonl", "second")
            raise KeyError
        old = tree(out)
        assert ".replaced/journal.jsonl" in old
        with monkeypatch.context() as patch:
            made = killed_at(step, patch)
            with pytest.raises((Killed, OutputError)), Run(out, "demo", OPTIONS, force=True, resume=False):
                raise OutputError(out, "failed")
        with pytest.raises(OutputError, match="size 3 → 5"):
            Run(out, "demo", OPTIONS | {"size": 5}, resume=True).__enter__()
        assert tree(out) == old, made
    assert len(made) < step, "every step was tried"


def test_a_start_that_force_began_and_that_was_killed_can_be_resumed(tmp_path: Path) -> None:
    unfinished(tmp_path)
    run = Run(tmp_path, "demo", OPTIONS | {"size": 4}, force=True, resume=False)
    run.__enter__()
    assert run._lock is not None
    run._lock.release(remove=False)  # as by SIGKILL
    with Run(tmp_path, "demo", OPTIONS | {"size": 4}, resume=True) as again:
        again.finish()
    assert sorted(tree(tmp_path)) == ["config.yaml", "manifest.json"]


def test_resuming_on_a_full_disk_loses_nothing(tiny_disk: Path) -> None:
    old = unfinished(tiny_disk / "out")
    (tiny_disk / "filler").write_bytes(b"")
    with suppress(OSError), (tiny_disk / "filler").open("wb", buffering=0) as filler:
        while filler.write(b"x" * 4096):
            pass
    for flags in ({"resume": True}, {"force": True, "resume": False}, {"force": True}):
        with pytest.raises(OutputError), Run(tiny_disk / "out", "demo", OPTIONS, **flags) as run:  # type: ignore[arg-type]
            run.write("more", "x" * 100_000)
        assert tree(tiny_disk / "out") == old, flags


@pytest.mark.parametrize("name", ["mkdir", "write_whole", "move_to_replaced", "_check_folder"])
@pytest.mark.parametrize("flags", [{"resume": True}, {"force": True}, {"force": True, "resume": False}])
def test_ctrl_c_during_a_start_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: dict[str, bool], name: str
) -> None:
    out = tmp_path / "run"
    old = unfinished(out)
    (out / "config.yaml").write_bytes(old["config.yaml"])

    def stopped(*_: object, **__: object) -> None:
        raise SystemExit(130)

    with monkeypatch.context() as patch:
        if name == "mkdir":
            patch.setattr(Path, "mkdir", stopped)
        elif name == "_check_folder":
            patch.setattr(f"zhllama.run.Run.{name}", stopped)
        else:
            patch.setattr(f"zhllama.run.{name}", stopped)
        with suppress(SystemExit), Run(out, "demo", OPTIONS, **flags):  # type: ignore[arg-type]
            raise SystemExit(130)
    assert tree(out) == old


def test_a_folder_removed_while_its_run_is_at_work_is_not_made_again(tmp_path: Path) -> None:
    out = tmp_path / "run"
    for resume in (None, False):
        with (
            pytest.raises(OutputError, match="was removed during the run"),
            Run(out, "demo", OPTIONS, resume=resume) as run,
        ):
            shutil.rmtree(out)
            run.write("product.txt", "x")
        assert not out.exists()
    with pytest.raises(OutputError, match="was removed"), Run(out, "demo", OPTIONS) as run:
        shutil.rmtree(out)
        with Run(out, "demo", OPTIONS) as second:
            second.write("product.txt", "second")
            second.finish()
        run.finish()  # another run has this place now
    assert (out / "product.txt").read_text(encoding="utf-8") == "second"


@pytest.mark.parametrize("resume", [None, False])
def test_a_folder_of_which_only_the_lock_is_left_is_reported_as_removed(
    tmp_path: Path, resume: bool | None
) -> None:
    """Whoever removes it has not reached the lock's file yet when the run misses another one."""
    out = tmp_path / "run"
    with (
        pytest.raises(OutputError, match=f"{out}: was removed during the run"),
        Run(out, "demo", OPTIONS, resume=resume) as run,
    ):
        run.write("tokenizer.json", "{}").unlink()
        raise InputError("base", "cannot be loaded")
    with (
        pytest.raises(InputError, match="base"),
        Run(tmp_path / "other", "demo", OPTIONS, resume=resume) as run,
    ):
        run.write("tokenizer.json", "{}")
        raise InputError("base", "cannot be loaded")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_under_an_open_file_is_reported_with_the_folder(tmp_path: Path, number: int) -> None:
    out = tmp_path / "run"
    with (
        pytest.raises(OutputError, match=rf"{out}: cannot be written \(.*\)\. Free some room"),
        Run(out, "demo", OPTIONS),
    ):
        raise OSError(number, os.strerror(number))
    for other in (OSError(errno.EIO, "I/O error"), OSError(number, os.strerror(number), "/elsewhere")):
        with pytest.raises(OSError, match=other.strerror), Run(out, "demo", OPTIONS):
            raise other


def test_a_lock_that_was_removed_keeps_nobody_out(tmp_path: Path) -> None:
    """Removed between opening and locking, as its holder does on its way out: the lock is taken on the new file."""
    out = tmp_path / "run"
    first = Run(out, "demo", OPTIONS, resume=False)
    first.__enter__()
    opened = (out / ".lock").open("rb")
    first.write("part", "x")
    first.__exit__(None, None, None)
    fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a lock on the removed file
    with Run(out, "demo", OPTIONS, resume=True) as second:
        with pytest.raises(OutputError, match="another run is writing here"):
            finish(out, resume=True)
        second.finish()
    opened.close()


def test_the_lock_of_another_program_stays(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("theirs", encoding="utf-8")
    (tmp_path / "data.bin").touch()
    for flags in ({}, {"force": True}, {"resume": True}):
        with pytest.raises(OutputError, match="do not belong to a zhllama run"):
            finish(tmp_path, **flags)
    assert (tmp_path / ".lock").read_text(encoding="utf-8") == "theirs"


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"force": True}, {"force": True, "resume": False}])
def test_a_second_start_on_a_folder_at_work_changes_nothing(tmp_path: Path, flags: dict[str, bool]) -> None:
    out = tmp_path / "run"
    with Run(out, "demo", OPTIONS, resume=False) as run:
        run.write("journal.jsonl", "paid for")
        run.write("checkpoints/checkpoint-2/trained", "weights")
        (out / ".instructions.jsonl.abcd1234").write_text("being written", encoding="utf-8")
        before = tree(out)
        for options in (OPTIONS, {"size": 9}):
            with pytest.raises(OutputError, match="another run is writing here"):
                Run(out, "demo", options, **flags).__enter__()  # type: ignore[arg-type]
            with pytest.raises(OutputError, match="another run is writing here"):
                Run(out, "demo", options, **flags).check()  # type: ignore[arg-type]
        assert tree(out) == before and (out / ".lock").exists()
        run.finish()


def _hold(out: Path) -> None:
    with Run(out, "demo", OPTIONS, resume=True):
        time.sleep(30)


def test_second_run_on_a_folder_is_refused(tmp_path: Path) -> None:
    child = multiprocessing.get_context("fork").Process(target=_hold, args=(tmp_path,))
    child.start()
    try:
        while not (tmp_path / "config.yaml").exists():
            time.sleep(0.01)
        with pytest.raises(OutputError, match="another run is writing here"):
            finish(tmp_path, resume=True)
    finally:
        child.kill()
        child.join()
    finish(tmp_path, resume=True)  # the lock went with the process


def test_broken_manifest_is_told(tmp_path: Path) -> None:
    finish(tmp_path)
    (tmp_path / "manifest.json").write_text('{"command"', encoding="utf-8")
    with pytest.raises(InputError, match=r"manifest\.json: is not JSON"):
        read_manifest(tmp_path)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True
    ).returncode:
        pytest.skip("cannot mount a small tmpfs here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_full_disk_leaves_nothing(tiny_disk: Path) -> None:
    with pytest.raises(OutputError, match="No space left"), Run(tiny_disk / "out", "demo", OPTIONS) as run:
        run.write("big", b"x" * 1_000_000)
    assert list(tiny_disk.iterdir()) == []


@pytest.mark.parametrize("out", ["/proc/nope", "/dev/null"])
def test_unwritable_places(out: str) -> None:
    with pytest.raises(OutputError):
        finish(Path(out))


def test_manifest_is_json_with_readable_chinese(tmp_path: Path) -> None:
    with Run(tmp_path, "demo", {"text": "人工智能"}) as run:
        run.finish()
    content = (tmp_path / "manifest.json").read_text(encoding="utf-8")
    assert "人工智能" in content and json.loads(content)["options"] == {"text": "人工智能"}


def test_a_manifest_that_is_no_file_is_refused(tmp_path: Path) -> None:
    """A pipe in its place must not turn a run into a folder without a record."""
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / "manifest.json")
    with pytest.raises(InputError, match=r"manifest\.json"):
        check_outputs([tmp_path / "run"])
