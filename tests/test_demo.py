"""The whole line at toy size, as a newcomer runs it."""

from pathlib import Path

import pytest

from tests.conftest import Zhllama

PROVED = ("0 dead pieces, exact tokenizer.json: True", "zh bits per character", "answers bits per character",
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
