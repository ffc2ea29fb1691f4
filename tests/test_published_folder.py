"""A folder of recipe chinese-llama: a bare AutoTokenizer does what its README says, and zhllama never shows a byte token."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.chat_toys import BY_BYTES, write_parrot
from tests.model_toys import base_vocabulary, line, write_tokenizer
from zhllama.pretrained import open_tokenizer
from zhllama.vocab.any_tokenizer import load_any_tokenizer
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary

TEXTS = ["第一行\n😀", "人民\n", " 两 个  空格", "龘\t龘", "people, 1827", "\n\n", "社会", "é ñ 中"]
BYTE = re.compile("<0x[0-9A-F]{2}>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary as published, with ties, so that it has no tokenizer.json."""
    work = tmp_path_factory.mktemp("published")
    write_tokenizer(base_vocabulary(), work / "base")
    (work / "words.txt").write_text("人民\n社会\n行\n人\n民\n社\n会\n", encoding="utf-8")
    told = line(work, "merge-vocab", "--base", "base/tokenizer.model", "--zh", "words.txt", "--pad", "--out", "merged",
                "--fuzz", 100)  # fmt: skip
    assert told.code == 0, told.err
    return work / "merged"


def test_a_bare_auto_tokenizer_does_what_the_readme_says(folder: Path) -> None:
    from transformers import AutoTokenizer

    assert not (folder / "tokenizer.json").exists()
    readme = (folder / "README.md").read_text(encoding="utf-8")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    reference = SentencePieceVocabulary.read(folder / "tokenizer.model").processor
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    assert "`AutoTokenizer` (transformers 5.23) encodes exactly" in readme
    assert ids == [[reference.bos_id(), *one] for one in reference.encode(TEXTS)]
    assert "a line feed as `<0x0A>`, and strips the text" in readme
    assert (
        tokenizer.decode(ids[0], skip_special_tokens=True)
        == "<0xE7><0xAC><0xAC>一行<0x0A><0xF0><0x9F><0x98><0x80>"
    )
    assert tokenizer.decode(ids[2], skip_special_tokens=True)[:1] != " "
    way = re.search(r"Decode with SentencePiece:\n`(.+)`", readme)
    assert way is not None
    expression = compile(way[1], "README.md", "eval")  # the line that the README tells users to write
    for one, text in zip(ids, TEXTS, strict=True):
        assert eval(expression, {"tokenizer": tokenizer, "ids": one}) == text
    assert 'drops `"special_tokens_pattern": "bos"`' in readme
    tokenizer.save_pretrained(folder.parent / "saved")
    saved: Any = AutoTokenizer.from_pretrained(folder.parent / "saved")
    assert [saved(text)["input_ids"] for text in TEXTS] == [one[1:] for one in ids]


def test_zhllama_decodes_exactly(folder: Path) -> None:
    tokenizer, reference = open_tokenizer(folder), load_any_tokenizer(folder)
    for text in TEXTS:
        ids = reference.encode([text])[0]
        assert reference.decode(ids) == text == tokenizer.decode(ids, skip_special_tokens=True)
        assert tokenizer.batch_decode([ids, ids]) == [text, text]
        alone = [tokenizer.decode([id]) for id in ids]
        assert not BYTE.search("".join(alone))


def test_no_command_shows_a_byte_token(folder: Path, tmp_path: Path) -> None:
    larger = SentencePieceVocabulary.read(folder / "tokenizer.model")
    parrot = write_parrot(tmp_path / "parrot", BY_BYTES, vocabulary=larger)
    assert not (parrot / "tokenizer.json").exists()
    bare = [larger.pieces[id].text for id in larger.encode([BY_BYTES])[0]]
    assert all(map(BYTE.fullmatch, bare[1:]))  # the model says every character by its bytes
    (tmp_path / "questions.jsonl").write_text('{"id": "1", "instruction": "?"}\n', encoding="utf-8")
    commands = (
        ("chat", parrot, "--template", "alpaca", "--prompt", "hi", "--greedy", "--max-tokens", 12),
        ("chat", parrot, "--template", "alpaca", "--prompt", "hi", "--greedy", "--max-tokens", 12, "--json"),
        ("answer", parrot, "--template", "alpaca", "--questions", "questions.jsonl", "--reply-tokens", 12, "--out", "said",
         "--json"),
    )  # fmt: skip
    for command in commands:
        told = line(tmp_path, *command)
        assert told.code == 0, told.err
        assert not BYTE.search(told.out + told.err), command
        if command[0] == "chat":
            assert BY_BYTES in told.out
    for written in (tmp_path / "said").iterdir():
        assert written.is_dir() or not BYTE.search(written.read_text(encoding="utf-8", errors="replace"))
    answers = (tmp_path / "said/answers.jsonl").read_text(encoding="utf-8")
    assert json.loads(answers)["answer"] == BY_BYTES
