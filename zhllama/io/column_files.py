"""Reads records of a Parquet or Arrow file in batches; every fault is an InputError that names the file."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from zhllama.errors import DamagedFile, InputError, MissingPackage
from zhllama.io.files import open_regular
from zhllama.io.records import Fields

SUFFIXES = (".parquet", ".arrow")
ROWS = 1000  # in one batch
REMEDY = "Download the file again, or write it again"


class ColumnFile:
    """An open Parquet or Arrow file: its column names, its number of rows, and batches of records."""

    def __init__(self, path: Path) -> None:
        try:
            from pyarrow.parquet import ParquetFile
        except ImportError:
            raise MissingPackage(str(path), "pyarrow", "corpus") from None
        self._path = path
        self._kind = "Arrow" if path.suffix.lower() == ".arrow" else "Parquet"
        raw = open_regular(path)
        try:
            self._file: Any = _ArrowFile(raw) if self._kind == "Arrow" else ParquetFile(raw)
            self._schema = self._file.schema_arrow
            self.names: list[str] = self._schema.names
            self.rows = int(self._file.metadata.num_rows)
            self._is_json = all(_is_json(field.type) for field in self._schema)
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
        kind = self._schema.field(self.names.index(column)).type
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
                yield records if self._is_json else [_as_json(record) for record in records]
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
        message = f"is not a readable {self._kind} file, or is damaged{where} ({detail})"
        return DamagedFile(self._path, message, REMEDY)


def _is_json(kind: Any) -> bool:
    """Whether the values of an Arrow type are JSON values."""
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_json(kind.value_type)
    if types.is_dictionary(kind):
        return _is_json(kind.value_type)
    if types.is_struct(kind):
        return all(_is_json(kind.field(number).type) for number in range(kind.num_fields))
    is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    is_number = types.is_integer(kind) or types.is_floating(kind)
    return bool(is_text or is_number or types.is_boolean(kind) or types.is_null(kind))


def _as_json(value: Any) -> Any:
    """A value of Python as JSON: times and decimals as text, and of bytes, such as images, how many there are."""
    if isinstance(value, dict):
        return {str(name): _as_json(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(part) for part in value]
    if isinstance(value, bytes):
        return f"<{len(value):,} bytes>"
    return value if value is None or isinstance(value, str | int | float) else str(value)


class _ArrowFile:
    """An Arrow file as `datasets` writes it (a stream) or as Feather does (with an index), with ParquetFile's attributes.

    Damage in any batch is found at once, by counting the rows.
    """

    def __init__(self, raw: IO[bytes]) -> None:
        from pyarrow import ipc

        self._raw, self._ipc = raw, ipc
        self._is_stream = raw.read(6) != b"ARROW1"
        self.schema_arrow = self._open().schema
        self.num_rows = sum(batch.num_rows for batch in self._batches())
        self.metadata = self

    def iter_batches(self, batch_size: int, columns: list[str]) -> Iterator[Any]:
        """Some columns of the rows, at most `batch_size` at a time."""
        for batch in self._batches():
            chosen = batch.select(columns)
            for start in range(0, chosen.num_rows, batch_size):
                yield chosen.slice(start, batch_size)

    def _open(self) -> Any:
        self._raw.seek(0)
        return self._ipc.open_stream(self._raw) if self._is_stream else self._ipc.open_file(self._raw)

    def _batches(self) -> Iterator[Any]:
        reader = self._open()
        if self._is_stream:
            yield from reader
        else:
            yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
