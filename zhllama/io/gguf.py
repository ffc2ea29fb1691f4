"""Reads the header of a GGUF file of llama.cpp, its metadata and its list of tensors, without its weights (ggml/docs/gguf.md).

Not by `gguf.GGUFReader`: it needs 4.2 CPU seconds for SmolLM2's 49,152 pieces and this module 0.24, it raises IndexError for
a truncated file, and it loops for minutes over an array whose claimed length exceeds the file.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from zhllama.errors import InputError
from zhllama.io.files import open_regular, unreadable

MAGIC = b"GGUF"
LONGEST = 1 << 28  # maximum bytes of one string, and entries of one array
ENTRIES = 1 << 16  # maximum keys, and tensors, of one file; llama.cpp writes some tens of keys
DIMENSIONS = 4  # of a tensor, at most (GGML_MAX_DIMS)
_SCALARS = ("B", "b", "H", "h", "I", "i", "f", "?", "", "", "Q", "q", "d")  # struct format by type
_STRING, _ARRAY = 8, 9

Result = TypeVar("Result")


@dataclass(frozen=True)
class GgufTensor:
    """A tensor of a GGUF file: its shape in torch's order, the number of its type in ggml.h, and where its bytes begin.

    `offset` counts from the beginning of the first tensor.
    """

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int


def is_gguf(path: Path) -> bool:
    """Whether a path is a GGUF file, by its first bytes."""
    if not path.is_file():
        return False
    with open_regular(path) as file:
        return file.read(len(MAGIC)) == MAGIC


def read_metadata(path: Path, prefix: str) -> dict[str, Any]:
    """The values of all keys that begin with `prefix`, by the rest of the key.

    Errors: InputError for a truncated file, another format or version, an array of arrays, a duplicate key, and text
    under one of these keys that is not UTF-8.
    """
    return _read_file(path, lambda file, size: _metadata(file, size, prefix))


def read_header(path: Path) -> tuple[dict[str, Any], list[GgufTensor], int]:
    """All metadata, the tensors, and where the first tensor begins, in bytes.

    Errors: those of `read_metadata`, InputError for a tensor with more dimensions than llama.cpp has or with none.
    """

    def read(file: IO[bytes], size: int) -> tuple[dict[str, Any], list[GgufTensor], int]:
        metadata = _metadata(file, size, "")
        tensors = list(_tensors(file, size))
        return metadata, tensors, file.tell() + -file.tell() % _alignment(metadata)

    return _read_file(path, read)


def _alignment(metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
        raise ValueError(f"tensors aligned to {ascii(alignment)[:20]} bytes")
    return alignment


def _read_file(path: Path, read: Callable[[IO[bytes], int], Result]) -> Result:
    try:
        with open_regular(path) as file:
            return read(file, file.seek(0, 2))
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, struct.error, IndexError, MemoryError) as error:
        detail = " ".join(str(error).split())[:150]
        message = f"is cut off or not a GGUF file ({detail})"
        raise InputError(path, message, "Download the file again") from None


def _metadata(file: IO[bytes], size: int, prefix: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for key, value in _entries(file, size):
        if not key.startswith(prefix):
            continue
        name = key.removeprefix(prefix)
        if name in metadata:
            raise ValueError(f"duplicate key {ascii(key)[:60]}")
        metadata[name] = _decoded(key, value)
    return metadata


def _tensors(file: IO[bytes], size: int) -> Iterator[GgufTensor]:
    """The list of tensors, which follows the metadata."""
    at = file.tell()
    file.seek(8)  # magic number and version
    (count,) = _read(file, "Q", size)
    if count > ENTRIES:
        raise ValueError(f"{count} tensors")
    file.seek(at)
    for _ in range(count):
        name = _string(file, size).decode()
        (dimensions,) = _read(file, "I", size)
        if not 0 < dimensions <= DIMENSIONS:
            raise ValueError(f"a tensor of {dimensions} dimensions")
        shape = _read(file, f"{dimensions}Q", size)
        kind, offset = _read(file, "IQ", size)
        yield GgufTensor(name, shape[::-1], kind, offset)


def _decoded(key: str, value: Any) -> Any:
    """A value with its bytes decoded. Values of other keys stay bytes, because they may have any encoding."""
    try:
        if isinstance(value, bytes):
            return value.decode()
        return [v.decode() for v in value] if isinstance(value, list) and value[:1] and isinstance(value[0], bytes) else value  # fmt: skip
    except UnicodeDecodeError:
        raise ValueError(f"{ascii(key)[:60]} contains text that is not UTF-8") from None


def _entries(file: IO[bytes], size: int) -> Iterator[tuple[str, Any]]:
    file.seek(0)
    if file.read(4) != MAGIC:
        raise ValueError("no GGUF magic number")
    version, _, entries = _read(file, "IQQ", size)
    if version not in (2, 3):
        raise ValueError(f"version {version}")
    if entries > ENTRIES:
        raise ValueError(f"{entries} keys")
    for _ in range(entries):
        key = _string(file, size).decode()
        yield key, _value(file, _read(file, "I", size)[0], size)


def _read(file: IO[bytes], layout: str, size: int) -> tuple[Any, ...]:
    length = struct.calcsize(f"<{layout}")
    if length > size - file.tell():  # before memory is allocated
        raise ValueError(f"it ends {length - size + file.tell():,} bytes too early")
    return struct.unpack(f"<{layout}", file.read(length))


def _string(file: IO[bytes], size: int) -> bytes:
    (length,) = _read(file, "Q", size)
    if length > LONGEST or length > size - file.tell():
        raise ValueError(f"a string of {length} bytes")
    return file.read(length)


def _value(file: IO[bytes], kind: int, size: int) -> Any:
    if kind == _STRING:
        return _string(file, size)
    if kind != _ARRAY:
        return _read(file, _scalar(kind), size)[0]
    inner, length = _read(file, "IQ", size)
    if length > LONGEST or length > size - file.tell():
        raise ValueError(f"an array of {length} entries")
    if inner == _STRING:
        return [_string(file, size) for _ in range(length)]
    if inner == _ARRAY:
        raise ValueError("an array of arrays, which llama.cpp does not write")
    return list(_read(file, f"{length}{_scalar(inner)}", size))


def _scalar(kind: int) -> str:
    if kind >= len(_SCALARS):
        raise ValueError(f"a value of the unknown type {kind}")
    return _SCALARS[kind]
