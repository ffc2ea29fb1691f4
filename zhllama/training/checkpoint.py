"""Checkpoints as wholes: written beside, settled on the disk, renamed; the last good one stays until the next stands."""

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
from zhllama.io.files import seal, unsealed
from zhllama.io.safetensors import load_tensors
from zhllama.io.torch import check_states

TRAINED = "trained.safetensors"


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint; InputError where a file of it is not as it was written."""
    newest = next(iter(reversed(_checkpoints(folder))), None)
    if newest and (changed := unsealed(newest)):
        remedy = f"Remove {newest}; --resume then goes on from before it"
        raise InputError(changed, "is not as the checkpoint was written", remedy)
    if newest:
        check_states(newest, f"Remove {newest}; --resume then goes on from before it")
    return newest


def _checkpoints(folder: Path) -> list[Path]:
    """All whole checkpoints, oldest first."""
    found = (p for p in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name))
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step after which it was taken."""
    return int(checkpoint.name.rpartition("-")[2])


def part_of(folder: Path) -> Path:
    """Where a folder is written before it takes its name."""
    return folder.with_name(f".{folder.name}.part")


def begin(part: Path) -> None:
    """An empty folder to write into."""
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)


def finish_checkpoint(part: Path, folder: Path) -> None:
    """Name a checkpoint once the hash of each file lies in it, by which one that the disk has spoiled is known."""
    seal(part)
    finish(part, folder)


def finish(part: Path, folder: Path) -> None:
    """Settle all files on the disk and give the folder its name."""
    for path in part.rglob("*"):
        if path.is_file():
            settle(path)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder beside to write into, which takes its name when all is written; an error leaves nothing of it."""
    with disk_errors(folder):
        begin(part_of(folder))
        yield part_of(folder)
        finish(part_of(folder), folder)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """On any error removes what lies beside `folder`; OutputError for a full or broken disk, whatever the library says."""
    try:
        yield
    except BaseException as error:
        _remove(part_of(folder))
        if not _of_writing(error, folder):
            raise
        told = " ".join(str(error).split())[:120]
        raise OutputError(
            folder, f"cannot be written ({told})", "Free some room, then go on with --resume"
        ) from error


def _of_writing(error: BaseException, folder: Path) -> bool:
    """Whether an error comes from writing `folder`, and not from what is read meanwhile.

    torch.save tells of a full disk by a RuntimeError of its zip writer, safetensors by an error of its own with the number
    of the system's. An error of the system names the file that could not be opened, and none where writing failed; one
    without a number, such as pyarrow's for a damaged page, is not the system's.
    """
    if isinstance(error, RuntimeError):
        return "inline_container" in str(error) or "PytorchStreamWriter" in str(error)
    if isinstance(error, SafetensorError):
        return "os error" in str(error)
    if not isinstance(error, OSError) or error.errno is None:
        return False
    named = [
        Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)
    ]
    return not named or any(folder.parent in path.parents or path == folder.parent for path in named)


def settle(path: Path) -> None:
    """Wait until a file is on the disk; safetensors makes them readable to the owner alone, which is undone."""
    path.chmod(0o644)
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(part: Path) -> None:
    shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)


def keep_newest(folder: Path, count: int = 1) -> None:
    """Remove all but the newest checkpoints."""
    for old in _checkpoints(folder)[:-count]:
        shutil.rmtree(old, ignore_errors=True)


def trained_tensors(model: nn.Module, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """What learns, by name; from `state` where parameters are cut up and it holds them whole."""
    learning = {_plain(name): p.detach() for name, p in model.named_parameters() if p.requires_grad}
    if state is None:
        return learning
    return {name: state[name] for name in learning if name in state}


def _plain(name: str) -> str:
    return name.replace("_fsdp_wrapped_module.", "").removeprefix("module.")


def save_trained(model: nn.Module, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Only what learns: a frozen 7B model need not be written again at every checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: t.contiguous() for name, t in trained_tensors(model, state).items()}, folder / TRAINED)


def save_whole(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """One safetensors file, whole or not at all."""
    with disk_errors(path):
        save_file(dict(tensors), part_of(path))
        settle(part_of(path))
        part_of(path).replace(path)


def load_trained(model: nn.Module, folder: Path) -> None:
    """Write a checkpoint's values into the model's own memory; InputError where they are not this model's."""
    held = load_tensors(folder / TRAINED, "Remove this checkpoint, and --resume again")
    learning = trained_tensors(model)
    if {n: t.shape for n, t in held.items()} != {n: t.shape for n, t in learning.items()}:
        raise InputError(
            folder, "is a checkpoint of other rows or adapters", "Give the options it was begun with"
        )
    with torch.no_grad():
        for name, tensor in learning.items():
            tensor.copy_(held[name])
