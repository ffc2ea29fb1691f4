"""A file to which whole lines are appended; a line that was written survives if the process is killed."""

import os
from pathlib import Path

from zhllama.errors import OutputError
from zhllama.io.files import RESUME_ROOM, RESUME_WRITABLE, not_written, require_regular


class AppendFile:
    """An open file of lines; `end` is the offset behind the last complete one. Errors: InputError, OutputError."""

    def __init__(self, path: Path, write: bool = True) -> None:
        self.path, self.end = path, 0
        if path.exists():
            require_regular(path)  # opening a pipe would wait for its other end
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND if write else os.O_RDONLY
        try:
            self.descriptor = os.open(path, flags, 0o666)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise OutputError(
                path, f"cannot be opened ({error.strerror})", "Check its permissions"
            ) from error

    def append(self, line: bytes) -> int:
        """Append a line; returns its offset. A line that does not fit on the disk leaves nothing behind."""
        try:
            remaining = memoryview(line)
            while remaining:
                remaining = remaining[os.write(self.descriptor, remaining) :]
        except OSError as error:
            os.ftruncate(self.descriptor, self.end)
            raise not_written(self.path, error, RESUME_WRITABLE, RESUME_ROOM) from error
        offset, self.end = self.end, self.end + len(line)
        return offset

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self.descriptor, length, offset)

    def truncate(self) -> None:
        """Remove what follows the last complete line."""
        os.ftruncate(self.descriptor, self.end)

    def sync(self) -> None:
        os.fsync(self.descriptor)

    def close(self) -> None:
        os.close(self.descriptor)
