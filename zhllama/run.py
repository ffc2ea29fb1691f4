"""Writes a run folder: the config first, outputs as whole files, and last the manifest, which marks the run finished."""

import errno
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
from zhllama.io.files import leftovers, not_written, to_json, write_whole
from zhllama.manifest import HASHED_OUTPUT, check_outputs, digest, read_config
from zhllama.run_folder import (
    CONFIG,
    LOCK,
    MANIFEST,
    MOVING,
    REPLACED,
    SPENT,
    Lock,
    clear,
    entries,
    has_no_output,
    has_replaced_run,
    move_to_replaced,
    refuse_if_running,
    remove_replaced,
    restore,
    seconds_spent,
)
from zhllama.start_time import STARTED

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
    """A context manager for the run folder of a command; after an error it removes a run that cannot be resumed.

    `options` must be plain YAML values. `inputs` are files whose sha256 the manifest records; an input inside a finished
    run folder makes that run a parent. `force` replaces a run folder, never another folder: the old run is moved to
    REPLACED, removed when the new run finishes, and restored when the new run fails without resumable output. `resume`
    continues an unfinished run with equal options; None means that the command cannot resume. Nothing changes without
    the folder's lock, and a failed start removes only its own files. Errors: OutputError, InputError.
    """

    out: Path
    command: str
    options: Mapping[str, Any]
    inputs: Sequence[Path] = ()
    force: bool = False
    resume: bool | None = None
    seed: int | None = None
    # Folders that this run created, innermost first.
    _created: list[Path] = field(default_factory=list, init=False)
    _names_before: set[str] = field(default_factory=set, init=False)
    _lock: Lock | None = field(default=None, init=False)
    # The folder is locked and checked: every file that appears from now on belongs to this run.
    _owned: bool = field(default=False, init=False)
    _moved_old_run: bool = field(default=False, init=False)
    _written: set[Path] = field(default_factory=set, init=False)
    _started: float = field(default=0.0, init=False)
    _earlier: float = field(default=0.0, init=False)  # seconds of the starts that this one resumes

    def check(self) -> None:
        """Refuse a folder that is in use, and inputs that changed since their runs wrote them, before any work."""
        check_outputs(self.inputs)
        if self.out.exists() and not self.out.is_dir():
            raise OutputError(self.out, "is a file", "Choose a folder for `out`")
        try:
            refuse_if_running(self.out)
            # A replaced run is first restored under the lock, and checked there.
            if not has_replaced_run(self.out):
                self._check_folder()
        except PermissionError as error:
            raise not_written(self.out, error) from error

    def _check_folder(self) -> None:
        # A run that is killed before its config is complete leaves only a part of the config.
        names = set(entries(self.out)) if self.out.is_dir() else set()
        if not names - set(leftovers(self.out, CONFIG)):
            return
        if not (self.out / CONFIG).exists():
            raise OutputError(
                self.out,
                "contains files that do not belong to a zhllama run",
                "Choose an empty or new folder",
            )
        if self.force:
            for path in self.inputs:
                if path.resolve().is_relative_to(self.out.resolve()):
                    raise OutputError(
                        self.out, f"`force` would remove the input {path}", "Choose another `out`"
                    )
        elif self.finished():
            raise OutputError(self.out, "contains a finished run", "Give `force` to start over")
        elif not self.resume:
            remedy = (
                "Give `force` to start over"
                if self.resume is None
                else "Give `resume` to continue, or `force` to start over"
            )
            raise OutputError(self.out, "contains an unfinished run", remedy)
        elif changed := self._changed_options():
            changes = ", ".join(f"{k} {old!r} → {new!r}" for k, (old, new) in changed.items())
            raise OutputError(
                self.out, f"was started with other options: {changes}", "Give the same options, or `force`"
            )

    def finished(self) -> bool:
        """Whether the manifest exists."""
        return (self.out / MANIFEST).exists()

    def _changed_options(self) -> dict[str, tuple[Any, Any]]:
        old, new = read_config(self.out), self._config()
        return {
            k: (old.get(k), new.get(k)) for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)
        }

    def _config(self) -> dict[str, Any]:
        return {"command": self.command, **_plain(self.options)}

    def __enter__(self) -> Self:
        self._started = STARTED.get() or time.monotonic()
        self.check()
        self._created = [p for p in (self.out, *self.out.parents) if not p.exists()]
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(self.out)
            self._restore_old_run()
            self._check_folder()
            self._names_before = {path.name for path in entries(self.out)}
            if (self.out / SPENT).exists():
                self._names_before.add(SPENT)
            self._owned = True
            if self.force and self._names_before:
                move_to_replaced(self.out)
                self._moved_old_run = True
            for path in leftovers(self.out):
                path.unlink(missing_ok=True)
            if self.resume and self._names_before:
                self._earlier = seconds_spent(self.out, self._lock.left_behind)
                self._write_spent(self._earlier)
            if not (self.out / CONFIG).exists():
                config = yaml.safe_dump(self._config(), allow_unicode=True, sort_keys=False)
                write_whole(self.out / CONFIG, config)
        except BaseException as error:
            self._leave(undo=self._owned)
            if isinstance(error, OSError):
                raise not_written(self.out, error) from error
            raise
        return self

    def _restore_old_run(self) -> None:
        """Restore the old run where its replacement was killed without resumable output."""
        if (self.out / MOVING).is_dir():  # killed while the old run was moved or restored
            restore(self.out)
        if not has_replaced_run(self.out):
            return
        if self.finished():
            remove_replaced(self.out)
        elif not self._resumes() and (has_no_output(self.out) or self._cannot_resume()):
            restore(self.out)

    def _resumes(self) -> bool:
        return bool(self.resume) and (self.out / CONFIG).exists() and not self._changed_options()

    def _cannot_resume(self) -> bool:
        """Whether the killed run was of this command, which cannot resume."""
        if self.resume is not None:
            return False
        try:
            return bool(read_config(self.out).get("command") == self.command)
        except InputError:
            return False

    def _seconds(self) -> float:
        """What this run took so far, with the starts that it resumes."""
        return self._earlier + time.monotonic() - self._started

    def _write_spent(self, seconds: float) -> None:
        with suppress(OSError):  # on a full disk the rest of the run counts
            write_whole(self.out / SPENT, f"{seconds:.2f}\n")

    def write(self, name: str, content: bytes | str) -> Path:
        """Write one output as a whole file and return its path."""
        path = self.out / name
        self._check_lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)
        except OSError as error:
            raise not_written(path, error) from error
        self._written.add(path)
        return path

    def finish(self, figures: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Hash the inputs and outputs, write the manifest, which marks the run finished, and return it."""
        self._check_lock()
        peak = (
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        )
        files = (p for top in entries(self.out) for p in ([top] if top.is_file() else top.rglob("*")))
        outputs = sorted(p for p in files if p.is_file() and p.name not in (LOCK, MANIFEST))
        manifest = {
            "command": self.command,
            "options": _plain(self.options),
            "seed": self.seed,
            "inputs": [
                {"path": str(p.resolve()), "bytes": p.stat().st_size, "sha256": digest(p)}
                for p in self.inputs
            ],
            "parents": [str(p) for p in _parents(self.inputs)],
            "outputs": {str(p.relative_to(self.out)): digest(p) for p in outputs},
            "output_bytes": {
                str(p.relative_to(self.out)): p.stat().st_size
                for p in outputs
                if p.stat().st_size > HASHED_OUTPUT
            },
            "figures": dict(figures or {}),
            "packages": _versions(),
            "python": platform.python_version(),
            "machine": platform.platform(),
            "seconds": round(self._seconds(), 2),
            "peak_memory_mb": round(peak / 1024),
        }
        self.write(MANIFEST, to_json(manifest))
        (self.out / SPENT).unlink(missing_ok=True)
        remove_replaced(self.out)
        return manifest

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._lock is not None
        locked = self._lock.is_valid()
        removed = isinstance(error, Exception) and (not locked or self._lost_files())
        failed = kind is not None and not self.finished()
        undo = locked and failed and (self.resume is None or has_no_output(self.out))
        if locked and failed and not undo:
            self._write_spent(self._seconds())
        self._leave(undo)
        if removed:
            raise self._removed() from error
        # What is written through an open file raises errors without a name.
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT) and not error.filename:
            raise not_written(self.out, error) from error

    def _leave(self, undo: bool) -> None:
        """Release the lock; with `undo` first restore the folder to its state before this run."""
        try:
            if undo and (self._moved_old_run or (self.out / MOVING).is_dir()):
                restore(self.out)
            elif undo:
                clear(self.out, {*self._names_before, REPLACED})
        finally:
            if self._lock is not None:
                self._lock.release(remove=self._owned or self._lock.created)
            self._lock = None
            for folder in self._created:
                if folder.is_dir() and not any(folder.iterdir()):
                    with suppress(OSError):  # another process started to write there
                        folder.rmdir()

    def _check_lock(self) -> None:
        if self._lock is not None and not self._lock.is_valid():
            raise self._removed()

    def _lost_files(self) -> bool:
        """Whether products are gone one by one: the lock's file may be the last that a removal of the folder reaches."""
        return any(path.parent.is_dir() and not path.exists() for path in self._written)

    def _removed(self) -> OutputError:
        return OutputError(self.out, "was removed during the run", "Start the run again")


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
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
