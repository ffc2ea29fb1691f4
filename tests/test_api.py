"""The Python API: every name is there, documented, and only imported when it is used."""

import subprocess
import sys

import zhllama
from zhllama.vocab.model import SentencePieceModel


def test_every_name_is_there_and_documented() -> None:
    for name in zhllama.__all__:
        assert getattr(zhllama, name).__doc__, name


def test_importing_it_costs_nothing() -> None:
    code = "import sys, zhllama; print(len([m for m in sys.modules if m.startswith('zhllama')]))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "1\n"
    )


def test_the_docstrings_example(embedded: SentencePieceModel) -> None:
    model = zhllama.safe(embedded, ["人工智能", "计算机"]).model
    assert model.processor.encode("人工智能", out_type=str) == ["▁", "人工智能"]
