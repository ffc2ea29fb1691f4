"""Reads a model's weight files by their headers, and rewrites single tensors while all other bytes are copied.

safetensors.safe_open does not give a tensor's place in the file, by which unchanged bytes are copied without being decoded.
"""

import json
import math
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhllama.errors import InputError
from zhllama.io.files import is_present, not_written
from zhllama.io.json import read_object
from zhllama.io.safetensors import AGAIN, Stored, read_header
from zhllama.io.torch import load_torch

if TYPE_CHECKING:
    import torch

BLOCK = 1 << 24  # bytes per read


@dataclass(frozen=True)
class Change:
    """A tensor's new shape, and the function that computes the new tensor from the old one.

    A tensor that is not stored yet is computed from the stored one named `source`, and written into the same file.
    """

    shape: tuple[int, ...]
    apply: "Callable[[torch.Tensor], torch.Tensor]"
    source: str | None = None


@dataclass(frozen=True)
class Weights:
    """The tensors of a model folder; only headers are read until a tensor is requested."""

    folder: Path
    tensors: Mapping[str, Stored]

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The names of the weight files, in order."""
        return tuple(sorted({stored.file for stored in self.tensors.values()}))

    def size(self, name: str) -> int:
        """The bytes of one tensor."""
        stored = self.tensors[name]
        return math.prod(stored.shape) * _dtype(stored.dtype).itemsize

    def tensor(self, name: str) -> "torch.Tensor":
        """One tensor, memory-mapped from its file; do not write to it."""
        import numpy as np
        import torch

        stored = self.tensors[name]
        if not stored.file.endswith(".safetensors"):
            return _read_bin(self.folder / stored.file)[name]

        shape = (stored.end - stored.start,)
        raw = np.memmap(self.folder / stored.file, np.uint8, "c", offset=stored.start, shape=shape)
        flat = torch.from_numpy(raw) if shape[0] else torch.empty(0, dtype=torch.uint8)
        return flat.view(_dtype(stored.dtype)).reshape(stored.shape)

    def in_file(self, file: str) -> "Iterator[tuple[str, torch.Tensor]]":
        """Each tensor of one file with its name; a .bin file is read once."""
        if not file.endswith(".safetensors"):
            yield from _read_bin(self.folder / file).items()
            return
        for name, stored in self.tensors.items():
            if stored.file == file:
                yield name, self.tensor(name)


def read_weights(folder: Path) -> Weights:
    """The weights of a plain folder, in safetensors or else .bin; one file or shards.

    Errors: InputError for a folder without weights, a missing or truncated shard, and a tensor in two shards.
    """
    tensors: dict[str, Stored] = {}
    for file in _weight_files(folder):
        path = folder / file
        header = read_header(path) if file.endswith(".safetensors") else _bin_header(path)
        if duplicate := next(iter(tensors.keys() & header.keys()), None):
            raise InputError(
                path, f"contains {ascii(duplicate)[:80]}, which another shard contains too", AGAIN
            )
        tensors |= header
    return Weights(folder, tensors)


def check_weights(folder: Path) -> None:
    """Refuse the weights that `read_weights` refuses, before transformers reads them; of .bin files only the names.

    Errors: InputError.
    """
    if all(file.endswith(".safetensors") for file in _weight_files(folder)):
        read_weights(folder)


def _weight_files(folder: Path) -> list[str]:
    """The names of the files that contain the weights, in the order of preference that transformers has."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if is_present(folder / name):
            return [name]
        if not is_present(index):
            continue
        files_by_tensor = read_object(index, AGAIN).get("weight_map")
        if not isinstance(files_by_tensor, dict) or not all(
            isinstance(file, str) for file in files_by_tensor.values()
        ):
            raise InputError(index, "is not a shard index: it has no weight_map of file names", AGAIN)
        files = sorted(set(files_by_tensor.values()))
        for file in files:
            if file in ("", ".", "..") or "/" in file or "\\" in file:
                raise InputError(folder, f"names a shard outside the folder, {file!r}", AGAIN)
            if not (folder / file).is_file():
                raise InputError(folder / file, "is missing", AGAIN)
        return files
    raise InputError(
        folder, "contains no weights (model.safetensors, pytorch_model.bin, or their shards)", AGAIN
    )


def rewrite(weights: Weights, out: Path, changes: Mapping[str, Change]) -> list[str]:
    """Write all weight files to `out` with `changes` by tensor name; return the names of the rewritten files.

    Shards without a change are hard-linked where the file system allows, else copied. One changed tensor is in memory
    at a time. Errors: OutputError for a full disk.
    """
    rewritten = []
    for file in weights.files:
        here = {
            name: change
            for name, change in changes.items()
            if weights.tensors[change.source or name].file == file
        }
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
            raise not_written(out / file, error) from error
        finally:
            part.unlink(missing_ok=True)
    added = {name: weights.tensors[change.source].file for name, change in changes.items() if change.source}
    _write_index(weights, out, added)
    return rewritten


def link(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it to another file system; an earlier one in its place is replaced."""
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _rewrite_safetensors(weights: Weights, file: str, part: Path, changes: Mapping[str, Change]) -> None:
    import torch

    here = {name: stored for name, stored in weights.tensors.items() if stored.file == file}
    here |= {
        name: weights.tensors[change.source]
        for name, change in changes.items()
        if change.source and name not in here
    }
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
                before = weights.tensor(changes[name].source or name)
                tensor = changes[name].apply(before).to(_dtype(stored.dtype)).contiguous()
                assert tuple(tensor.shape) == changes[name].shape
                out.write(tensor.view(-1).view(torch.uint8).numpy().data)
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

    stored = _read_bin(weights.folder / file)
    tensors = dict(stored)
    for name, change in changes.items():
        old = stored[change.source or name]
        new = tensors[name] = change.apply(old).to(old.dtype).contiguous()
        for other, tensor in stored.items():
            # Tied tensors share one storage in the file, and still do afterwards unless each has its own change.
            if other not in changes and tensor.data_ptr() == old.data_ptr():
                tensors[other] = new
    with part.open("wb") as out:
        torch.save(tensors, out)


def _read_bin(path: Path) -> "dict[str, torch.Tensor]":
    import torch

    tensors = load_torch(path, AGAIN)
    if not isinstance(tensors, dict) or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
        raise InputError(path, "contains something other than named tensors", AGAIN)
    return tensors


def _bin_header(path: Path) -> dict[str, Stored]:
    names = {dtype: name for name, dtype in _dtypes().items()}
    tensors = _read_bin(path)
    if unknown := next((t.dtype for t in tensors.values() if t.dtype not in names), None):
        raise InputError(
            path, f"contains weights of the type {unknown}, which zhllama does not support", AGAIN
        )
    return {str(name): Stored(path.name, names[t.dtype], tuple(t.shape)) for name, t in tensors.items()}


def _write_index(weights: Weights, out: Path, added: Mapping[str, str]) -> None:
    """Write the shard index with the new total size, and with the files of `added` tensors."""
    for path in weights.folder.glob("*.index.json"):
        index = read_object(path, AGAIN)
        files_by_tensor = index.get("weight_map")
        if not isinstance(files_by_tensor, dict) or {str(file) for file in files_by_tensor.values()} != set(
            weights.files
        ):
            continue
        written = _bytes_in(out, weights.files)
        metadata = index.get("metadata")
        index["metadata"] = {**(metadata if isinstance(metadata, dict) else {}), "total_size": written}
        index["weight_map"] = {**files_by_tensor, **added}
        (out / path.name).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _bytes_in(folder: Path, files: tuple[str, ...]) -> int:
    """The size of all tensors in some weight files."""
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
            "weights", f"are stored as {name}, which zhllama does not support", "Convert them to bfloat16"
        )
    return _dtypes()[name]


@cache
def _dtypes() -> "dict[str, torch.dtype]":
    """torch's dtypes by their names in safetensors."""
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
