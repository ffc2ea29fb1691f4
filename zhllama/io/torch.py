"""Reads files of torch.save: tensors and plain values only; pickled objects, which would run code, are refused by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from zhllama.errors import InputError
from zhllama.io.files import require_regular

# Files that transformers' Trainer writes next to the weights in a checkpoint, and opens itself on resume.
STATES = ("optimizer*.pt", "scheduler.pt", "scaler.pt", "rng_state*.pth", "*.bin", "training_args.bin")


def load_torch(path: Path, remedy: str) -> Any:
    """The value in a file. Errors: InputError for a truncated file, another format, and pickled objects."""
    import torch

    require_regular(path)
    with _as_input_error(path, remedy):
        # torch's format before 1.6 is no archive, and cannot be mapped
        return torch.load(path, "cpu", mmap=is_zipfile(path), weights_only=True)


def check_states(checkpoint: Path, remedy: str) -> None:
    """Refuse a checkpoint whose states contain pickled objects, before transformers opens them. Errors: InputError."""
    import torch
    from torch.serialization import get_unsafe_globals_in_checkpoint
    from transformers.trainer_pt_utils import safe_globals

    for path in sorted({p for pattern in STATES for p in checkpoint.glob(pattern)}):
        if path.name == "training_args.bin":  # written for the user; nothing reads it
            continue
        require_regular(path)
        with _as_input_error(path, remedy), safe_globals():  # type: ignore[no-untyped-call]
            if objects := get_unsafe_globals_in_checkpoint(path):
                raise _objects(path, objects, remedy)
            torch.load(path, "cpu", mmap=True, weights_only=True)


@contextmanager
def _as_input_error(path: Path, remedy: str) -> Iterator[None]:
    """Replace errors of torch, which advise `weights_only=False` and thereby running code from the file."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if "weights_only" in str(error) or type(error).__name__ == "UnpicklingError":
            raise _objects(path, _object_names(path), remedy) from error
        detail = " ".join(str(error).split())[:150]
        raise InputError(path, f"is cut off or was not written by torch.save ({detail})", remedy) from error


def _object_names(path: Path) -> list[str]:
    """The pickled objects in a file, as far as torch lists them without loading it."""
    from torch.serialization import get_unsafe_globals_in_checkpoint

    try:
        return get_unsafe_globals_in_checkpoint(path)
    except Exception:
        return []  # an old or broken format, which is refused anyway


def _objects(path: Path, names: list[str], remedy: str) -> InputError:
    listed = f" ({', '.join(sorted(names))[:100]})" if names else ""
    return InputError(path, f"contains pickled objects{listed}, which are never run here", remedy)
