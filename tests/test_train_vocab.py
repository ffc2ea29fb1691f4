"""Training a list: sampled fairly, reproducible to the byte, no line lost in silence."""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from zhllama.characters import charset
from zhllama.chinese_script import in_script
from zhllama.errors import InputError
from zhllama.io.text import read_lines
from zhllama.resources import shipped
from zhllama.vocab.sample import LONGEST, sample_lines, shortened
from zhllama.vocab.sentencepiece_trainer import train_sentencepiece
from zhllama.vocab.train import train_on_text, train_on_words
from zhllama.vocab.word_lists import jieba_words, listed_pieces


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return list(read_lines(sorted(shipped("corpora", "sample").glob("zh_*.txt"))))


def test_the_same_text_gives_the_same_bytes_and_no_path(lines: list[str], tmp_path: Path) -> None:
    one = train_on_text(lines, 3000, log=tmp_path / "log").model
    assert one.content == train_on_text(lines, 3000).model.content
    assert len(one.pieces) == 3000 and one.algorithm == "bpe"
    assert str(tmp_path.parent).encode() not in one.content and b"/tmp" not in one.content
    assert "trainer_interface" in (tmp_path / "log").read_text(encoding="utf-8")


def test_full_width_punctuation_becomes_pieces(lines: list[str]) -> None:
    model = train_on_text(lines, 3000).model
    assert {"，", "。", "：", "“"} <= model.ids.keys()


def test_progress_moves(lines: list[str]) -> None:
    seen: list[float] = []
    train_on_words(6000, coverage=0.98, progress=seen.append)
    assert seen == sorted(seen) and 0 <= seen[0] <= seen[-1] <= 1


def test_jieba_list_is_whole() -> None:
    assert sum(1 for _ in jieba_words()) == 349_046


def test_words_get_no_space_before_them(jieba_list: list[str]) -> None:
    assert not [p for p in jieba_list if p.startswith("▁") and len(p) > 1]


def test_cover_guarantees_a_character_set(lines: list[str]) -> None:
    model = train_on_text(lines, 5000, cover=("gb2312-1",)).model
    assert all(c in model.ids for c in charset("gb2312-1"))


def test_too_little_text_and_too_small_a_size(lines: list[str]) -> None:
    with pytest.raises(
        InputError, match=r"the text: is too little for 20,000 pieces: it yields [\d,]+\. Give more text"
    ):
        train_on_text(["你好，世界。"], 20_000)
    with pytest.raises(InputError, match="pieces are too few for the single characters asked for"):
        train_on_text(lines, 1000, cover=("gb2312",))


def test_a_killed_trainer_is_told() -> None:
    def kaput() -> Iterator[str]:
        yield "word without a count"

    with pytest.raises(InputError, match="the trainer of SentencePiece: failed"):
        train_sentencepiece(kaput(), {"vocab_size": 300, "model_type": "bpe", "input_format": "tsv"})


def test_unigram_too(lines: list[str]) -> None:
    assert train_on_text(lines, 3000, "unigram").model.algorithm == "unigram"


def test_scripts() -> None:
    assert list(in_script(["汉语"], "as-is")) == ["汉语"]
    assert list(in_script(["汉语", "中文"], "traditional")) == ["漢語", "中文"]
    assert list(in_script(["漢語"], "simplified")) == ["汉语"]
    assert list(in_script(["汉语", "中文"], "both")) == ["汉语", "漢語", "中文"]


def test_sample_is_even_bounded_and_seeded() -> None:
    lines = [f"{i:05d}" for i in range(20_000)]
    sample = sample_lines(lines, 5_000, seed=1)
    assert sample.seen == 100_000 and sample.size == 5_000 and sample.lines == sorted(sample.lines)
    assert (
        sample.lines
        == sample_lines(iter(lines), 5_000, seed=1).lines
        != sample_lines(lines, 5_000, seed=2).lines
    )
    tenths = Counter(int(line) // 2000 for line in sample.lines)
    assert len(tenths) == 10 and min(tenths.values()) > 60


def test_small_text_is_taken_whole() -> None:
    sample = sample_lines(["一", "二"], 1_000_000, seed=0)
    assert sample.lines == ["一", "二"] and sample.size == sample.seen == 6


def test_long_lines_are_cut_at_sentence_ends_and_counted() -> None:
    long = "他说：“走吧。”天亮了！" * 300
    parts = list(shortened(long))
    assert "".join(parts) == long and len(parts) > 1
    assert all(len(p.encode()) <= LONGEST for p in parts)
    assert all(p.endswith(("”", "！")) for p in parts)
    endless = "字" * 5000
    assert "".join(shortened(endless)) == endless
    assert sample_lines([long, "短"], 1_000_000, seed=0).cut == 1


def test_users_own_list(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("心电图\n\n  新 冠 \n", encoding="utf-8")
    assert listed_pieces(path) == ["心电图", "新▁冠"]


def test_a_trainer_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """As from a script that calls zhllama without `if __name__ == "__main__"`: the new process fails before the trainer."""
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "/nowhere/script.py", raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    with pytest.raises(InputError, match=r"did not start in its own process.*__main__"):
        train_sentencepiece(["中国"], {"vocab_size": 300})
