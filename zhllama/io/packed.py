"""Decompresses .gz, .bz2, .xz and .zst as streams: reports the place of damage, and stops at decompression bombs.

Not by fsspec's compression codecs: they accept a truncated zstd frame as complete and do not limit the ratio.
"""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

from zhllama.errors import DamagedFile, MissingPackage
from zhllama.io.files import open_regular, unreadable

PACKED = (".gz", ".bz2", ".xz", ".zst")
# Text compresses to a tenth, and highly repetitive logs to a hundredth; a decompression bomb exceeds this by far.
RATIO = 1000
FREE = 1 << 28  # decompressed bytes up to which the ratio is not checked
STEP = 2048  # compressed bytes of .zst read at once: at most 64 MB decompressed


def open_packed(path: Path) -> tuple[IO[bytes], IO[bytes]]:
    """The decompressed stream of a regular file, and the file on disk, whose position shows the progress.

    Errors: InputError here for a file that is not regular; DamagedFile while reading, for truncated or damaged data, for
    another format, and for more than 256 MB that were compressed to less than a thousandth.
    """
    raw = open_regular(path)
    if path.suffix not in PACKED:
        return raw, raw
    try:
        opener = _OPENERS[path.suffix](path, raw)
    except BaseException:
        raw.close()
        raise
    return cast(IO[bytes], io.BufferedReader(_Unpacked(path, raw, opener), 1 << 20)), raw


class _Unpacked(io.RawIOBase):
    """A decompressor whose every error becomes a DamagedFile with the place of the damage."""

    def __init__(self, path: Path, raw: IO[bytes], inner: Any) -> None:
        self._path, self._raw, self._inner = path, raw, inner
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data: bytes = self._inner.read(len(buffer))
        except OSError as error:
            if (
                error.errno is not None
            ):  # of the disk; a decompressor's own, such as gzip.BadGzipFile, has no number
                raise unreadable(self._path, error) from error
            raise self._damaged(error) from error
        # zlib.error, lzma.LZMAError, EOFError, ZstdError and others.
        except Exception as error:
            raise self._damaged(error) from error
        self._size += len(data)
        if self._size > FREE and self._size > RATIO * self._raw.tell():
            message = f"decompresses to more than {RATIO:,} times its size, like a decompression bomb"
            raise DamagedFile(self._path, message, "Decompress it first if you trust it")
        buffer[: len(data)] = data
        return len(data)

    def _damaged(self, error: Exception) -> DamagedFile:
        detail = " ".join(str(error).split())[:120] or type(error).__name__
        kind = self._path.suffix[1:]
        place = f" after {self._size:,} decompressed bytes" if self._size else ""
        return DamagedFile(
            self._path, f"is cut off or not {kind} data{place} ({detail})", "Download the file again"
        )

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _Zstd:
    """Frames of .zst one after another; zstandard's own stream reader accepts a truncated frame as complete."""

    def __init__(self, path: Path, raw: IO[bytes]) -> None:
        try:
            import zstandard
        except ImportError:
            raise MissingPackage(str(path), "zstandard", "corpus") from None
        self._raw, self._decompressor = raw, zstandard.ZstdDecompressor()
        self._frame: Any = None
        self._packed = self._unpacked = b""
        self._at = 0

    def read(self, size: int) -> bytes:
        while self._at == len(self._unpacked):
            if not self._packed:
                self._packed = self._raw.read(STEP)
            if not self._packed:
                if self._frame is not None:
                    raise EOFError("the last frame is incomplete")
                return b""
            if self._frame is None:
                self._frame = self._decompressor.decompressobj()
            self._unpacked, self._at = self._frame.decompress(self._packed), 0
            self._packed = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = None
        part = self._unpacked[self._at : self._at + size]
        self._at += len(part)
        return part


_OPENERS: dict[str, Callable[[Path, IO[bytes]], Any]] = {
    ".gz": lambda path, raw: gzip.GzipFile(fileobj=raw),
    ".bz2": lambda path, raw: bz2.BZ2File(raw),
    ".xz": lambda path, raw: lzma.LZMAFile(raw),  # noqa: SIM115 - closed with the stream that reads from it
    ".zst": _Zstd,
}
