"""Reads the config and manifest of a run folder, and checks that its inputs and outputs are unchanged."""

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

HASHED = 64 << 20  # bytes: larger inputs are compared by size only
HASHED_OUTPUT = 2 << 30  # bytes: larger outputs are compared by size only
SETTLED = 2e9  # nanoseconds after which every change shows in a file's times
RESTORE = "Restore it, start the run over with `force`, or copy the files that you need out of its folder"


def read_config(folder: Path) -> dict[str, Any]:
    """The command and options that a run was started with.

    Errors: InputError where the config of a finished run was changed afterwards.
    """
    check_outputs([folder], CONFIG)
    return read_yaml(folder / CONFIG, "a mapping of options", "Give `force` to start over")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished run; InputError where there is none or it is broken."""
    if not folder.exists():
        raise InputError(folder, "does not exist", "Check the path")
    if not (folder / MANIFEST).exists():
        raise InputError(folder, "is not a finished zhllama run", "Finish it with `resume`")
    manifest = read_json(folder / MANIFEST, "Start the run over with `force`", any_number=True)
    try:
        return _Manifest.model_validate(manifest).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".lstrip(".: ")
        raise InputError(
            folder / MANIFEST, f"is not a manifest ({reason})", "Start the run over with `force`"
        ) from None


class _Input(BaseModel):
    path: str = Field(pattern=r"^[^\x00]+$")
    bytes: int
    sha256: str


class _Manifest(BaseModel, extra="allow"):
    """The fields that readers of a manifest rely on; `output_bytes` are the sizes of outputs beyond HASHED_OUTPUT."""

    command: str = "?"
    options: dict[str, Any] = {}
    inputs: list[_Input] = []
    parents: list[str] = []
    outputs: dict[str, str] = {}
    output_bytes: dict[str, int] = {}
    figures: dict[str, Any] = {}
    seconds: float = 0.0


def changed_inputs(manifest: Mapping[str, Any]) -> list[Path]:
    """Inputs of a finished run that are missing or changed; beyond 64 MB only the size is compared."""
    return [Path(recorded["path"]) for recorded in manifest.get("inputs", []) if not unchanged(recorded)]


def unchanged(recorded: Mapping[str, Any]) -> bool:
    """Whether an input that a manifest recorded still exists with the same content."""
    path = Path(recorded["path"])
    if not path.is_file() or path.stat().st_size != recorded["bytes"]:
        return False
    return path.stat().st_size > HASHED or digest(path) == str(recorded["sha256"])


def check_outputs(paths: Iterable[Path], *names: str) -> None:
    """Refuse outputs of finished runs that are missing or changed; every command calls this before it reads them.

    `paths` are run folders, or files and folders in them. Every recorded output at or below a path is checked, or only
    those at or below its `names`, where a name with `*` is a file pattern. Files that no run recorded pass; of files
    beyond 2 GB only the size is compared. Errors: InputError that names the file.
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
    exact = [name for name in below if name in outputs]  # callers check thousands of files one by one
    names = outputs if len(exact) < len(below) else exact
    for name in names:
        if not any(_matches(name, at) for at in below):
            continue
        if not _unchanged_output(run / name, outputs[name], manifest["output_bytes"].get(name)):
            raise InputError(run / name, "changed since its run wrote it", RESTORE)


def _matches(name: str, at: str) -> bool:
    if at in (".", name) or name.startswith(f"{at}/"):
        return True
    return "*" in at and name.count("/") == at.count("/") and fnmatchcase(name, at)


def _unchanged_output(path: Path, sha256: str, size: int | None) -> bool:
    if not path.is_file():
        return False
    if size is not None and size > HASHED_OUTPUT:
        return path.stat().st_size == size
    return digest(path) == sha256


def _run_of(path: Path, runs: dict[Path, Path | None]) -> Path | None:
    """The finished run folder that is or contains a path; `runs` caches the results."""
    if path in runs:
        return runs[path]
    if _is_run(path):
        run: Path | None = path
    else:
        run = None if path.parent == path else _run_of(path.parent, runs)
    runs[path] = run
    return run


def _is_run(folder: Path) -> bool:
    """Whether a folder has a zhllama manifest; other programs write files of that name too.

    Errors: InputError for a pipe, device or folder of that name, since the outputs behind it could not be checked.
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
    """The sha256 of a file, cached in this process while the file's times and size stay the same."""
    stat = path.stat()
    key = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    if key not in _digests:
        computed = sha256(path)
        # A file that changed just now may change again within the clock's resolution, and show the same times.
        if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) < SETTLED:
            return computed
        _digests[key] = computed
    return _digests[key]
