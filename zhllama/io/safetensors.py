"""Reads and checks the header of a safetensors file, and loads its tensors.

Format: huggingface/safetensors, README.md: 8 bytes of length, a JSON object of that length, then the tensors' bytes, which
follow each other without a gap up to the end of the file. `safetensors` loads the tensors; the header is read here because
`safe_open` returns no byte offsets, which the weight copier needs, and its errors do not name the tensor.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhllama.errors import InputError
from zhllama.io.files import open_regular, unreadable
from zhllama.io.json import as_object, parse_json

if TYPE_CHECKING:
    import torch

LONGEST = 100_000_000  # bytes of a header, as in safetensors itself
AGAIN = "Download the model again"
_BITS = {
    **dict.fromkeys(("C64", "F64", "I64", "U64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


@dataclass(frozen=True)
class Stored:
    """The place of one tensor: its file, and for safetensors its byte range [start, end)."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    start: int = 0
    end: int = 0


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors of one file, in file order.

    Errors: InputError for a header that is not an object, numbers that are not integers, an unknown dtype, a byte range
    that does not match its shape, overlaps another or leaves a gap, and a file that is too short or too long.
    """
    header, begin, size = _raw_header(path)
    entries = {name: _stored(path, name, entry, begin) for name, entry in header.items()}
    # An empty tensor begins where the next one begins, so the end decides their order.
    tensors = dict(sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)))
    at, before = begin, "the header"
    for name, stored in tensors.items():
        if stored.start != at:
            relation = "overlaps" if stored.start < at else "leaves a gap after"
            raise _broken(path, f"{_shown(name)} {relation} {before}")
        at, before = stored.end, _shown(name)
    if at > size:
        raise InputError(path, f"is cut off: {size:,} bytes of {at:,}", AGAIN)
    if at < size:
        raise InputError(path, f"contains {size - at:,} bytes more than its header describes", AGAIN)
    return tensors


def load_tensors(path: Path, remedy: str = AGAIN) -> "dict[str, torch.Tensor]":
    """All tensors of a file, by name, after a check of its header. Errors: InputError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        read_header(path)
        tensors: dict[str, torch.Tensor] = load_file(path)
        return tensors
    except InputError as error:  # the same fault, with the caller's remedy
        raise InputError(error.where, error.what, remedy) from error
    except (SafetensorError, OSError, ValueError, AttributeError) as error:
        detail = " ".join(str(error).split())[:150]
        raise InputError(path, f"is not a readable safetensors file ({detail})", remedy) from error


def _raw_header(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header entries of the tensors, the offset of their first byte, and the size of the file."""
    try:
        with open_regular(path) as file:
            size = file.seek(0, 2)
            file.seek(0)
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise InputError(path, "is cut off or not a safetensors file", AGAIN)
            if length > LONGEST:
                raise InputError(path, f"has a header of {length:,} bytes; the limit is {LONGEST:,}", AGAIN)
            text = file.read(length)
    except OSError as error:
        raise unreadable(path, error) from error
    if not text.startswith(b"{"):
        raise _broken(path, "it is not a JSON object")
    header = as_object(parse_json(text, path, AGAIN), path)
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _broken(path, "__metadata__ does not map names to strings")
    return header, 8 + length, size


def _stored(path: Path, name: str, entry: Any, begin: int) -> Stored:
    """One entry of a header, after a check of its byte range against its shape."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _broken(path, f"{_shown(name)} is not described by dtype, shape and data_offsets alone")
    dtype, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _broken(path, f"{_shown(name)} has the unknown dtype {ascii(dtype)[:40]}")
    for numbers in (shape, span):
        # type() and not isinstance(), which accepts True as an int
        if not isinstance(numbers, list) or any(type(n) is not int or not 0 <= n < 1 << 63 for n in numbers):
            raise _broken(path, f"{_shown(name)} has {ascii(numbers)[:60]} where integers are expected")
    if len(span) != 2 or (span[1] - span[0]) * 8 != math.prod(shape) * _BITS[dtype]:
        raise _broken(
            path, f"{_shown(name)}: {dtype} {ascii(shape)[:60]} does not fill bytes {ascii(span)[:60]}"
        )
    return Stored(path.name, dtype, tuple(shape), begin + span[0], begin + span[1])


def _shown(name: str) -> str:
    return ascii(name[:80])


def _broken(path: Path, why: str) -> InputError:
    return InputError(path, f"has a broken safetensors header: {why}", AGAIN)
