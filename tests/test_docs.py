"""The documents: the site builds without a warning, and every command in them is run, or planned, or says here why not."""

import argparse
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.core import TyperGroup

from tests.conftest import ROOT
from tests.docs_world import make_world
from tests.model_toys import line
from tests.serving import Served, served
from zhllama.cli import app

__all__ = ["served"]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("README*.md"), *DOCS.rglob("*.md")])
LINES = sorted(path.stem for path in (ROOT / "zhllama" / "recipes" / "lines").glob("*.yaml"))


@dataclass(frozen=True)
class Command:
    """One line of a ```bash block; `where` is FILE:LINE, `words` what the shell makes of it."""

    where: str
    words: tuple[str, ...]

    @property
    def ours(self) -> tuple[str, ...] | None:
        """What stands behind `zhllama`, or behind `-m zhllama` of torchrun, accelerate and python."""
        if self.words[:1] == ("zhllama",):
            return self.words[1:]
        if "zhllama" in self.words and self.words[self.words.index("zhllama") - 1] == "-m":
            return self.words[self.words.index("zhllama") + 1 :]
        return None


def commands(page: Path, language: str = "bash") -> Iterator[Command]:
    """The commands of a page's blocks in `language`, in order; lines that end in a backslash are joined, comments removed."""
    inside, begun, held = False, 0, ""
    for number, text in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = re.match(r"\s*```(\w*)", text)
        if fence:
            inside = not inside and fence[1] == language
            continue
        if not inside:
            continue
        begun, held = (begun, held + text.strip()) if held else (number, text.strip())
        if held.endswith("\\"):
            held = held[:-1]
            continue
        words = shlex.split(held, comments=True)
        ends = [n for n, word in enumerate(words) if word in ("|", ">", "&&", "&")]
        if words:
            yield Command(f"{page.relative_to(ROOT)}:{begun}", tuple(words[: min(ends, default=None)]))
        held = ""


@dataclass(frozen=True)
class Run:
    """Run it, these options behind its own; of an option that is given twice the last one counts."""

    more: str = ""


@dataclass(frozen=True)
class Skip:
    """Only hold it against the command line; `why` it is not run here."""

    why: str


TINY = "--steps 1 --batch 2 --micro-batch 2"
MEASURED = "--eval-text zh=test/zh.txt --eval-text en=test/en.txt"
# The first pattern that a command begins with says what is done with it; one that none fits fails.
RULES: tuple[tuple[str, Run | Skip], ...] = (
    ("demo", Skip("minutes; each of its steps is a command of the tutorial, run here")),
    ("review .*--export", Skip("needs decisions of a person; tests/test_review.py exports some")),
    ("review", Skip("serves until it is stopped; tests/test_review_page.py uses one")),
    ("serve", Skip("serves until it is stopped; tests/test_serve.py talks to one")),
    ("corpus fetch", Skip("needs the network; tests/test_corpus_fetch.py fetches from this machine")),
    ("corpus clean .*--executor", Skip("needs Ray or Slurm; tests/test_corpus_clean.py has what can be tested of them")),
    ("gen-zh .*--batch-api", Skip("needs a provider's Batch API; tests/test_llm_batch.py has one")),
    ("--version|--help|extras", Run()),
    ("run trial", Run()),
    ("run", Run("--dry-run")),
    ("(pretrain|sft) .*--dry-run", Run()),
    ("train-vocab .*--cover", Run("--size 6000")),
    ("train-vocab --", Run()),
    ("train-vocab", Run("--size 400")),
    ("merge-vocab .*continued.*--cover", Run("--fuzz 20 --prior 0 --add 5500")),
    ("merge-vocab .*continued.* --size", Run("--fuzz 20 --prior 0 --size 1000")),
    ("merge-vocab .*continued.* --text", Run("--fuzz 20 --prior 0 --add 400")),
    ("merge-vocab", Run("--fuzz 20")),
    ("audit", Run("--fuzz 20")),
    ("report", Run("--sample-bytes 10000")),
    ("advise", Run("--most 1000 --prior 0")),
    ("grow .*distill", Run("--steps 1")),
    ("pretrain --config cpu-.*--model", Run(f"{TINY} {MEASURED} --block-size 32 --old-rows 700")),
    ("pretrain .*--old-rows", Run(f"{TINY} {MEASURED} --block-size 32 --old-rows 600")),
    ("pretrain", Run(f"{TINY} {MEASURED} --block-size 32")),
    ("sft", Run(f"{TINY} --max-length 256")),
    ("reward|dpo|kto", Run(f"{TINY} --max-length 256")),
    ("eval .*--tasks", Skip("needs the data sets of lm-eval; tests/test_eval.py has tasks of its own")),
    ("export .*--push-now", Skip("needs the network; tests/test_push.py uploads to this machine")),
    (r"eval (modelscope:|\w+/[\w.-]+@)\w+", Skip("needs the network; tests/test_hub.py downloads from this machine")),
    ("eval .*--shape", Run()),
    ("eval .*--serving", Run("--limit 100 --prompt 20 --reply 10 --rounds 1")),
    ("eval", Run("--limit 100")),
    ("corpus clean", Run("--workers 1")),
    ("gen-zh", Run("--n 2")),
    ("chat", Run("--prompt 你好 --max-tokens 4")),
    ("answer", Run("--reply-tokens 4")),
    ("watch", Run()),
    ("lineage runs/chinese-llama-7b", Skip("of a run of 7B")),
    ("export .*--trained-from", Skip("needs a model that another program trained; tests/test_trained_elsewhere.py trains some")),
    ("export --model grown --adapter", Skip("needs an adapter that another program trained; tests/test_trained_elsewhere.py trains some")),
    ("grow|export|pack|corpus list|corpus show|lineage|refilter|judge|sharegpt", Run()),
)  # fmt: skip
# What a page takes from an earlier one stands for something else.
STANDS_FOR = {
    "docs/align.md": {"runs/alpaca": "LLAMA"},
    "docs/judge.md": {"runs/alpaca": "LLAMA"},
    "docs/sft.md": {"runs/two": "grown-7b"},
}
# Scripts are held against their own parser, and not run: each is minutes or hours of work.
SHELL = {"scripts/demo.sh", "scripts/test.sh", "scripts/gpu_proof.sh"}


def rule(words: tuple[str, ...]) -> Run | Skip | None:
    """What is done with a command of ours."""
    whole = " ".join(words)
    return next((found for pattern, found in RULES if re.match(rf"(?:{pattern})\b", whole)), None)


def parse(words: tuple[str, ...]) -> None:
    """Hold a command against the real command line; raises where it would be refused."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while isinstance(command, TyperGroup) and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"{rest[0]!r} is no command"
        command = command.commands[rest.pop(0)]
    if not isinstance(command, TyperGroup):
        command.make_context(" ".join(words), rest, resilient_parsing=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_is_one(page: Path) -> None:
    for command in commands(page):
        for path in (word for word in command.words if word.startswith("scripts/")):
            assert (ROOT / path).is_file(), f"{command.where}: no {path}"
        if command.words[0] == "bash" and command.words[1].startswith("scripts/"):
            assert command.words[1] in SHELL, f"{command.where}: say in SHELL why it is not run"
            subprocess.run(["bash", "-n", ROOT / command.words[1]], check=True)
        if command.ours is not None:
            assert rule(command.ours) is not None, f"{command.where}: no rule says what to do with it"
            try:
                parse(command.ours)
            except Exception as error:
                raise AssertionError(f"{command.where}: {error}") from error


class Parsed(Exception):
    """A script has read its options."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_script_takes_its_options(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parse_args = argparse.ArgumentParser.parse_args

    def stop(*arguments: Any, **named: Any) -> Any:
        parse_args(*arguments, **named)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    for command in commands(page):
        if command.words[0] != "python" or not command.words[1].startswith("scripts/"):
            continue
        monkeypatch.setattr(sys, "argv", [str(ROOT / command.words[1]), *command.words[2:]])
        monkeypatch.setattr(sys, "path", [str((ROOT / command.words[1]).parent), *sys.path])
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except Parsed:
            continue
        except SystemExit as error:
            raise AssertionError(f"{command.where}: {error}") from error
        raise AssertionError(f"{command.where}: reads no options")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


# Chinese pages have the commands of the English ones: the test after this compares the READMEs, tests/test_docs_zh.py the rest.
RUNS = [
    page
    for page in PAGES
    if not page.name.endswith(".zh.md")
    and any(isinstance(rule(c.ours), Run) for c in commands(page) if c.ours)
]


@pytest.mark.parametrize("page", RUNS, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_do_what_the_page_says(
    page: Path, world: Path, tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZHLLAMA_CACHE", str(world / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    for path in world.iterdir():
        (tmp_path / path.name).symlink_to(path)
    for name, other in STANDS_FOR.get(str(page.relative_to(ROOT)), {}).items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).symlink_to(world / other)
    for command in commands(page):
        how = rule(command.ours) if command.ours else None
        if not isinstance(how, Run):
            continue
        words = [served() if word.startswith("http") else word for word in (*command.ours, *how.more.split())]
        told = line(tmp_path, *words)
        assert told.code == 0, f"{command.where}: {' '.join(words)}\n{told.err}"
    for manifest in (path for path in tmp_path.rglob("manifest.json") if not path.is_relative_to(world)):
        check_files(json.loads(manifest.read_text(encoding="utf-8")))


def test_both_readmes_name_the_same_commands() -> None:
    english, chinese = ([c.words for c in commands(ROOT / name)] for name in ("README.md", "README.zh.md"))
    assert english == chinese


def test_further_commands_of_the_chinese_readme() -> None:
    """Its ```shell blocks and the inline commands with options are accepted by the command line."""
    page = ROOT / "README.zh.md"
    blocks = [command.ours for command in commands(page, "shell") if command.ours]
    inline = [
        tuple(shlex.split(text))[1:]
        for text in re.findall(r"`(zhllama [^`]+ --[^`]+)`", page.read_text(encoding="utf-8"))
    ]
    assert len(blocks) >= 2 and len(inline) > 10
    for words in (*blocks, *inline):
        parse(words)


def check_files(manifest: dict[str, Any]) -> None:
    """Every file of a run is told of in docs/reference/files.md, under its command."""
    page = (DOCS / "reference" / "files.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", page, re.M | re.S))
    told = next((text for name, text in sections.items() if manifest["command"].startswith(name)), None)
    assert told is not None, f"files.md has no section on {manifest['command']}"
    cells = re.findall(r"^\| (`.*?) \|", told + sections["In every folder"], re.M)
    names = [name for cell in cells for name in re.findall(r"`(.+?)`", cell)]
    for file in manifest["outputs"]:
        assert any(fnmatch(file, name) for name in names), f"files.md has no {file} of {manifest['command']}"


@pytest.mark.parametrize("name", LINES)
def test_shipped_lines_are_planned(name: str, tmp_path: Path) -> None:
    """Every step parses, every given value reaches a step, and what trains can be planned without its weights."""
    values = yaml.safe_load(
        (ROOT / "zhllama" / "recipes" / "lines" / f"{name}.yaml").read_text(encoding="utf-8")
    )["values"]
    given = [
        word
        for key, value in values.items()
        for word in ("--set", f"{key}={value if isinstance(value, int) else 'given-' + key}")
    ]
    told = line(tmp_path, "run", name, "--dry-run", "--json", *given)
    assert told.code == 0, told.err
    steps = [step["command"] for step in json.loads(told.out)["steps"]]
    whole = " ".join(word for step in steps for word in step)
    assert all(isinstance(value, int) or f"given-{key}" in whole for key, value in values.items())
    for words in steps:
        if words[0] in ("pretrain", "sft"):
            at = words.index("--model")
            planned = line(
                tmp_path, *words[:at], *words[at + 2 :], "--dry-run", "--shape", "llama-7b", "--ids", 49_953
            )
            assert planned.code == 0 and "trained" in planned.out, planned.err


def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        loads = re.findall(
            r"<(?:link|script|img|iframe)\b[^>]*(?:src|href)=[\"']?(?:https?:)?//[^>]*>",
            page.read_text(encoding="utf-8"),
        )
        assert not loads, f"{page}: {loads[0]}"
