"""Text from anywhere as a stream: .txt, .jsonl, .parquet; plain, .gz, .xz or .zst; files, folders, globs."""

import glob
import gzip
import io
import json
import lzma
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

from zhllama.errors import InputError, MissingPackage
from zhllama.folder import CONFIG
from zhllama.manifest import check_outputs

FORMATS = (".txt", ".md", ".jsonl", ".json", ".parquet", ".tsv")
PACKED = (".gz", ".xz", ".zst")
CHUNK = 1 << 20
# What a run of ours keeps of texts, conversations or tasks: documents, sharegpt's conversations, gen-zh's instructions.
KEPT = ("documents", "conversations.jsonl", "instructions.jsonl")
Advance = Callable[[int], None]  # told how many bytes of the file, as it lies on disk, were read


def find_files(given: Sequence[str | Path], kept: Sequence[str] = KEPT) -> list[Path]:
    """Every text file that the given files, folders and globs name, sorted within each, none twice.

    Of a run of ours only the first of `kept` that it has is taken: neither what it rejected nor its journal is text.
    Errors: InputError for a name that matches nothing, and for an empty file.
    """
    found: dict[Path, None] = {}
    for name in given:
        path = Path(name).expanduser()
        if (path / CONFIG).is_file():
            check_outputs([path], *kept)
            path = next((path / own for own in kept if (path / own).exists()), path)
        else:
            check_outputs([path])
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and _format(p) is not None)
            if not inside:
                raise InputError(path, f"holds no text file ({', '.join(FORMATS)})", "Name another folder")
            found.update(dict.fromkeys(inside))
        elif path.exists():
            found[path] = None
        else:
            matches = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file())
            if not matches:
                raise InputError(path, "no such file", "Check the path")
            found.update(dict.fromkeys(matches))
    for path in found:
        if path.is_file() and path.stat().st_size == 0:
            raise InputError(path, "is empty", "Name a file with text")
    return list(found)


def read_lines(paths: Iterable[Path], field: str = "text", advance: Advance | None = None) -> Iterator[str]:
    """The non-empty lines of all files in order, without their line ends; a record's text is split into its lines."""
    for path in paths:
        for document in _records(path, field, advance):
            yield from (line for line in document.splitlines() if line.strip())


def read_documents(
    paths: Iterable[Path], field: str = "text", advance: Advance | None = None
) -> Iterator[str]:
    """Whole documents: a record, or in plain text a run of lines up to a blank one, joined by newlines."""
    for path in paths:
        if _format(path) in (".jsonl", ".json", ".parquet"):
            yield from (d for d in _records(path, field, advance) if d.strip())
            continue
        lines: list[str] = []
        for line in _records(path, field, advance):
            if line.strip():
                lines.append(line)
            elif lines:
                yield "\n".join(lines)
                lines = []
        if lines:
            yield "\n".join(lines)


def _format(path: Path) -> str | None:
    """The text format that a name tells, `.txt` also for no ending at all; None for what is no text of ours."""
    name = path.with_suffix("") if path.suffix in PACKED else path
    return name.suffix if name.suffix in FORMATS else None


def _records(path: Path, field: str, advance: Advance | None) -> Iterator[str]:
    """Lines of plain text, blank ones included, or the records' texts."""
    kind = _format(path)
    if kind == ".parquet":
        yield from _parquet(path, field, advance)
    elif kind in (".jsonl", ".json"):
        for number, line in enumerate(decoded_lines(path, advance), 1):
            if line.strip():
                yield _field(path, number, line, field)
    else:
        yield from decoded_lines(path, advance)


def _field(path: Path, number: int, line: str, field: str) -> str:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise InputError(
            f"{path}:{number}", f"is not JSON ({error})", "Give one JSON object a line"
        ) from error
    text = record.get(field) if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise InputError(
            f"{path}:{number}", f"has no text in the field {field!r}", "Name the field with --field"
        )
    return text


def _parquet(path: Path, field: str, advance: Advance | None) -> Iterator[str]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise MissingPackage(str(path), "pyarrow", "corpus") from None
    try:
        file = ParquetFile(path)
        if field not in file.schema_arrow.names:
            raise InputError(
                path,
                f"has no column {field!r} but {', '.join(file.schema_arrow.names)}",
                "Name the field with --field",
            )
        a_row = path.stat().st_size / max(1, file.metadata.num_rows)
        for batch in file.iter_batches(columns=[field]):
            yield from (text for text in batch.column(0).to_pylist() if isinstance(text, str))
            if advance is not None:
                advance(round(batch.num_rows * a_row))
    except ArrowException as error:
        raise InputError(path, f"is not a readable Parquet file ({error})", "Check the file") from error


def _open(path: Path, raw: IO[bytes]) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    if path.suffix == ".xz":
        return cast(IO[bytes], lzma.LZMAFile(raw))
    if path.suffix == ".zst":
        try:
            import zstandard
        except ImportError:
            raise MissingPackage(str(path), "zstandard", "corpus") from None
        reader: Any = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
        return cast(IO[bytes], io.BufferedReader(reader))
    return raw


def decoded_lines(path: Path, advance: Advance | None = None) -> Iterator[str]:
    """The lines of a packed or plain file without their ends, a chunk at a time; InputError names the one not UTF-8."""
    number = 1
    try:
        with path.open("rb") as raw, _open(path, raw) as file:
            rest, told = b"", 0
            while True:
                chunk = file.read(CHUNK)
                if advance is not None:
                    advance(raw.tell() - told)
                    told = raw.tell()
                block = rest + chunk
                cut = block.rfind(b"\n") + 1 if chunk else len(block)
                block, rest = block[:cut], block[cut:]
                if block:
                    lines = _decode(path, number, block).split("\n")
                    if block.endswith(b"\n"):
                        lines.pop()
                    number += len(lines)
                    yield from (line.removesuffix("\r") for line in lines)
                if not chunk:
                    return
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise InputError(
            path, f"is cut off or not {path.suffix[1:]} data ({error})", "Check the file"
        ) from error
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror or error})", "Check the path") from error
    except Exception as error:
        if type(error).__name__ == "ZstdError":
            raise InputError(path, f"is cut off or not zst data ({error})", "Check the file") from error
        raise


def _decode(path: Path, number: int, block: bytes) -> str:
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError as error:
        line = number + block.count(b"\n", 0, error.start)
        known = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}.get(block[:2]) if number == 1 else None
        remedy = "Convert it first, e.g. iconv -f GB18030 -t UTF-8, or zhllama corpus clean"
        raise InputError(
            f"{path}:{line}", f"is not UTF-8{f' but {known}' if known else ''}", remedy
        ) from None
    return text.removeprefix("\ufeff") if number == 1 else text
