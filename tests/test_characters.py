"""One definition of Han for vocabularies, cleaning, filters and the search for near duplicates."""

import unicodedata

import pytest

from zhllama.characters import HAN_RANGES, charset, charsets, chinese, chinese_run, han
from zhllama.chinese_script import converter, in_script
from zhllama.corpus.edits import ConvertScript, EvenWidth
from zhllama.corpus.filters import HAN, InLanguages, _classes
from zhllama.errors import OptionError
from zhllama.generation.near_duplicates import tokens
from zhllama.vocab.continued import count_runs

HAN_CHARACTERS = "中鿿㐀䶿々〇〡〩〸〹〺〻豈\ufaff\U00020000\U0002f800\U000323af\U00033479"
PUNCTUATION = "\u3000、。〃〄〆〈》「】〒〓〔〜〟〰〶〽〿！（，：；？～｡､･"
OTHERS = "aZ0é·—…“”あア゛ㄅ한ー①⼀⺀ﾀￗ\uff66𝄞😀"


@pytest.mark.parametrize("character", HAN_CHARACTERS)
def test_every_part_agrees_what_is_han(character: str) -> None:
    assert han.match(character) and chinese.match(character)
    assert chinese_run.findall(f"中{character}文") == [f"中{character}文"]
    assert _classes()[ord(character)] == HAN
    assert EvenWidth("all")(f"{character},") == f"{character}，"
    normalized = unicodedata.normalize("NFKC", character)
    assert len(tokens(f"{character}a{character}")) == 1 + 2 * len(normalized)


@pytest.mark.parametrize("character", PUNCTUATION)
def test_punctuation_is_chinese_but_not_han(character: str) -> None:
    assert chinese.match(character) and not han.match(character)
    assert _classes()[ord(character)] != HAN


@pytest.mark.parametrize("character", OTHERS)
def test_other_characters_are_neither(character: str) -> None:
    assert not chinese.match(character)
    assert _classes()[ord(character)] != HAN


def test_the_ranges_are_sorted_and_contain_the_national_character_sets() -> None:
    bounds = [bound for pair in HAN_RANGES for bound in pair]
    assert bounds == sorted(bounds)
    for name in ("gb2312", "big5"):
        assert all(map(han.match, charset(name)))


def test_a_number_with_the_ideographic_zero_is_one_run() -> None:
    assert count_runs(["二〇二四年，佐々木"]) == {" 二〇二四年": 1, "，": 1, "佐々木": 1}
    assert InLanguages(("zh",))("〇〇〇") is None
    assert InLanguages(("zh",))("\uf900\uf901") is None


def test_opencc_converters_are_shared() -> None:
    assert converter("t2s") is converter("t2s")
    assert ConvertScript("s2t")("头发和发展") == converter("s2t")("头发和发展") == "頭髮和發展"
    assert list(in_script(["发展", "人"], "both")) == ["发展", "發展", "人"]


def test_names_of_character_sets_are_read_in_any_case() -> None:
    assert charsets(" GB2312, Bopomofo ,") == ("gb2312", "bopomofo")
    with pytest.raises(OptionError, match="unknown character set 'utf8'"):
        charsets("gb2312,UTF8")
