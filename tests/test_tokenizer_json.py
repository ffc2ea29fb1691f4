"""tokenizer.json gives SentencePiece's ids, in `tokenizers` and through AutoTokenizer, or is not written at all."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.conftest import read_xz
from zhllama.vocab.fast_tokenizer import Specials, fast_tokenizer, transformers_files, why_no_fast_tokenizer
from zhllama.vocab.fuzz import fuzzed
from zhllama.vocab.merge import chinese_llama, safe
from zhllama.vocab.sentencepiece_vocabulary import Piece, SentencePieceVocabulary


@pytest.fixture(scope="module")
def twin(safe_vocabulary: SentencePieceVocabulary) -> Tokenizer:
    tokenizer = fast_tokenizer(safe_vocabulary, Specials())
    tokenizer.encode_special_tokens = True
    return tokenizer


def differing(model: SentencePieceVocabulary, twin: Tokenizer, texts: list[str]) -> list[str]:
    expected = model.processor.encode(texts)
    given = twin.encode_batch_fast(texts, add_special_tokens=False)
    return [text for text, ids, cut in zip(texts, expected, given, strict=True) if ids != cut.ids]


def test_fuzzed_strings(safe_vocabulary: SentencePieceVocabulary, twin: Tokenizer) -> None:
    assert differing(safe_vocabulary, twin, list(fuzzed(safe_vocabulary.fuzz_pieces(), 12_000, seed=1))) == []


@settings(max_examples=300)
@given(text=st.text(max_size=60))
def test_any_text(safe_vocabulary: SentencePieceVocabulary, twin: Tokenizer, text: str) -> None:
    text = text.replace("\x00", "")  # SentencePiece's C++ side takes NUL for the end of a text in places
    assert differing(safe_vocabulary, twin, [text]) == []
    if "▁" not in text:
        assert safe_vocabulary.processor.decode(safe_vocabulary.processor.encode(text)) == text


def test_real_models_and_text(llama: SentencePieceVocabulary, published_list: list[str], data: Path) -> None:
    model = safe(llama, published_list).vocabulary
    tokenizer = fast_tokenizer(model, Specials())
    tokenizer.encode_special_tokens = True
    lines = [s for f in ("zh_small", "zhtw_wiki_drcd") for s in read_xz(data / "text" / f"{f}.txt.xz", 4000)]
    assert differing(model, tokenizer, lines) == []
    assert (
        differing(llama, fast_tokenizer(llama, Specials()), list(fuzzed(llama.fuzz_pieces(), 6000, seed=2)))
        == []
    )


@pytest.mark.slow
def test_two_hundred_thousand_fuzzed_strings(
    llama: SentencePieceVocabulary, published_list: list[str], data: Path
) -> None:
    model = safe(llama, published_list).vocabulary
    tokenizer = fast_tokenizer(model, Specials())
    tokenizer.encode_special_tokens = True
    assert differing(model, tokenizer, list(fuzzed(model.fuzz_pieces(), 200_000, seed=3))) == []
    for file in ("zh_small", "zhtw_wiki_drcd", "en_gutenberg"):
        assert differing(model, tokenizer, read_xz(data / "text" / f"{file}.txt.xz")) == []


def auto(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


TEXTS = [
    "人工智能是计算机科学。",
    "  two  spaces\tand a tab",
    "people 1827",
    "",
    "龘𠮷😀\u200d",
    "中 国 ——“引号”……",
]


def test_auto_tokenizer_keeps_the_ids(safe_vocabulary: SentencePieceVocabulary, tmp_path: Path) -> None:
    first = auto(write(tmp_path / "safe", transformers_files(safe_vocabulary)))
    expected = [[1, *ids] for ids in safe_vocabulary.processor.encode(TEXTS)]
    assert [first(text)["input_ids"] for text in TEXTS] == expected
    first.save_pretrained(tmp_path / "again")
    again = auto(tmp_path / "again")
    assert [again(text)["input_ids"] for text in TEXTS] == expected
    assert again.decode(again(TEXTS[1])["input_ids"], skip_special_tokens=True) == TEXTS[1]
    assert (again.bos_token, again.eos_token, again.unk_token) == ("<s>", "</s>", "<unk>")


def test_ties_are_fed_by_sentencepiece_itself(
    embedded: SentencePieceVocabulary, jieba_list: list[str], tmp_path: Path
) -> None:
    model = chinese_llama(embedded, jieba_list, pad=True).vocabulary
    files = transformers_files(model, Specials(pad="[PAD]"))
    assert "tokenizer.json" not in files
    tokenizer = auto(write(tmp_path / "published", files))
    assert [tokenizer(text)["input_ids"] for text in TEXTS] == [
        [1, *ids] for ids in model.processor.encode(TEXTS)
    ]
    assert tokenizer.pad_token_id == len(model.pieces) - 1


def test_without_bos(safe_vocabulary: SentencePieceVocabulary, tmp_path: Path) -> None:
    tokenizer = auto(write(tmp_path / "plain", transformers_files(safe_vocabulary, Specials(bos=False))))
    assert tokenizer("中国")["input_ids"] == safe_vocabulary.processor.encode("中国")


def test_why_a_model_has_no_twin(embedded: SentencePieceVocabulary, jieba_list: list[str]) -> None:
    assert why_no_fast_tokenizer(embedded) is None
    tied = why_no_fast_tokenizer(chinese_llama(embedded, jieba_list).vocabulary)
    assert tied is not None and "share their score with another" in tied
    lacking = why_no_fast_tokenizer(embedded.extended([Piece("龘龘", -40_000.0)]))
    assert lacking == "it lacks single pieces for 1 characters of its longer ones (龘)"


def test_json_is_loaded_by_a_class_that_keeps_it(safe_vocabulary: SentencePieceVocabulary) -> None:
    config = json.loads(transformers_files(safe_vocabulary)["tokenizer_config.json"])
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
