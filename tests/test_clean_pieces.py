"""Pieces are counted in documents and domains, rejected by list or by too few documents, and marked as suspicious."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.test_byte_level_vocabulary import trained as byte_level
from tests.test_odd_bases import trained
from zhllama.efficiency.measure import MeasuredVocabulary
from zhllama.efficiency.report import LabelledText, report
from zhllama.errors import InputError
from zhllama.io.text import read_lines
from zhllama.pages.report import page_data
from zhllama.resources import shipped
from zhllama.vocab.added_table import read_added
from zhllama.vocab.any_tokenizer import load_any_tokenizer
from zhllama.vocab.byte_level_vocabulary import ByteLevelVocabulary
from zhllama.vocab.counted_text import CountedText, DocumentLines, PieceUse
from zhllama.vocab.merge import safe
from zhllama.vocab.piece_filter import PieceFilter, read_exclude_list, suspicions
from zhllama.vocab.recipes import MergeOptions, extend_by_words, merge_vocabulary, plain_texts
from zhllama.vocab.sample import sample_lines
from zhllama.vocab.train import train_on_text
from zhllama.vocab.vocabulary import Vocabulary

Zhllama = Callable[..., "subprocess.CompletedProcess[str]"]
ZH = list(read_lines(sorted(shipped("corpora", "sample").glob("zh_*.txt"))))
SPAM = [
    "澳门银河娱乐场开户送彩金",
    "点击下方链接领取红包",
    "加微信咨询代开发票",
    "高仿名表一比一复刻",
    "无抵押贷款当天放款",
]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> CountedText:
    """The samples, a line a document, and one more domain whose 3 documents repeat the spam."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "clean.txt").write_text("\n".join(ZH), encoding="utf-8")
    spam = "\n".join("，".join(SPAM) for _ in range(40))
    (folder / "spam.txt").write_text("\n\n".join([spam] * 3), encoding="utf-8")
    return counted([folder / "clean.txt", folder / "spam.txt"])


def counted(files: list[Path]) -> CountedText:
    source = DocumentLines(files)
    sample = sample_lines(source, 10**9, 0, lambda: source.document)
    assert sample.lines == list(read_lines(files))
    return CountedText.sampled(sample.lines, sample.documents, source)


def test_documents_and_domains(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("中国人\n中国中国\n", encoding="utf-8")
    (tmp_path / "blank.txt").write_text("中国\n中国\n\n\n人 中国\n", encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text('{"text": "中国\\n中国"}\n{"text": "国人"}\n', encoding="utf-8")
    text = counted([tmp_path / name for name in ("lines.txt", "blank.txt", "rows.jsonl")])
    assert list(text.documents) == [0, 1, 2, 2, 3, 4, 4, 5] and text.first == [0, 2, 4]
    uses = text.uses(["中国", " 中国", "国人", "没有", ""])
    assert uses["中国"] == PieceUse(5, 8, "lines.txt", 3 / 8)
    assert uses[" 中国"] == PieceUse(5, 7, "blank.txt", 3 / 7) and uses["国人"].documents == 2
    assert uses["没有"] == PieceUse() and "" not in uses


@pytest.fixture(scope="module", params=["sentencepiece", "byte-level"])
def base(request: pytest.FixtureRequest) -> Vocabulary:
    return trained() if request.param == "sentencepiece" else ByteLevelVocabulary(byte_level("qwen").to_str())


def test_spam_in_few_documents_becomes_no_piece(base: Vocabulary, text: CountedText) -> None:
    def texts(minimum: int) -> tuple[set[str], Any]:
        options = MergeOptions(
            "continued", add=900, prior=0.0, coverage=0.9, pieces=PieceFilter(frozenset(), minimum, text)
        )
        merge = merge_vocabulary(base, options, lines=list(text.lines))
        vocabulary = merge.vocabulary
        new = range(base.size, vocabulary.size)
        assert vocabulary.size == base.size + 900 and vocabulary.dead(new) == vocabulary.split(new) == []
        return set(map(plain_texts(base), merge.added)), merge

    def parts(pieces: set[str]) -> set[str]:
        return {piece for piece in pieces if len(piece) > 3 and any(piece in phrase for phrase in SPAM)}

    found, merge = texts(1)
    assert len(parts(found)) >= 5
    spam = max(parts(found), key=len)
    assert merge.uses[spam].documents == 3 and merge.uses[spam].domain == "spam.txt"
    assert {"few documents"} <= set(suspicions(spam, merge.uses[spam]))
    found, merge = texts(4)
    assert not parts(found)
    longer = [text for text in found if len(text.strip()) > 1]
    assert longer and all(merge.uses[text].documents >= 4 for text in longer)
    assert any(reason == "occurs in 3 documents" for _, reason in merge.left_out)


def test_too_few_documents_are_reported(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(ZH[:60]), encoding="utf-8")
    few = PieceFilter(frozenset(), 61, counted([tmp_path / "a.txt"]))
    options = MergeOptions("continued", add=700, prior=0.0, coverage=0.9, pieces=few)
    with pytest.raises(InputError, match=r"too little .* lower `min_documents`"):
        merge_vocabulary(trained(), options, lines=ZH[:60] * 5)


@pytest.mark.parametrize("recipe", ["safe", "continued"])
def test_excluded_pieces_are_replaced_and_none_is_dead(
    base: Vocabulary, text: CountedText, recipe: Any
) -> None:
    words = [line[at : at + n] for line in ZH[:60] for at in range(0, len(line) - 4, 3) for n in (2, 3, 4)]
    lines = list(text.lines)

    def merged(exclude: frozenset[str]) -> Any:
        options = MergeOptions(recipe, add=500, prior=0.0, coverage=0.9, pieces=PieceFilter(exclude))
        return merge_vocabulary(base, options, words, lines)

    first = merged(frozenset())
    name = plain_texts(base)
    pieces = sorted({name(piece) for piece in first.added} - {""})
    exclude = frozenset(Random(1).sample(pieces, len(pieces) // 10))
    assert {len(piece) for piece in exclude} >= {1, 2}  # single characters too, and parts of others
    second = merged(exclude)
    assert not exclude & set(map(name, second.added))
    new = range(base.size, second.vocabulary.size)
    assert second.vocabulary.dead(new) == [] and second.vocabulary.why_no_fast_tokenizer() is None
    if recipe == "continued":
        assert len(second.added) == 500
    assert len(second.added) > 0.8 * len(first.added)
    english = ["The people, 1,234 of them.", "def f(x):\n    return x"]
    assert second.vocabulary.encode(english) == base.encode(english)


def test_an_excluded_part_is_reported() -> None:
    base = trained()
    merge = safe(base, ["龘龖", "龖"], exclude=frozenset("龘"))
    assert "龘" not in merge.vocabulary.ids and "龖" in merge.vocabulary.ids
    assert ("龘龖", "has no path without an excluded piece") in merge.left_out
    published = extend_by_words(base, ["龘", "龖"], MergeOptions(pieces=PieceFilter(frozenset("龘"))))
    assert [piece.text for piece in published.added] == ["龖"]


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_train_vocab_replaces_rejected_pieces(algorithm: Any, text: CountedText) -> None:
    wanted = PieceFilter(frozenset(["的", "，"]), 4, text)
    for filter, spam in ((PieceFilter(), True), (wanted, False)):
        model = train_on_text(text.lines, 1800, algorithm, coverage=0.98, wanted=filter).model
        texts = {p.text for p in model.pieces if p.kind == "normal"}
        assert model.size == 1800
        assert any(len(piece) > 3 and piece in phrase for phrase in SPAM for piece in texts) is spam
        assert ({"的", "，"} <= texts) is spam
        assert algorithm == "unigram" or model.dead(range(model.size)) == []


@pytest.mark.parametrize(
    ("text", "use", "expected"),
    [
        ("中华人民共和国", PieceUse(50, 90, "a", 1.0), set()),
        ("北京", PieceUse(9, 90, "a", 1.0), {"few documents"}),
        ("北京市", PieceUse(20, 400, "a", 1.0), {"often in few documents"}),
        ("最新网址发布页请收藏", None, {"long", "in a phrase of the exclude list"}),
        ("哈哈哈", None, {"repeated characters"}),
        ("你好你好", None, {"repeated characters"}),
        ("。。。", None, {"repeated characters"}),
        ("加微信", None, {"like a URL or phone number"}),
        ("ｗｗｗ．", None, {"like a URL or phone number", "repeated characters"}),
        ("１３８０１", None, {"like a URL or phone number"}),
        ("四〇〇八六五一六", None, {"long", "like a URL or phone number"}),
        ("二〇二四年", None, set()),
        ("网址发", None, {"in a phrase of the exclude list"}),
    ],
)
def test_suspicions(text: str, use: PieceUse | None, expected: set[str]) -> None:
    assert set(suspicions(text, use, ["网址发布页请"])) == expected


def test_the_commands_count_and_leave_out(tmp_path: Path, zhllama: Zhllama) -> None:
    (tmp_path / "base.model").write_bytes(trained().content)
    (tmp_path / "clean.txt").write_text("\n".join(ZH), encoding="utf-8")
    (tmp_path / "spam.txt").write_text("\n\n".join(["，".join(SPAM * 9)] * 3), encoding="utf-8")
    merge = [
        "merge-vocab", "--base", "base.model", "--recipe", "continued", "--text", "clean.txt", "--text", "spam.txt", "--prior",
        "0", "--add", "900", "--character-coverage", ".9", "--fuzz", "100",
    ]  # fmt: skip
    assert zhllama(*merge, "--out", "first").returncode == 0
    rows = read_added(tmp_path / "first")
    assert rows is not None
    word = next(text for text, row in rows.items() if row.domain == "clean.txt 100%" and len(text) == 2)
    spam = [text for text, row in rows.items() if row.domain == "spam.txt 100%" and row.documents == 3]
    assert spam and all(
        rows[text].suspicious[0] in ("few documents", "long") for text in spam if len(text) > 1
    )
    (tmp_path / "exclude.txt").write_text("\n".join([word, *spam]), encoding="utf-8")
    second = zhllama(*merge, "--out", "second", "--exclude", "exclude.txt", "--min-documents", "3", "--json")
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)["dead"] == 0
    table = (tmp_path / "second/added.tsv").read_text(encoding="utf-8").splitlines()
    assert not {line.split("\t")[0] for line in table} & {word, *spam} and len(table) == 901
    left_out = (tmp_path / "second/left_out.tsv").read_text(encoding="utf-8")
    assert f"{word}\tis on the exclude list" in left_out and "occurs in" in left_out
    page = page_data(
        report(
            [
                MeasuredVocabulary(name, "", load_any_tokenizer(path), path.parent)
                for name, path in (
                    ("base", tmp_path / "base.model"),
                    ("first", tmp_path / "first/tokenizer.model"),
                )
            ],
            [LabelledText("text", [tmp_path / "clean.txt"])],
        )
    )
    added = page["added"][0]
    flagged = {at for at, flags in added["suspicious"].items() if "few documents" in flags}
    assert flagged and {added["documents"][at] for at in flagged} <= set(range(1, 10))
    refused = zhllama(
        "merge-vocab", "--base", "base.model", "--recipe", "safe", "--min-documents", "3", "--out", "third"
    )
    assert refused.returncode == 1 and "--min-documents" in refused.stderr


@pytest.mark.parametrize(
    "pieces",
    [["公司,集团"], ["加QQ:123", "微信：456", "电话:789"], ["1、中国", "2、人民", "3、你好"], ["▁中国", "人▁民"], ["a\\tb", "；；"],
     ["网址 收藏"]],
)  # fmt: skip
def test_an_exclude_list_has_pieces_as_they_are(pieces: list[str], tmp_path: Path) -> None:
    """A piece with a comma or a number at its end was read as a row of a table, and another piece was left out."""
    path = tmp_path / "exclude.txt"
    path.write_text("\ufeff" + "\r\n".join(pieces) + "\r\n", encoding="utf-8")
    assert read_exclude_list(path) >= {piece.replace("▁", " ") for piece in pieces}
    if len(pieces) < 3:
        assert read_exclude_list(path) == {piece.replace("▁", " ") for piece in pieces}


def test_an_exclude_list_can_be_a_table(tmp_path: Path) -> None:
    path = tmp_path / "exclude.csv"
    path.write_text("词,次数\n" + "\n".join(f"广告{n},{n}" for n in range(9)), encoding="utf-8")
    assert read_exclude_list(path) >= {f"广告{n}" for n in range(9)}
