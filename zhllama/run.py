"""A run: config first, products as whole files, the manifest last; with its manifest, a run is finished."""

import platform
import resource
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from zhllama.errors import InputError, OutputError
from zhllama.io.files import leftovers, to_json, write_whole
from zhllama.manifest import HASHED_OUTPUT, check_outputs, digest, read_config
from zhllama.run_folder import (
    CONFIG,
    LOCK,
    MANIFEST,
    MOVING,
    REPLACED,
    Lock,
    clear,
    drop_replaced,
    entries,
    is_bare,
    refuse_at_work,
    replaces,
    restore,
    set_aside,
)

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
    finished run folder makes that run a parent. `force` replaces a folder of ours, never a stranger's: the old run is set
    aside, removed when the new one is finished, and put back when that fails with nothing to go on from.
    `resume` goes on with an unfinished one whose options are equal; None means that this command cannot resume.
    Nothing is touched without the folder's lock, and a failed start removes only what it made itself.
    Errors: OutputError, InputError.
    """

    out: Path
    command: str
    options: Mapping[str, Any]
    inputs: Sequence[Path] = ()
    force: bool = False
    resume: bool | None = None
    seed: int | None = None
    _made: list[Path] = field(
        default_factory=list, init=False
    )  # folders that were not there, innermost first
    _before: set[str] = field(default_factory=set, init=False)  # what was in the folder
    _lock: Lock | None = field(default=None, init=False)
    _ours: bool = field(
        default=False, init=False
    )  # locked and checked: what appears from then on is of this run
    _set_aside: bool = field(default=False, init=False)
    _started: float = field(default=0.0, init=False)

    def check(self) -> None:
        """Refuse a folder that is taken, and inputs that are not as their runs wrote them, before any work is done."""
        check_outputs(self.inputs)
        if self.out.exists() and not self.out.is_dir():
            raise OutputError(self.out, "is a file", "Choose a folder for --out")
        refuse_at_work(self.out)
        # A run that --force set aside comes back first, under the lock, and is checked there.
        if not replaces(self.out):
            self._check_folder()

    def _check_folder(self) -> None:
        # Killed before its config stood, a run leaves nothing but the beginning of it.
        found = set(entries(self.out)) if self.out.is_dir() else set()
        if not found - set(leftovers(self.out, CONFIG)):
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
        elif changed := self._changed_options():
            told = ", ".join(f"{k} was {then!r} and is {now!r}" for k, (then, now) in changed.items())
            raise OutputError(
                self.out, f"was begun with other options: {told}", "Give the same ones, or --force"
            )

    def finished(self) -> bool:
        """Whether the manifest stands."""
        return (self.out / MANIFEST).exists()

    def _changed_options(self) -> dict[str, tuple[Any, Any]]:
        then, now = read_config(self.out), self._config()
        return {
            k: (then.get(k), now.get(k))
            for k in sorted(then.keys() | now.keys())
            if then.get(k) != now.get(k)
        }

    def _config(self) -> dict[str, Any]:
        return {"command": self.command, **_plain(self.options)}

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self.check()
        self._made = [p for p in (self.out, *self.out.parents) if not p.exists()]
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(self.out)
            self._bring_back()
            self._check_folder()
            self._before = {path.name for path in entries(self.out)}
            self._ours = True
            if self.force and self._before:
                set_aside(self.out)
                self._set_aside = True
            for path in leftovers(self.out):
                path.unlink(missing_ok=True)
            if not (self.out / CONFIG).exists():
                config = yaml.safe_dump(self._config(), allow_unicode=True, sort_keys=False)
                write_whole(self.out / CONFIG, config)
        except BaseException as error:
            self._leave(undo=self._ours)
            if isinstance(error, OSError):
                raise _no_room(self.out, error) from error
            raise
        return self

    def _bring_back(self) -> None:
        """Where a run that was to replace another one was killed: put that one back, unless the new one has something to keep."""
        if (self.out / MOVING).is_dir():  # killed while it was set aside, or put back
            restore(self.out)
        if not replaces(self.out):
            return
        if self.finished():
            drop_replaced(self.out)
        elif not self._continues() and (is_bare(self.out) or self._wrote_in_vain()):
            restore(self.out)

    def _continues(self) -> bool:
        return bool(self.resume) and (self.out / CONFIG).exists() and not self._changed_options()

    def _wrote_in_vain(self) -> bool:
        """Whether the killed run was of this command, which cannot resume: then what it wrote is of no use."""
        if self.resume is not None:
            return False
        try:
            return bool(read_config(self.out).get("command") == self.command)
        except InputError:
            return False

    def write(self, name: str, content: bytes | str) -> Path:
        """Write one product as a whole file and return its path."""
        path = self.out / name
        self._check_lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)
        except OSError as error:
            raise _no_room(path, error) from error
        return path

    def finish(self, figures: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Hash inputs and products, write the manifest, and return it: from here on the run is finished."""
        self._check_lock()
        peak = (
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        )
        files = (p for top in entries(self.out) for p in ([top] if top.is_file() else top.rglob("*")))
        products = sorted(p for p in files if p.is_file() and p.name not in (LOCK, MANIFEST))
        manifest = {
            "command": self.command,
            "options": _plain(self.options),
            "seed": self.seed,
            "inputs": [
                {"path": str(p.resolve()), "bytes": p.stat().st_size, "sha256": digest(p)}
                for p in self.inputs
            ],
            "parents": [str(p) for p in _parents(self.inputs)],
            "outputs": {str(p.relative_to(self.out)): digest(p) for p in products},
            "output_bytes": {
                str(p.relative_to(self.out)): p.stat().st_size
                for p in products
                if p.stat().st_size > HASHED_OUTPUT
            },
            "figures": dict(figures or {}),
            "packages": _versions(),
            "python": platform.python_version(),
            "machine": platform.platform(),
            "seconds": round(time.monotonic() - self._started, 2),
            "peak_memory_mb": round(peak / 1024),
        }
        self.write(MANIFEST, to_json(manifest))
        drop_replaced(self.out)
        return manifest

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._lock is not None
        here = self._lock.held()
        failed = kind is not None and not self.finished()
        self._leave(undo=here and failed and (self.resume is None or is_bare(self.out)))
        if isinstance(error, Exception) and not here:
            raise self._removed() from error

    def _leave(self, undo: bool) -> None:
        """Release the lock; with `undo` the folder is first as it was before, whatever this run wrote or set aside."""
        try:
            if undo and (self._set_aside or (self.out / MOVING).is_dir()):
                restore(self.out)
            elif undo:
                clear(self.out, {*self._before, REPLACED})
        finally:
            if self._lock is not None:
                self._lock.release(remove=self._ours or self._lock.created)
            self._lock = None
            for folder in self._made:
                if folder.is_dir() and not any(folder.iterdir()):
                    with suppress(OSError):  # another process has begun to write there
                        folder.rmdir()

    def _check_lock(self) -> None:
        if self._lock is not None and not self._lock.held():
            raise self._removed()

    def _removed(self) -> OutputError:
        return OutputError(self.out, "was removed while the run was at work", "Start the run again")


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


def _no_room(path: Path, error: OSError) -> OutputError:
    return OutputError(
        path, f"cannot be written ({error.strerror or error})", "Choose a folder with room and rights"
    )
