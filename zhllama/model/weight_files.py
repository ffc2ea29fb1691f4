"""A model's weights as files: headers read, tensors mapped, single ones changed, every other byte passed on."""

import json
import math
import os
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhllama.errors import InputError, OutputError
from zhllama.io.json import read_object
from zhllama.io.safetensors import AGAIN, Stored, read_header
from zhllama.io.torch import load_torch

if TYPE_CHECKING:
    import torch

BLOCK = 1 << 24  # bytes copied at once


@dataclass(frozen=True)
class Change:
    """What becomes of a tensor: its shape afterwards, and how it is made from the old one."""

    shape: tuple[int, ...]
    make: "Callable[[torch.Tensor], torch.Tensor]"


@dataclass(frozen=True)
class Weights:
    """The tensors of a model folder; nothing but headers is read until one is asked for."""

    folder: Path
    tensors: Mapping[str, Stored]

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The names of the weight files, in order."""
        return tuple(sorted({stored.file for stored in self.tensors.values()}))

    def tensor(self, name: str) -> "torch.Tensor":
        """One tensor, mapped from its file: no memory until it is touched. Not to be written to."""
        import numpy as np
        import torch

        stored = self.tensors[name]
        if not stored.file.endswith(".safetensors"):
            return _read_bin(self.folder / stored.file)[name]

        shape = (stored.end - stored.start,)
        raw = np.memmap(self.folder / stored.file, np.uint8, "c", offset=stored.start, shape=shape)
        flat = torch.from_numpy(raw) if shape[0] else torch.empty(0, dtype=torch.uint8)
        return flat.view(_dtype(stored.dtype)).reshape(stored.shape)


def read_weights(folder: Path) -> Weights:
    """The weights of a plain folder: safetensors, else .bin; one file or shards.

    Errors: InputError for a folder without weights, a missing or cut-off shard, and tensors the index does not know.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if index.is_file():
            held = read_object(index, AGAIN).get("weight_map")
            if not isinstance(held, dict) or not all(isinstance(file, str) for file in held.values()):
                raise InputError(index, "is not an index of shards: it has no weight_map of names", AGAIN)
            files = sorted(set(held.values()))
        elif (folder / name).is_file():
            files = [name]
        else:
            continue
        tensors: dict[str, Stored] = {}
        for file in files:
            if file in ("", ".", "..") or "/" in file or "\\" in file:
                raise InputError(folder, f"names a shard outside of itself, {file!r}", AGAIN)
            if not (folder / file).is_file():
                raise InputError(folder / file, "is missing", AGAIN)
            path = folder / file
            found = read_header(path) if file.endswith(".safetensors") else _bin_header(path)
            if twice := next(iter(tensors.keys() & found.keys()), None):
                raise InputError(path, f"holds {ascii(twice)[:80]}, as another shard does", AGAIN)
            tensors |= found
        return Weights(folder, tensors)
    raise InputError(
        folder, "holds no weights (model.safetensors, pytorch_model.bin, or their shards)", AGAIN
    )


def rewrite(weights: Weights, out: Path, changes: Mapping[str, Change]) -> list[str]:
    """Write all weight files to `out`, changed where `changes` says so, and return the names of those rewritten.

    Shards without a change are linked where the file system allows, else copied. One changed tensor is in memory at a
    time. Errors: OutputError where there is no room.
    """
    rewritten = []
    for file in weights.files:
        here = {name: change for name, change in changes.items() if weights.tensors[name].file == file}
        part = out / f".{file}.part"
        try:
            if not here:
                link(weights.folder / file, out / file)
                continue
            if file.endswith(".safetensors"):
                _rewrite_safetensors(weights, file, part, here)
            else:
                _rewrite_bin(weights, file, part, here)
            part.replace(out / file)
            rewritten.append(file)
        except OSError as error:
            raise OutputError(
                out / file, f"cannot be written ({error.strerror or error})", "Free some room"
            ) from error
        finally:
            part.unlink(missing_ok=True)
    _write_index(weights, out)
    return rewritten


def link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy on another file system."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _rewrite_safetensors(weights: Weights, file: str, part: Path, changes: Mapping[str, Change]) -> None:
    import torch

    here = {name: stored for name, stored in weights.tensors.items() if stored.file == file}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, stored in here.items():
        shape = changes[name].shape if name in changes else stored.shape
        old, new = math.prod(stored.shape), math.prod(shape)
        length = (stored.end - stored.start) // old * new if old else 0
        header[name] = {"dtype": stored.dtype, "shape": list(shape), "data_offsets": [at, at + length]}
        at += length
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with part.open("wb") as out, (weights.folder / file).open("rb") as source:
        out.write(struct.pack("<Q", len(head)) + head)
        for name, stored in here.items():
            if name in changes:
                made = changes[name].make(weights.tensor(name)).to(_dtype(stored.dtype)).contiguous()
                assert tuple(made.shape) == changes[name].shape
                out.write(made.view(-1).view(torch.uint8).numpy().data)
                continue
            source.seek(stored.start)
            left = stored.end - stored.start
            while left:
                block = source.read(min(BLOCK, left))
                out.write(block)
                left -= len(block)
        out.flush()
        os.fsync(out.fileno())


def _rewrite_bin(weights: Weights, file: str, part: Path, changes: Mapping[str, Change]) -> None:
    import torch

    tensors = dict(_read_bin(weights.folder / file))
    for name, change in changes.items():
        old = tensors[name]
        made = change.make(old).to(old.dtype).contiguous()
        for other, tensor in tensors.items():  # torch keeps tied tensors in one storage; so do we
            if tensor is old or tensor.data_ptr() == old.data_ptr():
                tensors[other] = made
    with part.open("wb") as out:
        torch.save(tensors, out)


def _read_bin(path: Path) -> "dict[str, torch.Tensor]":
    import torch

    tensors = load_torch(path, AGAIN)
    if not isinstance(tensors, dict) or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
        raise InputError(path, "holds something other than tensors by name", AGAIN)
    return tensors


def _bin_header(path: Path) -> dict[str, Stored]:
    names = {dtype: name for name, dtype in _dtypes().items()}
    tensors = _read_bin(path)
    if strange := next((t.dtype for t in tensors.values() if t.dtype not in names), None):
        raise InputError(path, f"holds weights of the type {strange}, which is not known here", AGAIN)
    return {str(name): Stored(path.name, names[t.dtype], tuple(t.shape)) for name, t in tensors.items()}


def _write_index(weights: Weights, out: Path) -> None:
    """The index of the shards, with its total true to what was written."""
    for path in weights.folder.glob("*.index.json"):
        index = read_object(path, AGAIN)
        named = index.get("weight_map")
        if not isinstance(named, dict) or {str(file) for file in named.values()} != set(weights.files):
            continue
        written = _bytes_in(out, weights.files)
        metadata = index.get("metadata")
        index["metadata"] = {**(metadata if isinstance(metadata, dict) else {}), "total_size": written}
        (out / path.name).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _bytes_in(folder: Path, files: tuple[str, ...]) -> int:
    """Of all tensors in some weight files."""
    total = 0
    for file in files:
        if file.endswith(".safetensors"):
            total += sum(s.end - s.start for s in read_header(folder / file).values())
        else:
            total += sum(t.nbytes for t in _read_bin(folder / file).values())
    return total


def _dtype(name: str) -> "torch.dtype":
    if name not in _dtypes():
        raise InputError(
            "weights", f"are stored as {name}, which is not known here", "Convert them to bfloat16"
        )
    return _dtypes()[name]


@cache
def _dtypes() -> "dict[str, torch.dtype]":
    """safetensors' names of the types of torch."""
    import torch

    return {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
        "I64": torch.int64,
        "I32": torch.int32,
        "I16": torch.int16,
        "I8": torch.int8,
        "U8": torch.uint8,
        "BOOL": torch.bool,
    }
