"""A line of steps: read with its mistakes told by line, made once, gone on with, and traced back by its manifests."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from tests.conftest import ROOT, Zhllama
from zhllama.cli import app
from zhllama.commands.lineage import SHOWN, WORDS, draw
from zhllama.errors import InputError, OptionError
from zhllama.lineage import Ancestor, lineage
from zhllama.pipeline import Pipeline, PipelineRecord, read_pipeline

LINE = """\
out: made
values: {size: 8000}
steps:
  list: {command: train-vocab, size: "${size}"}
  vocab: {command: merge-vocab, zh: "${previous.out}/zh.model", recipe: safe}
  check: {command: audit, tokenizer: "${vocab.out}", json: true}
"""


def read(folder: Path, text: str, **given: str) -> Pipeline:
    path = folder / "line.yaml"
    path.write_text(text, encoding="utf-8")
    commands = typer.main.get_command(app)
    assert isinstance(commands, TyperGroup)
    return read_pipeline(path, commands, given)


def test_references_become_folders_and_values(tmp_path: Path) -> None:
    steps = read(tmp_path, LINE, size="9000").steps
    assert steps[0].command_line() == ["train-vocab", "--size", "9000", "--out", "made/list"]
    assert steps[1].command_line("--force") == [
        "merge-vocab", "--zh", "made/list/zh.model", "--recipe", "safe", "--out", "made/vocab", "--force",
    ]  # fmt: skip
    assert steps[2].command_line() == ["audit", "--json", "made/vocab"]
    assert [step.needs for step in steps] == [(), ("list",), ("vocab",)]


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("steps:\n  a: {command: merge-vocab}\n  b: {command: nonsense}\n", 3, "'nonsense' is not a command"),
        ("steps:\n  a: {command: corpus}\n", 2, "'corpus' is not a command"),
        ("steps:\n  a: {command: merge-vocab, zhh: x}\n", 2, "'zhh' is not an option of merge-vocab"),
        ("steps:\n  a: {command: merge-vocab, out: x}\n", 2, "'out' is not an option"),
        ("steps:\n  a: {command: merge-vocab, recipe: unsafe}\n", 2, "'unsafe' is not one of"),
        ("steps:\n  a: {command: train-vocab, size: many}\n", 2, "valid integer"),
        ("steps:\n  a: {command: grow}\n", 2, "Missing option '--model'"),
        ("steps:\n  a: {command: merge-vocab, zh: '${b.out}'}\n  b: {command: train-vocab}\n", 2, "is not defined"),
        ("steps:\n  a: {command: merge-vocab, zh: '${previous.out}'}\n", 2, "is not defined"),
        ("values: {base: }\nsteps:\n  a: {command: merge-vocab, base: '${base}'}\n", 3, "is not defined"),
        ("steps:\n  a: {command: merge-vocab, zh: {x: 1}}\n", 2, "is not a plain value"),
        ("steps:\n  ../a: {command: train-vocab}\n", 2, "cannot name a step"),
        (f"steps:\n  {'a' * 81}: {{command: train-vocab}}\n", 2, "cannot name a step"),
        ("steps:\n  a: {command: train-vocab}\n  a: {command: train-vocab}\n", 3, "a second time"),
        ("steps:\n  a: &x {command: train-vocab}\n  b: *x\n", 3, "uses an alias"),
        ("steps:\n  a: train-vocab\n", 2, "has no command"),
        ("steps:\n  a: {command: [\n", 3, "is not readable YAML"),
    ],
)  # fmt: skip
def test_mistakes_name_their_line(tmp_path: Path, text: str, line: int, told: str) -> None:
    with pytest.raises(InputError) as error:
        read(tmp_path, text)
    assert error.value.where == f"{tmp_path / 'line.yaml'}:{line}"
    assert told in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "steps: {}\n", "steps: [1]\n", "steps: 3\n", "stepps: {}\n", "- 1\n", "\x00"]
)
def test_what_is_no_line_says_so(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError):
        read(tmp_path, text)


@pytest.mark.parametrize("out", ["长" * 100, "a/" * 3000, "b" * 256])
def test_a_folder_that_the_system_cannot_have(tmp_path: Path, out: str) -> None:
    with pytest.raises(
        InputError, match=r"line\.yaml: has an `out` that cannot be a folder \(File name too long\)"
    ):
        read(tmp_path, f"out: {out}\nsteps:\n  a: {{command: train-vocab}}\n")


def test_a_value_that_the_line_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="Its values are: size"):
        read(tmp_path, LINE, sise="1")


def test_made_once_then_skipped_then_made_anew_where_something_changed(
    tmp_path: Path, zhllama: Zhllama
) -> None:
    file = tmp_path / "line.yaml"
    file.write_text(LINE.replace("out: made", f"out: {tmp_path / 'made'}"), encoding="utf-8")
    first = zhllama("run", str(file))
    assert first.returncode == 0, first.stderr
    assert (tmp_path / "made" / "vocab" / "manifest.json").exists()
    assert zhllama("run", str(file)).stderr.count("already finished") == 3
    assert states(zhllama, file) == ["done", "done", "done"]
    assert states(zhllama, file, "--set", "size=8001") == ["changed", "changed", "changed"]
    (tmp_path / "made" / "list" / "zh.model").write_bytes(b"other")  # an input of the second step
    assert states(zhllama, file) == ["done", "changed", "changed"]
    (tmp_path / "made" / "list" / "manifest.json").unlink()
    again = zhllama("run", str(file))
    assert again.returncode == 0 and "--force" in again.stderr, again.stderr
    assert states(zhllama, file) == ["done", "done", "done"]

    tree = lineage(tmp_path / "made" / "vocab")
    assert [parent.command for parent in tree.parents] == ["train-vocab"] and not tree.changed
    (tmp_path / "made" / "list" / "zh.model").write_bytes(b"other")
    drawn = zhllama("lineage", str(tmp_path / "made" / "vocab")).stdout
    assert drawn.startswith("merge-vocab") and "train-vocab" in drawn and "has changed since" in drawn
    assert zhllama("lineage", str(tmp_path)).stderr.startswith("zhllama: " + str(tmp_path))


def states(zhllama: Zhllama, file: Path, *more: str) -> list[str]:
    shown = zhllama("run", str(file), "--dry-run", "--json", *more)
    return [step["state"] for step in json.loads(shown.stdout)["steps"]]


def test_a_failing_step_ends_the_line_and_names_itself(tmp_path: Path, zhllama: Zhllama) -> None:
    file = tmp_path / "line.yaml"
    steps = "  list: {command: train-vocab, size: 300}\n  vocab: {command: merge-vocab}\n"
    file.write_text(f"out: {tmp_path / 'made'}\nsteps:\n{steps}", encoding="utf-8")
    failed = zhllama("run", str(file))
    assert failed.returncode == 1
    assert f"zhllama: {file}:3: step 'list' ended with 1." in failed.stderr
    assert not (tmp_path / "made" / "vocab").exists()


def test_ctrl_c_ends_the_step_too(tmp_path: Path) -> None:
    file = tmp_path / "line.yaml"
    file.write_text(f"out: {tmp_path / 'made'}\nsteps:\n  list: {{command: train-vocab}}\n", encoding="utf-8")
    command = [sys.executable, "-m", "zhllama", "run", str(file)]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    for _ in range(200):
        if (tmp_path / "made" / "line.json").exists():
            break
        time.sleep(0.05)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGTERM)  # to the parent alone, as a scheduler sends it
    assert process.wait(30) == 143
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


@pytest.mark.parametrize(
    ("held", "told"),
    [("", "is not JSON"), ("[]", "is not a JSON object"), ("{", "is not JSON"), ('{"list": 1}', "is broken"),
     ('{"list": {"line": []}}', "is broken")],
)  # fmt: skip
def test_a_record_that_is_none_is_told(
    tmp_path: Path, held: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "line.json").write_text(held, encoding="utf-8")
    with pytest.raises(InputError, match=told):
        PipelineRecord(read(tmp_path, LINE))


def test_no_path_of_a_tree_is_folded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    far = tmp_path / "/".join(["a folder of a long name"] * 8)
    base = Ancestor(far, "grow", {"rows": 7}, 1.0, (), (far / "text.txt",), (far / "text.txt",))
    draw(Ancestor(far / "two", "pretrain", {}, 2.0, (base,), (), ()))
    shown = [row.strip("│├└─ ") for row in capsys.readouterr().out.splitlines()]
    assert shown == [
        f"pretrain  {far / 'two'}", "2 s", f"grow  {far}", "7 rows in all, 1 s", f"{far / 'text.txt'}",
        f"{far / 'text.txt'} has changed since, or is gone",
    ]  # fmt: skip


def test_a_tree_tells_figures_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {"n_old": 600, "n_new": 67, "rows": 1667, "boundary_error": None, "tied": False}
    base = Ancestor(Path("/grown"), "grow", figures, 1.0, (), (), ())
    trained = {"rows": 1667, "parameters": 6, "steps": 20, "tokens": 20_480, "loss": 10.6795}
    draw(Ancestor(Path("/one"), "pretrain", trained, 275.0, (base,), (), ()))
    assert capsys.readouterr().out.splitlines() == [
        "pretrain  /one  20 steps, 20,480 tokens, loss 10.680, 5 min",
        "└── grow  /grown  67 new rows, 1,667 rows in all, 1 s",
    ]


def test_every_command_that_finishes_a_run_tells_its_figures() -> None:
    started = re.compile(r'\bRun\(\s*[\w.]+,\s*"([a-z -]+)"')
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "zhllama").rglob("*.py"))
    commands = {command for source in sources for command in started.findall(source)}
    assert {"grow", "pretrain", "sft", "corpus clean", "sharegpt export"} <= commands <= set(SHOWN)
    assert {name for names in SHOWN.values() for name in names} == set(WORDS)
