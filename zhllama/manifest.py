"""Configs and manifests of runs, and whether recorded inputs and outputs are unchanged."""

import os
import time
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from zhllama.errors import InputError
from zhllama.io.files import require_regular, sha256
from zhllama.io.json import read_json, read_object
from zhllama.io.yaml import read_yaml
from zhllama.run_folder import CONFIG, MANIFEST

HASHED = 64 << 20  # bytes: smaller inputs are compared by their hash, larger ones by their size
HASHED_OUTPUT = 2 << 30  # the same for what a run wrote, whenever a later command reads it
SETTLED = 2e9  # nanoseconds after which a file system tells a change by the file's times
BACK = "Put it back, make the run again with --force, or copy the files that you need out of its folder"


def read_config(folder: Path) -> dict[str, Any]:
    """The command and options that a run folder was begun with; InputError where a finished run's are not as it wrote them."""
    check_outputs([folder], CONFIG)
    return read_yaml(folder / CONFIG, "a mapping of options", "Give --force to start over")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished run; InputError where there is none or it is broken."""
    if not (folder / MANIFEST).exists():
        raise InputError(folder, "is not a finished run of zhllama", "Finish it with --resume")
    manifest = read_json(folder / MANIFEST, "Make the run again with --force", any_number=True)
    try:
        return _Manifest.model_validate(manifest).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        told = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".lstrip(".: ")
        raise InputError(
            folder / MANIFEST, f"is not a manifest ({told})", "Make the run again with --force"
        ) from None


class _Input(BaseModel):
    path: str = Field(pattern=r"^[^\x00]+$")
    bytes: int
    sha256: str


class _Manifest(BaseModel, extra="allow"):
    """What readers of a manifest rely on; `output_bytes` are the sizes of outputs that are too large to hash at each reading."""

    command: str = "?"
    options: dict[str, Any] = {}
    inputs: list[_Input] = []
    parents: list[str] = []
    outputs: dict[str, str] = {}
    output_bytes: dict[str, int] = {}
    figures: dict[str, Any] = {}
    seconds: float = 0.0


def changed_inputs(manifest: Mapping[str, Any]) -> list[Path]:
    """Inputs of a finished run that are gone or other than they were; beyond 64 MB their size tells."""
    return [Path(recorded["path"]) for recorded in manifest.get("inputs", []) if not unchanged(recorded)]


def unchanged(recorded: Mapping[str, Any]) -> bool:
    """Whether an input that a manifest recorded still stands with the same content."""
    path = Path(recorded["path"])
    if not path.is_file() or path.stat().st_size != recorded["bytes"]:
        return False
    return path.stat().st_size > HASHED or digest(path) == str(recorded["sha256"])


def check_outputs(paths: Iterable[Path], *names: str) -> None:
    """Refuse what a finished run of ours wrote and that is gone or changed since; every command calls this before it reads.

    `paths` are run folders, or files and folders in them; of each, everything recorded at or below it is checked, or at
    or below its `names`, of which those with a `*` stand for files. What no run recorded passes, and of files beyond
    2 GB only the size is compared.
    Errors: InputError that names the file.
    """
    runs: dict[Path, Path | None] = {}
    manifests: dict[Path, dict[str, Any]] = {}
    for path in (Path(os.path.normpath(path.absolute())) for path in paths):
        run = _run_of(path, runs)
        if run is None:
            continue
        if run not in manifests:
            manifests[run] = read_manifest(run)
        below = [os.path.normpath(path.relative_to(run) / name) for name in names or (".",)]
        _check(run, manifests[run], below)


def _check(run: Path, manifest: Mapping[str, Any], below: list[str]) -> None:
    outputs: dict[str, str] = manifest["outputs"]
    exact = [name for name in below if name in outputs]  # of thousands of files each asks for itself alone
    wanted = outputs if len(exact) < len(below) else exact
    for name in wanted:
        if not any(_is_meant(name, at) for at in below):
            continue
        if not _as_written(run / name, outputs[name], manifest["output_bytes"].get(name)):
            raise InputError(run / name, "is not as its run wrote it", BACK)


def _is_meant(name: str, at: str) -> bool:
    if at in (".", name) or name.startswith(f"{at}/"):
        return True
    return "*" in at and name.count("/") == at.count("/") and fnmatchcase(name, at)


def _as_written(path: Path, sum: str, size: int | None) -> bool:
    if not path.is_file():
        return False
    if size is not None and size > HASHED_OUTPUT:
        return path.stat().st_size == size
    return digest(path) == sum


def _run_of(path: Path, known: dict[Path, Path | None]) -> Path | None:
    """The finished run of ours that a path is or lies in."""
    if path in known:
        return known[path]
    if _is_run(path):
        found: Path | None = path
    else:
        found = None if path.parent == path else _run_of(path.parent, known)
    known[path] = found
    return found


def _is_run(folder: Path) -> bool:
    """Whether a folder has a manifest of ours; other programs have files of that name too.

    Errors: InputError for a pipe, a device or a folder in its place, behind which no output could be checked.
    """
    if (folder / MANIFEST).exists():
        require_regular(folder / MANIFEST)
    try:
        if not (folder / MANIFEST).is_file():
            return False
        if (folder / CONFIG).is_file() and (folder / CONFIG).read_bytes().startswith(b"command:"):
            return True
        return {"command", "outputs", "packages"} <= read_object(folder / MANIFEST, any_number=True).keys()
    except (OSError, InputError):
        return False


_digests: dict[tuple[int, ...], str] = {}


def digest(path: Path) -> str:
    """The sha256 of a file, computed once in a process as long as the file's times and size are the same."""
    stat = path.stat()
    key = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    if key not in _digests:
        found = sha256(path)
        # A file that changed just now may change again within the clock's grain, and show the same times.
        if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) < SETTLED:
            return found
        _digests[key] = found
    return _digests[key]
