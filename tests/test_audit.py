"""The audit finds what is wrong, on vocabularies that are wrong on purpose."""

import io
import re

import pytest
from rich.cells import cell_len
from rich.color import ColorSystem

from tests.model_toys import base_vocabulary
from zhllama.commands.audit_screen import draw
from zhllama.commands.console import SafeConsole
from zhllama.vocab.audit import audit
from zhllama.vocab.fast_tokenizer import Specials, fast_tokenizer
from zhllama.vocab.merge import chinese_llama
from zhllama.vocab.sentencepiece_vocabulary import Piece, SentencePieceVocabulary

TEXTS = {
    "zh": ["今天天气很好，我们去公园。", "中华人民共和国"],
    "en": ["The people of the village", "in 1827, 25 people"],
}


def broken(found: object) -> list[str]:
    return [p.name for p in found.promises if not p.kept]  # type: ignore[attr-defined]


def test_safe_keeps_every_promise(
    embedded: SentencePieceVocabulary, safe_vocabulary: SentencePieceVocabulary
) -> None:
    twin = fast_tokenizer(safe_vocabulary, Specials())
    found = audit(safe_vocabulary, embedded, TEXTS, "safe", twin, fuzz=600)
    assert found.passed and [p.name for p in found.promises] == [
        "base ids unmoved", "round trip", "no English drift", "no dead pieces", "exact fast tokenizer",
    ]  # fmt: skip
    assert (found.drift.lines, found.parity.lines, found.fuzz.lines) == (2, 4, 600)
    assert found.texts["zh"].tokens < found.texts["zh"].base_tokens
    assert found.charsets["gb2312-1"][1] == 3755


def test_published_way_promises_less_and_is_told(
    embedded: SentencePieceVocabulary, jieba_list: list[str]
) -> None:
    model = chinese_llama(embedded, [*jieba_list, "eople", "国共和"]).vocabulary
    found = audit(model, embedded, TEXTS, "chinese-llama")
    assert found.passed and found.tied > 1000 and found.why_no_fast_tokenizer is not None
    assert audit(model, embedded, TEXTS, "safe").passed is False


def test_drift_is_found_with_its_place(embedded: SentencePieceVocabulary) -> None:
    model = embedded.extended([Piece("eop", 1.0), Piece("eo", 2.0)])
    found = audit(model, embedded, TEXTS, "safe")
    assert "no English drift" in broken(found)
    assert found.drift.examples[0] == {
        "line": "The people of the village", "base": "▁people ▁of ▁the ▁village", "merged": "▁p eop le ▁of",
    }  # fmt: skip


def test_dead_piece_is_found(embedded: SentencePieceVocabulary) -> None:
    found = audit(embedded.extended([Piece("中华人民共和国", -50_000.0)]), embedded, TEXTS, "continued")
    assert found.dead == ("中华人民共和国",) and "no dead pieces" in broken(found)


def test_moved_base_id_is_found(embedded: SentencePieceVocabulary, llama: SentencePieceVocabulary) -> None:
    found = audit(llama, embedded, TEXTS)
    assert not found.passed and broken(found)[0] == "base ids unmoved" and len(found.moved) > 30_000


def test_foreign_tokenizer_json_is_found(
    embedded: SentencePieceVocabulary, safe_vocabulary: SentencePieceVocabulary
) -> None:
    found = audit(safe_vocabulary, embedded, TEXTS, "safe", fast_tokenizer(embedded, Specials()), fuzz=100)
    assert broken(found) == ["exact fast tokenizer"] and found.parity.differ > 0


def test_a_vocabulary_that_is_no_extension_of_the_base(embedded: SentencePieceVocabulary) -> None:
    """It is smaller, and ids of the base stand in the example of what differs."""
    found = audit(base_vocabulary(), embedded, TEXTS, "safe")
    assert not found.passed and "no English drift" in broken(found)
    assert "<id " in str(found.drift)


def test_no_text_at_all(embedded: SentencePieceVocabulary) -> None:
    found = audit(embedded, embedded, {})
    assert found.passed and found.to_dict()["passed"] is True


@pytest.mark.parametrize("recipe", ["safe", "continued"])
def test_missing_json_breaks_the_promise(
    embedded: SentencePieceVocabulary, safe_vocabulary: SentencePieceVocabulary, recipe: str
) -> None:
    assert broken(audit(safe_vocabulary, embedded, TEXTS, recipe)) == ["exact fast tokenizer"]  # type: ignore[arg-type]


def test_without_colors_spaces_show_the_cuts_and_nothing_exceeds_80_columns(
    embedded: SentencePieceVocabulary, safe_vocabulary: SentencePieceVocabulary
) -> None:
    found = audit(
        safe_vocabulary, embedded, TEXTS, "safe", fast_tokenizer(safe_vocabulary, Specials()), fuzz=20
    )
    base = "/a/long/path/" * 9 + "base.model"
    told = {}
    for colors in (None, "truecolor"):
        console = SafeConsole()
        console.file, console.width = io.StringIO(), 80
        console._color_system = None if colors is None else ColorSystem.TRUECOLOR
        console.no_color = colors is None
        draw(console, found, "made", base)
        told[colors] = console.file.getvalue()
    head, *lines = told[None].splitlines()
    assert head.startswith("made  ") and base in head, "names are not cut"
    assert max(map(cell_len, lines)) <= 80
    for charset in ("GB 2312 level 1", "GB 2312 level 2", "Big5 level 1", "Big5 level 2"):
        assert any(re.search(rf"{charset} [\d,]+/[\d,]+ ", row) for row in lines), f"{charset} is torn"
    before = " ".join(found.sentence[0])
    assert before[:20] in told[None] and before[:20] not in re.sub(r"\x1b\[[^m]*m", "", told["truecolor"])
