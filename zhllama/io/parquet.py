"""Reads records of a Parquet file in batches; every fault is an InputError that names the file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zhllama.errors import DamagedFile, InputError, MissingPackage
from zhllama.io.files import open_regular
from zhllama.io.records import Fields

ROWS = 1000  # in one batch
REMEDY = "Download the file again, or write it again"


class Parquet:
    """An open Parquet file: its column names, its number of rows, and batches of records."""

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
        # pyarrow raises its own errors for damage, and OSError, ValueError, KeyError and others.
        except Exception as error:
            raw.close()
            raise self._damaged(error) from error

    def require_text(self, field: str) -> None:
        """Check that a field exists and is text. Errors: InputError.

        For a dotted field, whose text is nested in structs or lists, only the column is checked.
        """
        from pyarrow import types

        column = self._column(field)
        if column not in self.names:
            names = ", ".join(self.names[:20])
            raise InputError(
                self._path, f"has no column {field!r} but {names}", "Name the field with `field`"
            )
        if column != field:
            return
        kind = self._file.schema_arrow.field(self.names.index(column)).type
        value = kind.value_type if types.is_dictionary(kind) else kind
        if not (types.is_string(value) or types.is_large_string(value) or types.is_string_view(value)):
            message = f"contains {str(kind)[:60]} in the column {column!r}, not text"
            raise InputError(self._path, message, "Name a column of text with `field`")

    def batches(self, fields: Fields) -> Iterator[list[dict[str, Any]]]:
        """The records with the columns that `fields` need and that exist, a thousand at a time.

        Errors: DamagedFile names the damaged rows.
        """
        needed = {self._column(field) for field in fields}
        columns = [name for name in self.names if name in needed]
        done = 0
        try:
            for batch in self._file.iter_batches(batch_size=ROWS, columns=columns):
                records: list[dict[str, Any]] = batch.to_pylist()
                yield records
                done += len(records)
        except UnicodeDecodeError as error:
            where = f"{self._path}: rows {done + 1:,} to {done + ROWS:,}"
            raise DamagedFile(where, f"contain text that is not UTF-8 ({error.reason})", REMEDY) from error
        except InputError:
            raise
        except Exception as error:
            raise self._damaged(error, f" after row {done:,}") from error

    def _column(self, field: str) -> str:
        return field if field in self.names else field.partition(".")[0]

    def _damaged(self, error: Exception, where: str = "") -> DamagedFile:
        detail = " ".join(str(error).split())[:150] or type(error).__name__
        message = f"is not a readable Parquet file, or is damaged{where} ({detail})"
        return DamagedFile(self._path, message, REMEDY)
