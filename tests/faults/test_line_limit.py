"""Every command that reads lines of text or JSON has --max-line-bytes, and refuses a longer line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from tests.faults.world import COMMANDS, make_inputs
from tests.model_toys import line
from zhllama.commands.table import app
from zhllama.errors import InputError
from zhllama.io.rows import read_rows_or_faults
from zhllama.io.text import limit_lines

# Command lines in the world of the other tests, without --out and the limit; the file whose line is refused comes second.
LINES: dict[str, tuple[str, str]] = {
    name: (" ".join(COMMANDS[name].words), file)
    for name, file in {
        "merge-vocab": "words.txt",
        "report": "text.txt",
        "pack": "text.txt",
        "reward": "ranked.jsonl",
        "dpo": "ranked.jsonl",
        "answer": "rows.json",
        "judge": "one.jsonl",
        "gen-zh": "seed_tasks.jsonl",
        "refilter": "seed_tasks.jsonl",
        "advise": "text.txt",
        "sharegpt clean": "talks.json",
        "sharegpt split": "talks.json",
    }.items()
} | {
    # Without the cache of the other tests, which already contains these rows.
    "sft": ("sft --model base --data rows.json --cache cache", "rows.json"),
    "pretrain": (
        "pretrain --stage 2 --model base --rows all --text zh=text.txt --eval-text zh=text.txt --cache cache",
        "text.txt",
    ),
    "train-vocab": ("train-vocab text.txt", "text.txt"),
    "kto": ("kto --model base --data ranked.jsonl --max-length 128", "ranked.jsonl"),
    "sharegpt export": ("sharegpt export talks.json --export-to trl", "talks.json"),
    "grow": ("grow --model base --tokenizer bigger --init fitted --text text.txt", "text.txt"),
    "eval": ("eval base --text text.txt", "text.txt"),
    "audit": ("audit bigger --base base --text text.txt", "text.txt"),
}
ALSO = (
    ("gen-zh --config server.yaml --seeds rows.jsonl", "rows.jsonl"),
    ("gen-zh --config server.yaml --method evolve --given rows.json", "rows.json"),
    ("judge --answers one.jsonl --questions rows.json", "one.jsonl"),
    ("report base bigger --text zh=texts", "texts/a.txt.gz"),
    ("reward --model base --pairs ranked.jsonl --max-length 128 --dry-run", "ranked.jsonl"),
)
# These read no lines; `corpus` has its own readers, which reject what is too long and go on.
WITHOUT = {"export", "corpus list", "corpus show", "corpus fetch", "corpus clean", "chat", "serve", "demo", "run", "lineage", "extras", "watch"}  # fmt: skip

SHOWN = {"review"}  # reads while its page is open, so that the page shows the refusal


def options_of_commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, set[str]]]:
    for name in group.list_commands(None):
        command = group.commands[name]
        if isinstance(command, TyperGroup):
            yield from options_of_commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), {flag for param in command.params for flag in param.opts}


def test_every_command_has_the_option_or_reads_no_lines() -> None:
    found = dict(options_of_commands(typer.main.get_command(app)))
    assert found.keys() == LINES.keys() | WITHOUT | SHOWN
    assert {name for name, flags in found.items() if "--max-line-bytes" in flags} == LINES.keys() | SHOWN


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    import gzip

    folder = tmp_path_factory.mktemp("world")
    make_inputs(folder)
    told = line(folder, *COMMANDS["gen-zh"].line(folder / "generated"))
    assert told.code == 0, told.err
    (folder / "rows.jsonl").write_text('{"instruction": "你好", "output": "好"}\n', encoding="utf-8")
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt.gz").write_bytes(gzip.compress(b"longer than eight bytes\n"))
    yield folder
    limit_lines(1 << 28)


def test_a_longer_line_ends_the_rows_of_review(world: Path) -> None:
    (world / "long.jsonl").write_text('{"a": 1}\n{"instruction": "你好", "output": "好"}\n', encoding="utf-8")
    limit_lines(8)
    try:
        with pytest.raises(InputError, match=r"long\.jsonl:2: is a line of more than 8 bytes"):
            list(read_rows_or_faults(world / "long.jsonl"))
    finally:
        limit_lines(1 << 28)


@pytest.mark.parametrize(("words", "file"), [*LINES.values(), *ALSO])
def test_a_longer_line_is_refused(world: Path, tmp_path: Path, words: str, file: str) -> None:
    out = () if words.startswith("eval") else ("--out", tmp_path / "out")
    told = line(world, *words.split(), *out, "--max-line-bytes", 8)
    last = told.err.splitlines()[-1]
    assert told.code == 1 and f"{file}:" in last and "is a line of more than 8 bytes" in last, told.err
    assert last.endswith("Split it into lines, or raise --max-line-bytes"), last
    assert not (tmp_path / "out").exists()
