"""Foreign data through its one door: what is damaged, hostile or endless is refused with the file, the place and a remedy."""

import ast
import bz2
import errno
import gzip
import json
import lzma
import os
import pickle
import signal
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytest
import torch
import zstandard

import zhllama
from zhllama.corpus.documents import FilePiece, Reading, find_inputs, read_piece
from zhllama.errors import DamagedFile, InputError, OutputError
from zhllama.io.files import not_written, open_regular, read_whole, sha256, write_whole
from zhllama.io.gguf import read_metadata
from zhllama.io.json import parse_json, read_json
from zhllama.io.rows import read_rows
from zhllama.io.safetensors import load_tensors, read_header
from zhllama.io.text import find_files, limit_lines, read_lines
from zhllama.io.torch import check_states, load_torch
from zhllama.io.yaml import read_yaml
from zhllama.model.model_cache import made_once
from zhllama.model.weight_files import read_weights
from zhllama.run import Run
from zhllama.training.checkpoint import disk_errors
from zhllama.vocab.any_tokenizer import load_any_tokenizer
from zhllama.vocab.gguf import read_gguf

TEXT = "人工智能 people 123\n".encode() * 20_000


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("[" * 65 + "]" * 65, "nested too deeply"),
        ('{"a": 1, "a": 2}', "names 'a' twice"),
        ("[NaN]", "contains NaN"),
        ("[-Infinity]", "contains -Infinity"),
        ("[1e400]", "contains the number 1e400"),
        ("9" * 5000, "thousands of digits"),
        (r'["\ud800"]', "lone surrogate"),
        (b"\xff\xfe{}", "is not UTF-8"),
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ("{} {}", "is not JSON"),
    ],
)
def test_json_that_is_refused(text: str | bytes, told: str) -> None:
    with pytest.raises(InputError, match=told) as error:
        parse_json(text, "a.json", "Mend it")
    assert error.value.where == "a.json" and error.value.remedy == "Mend it" and len(str(error.value)) < 200


def test_json_that_is_read() -> None:
    assert parse_json('\ufeff{"a": "\\ud83d\\ude00"}'.encode(), "x") == {"a": "😀"}
    assert parse_json("[" * 64 + "]" * 64, "x") is not None
    assert parse_json("[NaN]", "x", any_number=True)[0] != 0


@pytest.mark.parametrize(
    "text",
    ["a: !!timestamp x", "a: !!int x", "a: !!bool x", "a: !!binary x", "a: !!set [1]", "a: !!omap 3", "a: !x 1",
     "!!python/object/apply:os.system ['true']", "a: .inf", "a: .nan", "<<: 3\n", "? [1]\n: 2\n", "a: &x 1\nb: *x\n"],
)  # fmt: skip
def test_yaml_that_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.yaml"):
        read_yaml(tmp_path / "a.yaml", "a mapping")


def test_a_date_in_yaml_stays_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: 2001-99-99\n", encoding="utf-8")
    assert read_yaml(tmp_path / "a.yaml", "a mapping") == {"a": "2001-99-99"}


def stored(header: object, data: int = 8) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


def tensor(first: Any, last: Any, shape: Any = (1,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [first, last]}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (stored([1, 2]), "not a JSON object"),
        (stored({"a": [1]}), "is not described"),
        (stored(b'{"a":{"dtype":"F32","shape":[1e400],"data_offsets":[0,4]}}'), "1e400"),
        (stored({"a": tensor(0, 4, [1.5])}), "where integers are expected"),
        (stored({"a": tensor(0, 4.0)}), "where integers are expected"),
        (stored({"a": tensor(0, 4, [True])}), "where integers are expected"),
        (stored({"a": tensor(0, 4, [-1])}), "where integers are expected"),
        (stored({"a": tensor(0, 4), "b": tensor(0, 8, [2])}), "overlaps"),
        (stored({"a": tensor(0, 4), "b": tensor(2, 6)}), "overlaps"),
        (stored({"a": tensor(4, 8)}), "leaves a gap"),
        (stored({"a": tensor(0, 4)}), "4 bytes more"),
        (stored({"a": tensor(0, 12, [3])}), "is cut off"),
        (stored({"a": tensor(0, 8)}), "does not fill"),
        (stored({"a": tensor(0, 4, dtype="F33")}), "unknown dtype"),
        (stored({"a": tensor(0, 4, dtype=[])}), "unknown dtype"),
        (stored({"__metadata__": {"a": 1}, "a": tensor(0, 8, [2])}), "__metadata__"),
        (struct.pack("<Q", 1 << 60) + b"{}", "is cut off"),
        (b"", "is cut off"),
    ],
)  # fmt: skip
def test_safetensors_that_are_refused(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    for read in (read_header, load_tensors, lambda path: read_weights(path.parent)):
        with pytest.raises(InputError, match=told):
            read(path)


def gguf_file(path: Path, *entries: tuple[str, int, bytes]) -> Path:
    body = b"".join(string(key) + struct.pack("<I", kind) + value for key, kind, value in entries)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries)) + body)
    return path


def string(text: str | bytes) -> bytes:
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw


def strings(*texts: str | bytes) -> bytes:
    return struct.pack("<IQ", 8, len(texts)) + b"".join(map(string, texts))


KEY = "tokenizer.ggml."
NESTED = (struct.pack("<IQ", 9, 1) * 5000) + struct.pack("<IQ", 0, 0)


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        (9, NESTED, "array of arrays"),
        (9, struct.pack("<IQ", 0, 1 << 40), "an array of"),
        (9, struct.pack("<IQ", 10, 1 << 27), "an array of"),
        (9, struct.pack("<IQ", 77, 0), "unknown type 77"),
        (77, b"", "unknown type 77"),
        (8, struct.pack("<Q", 1 << 60), "a string of"),
        (8, string(b"\xff"), "not UTF-8"),
        (9, strings(b"a", b"\xff"), "not UTF-8"),
        (10, b"123", "too early"),
    ],
)
def test_gguf_that_is_refused(tmp_path: Path, kind: int, value: bytes, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_metadata(gguf_file(tmp_path / "a.gguf", (KEY + "tokens", kind, value)), KEY)


def test_merges_of_a_gguf_that_are_not_in_its_vocabulary(tmp_path: Path) -> None:
    kinds = struct.pack("<IQ3i", 5, 3, 1, 1, 1)
    path = gguf_file(
        tmp_path / "a.gguf", (KEY + "model", 8, string("gpt2")), (KEY + "tokens", 9, strings("a", "b", "c")),
        (KEY + "token_type", 9, kinds), (KEY + "merges", 9, strings("a b")),
    )  # fmt: skip
    with pytest.raises(InputError, match="the merge 'a b' needs 'ab', which is not in the vocabulary"):
        read_gguf(path)


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,  # as the program zstd writes
}  # fmt: skip


@pytest.mark.parametrize("suffix", PACKERS)
def test_packed_files_whole_joined_cut_and_damaged(tmp_path: Path, suffix: str) -> None:
    noise = b"".join(b"%d\n" % (n * 7919 % 100_003) for n in range(60_000))
    path, packed = tmp_path / f"a.txt{suffix}", PACKERS[suffix](noise)
    path.write_bytes(packed + PACKERS[suffix](b"the end\n"))
    lines = list(read_lines([path]))
    assert len(lines) == 60_001 and lines[-1] == "the end"
    found = list(read_piece(FilePiece(path), Reading(unit="line")))
    assert [one.text for one in found] == lines
    middle = len(packed) // 2
    damaged = packed[:middle] + bytes(b ^ 0x5A for b in packed[middle : middle + 40]) + packed[middle + 40 :]
    for content in (packed[:middle], packed[:-1], damaged):
        path.write_bytes(content)
        with pytest.raises(DamagedFile, match=rf"a\.txt{suffix}: is cut off or not {suffix[1:]} data"):
            list(read_lines([path]))
        assert list(read_piece(FilePiece(path), Reading(unit="line")))[-1].broken == "damaged file"


@pytest.fixture
def short_lines() -> Iterator[None]:
    limit_lines(3 << 20)
    yield
    limit_lines(1 << 28)


@pytest.mark.usefixtures("short_lines")
def test_a_line_that_is_too_long_is_refused_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for content, line in (
        (b"a\n" + b"x" * (4 << 20), 2),
        (b"x" * (4 << 20) + b"\n", 1),
        (b"x" * (3 << 20), 0),
    ):
        path.write_bytes(content)
        if not line:
            assert len(list(read_lines([path]))) == 1
            continue
        with pytest.raises(InputError, match=rf"a\.txt:{line}: is a line of more than 3,145,728 bytes"):
            list(read_lines([path]))


def test_bombs_end_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zhllama.io.packed.FREE", 1 << 22)
    path = tmp_path / "a.txt.zst"
    path.write_bytes(zstandard.compress(b"\n" * (1 << 27)))
    with pytest.raises(DamagedFile, match="decompresses to more than 1,000 times its size"):
        list(read_lines([path]))


def test_a_text_without_a_line_end_takes_linear_time(tmp_path: Path) -> None:
    path, spent = tmp_path / "a.txt", []
    for size in (16 << 20, 64 << 20):
        path.write_bytes(b"x" * size)
        begun = time.process_time()
        assert len(next(read_lines([path]))) == size
        spent.append(time.process_time() - begun)
    assert spent[1] < 8 * spent[0] + 0.1  # 4 times the text; it was 11 times the time


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/io-was-run",)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "pytorch_model.bin"])
@pytest.mark.parametrize("raw", [False, True])
def test_pickles_are_refused_in_our_words(tmp_path: Path, name: str, raw: bool) -> None:
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Runs())) if raw else torch.save({"a": Runs()}, path)
    for read in (lambda: load_torch(path, "Fetch it"), lambda: check_states(tmp_path, "Remove it")):
        with pytest.raises(InputError) as error:
            read()
        assert str(path) == error.value.where and "weights_only" not in str(error.value)
        assert "pickled objects" in error.value.what or raw
    assert not Path("/tmp/io-was-run").exists()


def test_parquet_that_is_damaged_or_holds_no_text(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(
        pyarrow.table({"text": ["好" * 50 + str(n) for n in range(3000)]}), path, compression="zstd"
    )
    good = path.read_bytes()
    path.write_bytes(good[:2000] + bytes(400) + good[2400:])
    with pytest.raises(DamagedFile, match="is damaged"):
        list(read_lines([path]))
    assert list(read_piece(FilePiece(path), Reading()))[-1].broken == "damaged file"
    broken = pyarrow.StringArray.from_buffers(
        1, pyarrow.py_buffer(struct.pack("<2i", 0, 2)), pyarrow.py_buffer(b"\xff\xfe")
    )
    parquet.write_table(pyarrow.table({"text": broken}), path)
    with pytest.raises(DamagedFile, match="not UTF-8"):
        list(read_lines([path]))
    for column in ([1, 2], [{"a": "b"}], [["a"]]):
        parquet.write_table(pyarrow.table({"text": column}), path)
        with pytest.raises(InputError, match="in the column 'text', not text"):
            list(read_lines([path]))


READERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: list(read_lines([path])),
    "files": lambda path: find_files([path]),
    "corpus": lambda path: find_inputs([path]),
    "rows": lambda path: list(read_rows(path)),
    "json": read_json,
    "yaml": lambda path: read_yaml(path, "a mapping"),
    "safetensors": read_header,
    "gguf": lambda path: read_metadata(path, ""),
    "torch": lambda path: load_torch(path, "x"),
    "tokenizer": load_any_tokenizer,
    "hash": sha256,
}


@pytest.fixture
def alarm() -> Iterator[None]:
    def hangs(number: int, frame: FrameType | None) -> NoReturn:
        raise TimeoutError("a reader hangs")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("reader", READERS)
def test_only_regular_files_are_opened(tmp_path: Path, reader: str) -> None:
    pipe, linked = tmp_path / "pipe.txt", tmp_path / "linked.txt"
    os.mkfifo(pipe)
    linked.symlink_to(pipe)
    for path in (pipe, linked, Path("/dev/zero"), Path("/proc/kmsg")):
        with pytest.raises(InputError, match="not a regular file"):
            READERS[reader](path)
    if reader not in ("files", "corpus", "tokenizer"):
        with pytest.raises(InputError, match="is a folder"):
            READERS[reader](tmp_path)


def test_places_without_permission_are_named_as_the_user_named_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by the files inside that were looked for, nor by a temporary file. root may do everything: the system refuses here."""

    def refuse(path: Any, *arguments: Any, **more: Any) -> NoReturn:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "is_file", refuse)
        with pytest.raises(InputError) as read:
            find_files([tmp_path / "a*.txt"])
    assert str(read.value).startswith(f"{tmp_path / 'a*.txt'}: cannot be read")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "exists", lambda path: True)
        patched.setattr(Path, "is_dir", lambda path: True)
        patched.setattr("zhllama.run.refuse_if_running", lambda out: refuse(out / ".lock"))
        with pytest.raises(OutputError) as written:
            Run(tmp_path / "out", "grow", {}).check()
    assert str(written.value).startswith(f"{tmp_path / 'out'}: cannot be written (Permission denied)")
    with pytest.raises(OSError, match="proc") as whole:
        write_whole(Path("/proc/audit.json"), "{}")
    assert whole.value.filename == "/proc/audit.json"


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.EACCES, "Choose a writable folder"), (errno.EPERM, "Choose a writable folder"), (errno.EROFS, "Choose a writable folder"),
     (errno.ENOSPC, "Free some room"), (errno.EDQUOT, "Free some room"), (errno.EFBIG, "Free some room"),
     (errno.EIO, "Check the folder and its disk")],
)  # fmt: skip
def test_room_is_asked_for_where_room_is_missing(number: int, remedy: str, tmp_path: Path) -> None:
    error = OSError(number, os.strerror(number))
    assert (
        str(not_written(tmp_path, error))
        == f"{tmp_path}: cannot be written ({os.strerror(number)}). {remedy}."
    )


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
def test_a_cache_asks_for_what_is_missing(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(part: Path) -> None:
        raise OSError(number, os.strerror(number), str(part))

    monkeypatch.setenv("ZHLLAMA_CACHE", str(tmp_path))
    (tmp_path / "model").write_text("x", encoding="utf-8")
    with pytest.raises(OutputError) as refused:
        made_once("models", "one", [tmp_path / "model"], make)
    wanted = {errno.EROFS: "Set ZHLLAMA_CACHE to a writable folder",
              errno.ENOSPC: "Free some room, or set ZHLLAMA_CACHE to a folder on another disk"}[number]  # fmt: skip
    assert refused.value.remedy == wanted


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
def test_a_journal_and_a_checkpoint_go_on_where_writing_was_refused(number: int, tmp_path: Path) -> None:
    error = OSError(number, os.strerror(number))
    with pytest.raises(OutputError) as refused, disk_errors(tmp_path / "checkpoint"):
        raise error
    wanted = {errno.EROFS: "Make the folder writable, then give `resume`",
              errno.ENOSPC: "Free some room, then give `resume`"}[number]  # fmt: skip
    assert refused.value.remedy == wanted


def test_a_file_that_is_missing_or_cannot_be_named(tmp_path: Path) -> None:
    for path, told in ((tmp_path / "no", "no such file"), (Path("a\0b"), "is not a file name")):
        with pytest.raises(InputError, match=told):
            open_regular(path)


# What parses foreign data, and the modules outside of zhllama/io that may call it, with the reason.
DOORS = {"json.loads", "json.load", "orjson.loads", "yaml.load", "yaml.safe_load", "torch.load", "load_file",
         "safe_open", "ParquetFile", "pickle.load", "pickle.loads"}  # fmt: skip
OWN = "messages between two processes of ours"
SERVER = "replies of servers, control characters in strings included; every fault becomes a rejected reply"
ALLOWED = {
    "pretrained.py": "looks for code before transformers opens the file, and leaves its faults to transformers",
    "conversation/sandboxed_templates.py": OWN,
    "conversation/template_worker.py": OWN,
    "llm/batch.py": SERVER,
    "llm/server_errors.py": SERVER,
}


def test_foreign_data_passes_through_io_alone() -> None:
    root, found = Path(zhllama.__file__).parent, []
    for path in sorted(root.rglob("*.py")):
        name = str(path.relative_to(root))
        if name.startswith("io/") or name in ALLOWED:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and (called := ast.unparse(node.func)) in DOORS:
                found.append(f"{name}:{node.lineno}: {called}")
    assert found == []


def test_ctrl_c_while_a_file_is_opened_stays_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file object that the interrupt drops closes the descriptor, which was then closed again: an OSError."""
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    opened = os.fdopen

    def interrupted(*given: Any) -> Any:
        opened(*given).close()
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fdopen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_whole(tmp_path / "config.json")
