"""`audit --model` names the tokens that a model hardly learned, by their rows (arXiv:2405.05417)."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.model_toys import base_vocabulary, line, write_model, write_tokenizer
from zhllama.io.text import read_lines
from zhllama.model.row_audit import audit_rows
from zhllama.model.undertrained import (
    change_measure,
    common_direction,
    embedding_measure,
    head_measure,
    may_be_unused,
    unused_rows,
    without_direction,
)
from zhllama.resources import shipped
from zhllama.vocab.any_tokenizer import SentencePieceTokenizer, load_any_tokenizer
from zhllama.vocab.merge import safe
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary

HELD_OUT = 50


def rows(unused: int, learned: int = 400, width: int = 96) -> torch.Tensor:
    """Rows that share a part; the first `unused` have nothing else but a little noise."""
    torch.manual_seed(0)
    shared, pushed = 3 * torch.randn(width), torch.randn(width)
    own = torch.randn(unused + learned, width) * 2
    own[:unused] = pushed + 0.05 * torch.randn(unused, width)
    return shared + own


def test_the_common_direction_is_the_first_singular_vector() -> None:
    matrix = rows(10)
    direction = common_direction(matrix)
    expected = torch.linalg.svd(matrix, full_matrices=False).Vh[0]
    assert abs(float(direction @ expected)) == pytest.approx(1, abs=1e-5)
    assert float((without_direction(matrix, direction) @ direction).abs().max()) < 1e-4
    assert common_direction(torch.zeros(5, 3)).tolist() == pytest.approx([3**-0.5] * 3)


def test_a_head_names_rows_near_the_unused_ones() -> None:
    matrix = rows(12)
    measure, unused = head_measure(matrix, [0, 1, 2, 3, 100, 200], "LM head")  # two of them were trained
    assert unused == [0, 1, 2, 3] and sorted(measure.hardly_learned()) == list(range(12))
    nothing, none = head_measure(matrix, [100, 200], "LM head")
    assert none == [] and nothing.hardly_learned() == [] and nothing.reason is not None
    assert head_measure(matrix, [], "LM head")[1] == []


def test_rows_of_zeros_are_no_measure() -> None:
    matrix = rows(12)
    matrix[:3] = 0
    assert unused_rows(matrix, [0, 1, 2]) == []
    assert head_measure(matrix, [0, 1, 2, 5, 6], "LM head")[1] == [5, 6]


def test_a_length_that_does_not_tell_rows_apart_is_not_used() -> None:
    matrix = torch.ones(400, 8)
    matrix[:6] = 0.1
    assert sorted(embedding_measure(matrix, [0, 1], "embedding").hardly_learned()) == list(range(6))
    matrix[:300] = 0.1
    useless = embedding_measure(matrix, [0, 1], "embedding")
    assert useless.limit is None and useless.reason is not None and "298 rows are as short" in useless.reason
    assert embedding_measure(matrix, [], "embedding").limit is None


def test_rows_that_only_moved_as_all_do_learned_nothing_of_their_own() -> None:
    torch.manual_seed(1)
    start, push = torch.randn(100, 16), torch.randn(16)
    now = start + push
    now[30:] += torch.randn(70, 16)
    assert sorted(change_measure(now, start, "tied", head=True).hardly_learned()) == list(range(30))
    assert change_measure(start, start, "tied", head=True).hardly_learned() == list(range(100))
    now = start * 0.999  # weight decay
    now[60:] += torch.randn(40, 16)
    still = change_measure(now, start, "embedding", head=False).hardly_learned()
    assert sorted(still) == list(range(60))  # more than half of all


def test_ids_that_may_be_unused() -> None:
    tokenizer = SentencePieceTokenizer(base_vocabulary())
    found = may_be_unused(tokenizer, tokenizer.size + 2)
    names = [tokenizer.name(id) for id in found[:-2]]
    assert found[-2:] == [tokenizer.size, tokenizer.size + 1]
    assert names[:3] == ["<unk>", "<s>", "</s>"] and names[3:5] == ["<0xC0>", "<0xC1>"] and len(names) == 16


@pytest.fixture(scope="module")
def vocabulary() -> tuple[SentencePieceVocabulary, list[str]]:
    """The base with 250 words of the sample texts and their characters, and the lines of these texts."""
    import jieba

    files = sorted(shipped("corpora", "sample").glob("zh_*.txt"))
    lines = [text for text in read_lines(files) if text.strip()]
    counts = Counter(word for text in lines for word in jieba.cut(text) if re.fullmatch("[一-鿿]{2,3}", word))
    words = [word for word, _ in counts.most_common(250)]
    return safe(base_vocabulary(), [*sorted({c for word in words for c in word}), *words]).vocabulary, lines


@pytest.mark.parametrize("tied", [True, False])
def test_pieces_that_were_kept_out_of_the_text_are_named(
    tied: bool, vocabulary: tuple[SentencePieceVocabulary, list[str]], tmp_path: Path
) -> None:
    larger, lines = vocabulary
    first = base_vocabulary().size
    words = [id for id in range(first, larger.size) if len(larger.pieces[id].text) > 1]
    held_out = set(words[:: len(words) // HELD_OUT][:HELD_OUT])
    kept = [text for text in lines if not held_out.intersection(larger.encode([text])[0])]
    (tmp_path / "zh.txt").write_text("\n\n".join(kept), encoding="utf-8")
    write_tokenizer(larger, tmp_path / "tok")
    write_model(tmp_path / "base", tied=tied)
    done = line(tmp_path, "grow", "--model", "base", "--tokenizer", "tok", "--out", "grown")
    assert done.code == 0, done.err
    done = line(
        tmp_path, "pretrain", "--stage", 1, "--model", "grown", "--out", "run", "--text", "zh=zh.txt", "--steps", 30,
        "--block-size", 64, "--batch", 8, "--micro-batch", 8, "--lr", 0.01, "--precision", "fp32", "--eval-every", 99,
    )  # fmt: skip
    assert done.code == 0, done.err
    told = line(
        tmp_path, "audit", "run/tokenizer", "--base", "base", "--model", "run", "--fuzz", 0, "--json",
        "--out", "audit.json",
    )  # fmt: skip
    found: dict[str, Any] = json.loads(told.out)["undertrained"]
    assert json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))["undertrained"] == found
    named = {token["id"] for token in found["tokens"] if token["added"]}
    assert found["tied"] == tied and found["start"] == "a stored model"
    assert len(named & held_out) >= 48
    rows = [
        text.split("\t") for text in (tmp_path / "run/new_rows.tsv").read_text(encoding="utf-8").splitlines()
    ]
    hardly_met = {int(id) for id, _, _ in rows[1:]}
    assert len(named - hardly_met) <= len(named) // 20  # those that were met 10 times or more
    if not tied:
        return
    # The same without the model that training began with: the mean of base tokens is where it began.
    plain = line(tmp_path, "export", "run", "--out", "plain")
    assert plain.code == 0, plain.err
    (tmp_path / "plain/manifest.json").unlink()
    again = audit_rows(
        str(tmp_path / "plain"),
        load_any_tokenizer(tmp_path / "tok"),
        load_any_tokenizer(tmp_path / "base"),
        first,
    )
    assert again.start == "the mean of base tokens"
    assert len({token.id for token in again.tokens} & held_out) >= 48
    shown = line(tmp_path, "audit", "run/tokenizer", "--model", "run")
    assert shown.code == 0 and "hardly learned" in shown.out and "kept" not in shown.out


def test_a_model_with_fewer_rows_than_ids_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "base")
    write_tokenizer(safe(base_vocabulary(), ["中", "国", "中国"]).vocabulary, tmp_path / "tok")
    told = line(tmp_path, "audit", "tok", "--base", "base", "--model", "base", "--fuzz", 0)
    assert told.code == 1 and "603 ids" in told.err
