"""Model folders in the user's cache: each is made once from files, under their hash, and used as any other folder."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from zhllama.io.cache import cache_folder, cache_not_written
from zhllama.io.files import require_regular, sha256, write_whole
from zhllama.vocab.gguf_folder import move_folder


def made_once(kind: str, stem: str, files: Sequence[Path], make: Callable[[Path], None]) -> Path:
    """The folder of a model in the cache `kind`; where it is not there, `make` creates it at a temporary path.

    `stem`: how its name begins; `files`: what decides its content, in this order. Errors: OutputError without room, and
    those of `make`.
    """
    cache = cache_folder(kind)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        folder = cache / f"{stem}-{_key(files, cache)[:16]}"
        if not folder.is_dir():
            _remove_leftovers(cache)
            part = cache / f".{folder.name}.{os.getpid()}"
            with _one_process(cache / f".{folder.name}.lock"):
                try:
                    if not folder.is_dir():
                        make(part)
                        move_folder(part, folder)
                finally:
                    shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise cache_not_written(cache, error) from error
    return folder


@contextmanager
def _one_process(path: Path) -> Iterator[None]:
    """Lock a file while the body runs: of the processes of one training run, one makes the folder and the others wait."""
    with path.open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # which the kernel releases when the process ends
        yield
    path.unlink(missing_ok=True)


def _key(files: Sequence[Path], cache: Path) -> str:
    digests = [_digest(path, cache) for path in files]
    if len(files) == 1:
        return digests[0]
    named = [f"{path.name}\0{digest}" for path, digest in zip(files, digests, strict=True)]
    return hashlib.sha256("\0".join(named).encode()).hexdigest()


def _digest(path: Path, cache: Path) -> str:
    """The file's sha256, computed once for a path, size and time of change."""
    status = require_regular(path)
    identity = f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"
    known = cache / f"{hashlib.sha256(identity.encode()).hexdigest()[:24]}.sha256"
    if known.is_file():
        return known.read_text(encoding="utf-8")
    digest = sha256(path)
    write_whole(known, digest)
    return digest


def _remove_leftovers(cache: Path) -> None:
    """Remove what processes left that were killed while they made a folder."""
    for part in cache.glob(".*.*"):
        process = part.suffix.removeprefix(".")
        if (
            part.is_dir()
            and process.isdigit()
            and not Path("/proc", process).exists()
            and Path("/proc").exists()
        ):
            shutil.rmtree(part, ignore_errors=True)
