"""Atomic checkpoints: written to a temporary folder, synced to disk and renamed; the previous one stays until then."""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from zhllama.errors import InputError, OutputError
from zhllama.io.files import RESUME_ROOM, RESUME_WRITABLE, remedy_of_writing, seal, unsealed
from zhllama.io.safetensors import load_tensors
from zhllama.io.torch import check_states

TRAINED = "trained.safetensors"


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint; InputError if one of its files has changed since it was written."""
    newest = next(iter(reversed(_checkpoints(folder))), None)
    if newest:
        remedy = f"Remove {newest}; `resume` then continues from the step before it"
        if changed := unsealed(newest):
            raise InputError(changed, "is not as the checkpoint was written", remedy)
        check_states(newest, remedy)
    return newest


def _checkpoints(folder: Path) -> list[Path]:
    """List all complete checkpoints, oldest first."""
    paths = (p for p in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name))
    return sorted(paths, key=step_of)


def step_of(checkpoint: Path) -> int:
    """Return the step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def temporary_path(path: Path) -> Path:
    """Return where a file or folder is written before it gets its name."""
    return path.with_name(f".{path.name}.part")


def make_empty(folder: Path) -> None:
    """Create an empty folder, removing what an earlier attempt left."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def finish_checkpoint(part: Path, folder: Path) -> None:
    """Record the hash of each file, by which later corruption is detected, and rename the checkpoint into place."""
    seal(part)
    finish_folder(part, folder)


def finish_folder(part: Path, folder: Path) -> None:
    """Sync all files to disk and rename the folder into place."""
    for path in part.rglob("*"):
        if path.is_file():
            sync_file(path)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to `folder` at the end; an error removes it."""
    part = temporary_path(folder)
    with disk_errors(folder):
        make_empty(part)
        yield part
        finish_folder(part, folder)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Remove the temporary files of `path` on any error; turn every library's error of a full disk into OutputError."""
    try:
        yield
    except BaseException as error:
        _remove(temporary_path(path))
        if not _is_write_error(error, path):
            raise
        message = " ".join(str(error).split())[:120]
        remedy = RESUME_ROOM
        if isinstance(error, OSError):
            remedy = remedy_of_writing(error, RESUME_WRITABLE, RESUME_ROOM)
        raise OutputError(path, f"cannot be written ({message})", remedy) from error


def _is_write_error(error: BaseException, path: Path) -> bool:
    """Return whether an error comes from writing `path`, and not from files that are read meanwhile.

    torch.save reports a full disk as a RuntimeError of its zip writer, safetensors as its own error with the system's
    error number in the text. An OSError names the file that could not be opened, and none if writing failed; an
    OSError without a number, such as pyarrow's for a damaged page, is not the system's.
    """
    if isinstance(error, RuntimeError):
        return "inline_container" in str(error) or "PytorchStreamWriter" in str(error)
    if isinstance(error, SafetensorError):
        return "os error" in str(error)
    if not isinstance(error, OSError) or error.errno is None:
        return False
    names = (error.filename, error.filename2)
    files = [Path(os.fsdecode(name)) for name in names if isinstance(name, str | bytes)]
    return not files or any(path.parent in file.parents or file == path.parent for file in files)


def sync_file(path: Path) -> None:
    """Wait until a file is on disk, and make it readable to all: safetensors leaves it readable to its owner alone."""
    path.chmod(0o644)
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def keep_newest(folder: Path, count: int = 1) -> None:
    """Remove all but the newest `count` checkpoints."""
    for old in _checkpoints(folder)[:-count]:
        shutil.rmtree(old, ignore_errors=True)


def trainable_tensors(model: nn.Module, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return the trainable parameters by name; from `state`, the gathered parameters, if they are sharded."""
    trainable = {_plain_name(name): p.detach() for name, p in model.named_parameters() if p.requires_grad}
    if state is None:
        return trainable
    return {name: state[name] for name in trainable if name in state}


def _plain_name(name: str) -> str:
    return name.replace("_fsdp_wrapped_module.", "").removeprefix("module.")


def save_trainable(model: nn.Module, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Save the trainable parameters alone: a frozen 7B model need not be written at every checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: t.contiguous() for name, t in trainable_tensors(model, state).items()}, folder / TRAINED)


def save_whole(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one safetensors file atomically."""
    with disk_errors(path):
        part = temporary_path(path)
        save_file(dict(tensors), part)
        sync_file(part)
        part.replace(path)


def load_trainable(model: nn.Module, folder: Path) -> None:
    """Copy a checkpoint's values into the model's parameters; InputError if names or shapes differ."""
    saved = load_tensors(folder / TRAINED, "Remove this checkpoint, and give `resume` again")
    trainable = trainable_tensors(model)
    if {n: t.shape for n, t in saved.items()} != {n: t.shape for n, t in trainable.items()}:
        message = "is a checkpoint of other rows or adapters"
        raise InputError(folder, message, "Give the options that the run started with")
    with torch.no_grad():
        for name, tensor in trainable.items():
            tensor.copy_(saved[name])
