"""Tokenizer.json files with every kind of normalizer and pre-tokenizer: extended exactly, or refused in one line before the work."""

import json
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from tests.test_byte_level_vocabulary import EN, ZH, trained
from tests.test_odd_bases import trained as trained_model
from zhllama.errors import InputError
from zhllama.normalizer_panics import refuse_panic
from zhllama.pretrained import open_tokenizer
from zhllama.vocab.any_tokenizer import load_any_tokenizer
from zhllama.vocab.audit import audit
from zhllama.vocab.byte_level_json import BYTE_OF
from zhllama.vocab.byte_level_recipes import why_left_out
from zhllama.vocab.byte_level_vocabulary import ByteLevelVocabulary, readable
from zhllama.vocab.counted_text import CountedText
from zhllama.vocab.fast_tokenizer import Specials, fast_tokenizer
from zhllama.vocab.metaspace_vocabulary import MetaspaceVocabulary
from zhllama.vocab.piece_filter import PieceFilter
from zhllama.vocab.recipes import MergeOptions, check_recipe, merge_vocabulary
from zhllama.vocab.vocabulary import Vocabulary

Zhllama = Callable[..., "subprocess.CompletedProcess[str]"]
WORDS = [
    "中国",
    "人工智能",
    "计算机",
    "科学",
    "中华人民共和国",
    "的",
    "人的",
    "人民",
    "，",
    "龘",
    "国",
    "中国人",
]
TEXTS = {"zh": [*ZH[:60], "国 中国 人的，地", "，，国", "我的的"], "en": EN[:60]}
replaced = normalizers.Replace


@cache
def _byte_level() -> str:
    return str(trained("qwen").to_str())


@cache
def _metaspace() -> str:
    return str(fast_tokenizer(trained_model(), Specials()).to_str())


def step(one: Any) -> Any:
    return json.loads(one.__getstate__())


def byte_level(
    normalizer: Any = None, pre_tokenizer: Any = None, added: list[AddedToken] | None = None
) -> Any:
    tokenizer = Tokenizer.from_str(_byte_level())
    tokenizer.add_tokens(added or [])
    raw = json.loads(tokenizer.to_str()) | {"normalizer": normalizer and step(normalizer)}
    if pre_tokenizer is not None:
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        raw["pre_tokenizer"] = step(pre_tokenizers.Sequence([pre_tokenizer, bytes_]))
    return ByteLevelVocabulary(json.dumps(raw))


def metaspace(folder: Path, normalizer: Any = None, pre_tokenizer: Any = None, added: Any = ()) -> Any:
    tokenizer = Tokenizer.from_str(_metaspace())
    tokenizer.add_tokens(list(added))
    raw = json.loads(tokenizer.to_str())
    if normalizer is not None:
        raw["normalizer"]["normalizers"].insert(0, step(normalizer))
    raw["pre_tokenizer"] = pre_tokenizer and step(pre_tokenizer)
    (folder / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")
    return MetaspaceVocabulary.read(folder / "tokenizer.json")


def extended(base: Vocabulary, recipe: str, add: int = 40) -> tuple[Any, dict[str, str]]:
    """The extension, audited, and why words were left out."""
    options = MergeOptions(recipe, prior=0.0, add=add, coverage=0.9)  # type: ignore[arg-type]
    words, lines = (WORDS, None) if recipe == "safe" else (None, ZH[:150])
    merge = merge_vocabulary(base, options, words, lines)
    found = audit(merge.vocabulary, base, TEXTS, merge.recipe, merge.vocabulary.tokenizer, fuzz=120)  # type: ignore[attr-defined]
    assert [p.name for p in found.promises if not p.kept] == [] and found.added > 0
    return merge, dict(merge.left_out)


HAN = Regex("[一-龥]")
NO_CHARACTER = {
    "BertNormalizer": normalizers.BertNormalizer(),
    "with more steps": normalizers.Sequence(
        [normalizers.NFC(), normalizers.BertNormalizer(lowercase=False), replaced(Regex(" +"), " ")]
    ),
    "deletes Han": replaced(HAN, ""),
    "one mark for Han": replaced(HAN, "X"),
    "spells bytes": normalizers.ByteLevel(),
}


@pytest.mark.parametrize("recipe", ["safe", "continued"])
@pytest.mark.parametrize("name", NO_CHARACTER)
def test_a_normalizer_that_leaves_no_character_is_refused_before_the_work(name: str, recipe: Any) -> None:
    base = byte_level(NO_CHARACTER[name])
    with pytest.raises(
        InputError,
        match=r"^`base`: lets no Chinese character become a token: '啊阿' is .* after its normalizer",
    ):
        check_recipe(base, recipe)


NO_WORD = {
    "splits characters": (None, pre_tokenizers.Split(HAN, "isolated")),
    "splits everything": (None, pre_tokenizers.Split(Regex("."), "isolated")),
    "space between Han": (replaced(Regex("(?<=[一-龥])(?=[一-龥])"), " "), None),
}


@pytest.mark.parametrize("name", NO_WORD)
def test_a_base_that_splits_every_word_takes_single_characters_only(name: str) -> None:
    base = byte_level(*NO_WORD[name])
    with pytest.raises(InputError, match="lets no Chinese word become a token: '啊阿' is"):
        check_recipe(base, "continued")
    with pytest.raises(InputError, match="Take `recipe` safe with a `zh` of single characters"):
        check_recipe(base, "safe", listed=False)
    merge, left_out = extended(base, "safe")
    assert {readable(piece.text) for piece in merge.added if piece.reason == "list"} == {"龘", "国"}
    assert left_out.keys() >= {"中国", "人民"}


SPLIT, NORMALIZED = "is split by the base's pattern", "is changed by the base's normalizer"
PARTLY = {
    "one character replaced": (replaced("国", "國"), None, {"国": NORMALIZED, "中国人": NORMALIZED}),
    "one character doubled": (replaced("的", "的的"), None, {"人的": NORMALIZED}),
    "a mark before": (replaced("人", "\u0301人"), None, {"人民": NORMALIZED}),
    "after another": (replaced(Regex("(?<=中)国"), "國"), None, {"中国": NORMALIZED}),
    "spaces around": (replaced("国", " 国 "), None, {"中国": NORMALIZED, "国": NORMALIZED}),
    "split at one": (
        None,
        pre_tokenizers.Split("的", "removed"),
        {"人的": "is changed by the base's pre-tokenizer"},
    ),
    "begins a word": (None, pre_tokenizers.Split(Regex("[的了]"), "merged_with_next"), {"人的": SPLIT}),
    "pairs": (None, pre_tokenizers.Split(Regex("[一-龥]{1,2}"), "isolated"), {"计算机": SPLIT}),
    "Metaspace": (None, pre_tokenizers.Metaspace(), {}),
}


@pytest.mark.parametrize("name", PARTLY)
def test_only_what_stays_whole_becomes_a_token(name: str) -> None:
    normalizer, pre_tokenizer, expected = PARTLY[name]
    base = byte_level(normalizer, pre_tokenizer)
    _, left_out = extended(base, "safe")
    assert expected.items() <= left_out.items()
    merge, _ = extended(base, "continued")
    assert len(merge.added) == 40


def test_words_with_an_added_token_in_them_are_dead(tmp_path: Path) -> None:
    base = byte_level(added=[AddedToken("国")])
    merge, left_out = extended(base, "safe")
    assert left_out["中国人"] == "contains '国', which the base matches before its merges"
    assert "国" not in {readable(piece.text) for piece in merge.added}
    merge, _ = extended(base, "continued")
    assert not any("国" in (readable(piece.text) or "") for piece in merge.added)
    # A token that is matched only between word boundaries never is inside Chinese text.
    alone = byte_level(added=[AddedToken("国", single_word=True)])
    assert why_left_out(alone, "中国人") is None
    extended(alone, "safe")


def test_characters_of_cover_are_no_words_of_the_list() -> None:
    """None of the 75 letters of bopomofo can be a token of this base, and that says nothing about the two words."""
    merge = merge_vocabulary(byte_level(), MergeOptions("safe", cover=("bopomofo",)), ["中国", "人工智能"])
    assert {readable(piece.text) for piece in merge.added} >= {"中国", "人工智能"} and len(
        merge.left_out
    ) > 70


def test_a_metaspace_base(tmp_path: Path) -> None:
    base = metaspace(tmp_path, replaced("人", "亼"))
    _, left_out = extended(base, "safe")
    assert left_out["人民"] == left_out["中国人"] == NORMALIZED
    merge, _ = extended(base, "continued", 600)
    texts = {piece.text for piece in merge.added}
    assert "亼" in texts and not any("人" in text for text in texts)
    with pytest.raises(InputError, match="its pre-tokenizer splits Chinese text"):
        metaspace(tmp_path, pre_tokenizer=pre_tokenizers.Split("的", "isolated"))


def test_a_metaspace_base_whose_added_character_would_be_matched_elsewhere(tmp_path: Path) -> None:
    """add_tokens(["国"]) on LLaMA's tokenizer.json: the normalizer makes it ▁国, and an extension would find 国 everywhere."""
    with pytest.raises(
        InputError, match="has the added token '国', which it finds at the start of a text only"
    ):
        check_recipe(metaspace(tmp_path, added=[AddedToken("国")]), "safe")
    extended(metaspace(tmp_path, added=[AddedToken("国", normalized=False), AddedToken("中国")]), "safe")


def test_documents_are_counted_as_the_base_normalizes_them() -> None:
    """Each document has the word with another character for 国, all of which the base writes as one."""
    base = byte_level(replaced(Regex("[國囯圀]"), "国"))
    documents = [f"这里写着中{c}地方志的第一页" * 3 for c in "国國囯圀" for _ in range(2)]
    text = CountedText(documents, list(range(len(documents))), ["one.txt"], [0])
    options = MergeOptions("continued", prior=0.0, add=12, pieces=PieceFilter(frozenset(), 8, text))
    merge = merge_vocabulary(base, options, lines=documents)
    uses = {word: use.documents for word, use in merge.uses.items() if "国" in word}
    assert uses and set(uses.values()) == {8}
    model = trained_model(normalization_rule_name="nfkc")
    wide = CountedText(["⼈民的", "人民的", "⼈⺠的"], [0, 1, 2], ["one.txt"], [0])
    seen = wide.uses(["人民"])["人民"].documents, list(model.normalized(wide.lines))
    assert seen == (1, ["人民的", "人民的", "人⺠的"])


PANICS = {
    "any place": replaced(Regex("x*"), "_"),
    "start": replaced(Regex("^"), "▁"),
    "start or spaces": replaced(Regex(r"^\s*"), "▁"),
    "before punctuation": replaced(Regex("(?=<)"), " "),
    "before Han": replaced(Regex("(?=[一-龥])"), " "),
    "word boundary": replaced(Regex(r"\b"), "_"),
    "empty string": replaced("", "_"),
    "empty Prepend": normalizers.Prepend(""),
    "inside a sequence": normalizers.Sequence(
        [normalizers.NFC(), normalizers.Sequence([replaced(Regex(r"\A"), "_")])]
    ),
}
NO_PANICS = {
    "Prepend": normalizers.Prepend("▁"),
    "end": replaced(Regex(r"\z"), "_"),
    "behind": replaced(Regex("(?<=a)"), "_"),
    "deletes": replaced(Regex("x*"), ""),
    "first character": replaced(Regex("^."), "_"),
    "nothing": None,
}


def plain(normalizer: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab={c: n for n, c in enumerate(BYTE_OF)}, merges=[]))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return tokenizer


@pytest.mark.parametrize("name", PANICS)
def test_a_normalizer_that_panics_is_refused_by_name(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plain(PANICS[name]).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}', "utf-8")
    for opened in (load_any_tokenizer, ByteLevelVocabulary.read, open_tokenizer):
        file = tmp_path if opened is open_tokenizer else tmp_path / "tokenizer.json"
        with pytest.raises(
            InputError, match=r"that inserts text before .* the library `tokenizers` panics on that"
        ) as error:
            opened(file)
        assert str(file) in str(error.value)
    assert "panicked" not in capfd.readouterr().err


@pytest.mark.parametrize("name", NO_PANICS)
def test_other_normalizers_are_accepted(name: str) -> None:
    tokenizer = plain(NO_PANICS[name])
    refuse_panic(tokenizer, "here")
    for text in ("a", "中文 a", "<s>", "。x", "\na", "a b c"):
        tokenizer.encode(text)
    metaspaced = plain(PANICS["start"])
    metaspaced.pre_tokenizer = pre_tokenizers.Metaspace()
    refuse_panic(metaspaced, "here")
    assert metaspaced.encode("a b") is not None


def test_the_command_line(zhllama: Zhllama, tmp_path: Path) -> None:
    for name, normalizer in (("bert", NO_CHARACTER["BertNormalizer"]), ("start", PANICS["start"])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text(byte_level(normalizer).content, encoding="utf-8")
    refused = zhllama("merge-vocab", "--base", "bert", "--out", "o")
    assert refused.returncode == 1 and refused.stderr.splitlines()[1:] == [
        "zhllama: --base: lets no Chinese character become a token: '啊阿' is ' 啊 阿 ' after its normalizer. Use a base "
        "whose tokenizer.json keeps Chinese text as it is."
    ]
    for line in (
        ("merge-vocab", "--base", "start", "--out", "o"),
        ("report", "start", "--text", "x.txt", "--out", "o"),
    ):
        (tmp_path / "x.txt").write_text("中文\n", encoding="utf-8")
        refused = zhllama(*line)
        assert refused.returncode == 1 and refused.stderr.splitlines()[-1] == (
            "zhllama: start/tokenizer.json: has a normalizer, Replace '^', that inserts text before 'one two' without replacing "
            "anything, and the library `tokenizers` panics on that. Let its pattern match a character, or use Prepend."
        )
        assert "panicked" not in refused.stderr and not (tmp_path / "o").exists()
