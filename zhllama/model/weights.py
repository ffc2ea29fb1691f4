"""A model's weights as files: headers read, tensors mapped, single ones changed, every other byte passed on."""

import json
import math
import os
import re
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhllama.errors import InputError, OutputError

if TYPE_CHECKING:
    import torch

BLOCK = 1 << 24  # bytes copied at once
AGAIN = "Fetch the model again"


@dataclass(frozen=True)
class Stored:
    """Where one tensor lies: its file, and for safetensors its first and last byte there."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    start: int = 0
    end: int = 0


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
            try:
                held = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
                files = sorted({str(file) for file in held})
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(index, f"is not an index of shards ({error})", AGAIN) from error
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
            tensors |= (
                read_header(folder / file) if file.endswith(".safetensors") else _bin_header(folder / file)
            )
        return Weights(folder, tensors)
    raise InputError(
        folder, "holds no weights (model.safetensors, pytorch_model.bin, or their shards)", AGAIN
    )


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors of one safetensors file, in the order in which they lie there."""
    header, begin = _raw_header(path)
    try:
        found = {name: _stored(path.name, entry, begin) for name, entry in header.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(path, f"has a broken safetensors header ({error!r})", AGAIN) from error
    size, end = path.stat().st_size, max((stored.end for stored in found.values()), default=0)
    if end > size:
        raise InputError(path, f"is cut off: {size:,} bytes of {end:,} at least", AGAIN)
    return dict(sorted(found.items(), key=lambda item: item[1].start))


def _stored(file: str, entry: Any, begin: int) -> Stored:
    """One entry of a header, its span held against its shape; ValueError and the like where they do not agree."""
    (first, last), dtype, shape = entry["data_offsets"], str(entry["dtype"]), tuple(map(int, entry["shape"]))
    digits = re.search(r"\d+", dtype)
    bits = int(digits[0]) if digits else 8  # BOOL
    if first < 0 or min(shape, default=0) < 0 or (last - first) * 8 != math.prod(shape) * bits:
        raise ValueError(f"{dtype} {list(shape)} in bytes {first} to {last}")
    return Stored(file, dtype, shape, begin + first, begin + last)


def _raw_header(path: Path) -> tuple[dict[str, Any], int]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise InputError(path, "is cut off or no safetensors file", AGAIN)
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            return header, 8 + length
        except (ValueError, AttributeError) as error:
            raise InputError(path, f"has no safetensors header ({error})", AGAIN) from error


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

    try:
        tensors: dict[str, torch.Tensor] = torch.load(path, "cpu", mmap=True, weights_only=True)
    except Exception as error:
        told = " ".join(str(error).split())[:150]
        raise InputError(path, f"is cut off or no weights of torch ({told})", AGAIN) from error
    return tensors


def _bin_header(path: Path) -> dict[str, Stored]:
    names = {dtype: name for name, dtype in _dtypes().items()}
    return {name: Stored(path.name, names[t.dtype], tuple(t.shape)) for name, t in _read_bin(path).items()}


def _write_index(weights: Weights, out: Path) -> None:
    """The index of the shards, with its total true to what was written."""
    for path in weights.folder.glob("*.index.json"):
        index = json.loads(path.read_text(encoding="utf-8"))
        if set(index.get("weight_map", {}).values()) != set(weights.files):
            continue
        written = _bytes_in(out, weights.files)
        index.setdefault("metadata", {})["total_size"] = written
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
