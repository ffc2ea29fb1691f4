"""A run folder: config first, products as whole files, the manifest last; where it stands, the run is finished."""

import fcntl
import json
import platform
import resource
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import yaml
from pydantic import BaseModel, Field, ValidationError

from zhllama.errors import InputError, OutputError
from zhllama.io.files import leftovers, sha256, to_json, write_whole

CONFIG, MANIFEST, LOCK = "config.yaml", "manifest.json", ".lock"
HASHED = 64 << 20  # bytes: smaller inputs are held against their hash, larger ones against their size
PACKAGES = (
    "zhllama",
    "sentencepiece",
    "tokenizers",
    "transformers",
    "torch",
    "peft",
    "jieba",
    "opencc",
    "openai",
)


@dataclass
class Run:
    """One folder that a command fills, as a context: left by an error, a run that cannot be resumed leaves nothing, nor does
    one with nothing to go on from.

    `options` must be plain YAML values. `inputs` are files whose sha256 goes into the manifest; an input inside a
    finished run folder makes that run a parent. `force` overwrites a folder of ours, never a stranger's.
    `resume` goes on with an unfinished one whose options are equal; None means that this command cannot resume.
    Errors: OutputError.
    """

    out: Path
    command: str
    options: Mapping[str, Any]
    inputs: Sequence[Path] = ()
    force: bool = False
    resume: bool | None = None
    seed: int | None = None
    _made: list[Path] = field(default_factory=list, init=False)
    _lock: IO[bytes] | None = field(default=None, init=False)
    _started: float = field(default=0.0, init=False)

    def check(self) -> None:
        """Refuse a folder that is taken, before any work is done."""
        if self.out.exists() and not self.out.is_dir():
            raise OutputError(self.out, "is a file", "Choose a folder for --out")
        held = set(self.out.iterdir()) if self.out.is_dir() else set()
        # Killed before its config stood, a run leaves nothing but the beginning of it.
        if not held - {self.out / LOCK, *leftovers(self.out, CONFIG)}:
            return
        if not (self.out / CONFIG).exists():
            raise OutputError(
                self.out, "holds files that are not of a zhllama run", "Choose an empty or new folder"
            )
        if self.force:
            for path in self.inputs:
                if path.resolve().is_relative_to(self.out.resolve()):
                    raise OutputError(
                        self.out, f"--force would remove the input {path}", "Choose another --out"
                    )
        elif self.finished():
            raise OutputError(self.out, "holds a finished run", "Give --force to make it anew")
        elif not self.resume:
            way = (
                "--resume to go on, or --force to start over"
                if self.resume is not None
                else "--force to start over"
            )
            raise OutputError(self.out, "holds an unfinished run", f"Give {way}")
        else:
            self._check_options()

    def finished(self) -> bool:
        """Whether the manifest stands."""
        return (self.out / MANIFEST).exists()

    def _check_options(self) -> None:
        then = read_config(self.out)
        now = {"command": self.command, **_plain(self.options)}
        changed = sorted(k for k in then.keys() | now.keys() if then.get(k) != now.get(k))
        if changed:
            told = ", ".join(f"{k} was {then.get(k)!r} and is {now.get(k)!r}" for k in changed)
            raise OutputError(
                self.out, f"was begun with other options: {told}", "Give the same ones, or --force"
            )

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self.check()
        missing = [p for p in (self.out, *self.out.parents) if not p.exists()]
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            self._made = missing
            self._take_lock()
            if self.force and (self.out / CONFIG).exists():
                _empty(self.out)
            for path in leftovers(self.out):
                path.unlink()
            write_whole(
                self.out / CONFIG,
                yaml.safe_dump(
                    {"command": self.command, **_plain(self.options)}, allow_unicode=True, sort_keys=False
                ),
            )
        except BaseException as error:
            self._leave_nothing()
            if isinstance(error, OSError):
                raise _no_room(self.out, error) from error
            raise
        return self

    def _take_lock(self) -> None:
        self._lock = (self.out / LOCK).open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            self._lock, self._made = None, []
            raise OutputError(
                self.out, "another run is writing here", "Wait for it, or choose another --out"
            ) from None

    def write(self, name: str, content: bytes | str) -> Path:
        """Write one product as a whole file and return its path."""
        path = self.out / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)
        except OSError as error:
            raise _no_room(path, error) from error
        return path

    def finish(self, figures: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Hash inputs and products, write the manifest, and return it: from here on the run is finished."""
        peak = (
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        )
        products = sorted(p for p in self.out.rglob("*") if p.is_file() and p.name not in (LOCK, MANIFEST))
        manifest = {
            "command": self.command,
            "options": _plain(self.options),
            "seed": self.seed,
            "inputs": [
                {"path": str(p.resolve()), "bytes": p.stat().st_size, "sha256": sha256(p)}
                for p in self.inputs
            ],
            "parents": [str(p) for p in _parents(self.inputs)],
            "outputs": {str(p.relative_to(self.out)): sha256(p) for p in products},
            "figures": dict(figures or {}),
            "packages": _versions(),
            "python": platform.python_version(),
            "machine": platform.platform(),
            "seconds": round(time.monotonic() - self._started, 2),
            "peak_memory_mb": round(peak / 1024),
        }
        self.write(MANIFEST, to_json(manifest))
        return manifest

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not self.finished() and (self.resume is None or self._bare()):
            self._leave_nothing()
        if self._lock is not None:
            self._lock.close()
            (self.out / LOCK).unlink(missing_ok=True)

    def _bare(self) -> bool:
        """Whether nothing was written that a later run could go on from."""
        return all(p.is_dir() or p.name in (CONFIG, LOCK) for p in self.out.rglob("*"))

    def _leave_nothing(self) -> None:
        """Remove what this run wrote, and the folders that it made for it."""
        if self.out in self._made or (self.out / CONFIG).exists():
            _empty(self.out)
        for path in self._made:
            shutil.rmtree(path, ignore_errors=True) if path == self.out else _remove_if_empty(path)


def read_config(folder: Path) -> dict[str, Any]:
    """The command and options that a run folder was begun with."""
    try:
        loaded = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(
            folder / CONFIG, f"cannot be read ({error})", "Give --force to start over"
        ) from error
    if not isinstance(loaded, dict):
        raise InputError(folder / CONFIG, "is not a mapping", "Give --force to start over")
    return loaded


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished run; InputError where there is none or it is broken."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(folder, "is not a finished run of zhllama", "Finish it with --resume") from None
    except ValueError as error:
        raise InputError(
            folder / MANIFEST, f"is broken ({error})", "Make the run again with --force"
        ) from error
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
    """What readers of a manifest rely on."""

    command: str = "?"
    options: dict[str, Any] = {}
    inputs: list[_Input] = []
    parents: list[str] = []
    outputs: dict[str, str] = {}
    figures: dict[str, Any] = {}
    seconds: float = 0.0


def changed_inputs(manifest: Mapping[str, Any]) -> list[Path]:
    """Inputs of a finished run that are gone or other than they were; beyond 64 MB their size tells."""
    return [Path(recorded["path"]) for recorded in manifest.get("inputs", []) if not as_it_was(recorded)]


def as_it_was(recorded: Mapping[str, Any]) -> bool:
    """Whether an input that a manifest recorded still stands with the same content."""
    path = Path(recorded["path"])
    if not path.is_file() or path.stat().st_size != recorded["bytes"]:
        return False
    return path.stat().st_size > HASHED or sha256(path) == str(recorded["sha256"])


def _parents(inputs: Sequence[Path]) -> list[Path]:
    folders = {folder.resolve() for path in inputs for folder in (path, path.parent)}
    return sorted(f for f in folders if (f / MANIFEST).is_file())


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        return value

    return {key: plain(value) for key, value in options.items() if value is not None}


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _empty(folder: Path) -> None:
    # The manifest goes first: from then on nobody takes what is left for a finished run. The config goes last: killed
    # on the way, what is left is still known to be ours.
    (folder / MANIFEST).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.name not in (LOCK, CONFIG):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    (folder / CONFIG).unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _no_room(path: Path, error: OSError) -> OutputError:
    return OutputError(
        path, f"cannot be written ({error.strerror or error})", "Choose a folder with room and rights"
    )
