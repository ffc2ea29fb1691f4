"""SentencePiece bases of every kind are extended: normalizers, user-defined pieces, spaces, no byte fallback, ties."""

import io
from collections import Counter
from typing import Any

import pytest
from sentencepiece import SentencePieceTrainer

from zhllama.io.text import read_lines
from zhllama.resources import shipped
from zhllama.vocab.continued import continued, count_runs
from zhllama.vocab.merge import safe
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary

LINES = [
    line
    for name in ("en_story", "en_misc", "zh_story", "code_python")
    for line in read_lines([shipped("corpora", "sample", f"{name}.txt")])
]


def trained(**options: Any) -> SentencePieceVocabulary:
    """A BPE model of 1,600 pieces on English, code and Chinese."""
    plain = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "byte_fallback": True}
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=model, model_type="bpe", vocab_size=1600,
        character_coverage=0.98, minloglevel=2, num_threads=1, **{**plain, **options},
    )  # fmt: skip
    return SentencePieceVocabulary(model.getvalue())


@pytest.fixture(scope="module")
def runs() -> Counter[str]:
    # Full-width letters and punctuation, which NFKC turns into ASCII, are the most frequent.
    return count_runs([*LINES, *["你好，！！？？（ＡＢＣ）中国人", "，，，，", "中国的人民，在哪里？"] * 400])


@pytest.mark.parametrize("rule", ["nfkc", "nmt_nfkc_cf"])
def test_continuing_a_base_that_normalizes_ends(rule: str, runs: Counter[str]) -> None:
    base = trained(normalization_rule_name=rule, remove_extra_whitespaces=True)
    model = continued(base, runs, base.size + 700, coverage=0.9).vocabulary
    assert model.size == base.size + 700 and model.dead(range(base.size, model.size)) == []
    added = [piece.text for piece in model.pieces[base.size :]]
    assert not {"，", "！", "（", "Ａ"} & set(added) and not any(text.isascii() for text in added)
    lines = [line for line in LINES if line.isascii()] + ["!!!! ??,,,, (ABC)"]
    assert model.encode(lines) == base.encode(lines)


def test_a_list_leaves_out_what_the_base_changes_or_matches_first() -> None:
    words = ["中国", "！", "中国！", "㐀ﷺ", "人▁▁民", "好##好"]
    base = trained(normalization_rule_name="nfkc", remove_extra_whitespaces=True, user_defined_symbols=["##"])
    merge = safe(base, words)
    assert merge.vocabulary.dead(range(base.size, merge.vocabulary.size)) == []
    reasons = dict(merge.left_out)
    assert reasons["！"] == reasons["中国！"] == "is changed by the base's normalizer"
    assert "a run of spaces" in reasons["人▁▁民"] and "'##'" in reasons["好##好"]
    assert "中国" in merge.vocabulary.ids
