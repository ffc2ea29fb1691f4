"""Reads records of a Parquet file in batches; every fault is an InputError that names the file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zhllama.errors import DamagedFile, InputError, MissingPackage
from zhllama.io.files import open_regular

ROWS = 1000  # in one batch
DAMAGED = "Fetch the file again, or make it again"


class Parquet:
    """An open Parquet file: the names of its columns, its rows, and batches of records."""

    def __init__(self, path: Path) -> None:
        try:
            from pyarrow.parquet import ParquetFile
        except ImportError:
            raise MissingPackage(str(path), "pyarrow", "corpus") from None
        self._path = path
        raw = open_regular(path)
        try:
            self._file = ParquetFile(raw)
            self.names: list[str] = self._file.schema_arrow.names
            self.rows = int(self._file.metadata.num_rows)
        except (
            Exception
        ) as error:  # pyarrow raises its own, OSError, ValueError, KeyError and others for damage
            raw.close()
            raise self._damaged(error) from error

    def require_text(self, column: str) -> None:
        """InputError where there is no such column, or it holds no text."""
        from pyarrow import types

        if column not in self.names:
            some = ", ".join(self.names[:20])
            raise InputError(
                self._path, f"has no column {column!r} but {some}", "Name the field with --field"
            )
        kind = self._file.schema_arrow.field(self.names.index(column)).type
        value = kind.value_type if types.is_dictionary(kind) else kind
        if not (types.is_string(value) or types.is_large_string(value) or types.is_string_view(value)):
            told = f"holds {str(kind)[:60]} in the column {column!r}, not text"
            raise InputError(self._path, told, "Name a column of text with --field")

    def batches(self, columns: list[str]) -> Iterator[list[dict[str, Any]]]:
        """The records of some columns, a thousand at a time; InputError names the rows that are damaged."""
        done = 0
        try:
            for batch in self._file.iter_batches(batch_size=ROWS, columns=columns):
                records: list[dict[str, Any]] = batch.to_pylist()
                yield records
                done += len(records)
        except UnicodeDecodeError as error:
            where = f"{self._path}: rows {done + 1:,} to {done + ROWS:,}"
            raise DamagedFile(where, f"hold text that is not UTF-8 ({error.reason})", DAMAGED) from error
        except InputError:
            raise
        except Exception as error:
            raise self._damaged(error, f" after row {done:,}") from error

    def _damaged(self, error: Exception, at: str = "") -> DamagedFile:
        told = " ".join(str(error).split())[:150] or type(error).__name__
        return DamagedFile(self._path, f"is not a readable Parquet file, or is damaged{at} ({told})", DAMAGED)
