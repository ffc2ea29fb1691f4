"""Edits and filters, each with the text that it must change and the text that it must leave alone."""

import random
import time
from pathlib import Path

import pytest

from zhllama.corpus.edits import (
    ConvertScript,
    EvenWidth,
    is_identity_number,
    masked,
    unicode_form,
    without_boilerplate,
    without_html,
    without_markdown,
)
from zhllama.corpus.filters import (
    InLanguages,
    InScript,
    NotListed,
    NotRepeated,
    OfLength,
    WithoutWords,
    broken_text,
    link_list,
    read_words,
)
from zhllama.corpus.ngrams import repeated_share
from zhllama.errors import InputError

CHINESE = "今天的天气很好，我们一起去公园散步，看见许多孩子在草地上放风筝。"


def test_unicode_form() -> None:
    assert unicode_form("\ufeffe\u0301te\u200b\r\n　　好　\r\r\n\n\n完\x00") == "éte\n　　好\n\n完"
    assert unicode_form("👩‍👩‍👧 नमस्‍ते") == "👩‍👩‍👧 नमस्‍ते"  # joiners spell these


def test_width() -> None:
    assert EvenWidth("letters")("ＧＰＴ－４用１２层，ｶﾞｷﾞ｡") == "GPT－4用12层，ガギ。"
    assert EvenWidth("all")("你好,世界!3:2,好:a,b http://a.cn:80") == "你好，世界!3:2,好:a,b http://a.cn:80"
    assert EvenWidth("all")("真的吗?\n对!") == "真的吗？\n对！"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<p class=x>甲</p><p>乙</p>", "\n甲\n\n乙\n"),
        ("甲<br/>乙<B>丙</B>&nbsp;&amp;&#20013;", "甲\n乙丙\xa0&中"),
        ("<script>var a='<p>';</script>甲<style>p{}</style><!-- 注 -->", "甲"),
        (
            "a < b 且 c > d, vector<int> x; List<String>, AT&T; R&D",
            "a < b 且 c > d, vector<int> x; List<String>, AT&T; R&D",
        ),
        ("<未闭合 <script>留下", "<未闭合 留下"),
    ],
)
def test_html(text: str, expected: str) -> None:
    assert without_html(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("## 题目\n![图](a.png)看[这里](https://a.cn/x)吧", "题目\n看这里吧"),
        ("这是**重点**和__强调__", "这是重点和强调"),
        ("甲\n---\n乙", "甲\n乙"),
        ("# 注释\nx = a[1](b) ** 2 ** 3\n__init__ a__b", "# 注释\nx = a[1](b) ** 2 ** 3\ninit a__b"),
        ("数组 a[i](0) 与 [注1] 与 (见上)", "数组 a[i](0) 与 [注1] 与 (见上)"),
    ],
)
def test_markdown(text: str, expected: str) -> None:
    assert without_markdown(text) == expected


def test_convert() -> None:
    assert ConvertScript("t2s")("臺灣的軟體與頭髮") == "台湾的软体与头发"
    assert ConvertScript("s2tw")("头发发展") == "頭髮發展"


def test_boilerplate() -> None:
    text = "正文说到版权所有者的权利，这是一个完整的句子，讨论了著作权的历史和它在各国的发展，并不是页脚，因此它应当原样留下，一个字也不少，这样才对得起读者，也对得起写下它的人。"
    assert (
        without_boilerplate(
            f"上一篇：春\n{text}\n责任编辑：王某\nCopyright 2020 版权所有 京ICP备12345号\n扫一扫关注我们"
        )
        == text
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("写信到 li.ming+a@mail.example.com.cn。", "写信到 [邮箱]。"),
        ("手机13812345678，或 +86 138-1234-5678", "手机[电话]，或 [电话]"),
        ("座机 010-62345678、(021)62345678、（0755）26543210", "座机 [电话]、[电话]、[电话]"),
        ("身份证11010519491231002X", "身份证[身份证号]"),
        ("订单号110105194912310021不是", "订单号110105194912310021不是"),  # its check digit is wrong
        (
            "圆周率3.14159265358979，编号2024138123456789012",
            "圆周率3.14159265358979，编号2024138123456789012",
        ),
        ("版本 1.13812345678 与 2024-01-15 10:30", "版本 1.13812345678 与 2024-01-15 10:30"),
    ],
)
def test_masks(text: str, expected: str) -> None:
    assert masked(text) == expected


def test_identity_number_by_its_check_digit() -> None:
    assert is_identity_number("11010519491231002X")  # the example of GB 11643-1999
    assert not is_identity_number("110105194912310029")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (CHINESE, None),
        ("The weather was fine and we went for a walk.", None),
        ("本文介绍 Transformer 的 attention 机制以及它在 PyTorch 中的实现方法。", None),
        ("今日はとてもいい天気なので、公園へ散歩に行きました。", "Japanese"),
        ("오늘은 날씨가 좋아서 공원에 산책하러 갔습니다.", "Korean"),
        ("Сегодня хорошая погода, и мы пошли гулять в парк.", "too little Chinese"),
        ("1234567890 === *** 99.5% $$$ 中", "mostly symbols and digits"),
        ("。。。", "mostly symbols and digits"),
    ],
)
def test_languages(text: str, reason: str | None) -> None:
    assert InLanguages()(text) == reason


def test_one_language_alone() -> None:
    assert InLanguages(("zh",))("The weather was fine and we went.") == "too little Chinese"
    assert InLanguages(("en",))(CHINESE) == "too little English"


def test_script() -> None:
    traditional = "今天的天氣很好，我們一起去公園散步，看見許多孩子在草地上放風箏。皇后在後面。"
    assert InScript("simplified")(traditional) == "Traditional"
    assert InScript("traditional")(traditional) is None
    assert InScript("traditional")(CHINESE) == "Simplified"
    assert InScript("simplified")("山水田土") is None  # the same in both


def test_length_repetition_links_broken() -> None:
    assert OfLength(5, 10)("一二三四") == "too short"
    assert OfLength(5, 10)("一" * 11) == "too long"
    assert OfLength(1, 10)(" \n") == "empty"
    assert NotRepeated()("哈" * 100) == "repeated characters"
    assert NotRepeated()("甲乙丙丁\n" * 3 + "戊己庚辛") == "repeated lines"
    assert NotRepeated()(CHINESE) is None
    assert repeated_share("一二三四五六七八九十" * 2, 10) == pytest.approx(1 / 11)
    assert link_list("见 https://example.com/" + "a" * 50) == "mostly links"
    assert link_list(CHINESE + " https://a.cn") is None
    assert broken_text("你好\ufffd") == "broken characters"
    assert broken_text(CHINESE * 20 + "\ufffd") is None


def test_word_and_address_lists(tmp_path: Path) -> None:
    (tmp_path / "ads.txt").write_text("# 广告\n加微信\n包邮\nBuy Now\n", encoding="utf-8")
    words = WithoutWords(read_words([tmp_path / "ads.txt"]), hits=2)
    assert words("全场包邮，buy now") == "words of ads.txt"
    assert words("全场包邮") is None
    with pytest.raises(InputError, match="contains no word"):
        (tmp_path / "none.txt").write_text("# 空\n", encoding="utf-8")
        read_words([tmp_path / "none.txt"])
    listed = NotListed(frozenset({"spam.cn", "good.cn/bad/page"}))
    assert listed("https://www.spam.cn/a") == "listed site"
    assert listed("https://notspam.cn/") is None
    assert listed("http://good.cn/bad/page") == "listed address"
    assert listed("http://[bad") is None and listed(None) is None


HOSTILE = ["<" * 200_000, "<!--" * 50_000, "<script>" * 25_000, "[" * 200_000, "**a" * 60_000, "&" * 200_000, " " * 200_000 + "a",
           "a" * 200_000, "a." * 100_000 + "@", "1" * 200_000, "0" + "1" * 200_000, "\n" * 200_000, "# " * 100_000, "---" * 60_000,
           "![](" * 50_000, "<p " + "a" * 200_000, "(0" * 100_000, "www." * 50_000, "版" * 200_000]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=[text[:6].strip() or "space" for text in HOSTILE])
def test_time_is_linear_in_hostile_text(text: str) -> None:
    steps = [unicode_form, without_html, without_markdown, EvenWidth("all"), without_boilerplate, masked, broken_text,
             InLanguages(), NotRepeated(), link_list]  # fmt: skip
    started = time.process_time()
    for step in steps:
        step(text)
    assert time.process_time() - started < 3.0  # seconds; what is quadratic takes minutes


def test_edits_leave_strange_text_writable() -> None:
    rng = random.Random(3)
    for _ in range(300):
        text = "".join(
            chr(rng.choice([rng.randrange(0x20), rng.randrange(0x10000), 0x4E00, 0x26, 0x3C]))
            for _ in range(50)
        )
        for edit in (
            unicode_form,
            without_html,
            without_markdown,
            EvenWidth("all"),
            without_boilerplate,
            masked,
        ):
            assert isinstance(edit(text), str)
