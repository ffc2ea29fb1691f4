"""What reaches the terminal: data is escaped, every encoding is survived, and a stream that fails is named."""

import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from tests.model_toys import line
from zhllama.cli import main
from zhllama.commands import shared as common
from zhllama.commands.console import SafeConsole
from zhllama.commands.terminal import complain, json_text, shown, terminal
from zhllama.errors import InputError

HOSTILE = "\x1b[2J\x07\x08\x7f\x85\x9b31m\u202e\u2066\u200b\ufeff\udcff\r\u2028[red]x[/red]:smile:"
ESCAPED = r"\x1b[2J\x07\x08\x7f\x85\x9b31m\u202e\u2066\u200b\ufeff\udcff\x0d\u2028[red]x[/red]:smile:"


UNASSIGNED = {0x2065, 0xE0000, *range(0xE0002, 0xE0020)}  # escaped with the characters beside them


def unsafe(text: str) -> list[str]:
    """The characters of a text that could steer a terminal, newline and tab aside."""
    return [
        c for c in text if (unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")) and c not in "\n\t"
    ]


def start(
    *words: str, env: dict[str, str] | None = None, **more: Any
) -> "subprocess.CompletedProcess[bytes]":
    """The command as its own process."""
    return subprocess.run(
        [sys.executable, "-m", "zhllama", *words], capture_output="stdout" not in more and "stderr" not in more,
        env={**os.environ, **(env or {})}, timeout=60, check=False, **more,
    )  # fmt: skip


def test_every_character_that_steers_is_escaped() -> None:
    assert shown(HOSTILE) == ESCAPED
    for code in (*range(0x300), *range(0x2000, 0x2100), *range(0xD800, 0xE000), *range(0xE0000, 0xE0080)):
        told = shown(f"好{chr(code)}")
        assert not unsafe(told), hex(code)
        assert (told == f"好{chr(code)}") is (not unsafe(chr(code)) and code not in UNASSIGNED)


def test_joiners_stay_where_scripts_need_them() -> None:
    family, persian = "👨\u200d👩\u200d👧", "می\u200cخواهم"
    assert shown(family + persian) == family + persian
    assert shown("pay\u200dpal 中\u200c国") == r"pay\u200dpal 中\u200c国"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk", "cp936", "utf-16", "big5"])
def test_what_an_encoding_lacks_is_escaped(encoding: str) -> None:
    told = shown("é中😀\x1b", encoding)
    assert told.encode(encoding).decode(encoding) == told
    assert r"\U0001f600" in told or encoding == "utf-16"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "gbk"])
def test_json_is_plain_and_means_the_same(encoding: str) -> None:
    value = {HOSTILE: [HOSTILE, "中文 é \U000e0041", 1.5, None]}
    told = json_text(value, encoding)
    assert json.loads(told) == value and not unsafe(told) and "\n" not in told
    assert told.isascii() is (encoding != "utf-8")


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What both consoles print on a terminal with colors."""
    out = io.StringIO()
    for name, at_stderr in (("screen", False), ("notes", True)):
        made = SafeConsole(stderr=at_stderr)
        made._force_terminal, made._color_system, made.file, made.width = True, None, out, 200
        monkeypatch.setattr(common, name, made)
    return out


@pytest.mark.parametrize("printed", ["say", "note", "warn", "table", "text", "tree", "title"])
def test_consoles_escape(console: io.StringIO, printed: str) -> None:
    if printed in ("say", "note", "warn"):
        getattr(common, printed)(HOSTILE)
    else:
        table = Table(HOSTILE, title=HOSTILE)
        table.add_row(Text(HOSTILE, "bold") if printed == "text" else HOSTILE)
        tree = Tree(HOSTILE)
        tree.add(common.screen.render_str(HOSTILE, style="dim"))
        common.screen.print(tree if printed == "tree" else table)
    told = console.getvalue()
    assert not unsafe(told), repr(told)
    assert r"\x1b[2J" in told and "[red]x[/red]:smile:" in told


def test_styles_of_our_own_pass(console: io.StringIO) -> None:
    common.screen._color_system = 1  # type: ignore[assignment]
    common.say("好\x1b[31m", "bold")
    assert console.getvalue() == "\x1b[1m好\\x1b[31m\x1b[0m\n"


def test_columns_are_as_wide_as_what_is_seen(console: io.StringIO) -> None:
    table = Table("a", "b")
    table.add_row("\x1b\x1b", "x")
    common.screen.print(table, width=60)
    assert len({len(row) for row in console.getvalue().splitlines()}) == 1
    assert r"\x1b\x1b" in console.getvalue()


def test_warnings_logs_and_threads(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal():
        sys.stderr.write(warnings.formatwarning(HOSTILE, UserWarning, "x\x1b.py", 1))
        logger, handler = logging.getLogger("a library"), logging.StreamHandler(sys.stderr)
        logger.addHandler(handler)
        logger.warning("a %s", HOSTILE)
        logger.removeHandler(handler)

        def fail() -> None:
            raise ValueError(HOSTILE)

        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    told = capsys.readouterr().err
    assert not unsafe(told), repr(told)
    assert told.count(r"\x1b[2J") == 3 and "Traceback" not in told
    assert "internal error: ValueError" in told.splitlines()[-1]


def test_an_error_is_one_line_of_a_bounded_length(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object, **more: object) -> None:
        raise InputError("x" * 100_000, "is\n\x1b[31mred", "Mend it")

    monkeypatch.setattr("zhllama.cli.app", fail)
    with pytest.raises(SystemExit) as ended:
        main([])
    told = capsys.readouterr().err
    assert ended.value.code == 1 and told.count("\n") == 1 and len(told) < 2100
    assert told.endswith("is \\x1b[31mred. Mend it.\n")


def test_a_name_that_is_not_utf8_and_a_wrong_option_of_a_recipe(tmp_path: Path) -> None:
    told = start("audit", os.fsdecode(b"x\x1b[31m\xff"))
    assert (
        told.returncode == 1
        and told.stderr
        == b"zhllama: x\\x1b[31m\\udcff: no such file. Check the path, or give a hub name with its owner.\n"
    )
    (tmp_path / "r.yaml").write_text('recipe: "1\\e[31m[red]"\n', encoding="utf-8")
    told = start("merge-vocab", "--config", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "o"))
    assert told.returncode == 2 and b"\\x1b[31m[red]" in told.stderr and b"\x1b" not in told.stderr


@pytest.mark.parametrize(
    "env",
    [{"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}, {"PYTHONIOENCODING": "gbk"},
     {"PYTHONIOENCODING": "cp936:strict"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}],
    ids=["ascii", "latin-1", "gbk", "cp936", "C"],
)  # fmt: skip
@pytest.mark.parametrize(
    "words", [("corpus", "list"), ("corpus", "list", "--json"), ("--help",)], ids=" ".join
)
def test_no_encoding_ends_a_command(env: dict[str, str], words: tuple[str, ...]) -> None:
    told = start(*words, env=env)
    assert told.returncode == 0 and told.stderr == b"", told.stderr
    encoding = env.get("PYTHONIOENCODING", "ascii").partition(":")[0]
    text = told.stdout.decode(encoding)
    if "--json" in words:
        assert any("中" in source["title_zh"] for source in json.loads(text)["sources"])


PRINTING = [("--help",), ("--version",), ("corpus", "list"), ("corpus", "list", "--json")]


@pytest.mark.parametrize("words", PRINTING, ids=" ".join)
def test_a_full_or_closed_standard_output(words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        told = start(*words, stdout=full, stderr=subprocess.PIPE)
    assert told.returncode == 1
    assert (
        told.stderr.startswith(b"zhllama: standard output: No space left on device.")
        and told.stderr.count(b"\n") == 1
    )
    told = start(*words, stdout=None, stderr=subprocess.PIPE, preexec_fn=lambda: os.close(1))
    assert told.returncode == 1
    assert told.stderr.startswith(b"zhllama: standard output: is closed.") and told.stderr.count(b"\n") == 1


@pytest.mark.parametrize("words", PRINTING, ids=" ".join)
def test_a_reader_that_has_gone(words: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    told = start(*words, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (told.returncode, told.stderr) == (1, b"")


def test_standard_error_ends_nothing(tmp_path: Path) -> None:
    talks = [
        {
            "id": "a",
            "conversations": [
                {"from": "human", "value": "请问长城有多长？"},
                {"from": "gpt", "value": "很长。"},
            ],
        }
    ]
    (tmp_path / "t.json").write_text(json.dumps(talks), encoding="utf-8")
    words = ("sharegpt", "clean", str(tmp_path / "t.json"), "--force", "--out", str(tmp_path / "o"))
    with Path("/dev/full").open("wb") as full:
        assert start(*words, stderr=full, stdout=subprocess.PIPE).returncode == 0
        assert start("nonsense", stderr=full, stdout=subprocess.PIPE).returncode == 2
        assert start("audit", "nowhere", stderr=full, stdout=subprocess.PIPE).returncode == 1
    told = start(*words, stdout=subprocess.PIPE, stderr=None, preexec_fn=lambda: os.close(2))
    assert told.returncode == 0 and told.stdout
    kept = (tmp_path / "o" / "conversations.jsonl").read_text(encoding="utf-8")
    assert "长城" in kept, "no message went into a product that was opened under a closed number"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_twice(tmp_path: Path, number: signal.Signals) -> None:
    """A command that works on a FIFO-like long input, stopped by a signal that arrives twice."""
    script = (
        "import signal, sys, time\nfrom zhllama import cli\n"
        "def app(*given, **more):\n"
        "    try:\n        print('at work', flush=True); time.sleep(60)\n"
        "    finally:\n        time.sleep(.3); print('cleaned', flush=True)\n"
        "cli.app = app\ncli.main([])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "at work\n"
    process.send_signal(number)
    time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (128 + number, "cleaned\n")
    assert err == "zhllama: stopped. Finished results are kept.\n"


def test_nohup_is_respected() -> None:
    script = (
        "import os, signal\nfrom zhllama import cli\n"
        "def app(*given, **more):\n    os.kill(os.getpid(), signal.SIGHUP); print('goes on')\n"
        "cli.app = app\ncli.main([])\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    assert (told.returncode, told.stdout) == (0, "goes on\n")


def test_ctrl_c_while_it_loads_shows_no_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "zhllama", "corpus", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    time.sleep(0.12)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode in (-signal.SIGINT, 128 + signal.SIGINT) or process.returncode == 0
    # Python's own start, before any of our code, shows what it likes.
    assert b"Traceback" not in err or b"zhllama/" not in err, err


def test_commands_print_through_these_alone() -> None:
    """No command prints past the edge; workers, whose output a command reads, may."""
    folder = Path(common.__file__).parent
    for path in folder.parent.rglob("*.py"):
        if (
            path.name
            in (
                "terminal.py",
                "sentences.py",
                "journal.py",
                "sandboxed_templates.py",
                "template_worker.py",
                "converter_runner.py",
            )
            or path == folder / "shared.py"
        ):
            continue
        text = path.read_text(encoding="utf-8")
        for way in (" print(", "stdout.write(", "stderr.write(", ".echo(", "from_markup(", " Console("):
            assert way not in text, f"{path}: {way}"


def test_complain_without_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    complain("nothing to say it on")


@pytest.mark.parametrize("field", ["te\x1b[2Jxt", "[red]", "a\u202eb"])
def test_names_in_files_are_escaped(tmp_path: Path, field: str) -> None:
    """A Parquet column, a JSON key and a manifest's fields, as commands tell them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({field: ["好"]}), tmp_path / "t.parquet")
    (tmp_path / "t.jsonl").write_text(json.dumps({field: "好"}) + "\n", encoding="utf-8")
    for name in ("t.parquet", "t.jsonl"):
        told = line(tmp_path, "pack", "--tokenizer", tmp_path, "--text", name, "--out", "o")
        assert told.code == 1 and not unsafe(told.err), told.err
    folder = tmp_path / "run"
    folder.mkdir()
    manifest = {"command": field, "options": {}, "inputs": [], "outputs": {}, "parents": [], "seconds": 1.0,
                "figures": {field: 3}}  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "config.yaml").write_text(json.dumps({"command": field}), encoding="utf-8")
    for words in (("lineage", "run"), ("lineage", "run", "--json"), ("corpus", "show", "run")):
        told = line(tmp_path, *words)
        assert not unsafe(told.out + told.err), (words, told)
    if field == "[red]":
        assert "[red]" in line(tmp_path, "lineage", "run").out


@pytest.mark.parametrize("width", [30, 80])
def test_no_cell_of_a_table_is_cut_short(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chinese has no space to break at; rich would end a cell with an ellipsis."""
    monkeypatch.setenv("COLUMNS", str(width))
    console = SafeConsole()
    title = "语料" * 60
    table = Table("name", "title", box=None)
    table.add_row("one", title)
    for printed in (table, Panel(table)):
        with console.capture() as told:
            console.print(printed)
        assert told.get().count("语") == told.get().count("料") == 60 and "…" not in told.get()
        assert max(map(cell_len, told.get().splitlines())) <= width
