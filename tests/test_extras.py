"""What an optional package is for, how it is installed here, and that its lack is reported before any work."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.conftest import ROOT
from tests.model_toys import line
from zhllama import extras
from zhllama.commands.extras import PURPOSES
from zhllama.commands.table import ENTRIES
from zhllama.errors import MissingPackage


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Packages whose metadata are not found, as if they were not installed."""
    hidden: set[str] = set()

    def found(name: str) -> str:
        if name in hidden:
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(extras, "version", found)
    return lambda *names: hidden.update(names)


def test_extras_are_those_of_pyproject() -> None:
    written = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    known = extras.extras()
    assert known.keys() == written.keys() - {"all", "dev"} == PURPOSES.keys()
    for name in known.keys() - {"web", "cuda"}:
        names = {re.split(r"[^\w.-]", package)[0].lower() for package in written[name]}
        assert set(known[name].packages) == names
    assert set(known["web"].packages) == {"gradio", "uvicorn", "starlette"}


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("torch", "train"), ("datatrove.pipeline.base", "corpus"), ("loguru", "corpus"), ("ahocorasick", "corpus"), ("numba.core", "fast"),
        ("trl", "align"), ("lm_eval", "eval"), ("mistral_common", "demo"), ("gradio", "web"), ("nobody_knows", "all"),
    ],
)  # fmt: skip
def test_the_extra_of_a_module(module: str, extra: str) -> None:
    assert extras.extra_of(module) == extra


class Distribution:
    def __init__(self, url: str | None) -> None:
        self.url = url

    def read_text(self, name: str) -> str | None:
        return self.url


CHECKOUT = json.dumps({"url": "file:///home/me/zh%20llama", "dir_info": {"editable": True}})
# As uv and pip write it (PEP 610): the address without git+.
GIT = json.dumps({"url": "https://example.org/zhllama", "vcs_info": {"vcs": "git", "commit_id": "0"}})


@pytest.mark.parametrize(
    ("source", "receipt", "pip", "gpu", "command"),
    [
        (None, "", True, True, "PYTHON -m pip install 'zhllama[train]'"),
        (CHECKOUT, "", True, True, "PYTHON -m pip install -e '/home/me/zh llama[train]'"),
        (GIT, "", True, True, "PYTHON -m pip install 'zhllama[train] @ git+https://example.org/zhllama'"),
        (None, "", True, False, f"PYTHON -m pip install 'zhllama[train]' {extras.CPU_WHEELS}"),
        (None, "", False, True, "uv pip install --python PYTHON 'zhllama[train]'"),
        (None, "", False, False, "uv pip install --python PYTHON 'zhllama[train]' --torch-backend cpu"),
        (None, "uv-receipt.toml", True, True, "uv tool install --force 'zhllama[fast,train]'"),
        (None, "pipx_metadata.json", True, True, "pipx install --force 'zhllama[fast,train]'"),
        (
            GIT,
            "uv-receipt.toml",
            True,
            False,
            "uv tool install --force 'zhllama[fast,train] @ git+https://example.org/zhllama' --torch-backend cpu",
        ),
        (
            None,
            "pipx_metadata.json",
            True,
            False,
            f"pipx install --force 'zhllama[fast,train]' --pip-args '{extras.CPU_WHEELS}'",
        ),
    ],
)
def test_the_command_that_installs_fits_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str | None, receipt: str, pip: bool, gpu: bool, command: str
) -> None:  # fmt: skip
    if receipt:
        (tmp_path / receipt).touch()
    monkeypatch.setattr(extras.sys, "prefix", str(tmp_path))
    monkeypatch.setattr(extras.sys, "executable", "/a b/python")
    monkeypatch.setattr(extras, "find_spec", lambda name: pip or None)
    monkeypatch.setattr(extras.shutil, "which", lambda name: "/bin/it" if gpu else None)
    monkeypatch.setattr(extras, "distribution", lambda name: Distribution(source))
    monkeypatch.setattr(
        extras,
        "extras",
        lambda: {"fast": extras.Extra("fast", {"numba": "1"}), "gguf": extras.Extra("gguf", {"gguf": None})},
    )
    assert extras.install_command("train") == command.replace("PYTHON", shlex.quote("/a b/python"))


@pytest.mark.parametrize(
    ("command", "hidden", "extra"),
    [
        ("pretrain --stage 1 --model m --text zh=t.txt", "peft", "train"),
        ("sft --model m --data d.jsonl", "torch", "train"),
        ("grow --model m --tokenizer t", "torch", "train"),
        ("export r", "safetensors", "train"),
        ("export r --gguf q8_0", "gguf", "gguf"),
        ("eval m --tasks t", "lm-eval", "eval"),
        ("reward --model m --pairs d.jsonl", "trl", "align"),
        ("dpo --model m --pairs d.jsonl", "trl", "align"),
        ("kto --model m --data d.jsonl", "trl", "align"),
        ("serve m", "uvicorn", "serve"),
        ("serve m --web", "gradio", "web"),
        ("corpus clean t.txt", "datatrove", "corpus"),
        ("corpus fetch t", "datasets", "corpus"),
        ("demo", "mistral-common", "demo"),
    ],
)
def test_a_missing_package_is_reported_before_any_work(
    tmp_path: Path, hide, command: str, hidden: str, extra: str
) -> None:  # type: ignore[no-untyped-def]
    hide(hidden)
    words = command.split()
    out = () if words[0] in ("eval", "serve") else ("--out", "o")
    ended = line(tmp_path, *words, *out)
    assert ended.code == 1, ended
    (told,) = ended.err.splitlines()
    assert f"needs the package {hidden}. " in told and f"[{extra}]" in told
    assert not (tmp_path / "o").exists()


def test_all_that_is_missing_is_named_at_once(hide) -> None:  # type: ignore[no-untyped-def]
    hide("torch", "peft", "mistral-common")
    with pytest.raises(
        MissingPackage, match=r"demo: needs the packages peft, torch, mistral-common\..*train,demo"
    ):
        extras.require("demo", "train", "demo")


def test_the_command_lists_what_is_missing(tmp_path: Path, hide) -> None:  # type: ignore[no-untyped-def]
    hide("numba")
    told = line(tmp_path, "extras")
    assert told.code == 0 and re.search(r"^fast .* numba *$", told.out, re.MULTILINE)
    assert "Install by: " in told.out and re.search(r"\[fast", told.out)
    rows = json.loads(line(tmp_path, "extras", "--json").out)
    assert rows["fast"]["missing"] == ["numba"] and rows["train"]["packages"]["torch"]


# Every command on input that does not exist, with what it says in an installation without extras: the extras whose packages
# it needs, or else the work that it does without any.
WALK: dict[str, str] = {
    "train-vocab t.txt --out o": "t.txt: no such file",
    "merge-vocab --out o": "[demo]",
    "merge-vocab --base b --zh z --out o": "b: no such file",
    "audit t": "t: no such file",
    "report t --text x --out o": "x: no such file",
    "advise --text t.txt": "[demo]",
    "grow --model m --tokenizer t --out o": "[train]",
    "export r --out o": "[train]",
    "export r --gguf q8_0 --out o": "[train,gguf]",
    "eval m --text t": "[train]",
    "eval m --tasks ceval": "[train,eval]",
    "pretrain --stage 1 --model m --text zh=t.txt --out o": "[train]",
    "pretrain --config chinese-llama-7b-stage1 --dry-run": "",
    "pretrain --stage 2 --shape bloomz-7b1 --dry-run": "[train]",
    "sft --model m --data d.jsonl --out o": "[train]",
    "sft --config chinese-alpaca-7b --dry-run": "",
    "pack --tokenizer t --text x --out o": "x: no such file",
    "pack --tokenizer t --text table.parquet --out o": "[corpus]",
    "train-vocab packed.txt.zst --out o": "[corpus]",
    "reward --model m --pairs d.jsonl --out o": "[train,align]",
    "dpo --model m --pairs d.jsonl --out o": "[train,align]",
    "kto --model m --data d.jsonl --out o": "[train,align]",
    "corpus list": "",
    "corpus fetch wikipedia-zh --out o": "[corpus]",
    "corpus clean t.txt --out o": "[corpus]",
    "sharegpt clean t.json --out o": "t.json: no such file",
    "sharegpt split t.json --tokenizer t --out o": "t: no such file",
    "gen-zh --n 1 --base-url http://127.0.0.1:9 --model m --out o": "http://127.0.0.1:9: ",
    "refilter d --out o": "d/config.yaml: no such file",
    "review d": "[serve]",
    "answer m --questions q --out o": "[train]",
    "judge --answers a --answers b --out o": "a: no such file",
    "judge --answers a --answers b --reward r --out o": "[train]",
    "chat m": "[train]",
    "chat m.gguf": "[llamacpp]",
    "serve m": "[train,serve]",
    "serve m --web": "[train,web]",
    "serve m.gguf": "[llamacpp,serve]",
    "demo": "[train,demo]",
    "run cpu-trial --dry-run": "",
    "extras": "",
    "watch r": "r: is not a run of zhllama",
    "lineage r": "r: does not exist",
}


def test_without_extras_every_command_says_what_it_needs_before_any_work(tmp_path: Path) -> None:
    for name in ("table.parquet", "packed.txt.zst", "m.gguf"):
        (tmp_path / name).write_bytes(b"x")
    before = sorted(tmp_path.iterdir())
    hidden = ",".join(extras.extras())
    run = subprocess.run(
        [sys.executable, "-m", "tests.minimal_installation", hidden],
        input="\n".join(WALK), cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])))},
    )  # fmt: skip
    told = [json.loads(row) for row in run.stdout.splitlines()]
    assert [row["line"] for row in told] == list(WALK), run.stderr
    for row, expected in zip(told, WALK.values(), strict=True):
        assert row["code"] == (1 if expected else 0), row
        lines = row["err"].splitlines()
        assert expected in lines[-1] if expected else not lines, row
        if expected.startswith("["):
            assert len(lines) == 1 and re.search(r"needs the packages? [\w, -]+\. ", lines[0]), row
    assert sorted(tmp_path.iterdir()) == before


def test_every_command_is_walked() -> None:
    assert {words.split()[0] for words in WALK} == {entry.name for entry in ENTRIES}


@pytest.mark.parametrize("python", ["3.11.0", "3.11.2", "3.12.0", "3.13.0", "3.14.0"])
def test_every_pinned_version_can_be_installed(python: str) -> None:
    """Debian 12 has Python 3.11.2, for which two pinned versions could not be had."""
    environment = {"python_full_version": python, "python_version": python.rpartition(".")[0]}
    lines = (ROOT / "scripts" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    refused, checked = [], 0
    for pinned in (Requirement(text) for text in lines if text and not text.startswith("#")):
        with suppress(PackageNotFoundError):
            needs = metadata(pinned.name).get("Requires-Python") or ""
            checked += 1
            if pinned.marker is None or pinned.marker.evaluate(environment):
                refused += [pinned.name] * (python not in SpecifierSet(needs))
    assert checked > 150 and refused == []


def test_a_python_that_is_too_old_is_told_before_anything_is_installed(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "environment.sh", tmp_path / "scripts")
    old = tmp_path / "python3.10"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.10.13 || exit 1\n', encoding="utf-8")
    old.chmod(0o755)
    told = subprocess.run(
        ["bash", "-c", "set -e; source scripts/environment.sh; install_into_venv demo"], cwd=tmp_path,
        env={**os.environ, "PYTHON": str(old), "ZHLLAMA_LANG": "en"}, capture_output=True, text=True,
    )  # fmt: skip
    assert told.returncode == 1 and told.stdout == ""
    assert told.stderr.startswith(
        f"zhllama needs Python 3.11 or newer, and {old} is Python 3.10.13: give another"
    )
    assert not (tmp_path / ".venv").exists()
