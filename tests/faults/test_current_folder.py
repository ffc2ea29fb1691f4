"""Nothing is imported from the current folder, which may be a download: not by a command, a step of a line, or a worker."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import ROOT
from zhllama.safe_path import leave_current_folder

# Modules of Python and of our packages.
NAMES = (
    "yaml", "json", "torch", "typing", "typer", "rich", "transformers", "tokenizers", "sentencepiece", "jinja2", "peft",
    "datasets", "safetensors", "pydantic", "jieba", "multiprocessing", "subprocess", "signal", "socket", "logging", "enum",
    "pathlib", "dataclasses", "tempfile", "random", "sitecustomize", "usercustomize", "numba", "regex", "accelerate", "click",
    "kernels", "readline", "google", "re", "pickle", "selectors",
)  # fmt: skip
# What `python -m` itself imports, from the current folder too, before any code of ours runs: only the console script, and what
# zhllama starts, are safe from these.
RUNPY = (
    "importlib",
    "runpy",
    "contextlib",
    "collections",
    "functools",
    "operator",
    "keyword",
    "reprlib",
    "types",
    "warnings",
)
LINE = """\
steps:
  list: {command: train-vocab, size: 8000, cover: gb2312-1}
"""


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder of modules that each write their name into a file, and a line of steps."""
    folder = tmp_path / "download"
    folder.mkdir()
    note = f"open({str(tmp_path / 'marker')!r}, 'a').write(__name__ + ' ')\n"
    for name in NAMES:
        (folder / f"{name}.py").write_text(note, encoding="utf-8")
    for name in ("numpy", "orjson", "huggingface_hub"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(note, encoding="utf-8")
    (folder / "line.yaml").write_text(LINE, encoding="utf-8")
    return folder


MODULE = (sys.executable, "-m", "zhllama")
SCRIPT = (str(Path(sysconfig.get_path("scripts")) / "zhllama"),)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (MODULE, ("--version",)),
        (MODULE, ("demo", "--help")),
        (
            MODULE,
            (
                "pretrain",
                "--dry-run",
                "--stage",
                "1",
                "--shape",
                "llama-7b",
                "--ids",
                "49954",
                "--steps",
                "10",
            ),
        ),
        (
            MODULE,
            ("run", "line.yaml", "--out", "../made"),
        ),  # steps, and in them SentencePiece's trainer: spawned
        (SCRIPT, ("run", "line.yaml", "--out", "../made")),
    ],
)
def test_nothing_of_it_is_imported(hostile: Path, start: tuple[str, ...], words: tuple[str, ...]) -> None:
    if start == SCRIPT:
        for name in RUNPY:
            shutil.copy(hostile / "yaml.py", hostile / f"{name}.py")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    ended = subprocess.run(
        [*start, *words], cwd=hostile, env={**environment, "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, encoding="utf-8", timeout=300,
    )  # fmt: skip
    marker = hostile.parent / "marker"
    assert not marker.exists(), marker.read_text(encoding="utf-8")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        (None, None),
        ("", None),
        (".", ""),
        (":/a:", "/a"),
        ("/a:./:b", "/a:b"),
        ("HERE", "HERE"),
        ("./../download", ""),
    ],
)
def test_children_do_not_get_it(
    hostile: Path, monkeypatch: pytest.MonkeyPatch, path: str | None, kept: str | None
) -> None:
    monkeypatch.chdir(hostile)
    monkeypatch.setattr(sys, "path", ["", ".", "/b"])
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if path is not None:
        monkeypatch.setenv("PYTHONPATH", path.replace("HERE", str(hostile)))
    leave_current_folder()
    assert sys.path == ["/b"]
    assert os.environ["PYTHONSAFEPATH"] == "1"
    wanted = kept.replace("HERE", str(hostile)) if kept is not None else None
    assert os.environ.get("PYTHONPATH") == (path if kept is None else wanted)


def test_a_checkout_is_found_by_its_own_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [str(ROOT), "/b"])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    leave_current_folder()
    assert sys.path == [str(ROOT), "/b"] and os.environ["PYTHONPATH"] == str(ROOT)


def test_a_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setattr(sys, "path", ["", "/b"])
    leave_current_folder()
    assert sys.path == ["/b"]
