"""The folder of a run: its lock, and the old run that --force keeps until the new one is finished."""

import errno
import fcntl
import os
import shutil
from collections.abc import Container
from pathlib import Path

from zhllama.errors import OutputError
from zhllama.io.files import leftovers

CONFIG, MANIFEST, LOCK = "config.yaml", "manifest.json", ".lock"
# A folder that --force replaces: its content is moved into MOVING, which is then renamed to REPLACED. So MOVING means that
# everything in the folder is of the old run, and REPLACED that everything beside it is of the new one.
REPLACED, MOVING = ".replaced", ".replacing"
ATTEMPTS = 100


class Lock:
    """The lock of a folder: an exclusive flock on its `.lock`, which the kernel releases when the process ends.

    Errors: OutputError where another process has it, OSError where the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self._handle = self._take(folder)

    def _take(self, folder: Path) -> int:
        for _ in range(ATTEMPTS):
            try:
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
                self.created = True
            except FileExistsError:
                self.created = False
                try:
                    handle = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
                except FileNotFoundError:  # removed by the process that held it
                    continue
            except FileNotFoundError:  # the folder was removed by a process that failed in it
                folder.mkdir(parents=True, exist_ok=True)
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                raise _at_work(folder) from None
            except BaseException:
                os.close(handle)
                raise
            if _is_file(handle, self.path):
                return handle
            os.close(handle)  # its holder removed it before it was locked here: a lock on it keeps nobody out
        raise _at_work(folder)

    def held(self) -> bool:
        """Whether the folder still is the one that was locked; False once it was removed or moved away."""
        return _is_file(self._handle, self.path)

    def release(self, remove: bool) -> None:
        """Let the next process in; the file is removed while it is still locked, and never that of another process."""
        try:
            if remove and self.held():
                self.path.unlink(missing_ok=True)
        finally:
            os.close(self._handle)


def refuse_at_work(folder: Path) -> None:
    """OutputError where another process holds the lock of a folder; nothing is created, and no lock kept."""
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _at_work(folder) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(handle)


def _at_work(folder: Path) -> OutputError:
    return OutputError(folder, "another run is writing here", "Wait for it, or choose another --out")


def _is_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def entries(folder: Path) -> list[Path]:
    """What a run has in its folder: neither the lock nor a run that was set aside."""
    return [path for path in folder.iterdir() if path.name not in (LOCK, REPLACED, MOVING)]


def is_bare(folder: Path) -> bool:
    """Whether a run has written nothing that a later one could continue from: no file with content beside its config."""
    passed_over = {folder / CONFIG, *leftovers(folder)}
    return all(_is_empty(path) for path in entries(folder) if path not in passed_over)


def _is_empty(path: Path) -> bool:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size == 0
    return all(map(_is_empty, path.iterdir()))


def begun(folder: Path) -> bool:
    """Whether a folder is a run of ours, finished or not."""
    return any((folder / name).exists() for name in (CONFIG, REPLACED, MOVING))


def replaces(folder: Path) -> bool:
    """Whether a run that --force set aside is still there, since the new one was not finished."""
    return (folder / REPLACED).is_dir() or (folder / MOVING).is_dir()


def set_aside(folder: Path) -> None:
    """Move everything that a folder contains into REPLACED; stopped anywhere, `restore` undoes it."""
    (folder / MOVING).mkdir()
    for path in folder.iterdir():
        if path.name not in (LOCK, MOVING):
            path.rename(folder / MOVING / path.name)
    (folder / MOVING).rename(folder / REPLACED)


def restore(folder: Path) -> None:
    """Put the run that --force set aside back into its place, instead of what the new one wrote; stopped anywhere, it can be repeated."""
    # With MOVING there, REPLACED is a part of what is put back: a run that was itself begun by --force.
    if not (folder / MOVING).is_dir() and (folder / REPLACED).is_dir():
        clear(folder, (REPLACED,))
        (folder / REPLACED).rename(folder / MOVING)
    if (folder / MOVING).is_dir():
        for path in (folder / MOVING).iterdir():
            path.rename(folder / path.name)
        (folder / MOVING).rmdir()


def drop_replaced(folder: Path) -> None:
    """Remove the run that --force set aside, once the new one is finished."""
    shutil.rmtree(folder / REPLACED, ignore_errors=True)


def clear(folder: Path, kept: Container[str] = ()) -> None:
    """Remove everything but the lock and the names in `kept`; the config last, so that a folder stays known as ours."""
    found = [path for path in folder.iterdir() if path.name != LOCK and path.name not in kept]
    for path in sorted(found, key=lambda path: path.name == CONFIG):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
