"""The files of a run folder, its lock against a second process, and the replaced run that --force keeps until the end."""

import errno
import fcntl
import os
import shutil
from collections.abc import Container
from pathlib import Path

from zhllama.errors import OutputError
from zhllama.io.files import leftovers

CONFIG, MANIFEST, LOCK = "config.yaml", "manifest.json", ".lock"
SPENT = ".seconds"  # what the starts of an unfinished run took
# --force moves the old run into MOVING and renames MOVING to REPLACED. So while MOVING exists, everything in the folder
# belongs to the old run; while REPLACED exists, everything outside it belongs to the new run.
REPLACED, MOVING = ".replaced", ".replacing"
ATTEMPTS = 100


class Lock:
    """The lock of a folder: an exclusive flock on its `.lock`, which the kernel releases when the process ends.

    Errors: OutputError where another process locked it, OSError where the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self._handle = self._acquire(folder)

    def _acquire(self, folder: Path) -> int:
        for _ in range(ATTEMPTS):
            try:
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
                self.created = True
            except FileExistsError:
                self.created = False
                try:
                    handle = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
                except FileNotFoundError:  # removed by the process that locked it
                    continue
            except FileNotFoundError:  # the folder was removed by a process that failed in it
                folder.mkdir(parents=True, exist_ok=True)
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                raise _running(folder) from None
            except BaseException:
                os.close(handle)
                raise
            if _is_file(handle, self.path):
                # A lock that its process left behind was killed with it: the time shows when that start began.
                self.left_behind = None if self.created else os.fstat(handle).st_mtime
                os.utime(handle)
                return handle
            os.close(handle)  # removed before it was locked here: this lock would exclude nobody
        raise _running(folder)

    def is_valid(self) -> bool:
        """Whether the locked folder still exists at its path."""
        return _is_file(self._handle, self.path)

    def release(self, remove: bool) -> None:
        """Release the lock; the lock file is removed while locked, and never that of another process."""
        try:
            if remove and self.is_valid():
                self.path.unlink(missing_ok=True)
        finally:
            os.close(self._handle)


def refuse_if_running(folder: Path) -> None:
    """Raise OutputError where another process locked a folder; creates no file and keeps no lock."""
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _running(folder) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(handle)


def _running(folder: Path) -> OutputError:
    return OutputError(folder, "another run is writing here", "Wait for it, or choose another `out`")


def _is_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def entries(folder: Path) -> list[Path]:
    """The entries of a run folder without the lock, the time spent and the replaced run."""
    return [path for path in folder.iterdir() if path.name not in (LOCK, SPENT, REPLACED, MOVING)]


def has_no_output(folder: Path) -> bool:
    """Whether a run wrote nothing to resume from: no file with content besides its config."""
    ignored = {folder / CONFIG, *leftovers(folder)}
    return all(_is_empty(path) for path in entries(folder) if path not in ignored)


def _is_empty(path: Path) -> bool:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size == 0
    return all(map(_is_empty, path.iterdir()))


def seconds_spent(folder: Path, killed: float | None) -> float:
    """Seconds that the earlier starts of an unfinished run took.

    `killed`: when a start began that was killed, in seconds since the epoch; it lasted until it last wrote.
    """
    try:
        spent = float((folder / SPENT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        spent = 0.0
    if killed is None:
        return spent
    files = (file for path in entries(folder) for file in (path, *(path.rglob("*") if path.is_dir() else ())))
    return spent + max(0.0, max((file.lstat().st_mtime for file in files), default=killed) - killed)


def is_run_folder(folder: Path) -> bool:
    """Whether a folder contains a zhllama run, finished or not."""
    return any((folder / name).exists() for name in (CONFIG, REPLACED, MOVING))


def has_replaced_run(folder: Path) -> bool:
    """Whether a folder still contains the run that an unfinished --force run replaces."""
    return (folder / REPLACED).is_dir() or (folder / MOVING).is_dir()


def move_to_replaced(folder: Path) -> None:
    """Move the content of a folder into REPLACED; `restore` undoes it from any point of interruption."""
    (folder / MOVING).mkdir()
    for path in folder.iterdir():
        if path.name not in (LOCK, MOVING):
            path.rename(folder / MOVING / path.name)
    (folder / MOVING).rename(folder / REPLACED)


def restore(folder: Path) -> None:
    """Restore the replaced run over the new run's files; can be repeated after any interruption."""
    # While MOVING exists, REPLACED belongs to the old run, which itself replaced another one.
    if not (folder / MOVING).is_dir() and (folder / REPLACED).is_dir():
        clear(folder, (REPLACED,))
        (folder / REPLACED).rename(folder / MOVING)
    if (folder / MOVING).is_dir():
        for path in (folder / MOVING).iterdir():
            path.rename(folder / path.name)
        (folder / MOVING).rmdir()


def remove_replaced(folder: Path) -> None:
    """Remove the replaced run after the new one finished."""
    shutil.rmtree(folder / REPLACED, ignore_errors=True)


def clear(folder: Path, keep: Container[str] = ()) -> None:
    """Remove everything but the lock and the names in `keep`; the config last, so that the folder stays recognizable."""
    paths = [path for path in folder.iterdir() if path.name != LOCK and path.name not in keep]
    for path in sorted(paths, key=lambda path: path.name == CONFIG):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
