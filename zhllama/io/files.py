"""Files as wholes: written beside and renamed, hashed, never half there; and the JSON in them."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self


def write_whole(path: Path, content: bytes | str) -> None:
    """Write `content` so that `path` holds either the old bytes or all of the new ones, even over SIGKILL."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
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
    """What `write_whole` left beside the file `name` when it was killed."""
    return list(folder.glob(f".{name}.????????"))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def to_json(value: Any) -> str:
    """Readable JSON with its Chinese left readable, ending in a newline."""
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def json_lines(rows: Iterable[Any]) -> str:
    """One JSON value a line, its Chinese left readable; half a surrogate pair, which no file can hold, is escaped."""
    return "".join(map(json_line, rows))


def json_line(row: Any) -> str:
    """One value as a line of its own."""
    line = json.dumps(row, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        line = json.dumps(row)
    return line + "\n"


class JsonLines:
    """A file of JSON lines that is written as rows come, and stands under its name only once `close` was called."""

    def __init__(self, path: Path) -> None:
        self._path, self._part = path, path.with_name(f".{path.name}.part")
        self._file: IO[str] = self._part.open("w", encoding="utf-8")

    def write(self, row: Any) -> None:
        """Add a row."""
        self._file.write(json_line(row))

    def close(self) -> None:
        """Make what was written the whole file."""
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
    """Write down the hash of every file that lies in a folder, as the last one into it."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    write_whole(folder / SEAL, to_json({str(p.relative_to(folder)): sha256(p) for p in files}))


def unsealed(folder: Path) -> Path | None:
    """The first file of a sealed folder that is gone or other than it was; the seal itself where that cannot be read."""
    try:
        sums = dict(json.loads((folder / SEAL).read_text(encoding="utf-8")))
        found = (folder / name for name, sum in sums.items() if _sum_of(folder / name) != sum)
        return next(found, None)
    except (OSError, ValueError, TypeError):
        return folder / SEAL


def _sum_of(path: Path) -> str | None:
    return sha256(path) if path.is_file() else None


def sha256(path: Path) -> str:
    """Hex digest of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
