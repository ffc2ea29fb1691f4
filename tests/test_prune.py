"""Pruning: only leaves go, the rarest first; what is left cuts as before, and everything follows the id map."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from zhllama.errors import InputError, OptionError
from zhllama.io.text import read_lines
from zhllama.resources import shipped
from zhllama.vocab.audit import audit
from zhllama.vocab.byte_level_recipes import ByteLevelMerge
from zhllama.vocab.byte_level_recipes import safe as byte_safe
from zhllama.vocab.byte_level_vocabulary import ByteLevelVocabulary
from zhllama.vocab.fast_tokenizer import Specials, fast_tokenizer, merges
from zhllama.vocab.folder import base_ids_of
from zhllama.vocab.merge import chinese_llama, safe
from zhllama.vocab.prune import leaves, pruned
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary
from zhllama.vocab.train import train_on_words
from zhllama.vocab.vocabulary import Merge

from .test_byte_level_vocabulary import WORDS, trained

Zhllama = Callable[..., "subprocess.CompletedProcess[str]"]
SAMPLE = shipped("corpora", "sample")
LINES = list(read_lines(sorted(SAMPLE.glob("*.txt"))))
FEW = LINES[: len(LINES) // 2]  # what is pruned on is not all that is looked at afterwards


@pytest.fixture(scope="module")
def small(embedded: SentencePieceVocabulary, jieba_list: list[str]) -> Merge:
    """The embedded base, extended, with the base's number of pieces again."""
    merge = pruned(safe(embedded, jieba_list, pad=True), FEW, len(embedded.pieces))
    assert isinstance(merge, Merge)
    return merge


@pytest.fixture(scope="module", params=("llama3", "smollm2"))
def bytes_small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ByteLevelMerge:
    path = tmp_path_factory.mktemp(request.param) / "tokenizer.json"
    trained(request.param).save(str(path))
    base = ByteLevelVocabulary.read(path)
    merge = pruned(byte_safe(base, WORDS), FEW, base.size)
    assert isinstance(merge, Merge)
    return merge


def test_rarest_leaf_first_and_counts_go_to_the_parts() -> None:
    # 4 = 0+1, 5 = 4+2, 6 = 2+3; only 5 and 6 are leaves at first, and 4 is one when 5 has gone.
    made = [(0, 1, 4), (4, 2, 5), (2, 3, 6)]
    counts = {0: 9.0, 1: 9.0, 2: 9.0, 3: 9.0, 4: 0.0, 5: 1.0, 6: 2.0}
    movable = {4, 5, 6}
    assert leaves(counts, made, movable, 1) == {5}
    assert leaves(counts, made, movable, 2) == {5, 4}  # 4 has inherited the one of 5
    assert leaves(counts, made, movable, 9) == {4, 5, 6}
    assert leaves({**counts, 5: 2.0}, made, movable, 1) == {6}  # of equals the later one
    assert leaves(counts, [(0, 0, 1), (1, 1, 2)], {1, 2}, 9) == {1, 2}


def test_sentencepiece(embedded: SentencePieceVocabulary, small: Merge) -> None:
    model = small.vocabulary
    assert len(model.pieces) == len(embedded.pieces) and len(small.removed) > 500
    assert [model.pieces[id] for id in range(len(small.base_ids))] == [
        embedded.pieces[was] for was in small.base_ids
    ]
    gone = [embedded.pieces[id] for id in small.removed]
    assert {p.kind for p in gone} == {"normal"} and {p.kind for p in model.pieces} >= {
        "byte",
        "control",
        "unknown",
    }
    used = {part for pair in merges(model) for part in pair}
    assert not used & {p.text for p in gone}
    twin = fast_tokenizer(model, Specials())
    twin.encode_special_tokens = True
    found = audit(model, embedded, {"all": LINES}, "safe", twin, fuzz=1200, base_ids=small.base_ids)
    assert [p.name for p in found.promises if not p.kept] == []
    assert found.promises[0].name == "base ids as mapped" and found.pruned == len(small.removed)


def test_a_text_without_dropped_pieces_is_cut_as_before(
    small: Merge, embedded: SentencePieceVocabulary
) -> None:
    whole = safe(embedded, [a.text for a in small.added]).vocabulary
    before, after = (
        whole.processor.encode(LINES, out_type=str),
        small.vocabulary.processor.encode(LINES, out_type=str),
    )
    gone = {whole.pieces[id].text for id in small.removed}
    changed = [line for line, a, b in zip(LINES, before, after, strict=True) if a != b and not gone & set(a)]
    assert changed == [] and any(a != b for a, b in zip(before, after, strict=True))


def test_byte_level_vocabulary(bytes_small: ByteLevelMerge) -> None:
    base, model = bytes_small.base, bytes_small.vocabulary
    assert model.size == base.size == len(model.texts) and bytes_small.removed
    assert all(len(base.texts[id]) > 1 and id not in base.added_tokens for id in bytes_small.removed)
    assert sorted(model.added_tokens.values()) == sorted(base.added_tokens.values())
    found = audit(
        model, base, {"all": LINES}, "safe", model.tokenizer, fuzz=600, base_ids=bytes_small.base_ids
    )
    assert [p.name for p in found.promises if not p.kept] == []
    begin = "<|begin|>"
    if begin in base.added_tokens.values():  # what Llama 3 puts first has moved with its id
        assert model.texts[model.tokenizer.encode("a").ids[0]] == begin


def test_the_wrong_map_is_seen(small: Merge, embedded: SentencePieceVocabulary) -> None:
    found = audit(small.vocabulary, embedded, {}, "safe", base_ids=[*small.base_ids[1:], small.base_ids[0]])
    assert not found.passed and len(found.moved) > 1000


def test_without_byte_fallback_characters_stay() -> None:
    bare = train_on_words(3500, coverage=0.98).model
    assert not bare.byte_ids
    merge = pruned(chinese_llama(bare, []), FEW, 3400)
    assert len(merge.removed) == 100 and all(len(bare.pieces[id].text) > 1 for id in merge.removed)


def test_sizes(embedded: SentencePieceVocabulary) -> None:
    merge = chinese_llama(embedded, [])
    assert pruned(merge, FEW, len(embedded.pieces)).removed == ()
    with pytest.raises(OptionError, match="size: 40,000 is more than the 32,000 there are"):
        pruned(merge, FEW, 40_000)
    with pytest.raises(InputError, match="cannot be pruned to 10: only"):
        pruned(merge, FEW, 10)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"kept": [0, 0]}', "repeats an id"),
        ('{"kept": [9]}', "repeats an id, or has one beyond the base's 5"),
        ('{"kept": ["a"]}', "repeats an id"),
    ],
)
def test_broken_id_maps(tmp_path: Path, content: str, told: str) -> None:
    assert base_ids_of(tmp_path, 5) is None
    (tmp_path / "id_map.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=told):
        base_ids_of(tmp_path, 5)


def test_command_line(zhllama: Zhllama, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    line = (
        "merge-vocab",
        "--recipe",
        "safe",
        "--zh",
        "words.txt",
        "--prune",
        "leaf",
        "--fuzz",
        50,
        "--out",
        "o",
    )
    refused = zhllama(*line)
    assert refused.stderr == "zhllama: --prune: needs text to count rare pieces. Give --text FILE\n"
    made = zhllama(*line, "--text", SAMPLE, "--size", 31_000, "--json")
    assert made.returncode == 0, made.stderr
    kept = json.loads((tmp_path / "o" / "id_map.json").read_text(encoding="utf-8"))["kept"]
    told = json.loads(made.stdout)
    assert told["pieces"] == 31_000 and told["pruned"] == 32_000 - len(kept)
    audited = zhllama("audit", "o", "--fuzz", 50)
    assert audited.returncode == 0 and "✓  base ids as mapped" in audited.stdout


def test_grow_follows_the_map(tmp_path: Path, small: Merge, embedded: SentencePieceVocabulary) -> None:
    """The rows of a pruned and extended model: old ones where the map says, to the byte, and new ones after them."""
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig, LlamaForCausalLM

    from zhllama.model.grow import grow
    from zhllama.vocab.fast_tokenizer import transformers_files

    config = LlamaConfig(
        vocab_size=len(embedded.pieces), hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "tokenizer.model").write_bytes(embedded.content)
    (tmp_path / "vocab").mkdir()
    for name, content in transformers_files(small.vocabulary, Specials(pad="[PAD]")).items():
        (tmp_path / "vocab" / name).write_bytes(content)
    (tmp_path / "vocab" / "id_map.json").write_text(json.dumps({"kept": small.base_ids}), encoding="utf-8")
    grown = grow(tmp_path / "model", tmp_path / "vocab", tmp_path / "out")
    assert (grown.n_old, grown.rows) == (len(small.base_ids), len(embedded.pieces))
    rows = LlamaForCausalLM.from_pretrained(tmp_path / "out").get_input_embeddings().weight
    assert torch.equal(rows[: grown.n_old], model.get_input_embeddings().weight[small.base_ids])
