"""Downloads a source into shards of JSON lines: streamed, limited, and resumed after an interruption."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from zhllama.corpus.documents import DOCUMENTS, FilePiece, Reading, find_inputs, read_piece
from zhllama.corpus.sources import CorpusSource
from zhllama.errors import InputError
from zhllama.hub import modelscope_dataset, reach_modelscope_dataset
from zhllama.hub_name import hub_name
from zhllama.io.json import read_object
from zhllama.io.records import Fields, text_of
from zhllama.run import Run

SHARD_DOCUMENTS, SHARD_CHARACTERS = 10_000, 20_000_000
STATE = "fetched.json"
REACH_SECONDS = 5.0
_MAX_WITHOUT_TEXT = 100  # first rows that may lack text before the field counts as wrong
Advance = Callable[[int], None]  # called with the number of documents


@dataclass
class Fetched:
    """Progress of a fetch: shards and documents written, rows read, and rows without readable text."""

    shards: int = 0
    documents: int = 0
    rows: int = 0
    without_text: int = 0
    state: Any = None


class SourceRows(Protocol):
    """The rows of a source, with a state from which reading can resume."""

    def __iter__(self) -> Iterator[Mapping[str, Any]]: ...

    def state(self) -> Any: ...


def fetch(source: CorpusSource, run: Run, limit: int | None, advance: Advance) -> Fetched:
    """Write at most `limit` documents of a source to `run`/documents; interruptions do not change the bytes.

    Errors: InputError for a source that cannot be reached or read, OutputError.
    """
    done = _read_state(run.out / STATE)
    rows = _open(source, done)
    batch: list[str] = []
    size = 0
    iterator = iter(rows)
    while limit is None or done.documents + len(batch) < limit:
        record = _next(source, iterator, done)
        if record is None:
            break
        done.rows += 1
        text = text_of(record, source.fields)
        if text is None or not text.strip():
            done.without_text += 1
            if done.without_text == done.rows == _MAX_WITHOUT_TEXT:
                raise InputError(
                    source.place,
                    f"has no text in {' + '.join(source.fields)} but the fields "
                    f"{', '.join(str(key) for key, value in record.items() if value is not None)}",
                    "Correct the field in the source's .yaml",
                )
            continue
        batch.append(_line(source, done, record, text))
        size += len(text)
        if len(batch) == SHARD_DOCUMENTS or size >= SHARD_CHARACTERS:
            _write(run, done, batch, rows.state())
            advance(done.documents)
            batch, size = [], 0
    if batch:
        _write(run, done, batch, rows.state())
    advance(done.documents)
    if not done.documents:
        raise InputError(source.place, "contains no document", "Check its fields, split and `limit`")
    return done


def _line(source: CorpusSource, done: Fetched, record: Mapping[str, Any], text: str) -> str:
    id, url = record.get("id"), record.get("url")
    fields = {
        "id": str(id) if isinstance(id, str | int) else f"{source.name}#{done.rows - 1}",
        **({"url": url} if isinstance(url, str) else {}),
    }
    line = json.dumps({**fields, "source": source.name, "text": text}, ensure_ascii=False)
    return line if line.isascii() else line.encode("utf-8", "replace").decode("utf-8")


def _write(run: Run, done: Fetched, batch: list[str], state: Any) -> None:
    run.write(f"{DOCUMENTS}/{done.shards:05d}.jsonl", "\n".join(batch) + "\n")
    done.shards, done.documents, done.state = done.shards + 1, done.documents + len(batch), state
    run.write(STATE, json.dumps(asdict(done)))  # last: if killed before this, the shard is fetched again


def _read_state(path: Path) -> Fetched:
    if not path.exists():
        return Fetched()
    try:
        return Fetched(**read_object(path, "Start over with `force`"))
    except TypeError as error:
        raise InputError(path, f"is broken ({error})", "Start over with `force`") from error


def _next(
    source: CorpusSource, iterator: Iterator[Mapping[str, Any]], done: Fetched
) -> Mapping[str, Any] | None:
    try:
        return next(iterator, None)
    except Exception as error:  # datasets passes on errors of aiohttp, httpx, Arrow and the loaders
        raise InputError(
            source.place, f"was interrupted after {done.rows} rows ({_detail(error)})", "Give `resume`"
        ) from error


def _open(source: CorpusSource, done: Fetched) -> SourceRows:
    if source.kind == "local":
        return _Local(source, done.rows)
    from datasets import load_dataset

    name = hub_name(source.place, "huggingface") if source.kind == "hub" else None
    folder = modelscope_dataset(source.place, name) if name and name.hub == "modelscope" else None
    try:
        if name is not None:
            stream = load_dataset(
                name.id if folder is None else str(folder),
                source.config,
                split=source.split or "train",
                revision=name.revision if folder is None else None,
                streaming=True,
            )
        else:
            stream = load_dataset(_builder(source), data_files=source.place, split="train", streaming=True)
    except Exception as error:
        raise InputError(
            source.place, f"cannot be opened ({_detail(error)})", "Check config and split on its page"
        ) from error
    return _Stream(stream, done.state)


class _Stream:
    """Rows of `datasets`, which resumes within a file without reading earlier rows again."""

    def __init__(self, stream: Any, state: Any) -> None:
        self._stream = stream
        if state is not None:
            stream.load_state_dict(state)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self._stream)

    def state(self) -> Any:
        return self._stream.state_dict()


class _Local:
    """Rows of local files; a document that cannot be read is a row without text."""

    def __init__(self, source: CorpusSource, skip: int) -> None:
        self._files = find_inputs([source.place])
        self._fields: Fields = source.fields
        self._skip = skip

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        reading = Reading(self._fields)
        documents = (document for path in self._files for document in read_piece(FilePiece(path), reading))
        for document in islice(documents, self._skip, None):
            text = document.text if document.broken is None else None
            yield {self._fields[0]: text, "id": document.id, "url": document.url}

    def state(self) -> None:
        return None


def reach(source: CorpusSource) -> None:
    """Check within seconds that the source exists; `datasets` would retry for minutes. Errors: InputError."""
    if source.kind == "local":
        return
    if source.kind == "hub":
        from huggingface_hub import HfApi

        name = hub_name(source.place, "huggingface")
        if name.hub == "modelscope":
            reach_modelscope_dataset(source.place, name)
            return
        try:
            HfApi().dataset_info(name.id, revision=name.revision, timeout=REACH_SECONDS)
        except Exception as error:
            raise InputError(source.place, *_unreachable(error)) from error
        return
    _builder(source)
    from urllib.request import Request, urlopen

    try:
        with urlopen(Request(source.place, method="HEAD"), timeout=REACH_SECONDS):
            pass
    except (OSError, ValueError) as error:
        raise InputError(source.place, *_unreachable(error)) from error


def _unreachable(error: Exception) -> tuple[str, str]:
    name = type(error).__name__
    if name == "OfflineModeIsEnabled":
        return (
            "cannot be reached because HF_HUB_OFFLINE is set",
            "Unset it, or download the data elsewhere and name its folder",
        )
    if name == "GatedRepoError":
        return "requires a login", "Accept its terms on huggingface.co, then hf auth login"
    if name == "RevisionNotFoundError":
        return "has no such revision", "Name a branch, a tag or a commit after the @"
    if name in ("RepositoryNotFoundError", "HFValidationError"):
        return "is not on the Hub, or is private", "Check the name; for a private one, hf auth login"
    return (
        f"cannot be reached ({_detail(error)})",
        "Check the network and HF_ENDPOINT, or download the data elsewhere and name its folder",
    )


def _builder(source: CorpusSource) -> str:
    """The loader of `datasets` for a file at a URL."""
    name = source.place.partition("?")[0].lower().removesuffix(".gz").removesuffix(".zst").removesuffix(".xz")
    for ending, builder in (
        (".jsonl", "json"),
        (".json", "json"),
        (".parquet", "parquet"),
        (".txt", "text"),
        (".csv", "csv"),
    ):
        if name.endswith(ending):
            return builder
    if name.endswith((".zip", ".tar", ".tgz")):
        raise InputError(
            source.place, "is an archive of several files", "Download and unpack it, then name the folder"
        )
    raise InputError(source.place, "is a page, not a file", "Download the data there, then name its folder")


def _detail(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
