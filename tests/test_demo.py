"""The whole line at toy size, as a newcomer runs it."""

import shlex
import sys
from pathlib import Path

import pytest

from tests.conftest import Zhllama
from tests.test_docs import parse
from zhllama import extras
from zhllama.commands.demo import NEXT, PAGES, show_next

PROVED = ("0 dead pieces, an exact tokenizer.json;", "zh bits per character", "answers bits per character",
          "the same next token after 100.0%")  # fmt: skip


@pytest.mark.slow
def test_the_demo_from_a_word_list_to_a_chat_turn_and_once_more(tmp_path: Path, zhllama: Zhllama) -> None:
    first = zhllama("demo", timeout=900)
    assert first.returncode == 0, first.stderr
    assert [proof for proof in PROVED if proof not in first.stderr] == []
    assert (tmp_path / "runs" / "demo" / "page" / "report.html").is_file()
    assert "train-vocab" in first.stdout and "zhllama run chinese-llama-7b --dry-run" in first.stdout
    again = zhllama("demo", timeout=300)
    assert again.returncode == 0 and again.stderr.count("already finished") == 9, again.stderr


def test_the_demo_ends_with_pages_and_commands_that_work_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / ".venv" / "bin" / "zhllama"
    script.parent.mkdir(parents=True)
    script.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(script.with_name("python")))
    for path, program in (("", ".venv/bin/zhllama"), (str(script.parent), "zhllama")):
        monkeypatch.setenv("PATH", path)
        show_next(Path("my runs"))
        told = capsys.readouterr().out.splitlines()
        typed = [words for line in told if (words := shlex.split(line, comments=True))[:1] == [program]]
        assert len(typed) == len(NEXT)
        for words in typed:
            parse(tuple(words[1:]))
        pages = [line.split()[0] for line in told if line.startswith("  file://")]
        assert pages == [(tmp_path / "my runs" / step / "report.html").as_uri() for step in PAGES]
    script.unlink()
    assert extras.program() == f"{script.with_name('python')} -m zhllama"
