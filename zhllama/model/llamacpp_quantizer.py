"""llama.cpp's own quantizer, called in the library of an installed package: it writes the K types, which gguf-py cannot."""

import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from zhllama.errors import MissingPackage, ZhllamaError

PACKAGES = ("xllamacpp", "llama_cpp")  # import names of packages that bring llama.cpp's library
LIBRARIES = ("*.so", "*.so.*", "*.dylib", "*.pyd", "*.dll")
FUNCTION = "ggml_quantize_chunk"
# The RMS of the rounding over the RMS of normally distributed values, measured, times 1.5 to allow for another version.
ROUNDING = {
    "Q2_K": 0.45, "Q3_K": 0.23, "Q4_K": 0.107, "Q5_K": 0.054, "Q6_K": 0.027, "Q8_0": 0.008, "Q5_0": 0.064, "Q5_1": 0.057,
    "Q4_0": 0.129,
}  # fmt: skip
Array = np.ndarray[Any, Any]


class Quantizer:
    """`ggml_quantize_chunk` of a loaded library."""

    def __init__(self, library: ctypes.CDLL, threads: int = 1) -> None:
        self._chunk = library[FUNCTION]
        self._chunk.restype = ctypes.c_size_t
        # type, values, blocks, first value, rows, values of a row, importance of the values or none
        self._chunk.argtypes = [
            ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
        ]  # fmt: skip
        self.threads = threads

    def quantize(self, values: Array, type: str) -> Array:
        """The blocks [rows, bytes] of a matrix [rows, columns] in float32; columns are a multiple of the type's block."""
        import gguf

        kind = gguf.GGMLQuantizationType[type]
        rows, columns = values.shape
        values = np.ascontiguousarray(values, np.float32)
        blocks = np.zeros(gguf.quants.quant_shape_to_byte_shape(values.shape, kind), np.uint8)

        def part(first: int, last: int) -> int:
            written: int = self._chunk(
                int(kind),
                values.ctypes.data,
                blocks.ctypes.data,
                first * columns,
                last - first,
                columns,
                None,
            )
            return written

        edges = [round(n * rows / self.threads) for n in range(self.threads + 1)]
        with ThreadPoolExecutor(self.threads) as pool:  # the library does not hold Python's lock
            written = sum(pool.map(part, edges[:-1], edges[1:]))
        assert written == blocks.nbytes, (type, values.shape, written, blocks.nbytes)
        return blocks


def open_quantizer(what: str, threads: int = 1, packages: Sequence[str] = PACKAGES) -> Quantizer:
    """The quantizer of the first package that has one, tried on random values of every type.

    Errors: MissingPackage where no package brings it, ZhllamaError where its blocks are not what gguf-py reads.
    """
    for package in packages:
        for path in _libraries(package):
            try:
                library = ctypes.CDLL(str(path))
                quantizer = Quantizer(library, threads)
            except (OSError, AttributeError):  # a library for another machine, or without the function
                continue
            _check(quantizer, path)
            return quantizer
    raise MissingPackage(what, "xllamacpp", "llamacpp")


def _libraries(package: str) -> list[Path]:
    spec = find_spec(package)
    folder = None if spec is None or spec.origin is None else Path(spec.origin).parent
    found = [] if folder is None else [path for pattern in LIBRARIES for path in folder.rglob(pattern)]
    return sorted(path for path in found if FUNCTION.encode() in path.read_bytes())


def _check(quantizer: Quantizer, path: Path) -> None:
    """Raise ZhllamaError unless gguf-py reads the quantizer's blocks as the values that were quantized."""
    import gguf

    values = np.random.default_rng(0).normal(size=(4, 512)).astype(np.float32)
    for type, limit in ROUNDING.items():
        blocks = quantizer.quantize(values, type)
        read = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[type])
        if not relative_difference(read, values) <= limit:  # NaN must fail too
            reason = f"its blocks of the type {type} are not what the package gguf reads"
            raise ZhllamaError(path, reason, "Install another version of xllamacpp or gguf")


def relative_difference(found: Array, expected: Array) -> float:
    """The RMS of the difference over the RMS of the expected values; 0 where both are 0."""
    difference = float(np.sqrt(np.square(found - expected, dtype=np.float64).mean()))
    size = float(np.sqrt(np.square(expected, dtype=np.float64).mean()))
    return difference / size if size else difference
