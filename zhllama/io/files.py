"""Opens regular files only, writes files atomically, and hashes them."""

import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from zhllama.errors import InputError, OutputError

LONGEST_LINE = 1 << 28  # bytes of one line; --max-line-bytes changes it
WHOLE = 1 << 30  # bytes of a file that is read at once; the largest known tokenizer.json has 35 MB
TEMPLATES = "additional_chat_templates"  # the only folder inside a tokenizer's folder from which transformers reads files


def require_regular(path: Path) -> os.stat_result:
    """The status of a regular file, following links.

    Errors: InputError for a missing file and for a folder, device, pipe, socket or kernel file below /proc, which can
    block a reader or feed it forever.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    _refuse_irregular(path, status)
    return status


def is_present(path: Path) -> bool:
    """Whether an optional file exists.

    Errors: InputError for a folder, pipe or device in its place, or a link to nothing, which must not count as absent.
    """
    if not os.path.lexists(path):
        return False
    require_regular(path)
    return True


def require_regular_files(folder: Path) -> None:
    """InputError where a model's or tokenizer's folder contains anything but regular files and folders.

    transformers, tokenizers and PEFT open its files by name, and wait forever for a pipe that nobody writes to.
    """
    for place in (folder, folder / TEMPLATES):
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            if not path.is_dir() and path.exists():
                require_regular(path)


def _refuse_irregular(path: Path, status: os.stat_result) -> None:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }
    kind = kinds.get(stat.S_IFMT(status.st_mode))
    if kind is None and os.path.ismount("/proc") and status.st_dev == Path("/proc").stat().st_dev:
        kind = "a kernel file"
    if kind is not None:
        raise InputError(path, f"is {kind}, not a regular file", "Save its content as a file and name that")


def open_regular(path: Path) -> IO[bytes]:
    """Open a regular file for reading, without blocking even if a pipe has replaced it since it was checked."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    try:
        _refuse_irregular(path, os.fstat(handle))
    except BaseException:
        os.close(handle)
        raise
    return os.fdopen(
        handle, "rb"
    )  # from here on the file closes it; closed twice, Ctrl-C would become an OSError


def read_whole(path: Path, limit: int = WHOLE) -> bytes:
    """The bytes of a regular file. Errors: InputError if it cannot be read or is larger than `limit`."""
    try:
        with open_regular(path) as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise unreadable(path, error) from error
    if len(content) > limit:
        raise InputError(path, f"is larger than {limit:,} bytes", "Check that this is the right file")
    return content


def read_utf8(path: Path, limit: int = WHOLE) -> str:
    """The text of a regular file in UTF-8, without byte order mark. Errors: InputError names the line that is not UTF-8."""
    content = read_whole(path, limit)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + content.count(b"\n", 0, error.start)
        raise InputError(f"{path}:{line}", "is not UTF-8", "Save the file as UTF-8") from None


def unreadable(path: Path, error: OSError | ValueError) -> InputError:
    """The InputError for a file that cannot be opened or read; ValueError means a null byte in its name."""
    if isinstance(error, ValueError):
        return InputError(ascii(str(path)), "is not a file name", "Check the path")
    if isinstance(error, FileNotFoundError):
        return InputError(path, "no such file", "Check the path")
    if error.errno == errno.ENXIO:  # raised on opening a socket
        return InputError(path, "is a socket, not a regular file", "Save its content as a file and name that")
    return InputError(
        path, f"cannot be read ({error.strerror or error})", "Check the path and its permissions"
    )


WRITABLE = "Choose a writable folder"
ROOM = "Free some room"
# What is told of a run that goes on where it stopped:
RESUME_WRITABLE = "Make the folder writable, then give `resume`"
RESUME_ROOM = "Free some room, then give `resume`"


def not_written(path: Path, error: OSError, writable: str = WRITABLE, room: str = ROOM) -> OutputError:
    """The OutputError for a file that could not be written; see `remedy_of_writing`."""
    remedy = remedy_of_writing(error, writable, room)
    return OutputError(path, f"cannot be written ({error.strerror or error})", remedy)


def remedy_of_writing(error: OSError, writable: str = WRITABLE, room: str = ROOM) -> str:
    """What helps where a file could not be written: `writable` where the right is missing, `room` where that is."""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return writable
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return room
    return "Check the folder and its disk"


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file atomically: even after SIGKILL, `path` contains either the old bytes or all of `content`."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        error.filename = str(path)  # the name of the temporary file says nothing to its reader
        raise
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def leftovers(folder: Path, name: str = "*") -> list[Path]:
    """Temporary files that a killed `write_whole` left next to the file `name`."""
    return list(folder.glob(f".{name}.????????"))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def to_json(value: Any) -> str:
    """Indented JSON with a final newline; Chinese is not escaped."""
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def json_lines(rows: Iterable[Any]) -> str:
    """One JSON value per line; Chinese is not escaped, lone surrogates are, because they have no UTF-8."""
    return "".join(map(json_line, rows))


def json_line(row: Any) -> str:
    """One value as a JSON line."""
    line = json.dumps(row, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        line = json.dumps(row)
    return line + "\n"


class JsonLines:
    """Writes JSON lines one at a time; the file gets its name only when `close` is called."""

    def __init__(self, path: Path) -> None:
        self._path, self._part = path, path.with_name(f".{path.name}.part")
        self._file: IO[str] = self._part.open("w", encoding="utf-8")

    def write(self, row: Any) -> None:
        """Add a row."""
        self._file.write(json_line(row))

    def close(self) -> None:
        """Finish the file and move it to its name."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._part.replace(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)


SEAL = "sha256.json"


def seal(folder: Path) -> None:
    """Write the hash of every file in a folder to sha256.json, as the last file of the folder."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    write_whole(folder / SEAL, to_json({str(p.relative_to(folder)): sha256(p) for p in files}))


def unsealed(folder: Path) -> Path | None:
    """The first file of a sealed folder that is missing or changed, or the seal itself if it cannot be read; otherwise None."""
    from zhllama.io.json import read_object

    try:
        hashes = read_object(folder / SEAL)
    except InputError:
        return folder / SEAL
    if any(not name or name.startswith("/") or ".." in Path(name).parts or "\0" in name for name in hashes):
        return folder / SEAL
    return next((folder / name for name, hash in hashes.items() if _hash_of(folder / name) != hash), None)


def _hash_of(path: Path) -> str | None:
    return sha256(path) if path.is_file() else None


def sha256(path: Path) -> str:
    """Hex digest of a file of any size."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
