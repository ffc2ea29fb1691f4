"""The Python API: every name is there, documented, and only imported when it is used."""

import doctest
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import zhllama
from tests.conftest import ROOT
from tests.model_toys import write_model, write_tokenizer
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary


def test_every_name_is_there_and_documented() -> None:
    for name in zhllama.__all__:
        assert getattr(zhllama, name).__doc__, name


def test_importing_it_costs_nothing() -> None:
    code = "import sys, zhllama; print(len([m for m in sys.modules if m.startswith('zhllama')]))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "1\n"
    )


def test_the_page_names_all_and_its_examples_run(tmp_path: Path, embedded: SentencePieceVocabulary) -> None:
    page = ROOT / "docs" / "reference" / "api.md"
    text = page.read_text(encoding="utf-8")
    assert len(zhllama.__all__) == 15
    for name in zhllama.__all__:
        assert f"`{name}" in text and f"zhllama.{name}" in text, name
    (tmp_path / "llama.model").write_bytes(embedded.content)
    write_tokenizer(embedded, write_model(tmp_path / "LLAMA", rows=len(embedded.pieces), tokenizer=False))
    with chdir(tmp_path):
        told = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert told.attempted > 20 and told.failed == 0


def test_the_docstrings_example(embedded: SentencePieceVocabulary) -> None:
    model = zhllama.safe(embedded, ["人工智能", "计算机"]).vocabulary
    assert model.processor.encode("人工智能", out_type=str) == ["▁", "人工智能"]
