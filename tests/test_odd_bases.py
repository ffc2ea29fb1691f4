"""SentencePiece bases of every kind are extended: normalizers, user-defined pieces, spaces, no byte fallback, ties."""

import io
import pickle
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import SentencePieceTrainer

from zhllama.errors import OptionError
from zhllama.io.text import read_lines
from zhllama.pretrained import open_tokenizer
from zhllama.resources import shipped
from zhllama.vocab.continued import continued, count_runs
from zhllama.vocab.fast_tokenizer import Specials, fast_tokenizer, transformers_files
from zhllama.vocab.merge import chinese_llama, safe
from zhllama.vocab.proof import prove
from zhllama.vocab.read import read_vocabulary
from zhllama.vocab.recipes import MergeOptions, continue_training, extend_by_words, merge_vocabulary
from zhllama.vocab.reload import auto_tokenizer
from zhllama.vocab.sentencepiece_vocabulary import Piece, SentencePieceVocabulary

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


WORDS = ["中国", "人工智能", "人民", "你好", "科学", "▁中国", "科学家", "村里"]
USER = ["<b>", "<br>", "\n", "▁▁", "▁▁▁▁", "a.b*c", "村", "[REF]"]
BASES: dict[str, dict[str, Any]] = {
    "user-defined": {"user_defined_symbols": USER},
    "user-defined, as Gemma": {"user_defined_symbols": USER, "add_dummy_prefix": False, "split_digits": True},
    "removes spaces": {"remove_extra_whitespaces": True},
    "user-defined with spaces": {"user_defined_symbols": ["中国", "  ", "a b"], "add_dummy_prefix": False},
    "space after words": {"treat_whitespace_as_suffix": True},
    "removes spaces, no prefix": {"remove_extra_whitespaces": True, "add_dummy_prefix": False},
    "removes spaces, space after words": {
        "remove_extra_whitespaces": True,
        "treat_whitespace_as_suffix": True,
    },
    "no byte fallback": {"byte_fallback": False},
    "no prefix": {"add_dummy_prefix": False},
    "control": {"control_symbols": ["[INST]", "[/INST]"]},
    "no bos": {"bos_id": -1},
}
HARD = [
    "", " ", "  ", "▁", "▁▁", " ▁ ", "<b>", "<b><br>", " <b>", "<b> <b>x", "a\n\n b", "\n", "     x", "<0x41>", "<b><0x41><b>",
    "<b></s><b>", "<b><unk>", "a.b*c", "axb*c", "[REF", "[REF][REF]中国村里人", "村", "中国 中国  人", "龘龘x龘", " x ", "x<br", "<br><0x0A>",
]  # fmt: skip


def written(base: SentencePieceVocabulary, model: SentencePieceVocabulary, folder: Path) -> Path:
    folder.mkdir()
    for name, content in transformers_files(model).items():
        (folder / name).write_bytes(content)
    return folder / "tokenizer.model"


@pytest.mark.parametrize("name", BASES)
def test_a_base_with_an_exact_tokenizer_json(name: str, tmp_path: Path) -> None:
    base = trained(**BASES[name])
    file = written(base, safe(base, WORDS).vocabulary, tmp_path / "out")
    assert file.with_name("tokenizer.json").is_file()
    audit = prove(file, base, {"hard": HARD, "text": LINES[:60]}, "safe", fuzz=2400)
    kept = {promise.name: promise.kept for promise in audit.promises}
    assert kept["exact fast tokenizer"] and kept["no English drift"] and audit.why_no_fast_tokenizer is None
    assert audit.fuzz.lines > 2300
    # With user-defined pieces too, which the audit does not compare where the folder names them as added tokens.
    loaded = auto_tokenizer(file.parent)
    ids = [one.ids for one in loaded.encode_batch_fast(HARD, add_special_tokens=False)]
    assert ids == SentencePieceVocabulary.read(file).encode(HARD)


@pytest.mark.parametrize("asked", [False, True])
def test_a_pad_piece_gets_its_role_only_on_request(asked: bool, tmp_path: Path) -> None:
    source = tmp_path / "base" / "tokenizer.model"
    source.parent.mkdir()
    source.write_bytes(trained(control_symbols=["[PAD]"]).content)
    config = '{"tokenizer_class": "LlamaTokenizer", "legacy": false}'
    source.with_name("tokenizer_config.json").write_text(config, encoding="utf-8")
    base = read_vocabulary(source)
    merge = merge_vocabulary(base, MergeOptions("safe", pad=asked), WORDS)
    assert merge.pad == ("[PAD]" if asked else None)
    (tmp_path / "out").mkdir()
    for name, content in merge.vocabulary.transformers_files(source, None, merge.pad).items():
        (tmp_path / "out" / name).write_bytes(content)
    written = tmp_path / "out" / "tokenizer.model"
    assert prove(written, base, {"text": LINES[:40]}, "safe", fuzz=120, source=source.parent).passed
    assert open_tokenizer(written.parent).pad_token == merge.pad


@pytest.mark.parametrize("name", ["user-defined", "removes spaces", "space after words"])
def test_one_long_line_takes_linear_time(name: str) -> None:
    """Issue 17, item 8: quadratic time would be 64 times as long for 8 times the text; a run of ▁ took 58 times."""
    tokenizer = fast_tokenizer(safe(trained(**BASES[name]), WORDS).vocabulary, Specials())

    def seconds(length: int) -> float:
        begin = time.process_time()
        for part in ("▁", "[RE", "中国人，", " "):
            tokenizer.encode(part * (length // len(part)) + "x", add_special_tokens=False)
        return time.process_time() - begin

    seconds(100)
    assert seconds(64_000) < 24 * min(seconds(8_000) for _ in range(3))


SYMBOLS = ("bopomofo", "enclosed", "fullwidth-signs", "kangxi-radicals", "small-forms")


def test_symbols_are_added_on_request(tmp_path: Path, runs: Counter[str]) -> None:
    """Issue 17, item 9: ￥ ① ㄅ ﹐ and Kangxi radicals are pieces where their sets are named, and change no other text."""
    base = trained()
    texts = {"text": [*LINES[:60], "5 ￥ or $5, ① one ㄅ⼀", "①②", "﹐", "⑴ x"]}
    for merge in (safe(base, WORDS, cover=SYMBOLS), continued(base, runs, base.size + 1900, cover=SYMBOLS)):
        assert {"￥", "①", "㈠", "ㄅ", "﹐", "⼀", "⿕"} <= merge.vocabulary.ids.keys()
        file = written(base, merge.vocabulary, tmp_path / merge.recipe)
        assert prove(file, base, texts, merge.recipe, fuzz=300).passed
    assert "①" not in safe(base, WORDS).vocabulary.ids
    merge = safe(trained(normalization_rule_name="nfkc"), WORDS, cover=("enclosed", "bopomofo"))
    assert "ㄅ" in merge.vocabulary.ids and ("①", "is changed by the base's normalizer") in merge.left_out
    with pytest.raises(OptionError, match="`recipe` chinese-llama"):
        extend_by_words(base, WORDS, MergeOptions("chinese-llama", cover=("enclosed",)))


def tied() -> SentencePieceVocabulary:
    return chinese_llama(trained(), ["中国人", "国人", "中国", "人民", "民人"]).vocabulary


@pytest.mark.parametrize("base", [trained(normalization_rule_name="nfkc"), tied()], ids=["nfkc", "ties"])
def test_a_base_without_an_exact_tokenizer_json(base: SentencePieceVocabulary, tmp_path: Path) -> None:
    file = written(base, safe(base, [*WORDS, "中国人民"]).vocabulary, tmp_path / "out")
    assert not file.with_name("tokenizer.json").exists()
    audit = prove(file, base, {"text": [*HARD, *LINES[:60]]}, "safe", fuzz=600)
    promise = next(p for p in audit.promises if p.name == "same in transformers")
    assert promise.kept and "0 of 687 texts differ" in promise.detail and audit.passed
    assert read_vocabulary(file).encode(["one two"]) == base.encode(["one two"])


def test_ties_that_the_list_brings_break_the_promise(tmp_path: Path) -> None:
    base = trained()
    added = [Piece("中国人", -9000.0), Piece("国人", -9000.0)]
    file = written(base, base.extended(added), tmp_path / "out")
    with pytest.raises(
        Exception, match="exact fast tokenizer: none can be exact: 2 pieces share their score"
    ):
        prove(file, base, {"text": LINES[:5]}, "safe", fuzz=10)


def test_no_byte_token_is_ever_shown(tmp_path: Path) -> None:
    model = tied()
    tokenizer = open_tokenizer(written(model, model, tmp_path / "out").parent)
    texts = ["第一行\n😀", "  two\t龘\n", "中国人民 x\n\n", "𠮷", ""]
    for one in (tokenizer, pickle.loads(pickle.dumps(tokenizer))):
        ids = [one(text)["input_ids"] for text in texts]
        assert ids == [[1, *line] for line in model.encode(texts)]
        assert [one.decode(line, skip_special_tokens=True) for line in ids] == texts
    tokenizer.save_pretrained(tmp_path / "again")
    again = open_tokenizer(tmp_path / "again")
    assert again.decode(again("第一行\n😀")["input_ids"], skip_special_tokens=True) == "第一行\n😀"


def test_the_refusal_names_the_option_that_was_set(runs: Counter[str]) -> None:
    base = trained()
    with pytest.raises(OptionError, match=r"^add: 1,610 leaves 10 pieces.* Raise `add`"):
        continue_training(base, runs, 10, 0.0, MergeOptions("continued", add=10))
    with pytest.raises(OptionError, match=r"^size: 1,610 leaves 10 pieces.* Raise `size`"):
        continue_training(base, runs, 10, 0.0, MergeOptions("continued", size=1610))
