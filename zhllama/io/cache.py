"""The folders of files that zhllama makes once and can make again: in ZHLLAMA_CACHE, or in the user's cache folder."""

import os
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from zhllama.errors import OutputError
from zhllama.io.files import not_written

CACHE_ROOM = "Free some room, or set ZHLLAMA_CACHE to a folder on another disk"


def cache_folder(kind: str) -> Path:
    """Return the folder `kind` in ZHLLAMA_CACHE, or in `zhllama` of the user's cache folder.

    Where that one is not writable (a service without a home, a read-only image), it is a folder that this process removes.
    """
    if named := os.environ.get("ZHLLAMA_CACHE"):
        return Path(named) / kind
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zhllama" / kind
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder if os.access(folder, os.W_OK) else Path(_temporary_cache(kind).name)


def cache_not_written(cache: Path, error: OSError) -> OutputError:
    """The OutputError for a cache that could not be written."""
    return not_written(cache, error, "Set ZHLLAMA_CACHE to a writable folder", CACHE_ROOM)


@lru_cache
def _temporary_cache(kind: str) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=f"zhllama-{kind}-")
