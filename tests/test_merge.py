"""The published merge to the byte, and the safe one without its harm."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import read_xz
from zhllama.characters import charset, chinese
from zhllama.errors import InputError
from zhllama.vocab.audit import SENTENCE
from zhllama.vocab.merge import chinese_llama, merge_by_rank, safe, why_unsafe
from zhllama.vocab.sentencepiece_vocabulary import Piece, SentencePieceVocabulary

PUBLISHED = "e2676d4ca29ca1750f6ff203328d73b189321dc5776ceede037cbd36541d70c0"
WITH_PAD = "2d967e855b1213a439df6c8ce2791f869c84b4f3b6cfacf22b86440b8192a2f8"


def test_published_merge_to_the_byte(llama: SentencePieceVocabulary, published_list: list[str]) -> None:
    merge = chinese_llama(llama, published_list)
    assert len(merge.vocabulary.pieces) == 49_953
    assert hashlib.sha256(merge.vocabulary.content).hexdigest() == PUBLISHED
    padded = chinese_llama(llama, published_list, pad=True).vocabulary
    assert len(padded.pieces) == 49_954
    assert hashlib.sha256(padded.content).hexdigest() == WITH_PAD


def test_llamas_scores_are_as_the_docs_say(llama: SentencePieceVocabulary) -> None:
    """docs/why-score-0.md: every ordinary piece ranks below score 0, so the published pieces rank above all of them."""
    scores = [(piece.text, piece.score) for piece in llama.pieces[259:]]
    assert len(scores) == 31_741
    spaces = [score for text, score in scores if not text.strip("▁")]
    assert spaces == [-1e9] * 16
    assert all(score == -place for place, (text, score) in enumerate(scores) if text.strip("▁"))


def test_papers_sentence(llama: SentencePieceVocabulary, published_list: list[str]) -> None:
    assert len(llama.processor.encode(SENTENCE)) == 35
    assert len(chinese_llama(llama, published_list).vocabulary.processor.encode(SENTENCE)) == 16
    assert len(safe(llama, published_list).vocabulary.processor.encode(SENTENCE)) == 16


def test_published_harm_is_measured(llama: SentencePieceVocabulary, published_list: list[str]) -> None:
    model = chinese_llama(llama, published_list).vocabulary
    assert len(model.dead(range(32_000, 49_953))) == 345
    assert model.processor.encode("people", out_type=str) == ["▁p", "eo", "ple"]


def test_safe_keeps_what_the_published_gains(
    llama: SentencePieceVocabulary, published_list: list[str], data: Path
) -> None:
    lines = read_xz(data / "text" / "zh_small.txt.xz", 5000)
    published, ours = (
        m(llama, published_list).vocabulary.processor.encode(lines) for m in (chinese_llama, safe)
    )
    assert sum(map(len, published)) / sum(map(len, ours)) >= 0.97


def test_safe_cuts_english_as_the_base_does(
    llama: SentencePieceVocabulary, published_list: list[str], data: Path
) -> None:
    lines = read_xz(data / "text" / "en_gutenberg.txt.xz", 6000)
    assert safe(llama, published_list).vocabulary.processor.encode(lines) == llama.processor.encode(lines)


def test_forty_cut_sentences(
    llama: SentencePieceVocabulary, published_list: list[str], data: Path, golden: Callable[[str, str], None]
) -> None:
    # Piece counts, not texts: the sentences are others' and stay where they are.
    lines = [
        s for file in ("zh_small", "zhtw_wiki_drcd") for s in read_xz(data / "text" / f"{file}.txt.xz", 20)
    ]
    models = [llama, chinese_llama(llama, published_list).vocabulary, safe(llama, published_list).vocabulary]
    rows = zip(*([len(ids) for ids in m.processor.encode(lines)] for m in models), strict=True)
    golden(
        "forty_sentences.tsv",
        "llama\tpublished\tsafe\n" + "".join("\t".join(map(str, r)) + "\n" for r in rows),
    )


def test_safe_needs_nobodys_files(
    embedded: SentencePieceVocabulary, safe_vocabulary: SentencePieceVocabulary
) -> None:
    added = safe_vocabulary.pieces[len(embedded.pieces) :]
    assert safe_vocabulary.pieces[: len(embedded.pieces)] == embedded.pieces
    assert added and all(chinese.search(p.text) for p in added)
    assert safe_vocabulary.dead(range(len(embedded.pieces), len(safe_vocabulary.pieces))) == []
    scores = [p.score for p in added]
    lowest = min(p.score for p in embedded.pieces if p.kind == "normal" and p.text.strip("▁"))
    assert scores == sorted(set(scores), reverse=True) and scores[0] < lowest


def test_merging_again_adds_nothing(embedded: SentencePieceVocabulary, jieba_list: list[str]) -> None:
    for merge in (safe, chinese_llama):
        once = merge(embedded, jieba_list).vocabulary
        again = merge(once, jieba_list)
        assert again.added == () and again.vocabulary.pieces == once.pieces


def test_dead_piece_gets_the_pieces_on_its_way(embedded: SentencePieceVocabulary) -> None:
    merge = safe(embedded, ["中华人民共和国"])
    assert merge.vocabulary.bare.encode("中华人民共和国", out_type=str) == ["中华人民共和国"]
    assert {a.reason for a in merge.added} == {"list", "intermediate"}
    assert next(a.text for a in merge.added) == "中华人民共和国"


def test_missing_characters_come_in_by_themselves(embedded: SentencePieceVocabulary) -> None:
    assert "龘" not in embedded.ids
    merge = safe(embedded, ["龘龘"])
    assert [(a.text, a.reason) for a in merge.added] == [("龘龘", "list"), ("龘", "character")]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("ple", "contains an ASCII letter or digit"),
        ("卡拉OK", "contains an ASCII letter or digit"),
        ("——", "contains no Han character or CJK punctuation"),
        ("ໜ中", "contains a character that is neither Chinese nor in the base"),
        ("，但", None),
        ("▁中国", None),
    ],
)
def test_why_a_piece_is_unsafe(embedded: SentencePieceVocabulary, word: str, reason: str | None) -> None:
    assert why_unsafe(embedded, word) == reason


def test_left_out_pieces_carry_their_reason(embedded: SentencePieceVocabulary) -> None:
    merge = safe(embedded, ["的", "卡拉OK", "龘龘"])
    assert merge.left_out == (("的", "is in the base"), ("卡拉OK", "contains an ASCII letter or digit"))


def test_pad_is_a_control_piece_no_text_produces(embedded: SentencePieceVocabulary) -> None:
    model = safe(embedded, ["中华"], pad=True).vocabulary
    assert model.pieces[-1] == Piece("[PAD]", 0.0, "control")
    assert len(model.pieces) - 1 not in model.processor.encode("a [PAD] b")


def test_only_bpe_can_be_merged_into(data: Path) -> None:
    unigram = SentencePieceVocabulary.read(data / "llama" / "chinese_sp.model")
    with pytest.raises(InputError, match="unigram"):
        safe(unigram, ["中华"])


@given(st.text(alphabet="".join(charset("gb2312-1")[:60]) + "ab ", max_size=12))
def test_plain_bpe_is_sentencepieces(safe_vocabulary: SentencePieceVocabulary, text: str) -> None:
    rank = {p.text: -p.score for p in safe_vocabulary.pieces if p.kind == "normal"}
    text = text.replace(" ", "▁")
    assert (
        merge_by_rank(text, rank) == safe_vocabulary.bare.encode(text, out_type=str)
        or not set(text) <= rank.keys()
    )
