"""Reads files of torch.save: tensors and plain values only; objects that would run code are refused by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zhllama.errors import InputError
from zhllama.io.files import require_regular

# What transformers' Trainer keeps beside the weights in a checkpoint, and opens by itself when it resumes.
STATES = ("optimizer*.pt", "scheduler.pt", "scaler.pt", "rng_state*.pth", "*.bin", "training_args.bin")


def load_torch(path: Path, remedy: str) -> Any:
    """The value in a file; InputError where it is cut off, of another kind, or holds pickled objects."""
    import torch

    require_regular(path)
    with _refused(path, remedy):
        return torch.load(path, "cpu", mmap=True, weights_only=True)


def check_states(checkpoint: Path, remedy: str) -> None:
    """Refuse a checkpoint whose states hold pickled objects, before transformers opens them and tells of it in its way."""
    import torch
    from torch.serialization import get_unsafe_globals_in_checkpoint
    from transformers.trainer_pt_utils import safe_globals

    for path in sorted({p for pattern in STATES for p in checkpoint.glob(pattern)}):
        if path.name == "training_args.bin":  # written by transformers for the user; nothing reads it
            continue
        require_regular(path)
        with _refused(path, remedy), safe_globals():  # type: ignore[no-untyped-call]
            if objects := get_unsafe_globals_in_checkpoint(path):
                raise _objects(path, objects, remedy)
            torch.load(path, "cpu", mmap=True, weights_only=True)


@contextmanager
def _refused(path: Path, remedy: str) -> Iterator[None]:
    """Every error of torch in our words: its own advise `weights_only=False`, which runs whatever the file holds."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if "weights_only" in str(error) or type(error).__name__ == "UnpicklingError":
            raise _objects(path, _named(path), remedy) from error
        told = " ".join(str(error).split())[:150]
        raise InputError(path, f"is cut off or was not written by torch.save ({told})", remedy) from error


def _named(path: Path) -> list[str]:
    """The objects that a file names, as far as they can be told without loading it."""
    from torch.serialization import get_unsafe_globals_in_checkpoint

    try:
        return get_unsafe_globals_in_checkpoint(path)
    except Exception:
        return []  # an old or broken format: it is refused all the same


def _objects(path: Path, names: list[str], remedy: str) -> InputError:
    some = f" ({', '.join(sorted(names))[:100]})" if names else ""
    return InputError(path, f"contains pickled objects{some}, which are never run here", remedy)
