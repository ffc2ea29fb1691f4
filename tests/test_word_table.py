"""Word lists as people have them: columns are found over the whole file, and what was read is said."""

from pathlib import Path

import pytest

from tests.conftest import Zhllama
from zhllama.characters import chinese
from zhllama.errors import InputError
from zhllama.vocab.audit import audit
from zhllama.vocab.fast_tokenizer import Specials, fast_tokenizer
from zhllama.vocab.merge import safe
from zhllama.vocab.recipes import MergeOptions, merge_vocabulary
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary
from zhllama.vocab.word_lists import listed_pieces, word_list
from zhllama.vocab.word_table import why_not_text

WORDS = ["心电图", "合同法", "维生素C", "新▁冠", "诉讼", "仲裁", "法人", "债权人", "IT行业", "A股"] * 3
PLAIN = [word.replace("▁", " ") for word in WORDS]
SOLID = [word.replace("▁", "") for word in WORDS]


@pytest.mark.parametrize(
    ("content", "reading"),
    [
        ("\n".join(PLAIN), "a word a line"),
        ("\ufeff" + "\r\n".join(PLAIN) + "\r\n", "a word a line"),
        ("\n".join(f"{w}\t{n}" for n, w in enumerate(PLAIN)), "column 1 of 2, separated by tabs"),
        ("\n".join(f"{n}\t{w}\tn" for n, w in enumerate(PLAIN)), "column 2 of 3, separated by tabs"),
        ("\n".join(f"{w},{n}" for n, w in enumerate(PLAIN)), "column 1 of 2, separated by commas"),
        ("\ufeff词,词频\r\n" + "\r\n".join(f'"{w}","{n}"' for n, w in enumerate(PLAIN)), "with the header '词'"),
        ("word;note\n" + "\n".join(f"{w};x" for w in PLAIN), "separated by semicolons, with the header 'word'"),
        ("id,word,score\n" + "\n".join(f"{n},{w},0.{n}" for n, w in enumerate(PLAIN)), "column 2 of 3"),
        ("\n".join(f"{w}\t{-n}.5" for n, w in enumerate(PLAIN)), "column 1 of 2"),
    ],
)  # fmt: skip
def test_columns(content: str, reading: str, tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(content.encode())
    assert list(word_list(path).words) == WORDS and reading in word_list(path).reading
    path.rename(path.with_suffix(".csv"))
    assert listed_pieces(path.with_suffix(".csv")) == WORDS


@pytest.mark.parametrize("line", ["{w} {n}", "{w} {n} nr", "{w}  {n}", "{w} nz", "{w} {n} eng"])
def test_words_with_counts_or_tags_after_spaces(line: str, tmp_path: Path) -> None:
    path = tmp_path / "userdict.txt"
    some = [line.format(w=word, n=n) for n, word in enumerate(SOLID)]
    path.write_text("\n".join([*some, "台中"]), encoding="utf-8")  # jieba's count and tag may be absent
    assert listed_pieces(path) == [*SOLID, "台中"]
    assert word_list(path).reading == "word, count or tag, separated by spaces"


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("- {w}", "after"), ("{n}. {w}", "after"), ("{n}、{w}", "after"), ("（{n}）{w}", "after"), ("• {w}", "after"),
        ("{n:>7} {w}", "after"), ("{w}:{n}", "before"), ("{w}：{n}", "before"), ("{w}|{n}", "before"),
        ("{w}，{n}", "before"), ("{w}/n", "before"), ("{n}. {w} {n}", "after"),
    ],
)  # fmt: skip
def test_words_with_a_mark_or_a_number(line: str, place: str, tmp_path: Path) -> None:
    """As `uniq -c`, taggers and editors write lists; a count is no part of a piece."""
    path = tmp_path / "words.txt"
    path.write_text("\n".join(line.format(w=w, n=n + 1) for n, w in enumerate(SOLID)), encoding="utf-8")
    assert listed_pieces(path) == SOLID
    assert word_list(path).reading == f"a word a line, {place} a number or a mark"


@pytest.mark.parametrize(
    "words",
    [
        ["3D打印", "5G网络", "90后", "4S店"], ["三人行，必有我师", "你好：我", "甲|乙"], ["1. 第一", "第二", "第三", "第四"],
        ["A/B测试", "TCP/IP协议", "且/或"], ["-ing形式", "词1"],
    ],
)  # fmt: skip
def test_words_with_marks_of_their_own(words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("\n".join(words * 5), encoding="utf-8")
    assert listed_pieces(path) == [word.replace(" ", "▁") for word in words * 5]


@pytest.mark.parametrize(
    ("form", "reading"),
    [
        ("{w}: {n}", "before a number"), ("{w}={n}", "before a number"), ("{w}|{n}|n", "vertical bars"),
        ("| {w} | {n} |", "vertical bars"), ("'{w}',", "in quotes"), ('"{w}"', "in quotes"), ("“{w}”", "in quotes"),
        ("{w} contract law", "without Chinese"), ("'he'tong {w}", "without Chinese"), ("{w} {w} [he2] /law/", "CC-CEDICT"),
        ("{w} # {n}", "a word a line"),
    ],
)  # fmt: skip
def test_forms_of_dictionaries(form: str, reading: str, tmp_path: Path) -> None:
    path, words = tmp_path / "words.txt", [*dict.fromkeys(SOLID)]
    path.write_text(
        "# 词表\n" + "\n".join(form.format(w=w, n=n) for n, w in enumerate(words)), encoding="utf-8"
    )
    assert listed_pieces(path) == words and reading in word_list(path).reading


@pytest.mark.parametrize(
    ("before", "form", "after"),
    [
        ("| 词 | 次数 |\n|---|:--|\n", "| {w} | 3 |", "\n"), ("---\nname: x\nversion: 1\n...\n", "{w}\the tong\t3", "\n"),
        ("[\n", '  "{w}",', "\n]\n"), ("{{", '"{w}": 3,', '"尾": 1}}'),
    ],
)  # fmt: skip
def test_what_stands_around_the_words_is_no_word(before: str, form: str, after: str, tmp_path: Path) -> None:
    path, words = tmp_path / "words.txt", [*dict.fromkeys(SOLID)]
    content = (
        before.replace("{{", "{") + "\n".join(form.format(w=w) for w in words) + after.replace("}}", "}")
    )
    path.write_text(content, encoding="utf-8")
    assert [word for word in listed_pieces(path) if word != "尾"] == words


def test_hashtags_and_long_lines_stay_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("\n".join(f"#{w}" for w in SOLID), encoding="utf-8")
    assert listed_pieces(path) == [f"#{w}" for w in SOLID]
    path.write_text("\n".join("合同 法律 " * 40 + "a" + " 诉讼" * 40 for _ in range(50)), encoding="utf-8")
    assert len(word_list(path).words) == 50  # in linear time


@pytest.mark.parametrize("separator", [" ", "，", "、", ", ", ";", "\u3000"])
def test_words_in_one_line(separator: str, tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text(separator.join(SOLID), encoding="utf-8")
    assert listed_pieces(path) == SOLID and "in one line" in word_list(path).reading


def test_semicolons_between_cells_and_commas_in_numbers(tmp_path: Path) -> None:
    path = tmp_path / "words.csv"
    path.write_text("词;频率\n" + "\n".join(f"{w};0,{n}" for n, w in enumerate(SOLID)), encoding="utf-8")
    assert listed_pieces(path) == SOLID


def test_a_list_in_another_field(tmp_path: Path) -> None:
    path = tmp_path / "words.jsonl"
    path.write_text("\n".join(f'{{"word": "{w}", "count": 3}}' for w in SOLID), encoding="utf-8")
    assert list(word_list(path, "word").words) == SOLID
    with pytest.raises(InputError, match="field"):
        word_list(path)


def test_a_word_that_ends_in_a_number_is_a_word(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("\n".join([*SOLID, "苹果 15", "你好，世界", "1,2"]), encoding="utf-8")
    assert listed_pieces(path) == [*SOLID, "苹果▁15", "你好，世界", "1,2"]


def test_mixed_words_change_no_text_without_chinese(embedded: SentencePieceVocabulary) -> None:
    words = ["维生素C", "IT行业", "A股", "ZQX业务", "卡拉OK厅", "3D打印", "a1b2c3号", "QQ", "中国"]
    assert {word for word, _ in safe(embedded, words).left_out} >= {"维生素C", "IT行业", "QQ"}
    merge = safe(embedded, words, mixed=True)
    model = merge.vocabulary
    assert {word for word, _ in merge.left_out} == {"QQ"} and model.dead(range(32_000, model.size)) == []
    assert all(chinese.search(piece.text) for piece in merge.added)
    assert model.encode(["x维生素C"])[0][-1] == model.ids["维生素C"]
    lines = ["QX Z ZQX ZQ IT OK KOK 3D a1b2c3 a1b a1b2c A C b2c3", "x " * 30, "ITZQXOK3D"]
    tokenizer = fast_tokenizer(model, Specials())
    tokenizer.encode_special_tokens = True
    found = audit(model, embedded, {"text": lines}, "safe", tokenizer, fuzz=600)
    assert found.passed and found.drift.lines == 3


def test_a_count_in_another_form_than_the_list_has_is_in_no_piece(embedded: SentencePieceVocabulary) -> None:
    words = [*SOLID, "销售,20", "采购\t15", "物流：3", "仓储|1,000", "运输,▁7.5%", "比分3"]
    merge = safe(embedded, words, mixed=True)
    counted = {word: reason for word, reason in merge.left_out if reason.startswith("ends in a mark")}
    assert sorted(counted) == sorted(words[len(SOLID) : -1])
    assert "比分3" in merge.vocabulary.ids
    reasons = [why_not_text(word, mixed=True) for word in ("维生素C", "3D打印", "你好，世界", "中,文", "A股")]
    assert reasons == [None] * 5


def test_a_list_of_which_nearly_nothing_is_accepted_fails(embedded: SentencePieceVocabulary) -> None:
    terms = [f"合同{n}" for n in range(100)]
    with pytest.raises(
        InputError, match=r"100 of 100 words were left out, 100 because each contains an ASCII"
    ):
        merge_vocabulary(embedded, MergeOptions("safe"), terms)
    assert merge_vocabulary(embedded, MergeOptions("safe", mixed=True), terms).left_out == ()


def test_the_command_says_what_it_read(zhllama: Zhllama, tmp_path: Path) -> None:
    path = tmp_path / "words.csv"
    path.write_text("词,次数\n" + "\n".join(f"{w},{n}" for n, w in enumerate(PLAIN)), encoding="utf-8")
    run = zhllama("merge-vocab", "--zh", path, "--recipe", "safe", "--mixed", "--fuzz", 50, "--out", "out")
    assert run.returncode == 0, run.stderr
    assert "30 words, read as column 1 of 2, separated by commas, with the header '词'" in " ".join(
        run.stderr.split()
    )
    assert "维生素C" in (tmp_path / "out" / "added.tsv").read_text(encoding="utf-8")
