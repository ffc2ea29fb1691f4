"""Continuing the base's own BPE: exact size, nothing dead, nothing of the base moved."""

from collections import Counter
from pathlib import Path

import pytest

from zhllama.characters import charset, chinese
from zhllama.errors import InputError, OptionError
from zhllama.io.text import read_lines
from zhllama.resources import shipped
from zhllama.vocab.continued import characters, continued, count_runs, with_prior
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary
from zhllama.vocab.word_lists import jieba_words


@pytest.fixture(scope="module")
def runs() -> Counter[str]:
    return count_runs(read_lines(sorted(shipped("corpora", "sample").glob("zh_*.txt"))))


def test_runs_hold_chinese_and_the_space_before_it() -> None:
    runs = count_runs(["在 Python 里，写 一个函数。", "plain English"])
    assert runs == Counter([" 在", " 里", "，", "写", " 一个函数", "。"])


def test_exact_size_nothing_dead_nothing_moved(embedded: SentencePieceVocabulary, runs: Counter[str]) -> None:
    merge = continued(embedded, runs, 33_500, jieba_words(), 0.1)
    model = merge.vocabulary
    assert len(model.pieces) == 33_500
    assert model.pieces[:32_000] == embedded.pieces
    assert model.dead(range(32_000, 33_500)) == []
    assert all(chinese.search(p.text) for p in model.pieces[32_000:])
    assert sum(merge.counts().values()) == 1500 and set(merge.counts()) == {"character", "merge"}


def test_it_cuts_its_text_finer_than_the_base(embedded: SentencePieceVocabulary, runs: Counter[str]) -> None:
    lines = list(read_lines([shipped("corpora", "sample", "zh_story.txt")]))
    model = continued(embedded, runs, 33_500).vocabulary
    assert sum(map(len, model.processor.encode(lines))) < 0.8 * sum(
        map(len, embedded.processor.encode(lines))
    )


def test_cover_brings_whole_character_sets(embedded: SentencePieceVocabulary, runs: Counter[str]) -> None:
    model = continued(embedded, runs, 37_000, cover=("gb2312-1",)).vocabulary
    assert all(c in model.ids for c in charset("gb2312-1"))


def test_pad_comes_after_the_size(embedded: SentencePieceVocabulary, runs: Counter[str]) -> None:
    model = continued(embedded, runs, 33_000, pad=True).vocabulary
    assert len(model.pieces) == 33_001 and model.pieces[-1].text == "[PAD]"


def test_too_little_text_is_told(embedded: SentencePieceVocabulary) -> None:
    with pytest.raises(InputError, match="is too little for 49,953 pieces: it has 2 Chinese characters"):
        continued(embedded, count_runs(["你好"]), 49_953)


def test_size_that_leaves_no_room(embedded: SentencePieceVocabulary, runs: Counter[str]) -> None:
    with pytest.raises(OptionError, match="leaves 10 pieces"):
        continued(embedded, runs, 32_010)
    assert continued(embedded, runs, 32_000).added == ()


def test_prior_weighs_against_the_text() -> None:
    mixed = with_prior(Counter({"一二": 10}), [("三", 5), ("一二", 5)], 0.5)
    assert mixed["三"] == pytest.approx(10 / 15 * 5) and mixed["一二"] == pytest.approx(10 + 10 / 15 * 5)
    assert sum(len(w) * n for w, n in mixed.items()) == pytest.approx(20 * 1.5)
    assert with_prior(Counter({"一": 1}), [("二", 9)], 0) == {"一": 1}


def test_characters_by_coverage() -> None:
    assert characters(Counter({"一一一": 30, " 二": 9, "三": 1}), 0.95) == ["一", "二"]


@pytest.mark.slow
def test_half_the_domains_against_the_other_half(data: Path, tmp_path: Path) -> None:
    from scripts.experiments.continued import compare

    figures = compare(data)
    assert figures["continued"]["pieces"] == 49_953
    assert (
        figures["continued"]["dead"] == figures["continued"]["drift"] == figures["continued"]["parity"] == 0
    )
    assert figures["continued"]["characters per token"] >= figures["published way"]["characters per token"]
