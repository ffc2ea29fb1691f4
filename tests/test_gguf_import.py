"""A GGUF file as a model: converted once, equal to what it was written from, and refused where transformers reads it otherwise."""

import json
import math
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.model_toys import (
    CHINESE,
    ENGLISH,
    base_vocabulary,
    larger_vocabulary,
    line,
    logits,
    write_model,
    write_tokenizer,
)
from tests.test_generation_servers import gguf as smollm2
from zhllama.errors import BrokenPromise, InputError, OutputError
from zhllama.io.gguf import read_header
from zhllama.model import gguf_export, gguf_import
from zhllama.model.chain import local_folder
from zhllama.model.gguf_export import write_gguf
from zhllama.model.load import open_model
from zhllama.vocab.any_tokenizer import load_any_tokenizer
from zhllama.vocab.gguf_folder import tokenizer_folder

pytest.importorskip("gguf")
IDS = base_vocabulary().processor.encode(ENGLISH)
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZHLLAMA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gguf-models"


def write_file(
    tmp_path: Path, kind: str = "llama", add: Callable[[Any], None] | None = None, **settings: Any
) -> Path:
    """A toy model's folder, `base`, and its GGUF file, `toy.gguf`; `add` writes further metadata."""
    base = write_model(tmp_path / "base", kind, dtype=torch.float16, **settings)
    (base / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    before = gguf_export._add_config

    def with_more(writer: Any, *arguments: Any) -> None:
        before(writer, *arguments)
        if add is not None:
            add(writer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf_export, "_add_config", with_more)
        write_gguf(base, tmp_path / "toy.gguf", "f16")
    return tmp_path / "toy.gguf"


ROPE = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("llama", {}),
        ("llama", {"tied": True, "rope_parameters": ROPE}),
        ("llama", {"head_dim": 32}),
        ("qwen3", {"head_dim": 16}),
    ],
)
def test_a_file_is_the_model_that_it_was_written_from(
    tmp_path: Path, kind: str, settings: dict[str, Any]
) -> None:
    path = write_file(tmp_path, kind, **settings)
    folder = local_folder(path)
    torch.testing.assert_close(logits(folder, IDS), logits(tmp_path / "base", IDS), rtol=1e-5, atol=1e-5)
    model, tokenizer = open_model(folder)
    assert model.dtype == torch.float16 and tokenizer.chat_template == TEMPLATE
    expected = open_model(tmp_path / "base").tokenizer
    for text in (ENGLISH, CHINESE, "  two  spaces\n"):
        assert tokenizer(text).input_ids == expected(text).input_ids
    rope = model.config.rope_parameters
    assert rope["rope_type"] == settings.get("rope_parameters", {"rope_type": "default"})["rope_type"]


def test_a_file_is_converted_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_file(tmp_path)
    leftover = cache / ".toy-0.4194304999"  # of a process that was killed
    leftover.mkdir(parents=True)
    folder = local_folder(path)
    assert not leftover.exists() and folder.parent == cache
    monkeypatch.setattr(gguf_import, "_convert", lambda *_: pytest.fail("converted again"))
    assert local_folder(path) == folder
    path.touch()
    os.utime(path, (1, 1))
    assert local_folder(path) == folder, "the same bytes with another date"


def test_commands_take_a_file(tmp_path: Path) -> None:
    write_file(tmp_path)
    write_tokenizer(larger_vocabulary(), tmp_path / "larger")
    (tmp_path / "text.txt").write_text(f"{CHINESE}\n\n" * 60, encoding="utf-8")
    done = line(tmp_path, "grow", "--model", "toy.gguf", "--tokenizer", "larger", "--out", "grown")
    assert done.code == 0, done.err
    assert done.err.startswith("converting toy.gguf into ") and "600 old rows unchanged" in done.out
    measured = [
        json.loads(line(tmp_path, "eval", name, "--text", "text.txt", "--json").out)["texts"][0]
        for name in ("toy.gguf", "base")
    ]
    assert math.isclose(*(one["bits_per_byte"] for one in measured), rel_tol=1e-5)
    train = ("--stage", "2", "--text", "zh=text.txt", "--eval-text", "zh=text.txt", "--block-size", "32", "--batch", "2", "--micro-batch", "1", "--steps", "2",
             "--precision", "fp32")  # fmt: skip
    done = line(tmp_path, "pretrain", "--model", "toy.gguf", "--tokenizer", "larger", *train, "--out", "run")
    assert done.code == 0, done.err
    done = line(tmp_path, "export", "run", "--out", "plain")
    assert done.code == 0, done.err
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["options"]["model"] == str(tmp_path / "toy.gguf")
    shutil.rmtree(tmp_path / "cache")
    assert line(tmp_path, "eval", "run", "--text", "text.txt").code == 0, "the file is converted again"


def test_a_vocabulary_is_extended_with_what_the_file_says(tmp_path: Path) -> None:
    path = write_file(tmp_path)
    (tmp_path / "words.txt").write_text("人工智能\n上海\n", encoding="utf-8")
    done = line(
        tmp_path, "merge-vocab", "--base", path, "--zh", "words.txt", "--recipe", "safe", "--out", "vocab"
    )
    assert done.code == 0, done.err
    tokenizer = open_model_tokenizer(tmp_path / "vocab")
    assert tokenizer.chat_template == TEMPLATE and tokenizer.eos_token == "</s>"
    assert tokenizer(ENGLISH).input_ids == open_model_tokenizer(tmp_path / "base")(ENGLISH).input_ids
    assert load_any_tokenizer(tokenizer_folder(path)).size == 600


def open_model_tokenizer(folder: Path) -> Any:
    from zhllama.model.load import load_transformers_tokenizer

    return load_transformers_tokenizer(folder)


def test_positions_that_transformers_does_not_read(tmp_path: Path) -> None:
    import gguf

    def linear(writer: Any) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(4.0)

    folder = local_folder(write_file(tmp_path, add=linear))
    rope = json.loads((folder / "config.json").read_text(encoding="utf-8"))["rope_parameters"]
    assert (rope["rope_type"], rope["factor"]) == ("linear", 4.0)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("llama.attention.clamp_kqv", "says llama.attention.clamp_kqv, which transformers does not read"),
        ("llama.rope.scaling.other", "scales its positions by"),
    ],
)
def test_keys_that_nobody_reads(tmp_path: Path, cache: Path, key: str, told: str) -> None:
    def odd(writer: Any) -> None:
        writer.add_float32(key, 0.5)
        writer.add_string("llama.rope.scaling.type", "linear")

    with pytest.raises(InputError, match=told):
        local_folder(write_file(tmp_path, add=odd))
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_files_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_file(tmp_path)
    content = path.read_bytes()

    def refused(changed: bytes, told: str) -> None:
        path.write_bytes(changed)
        with pytest.raises(InputError, match=told):
            local_folder(path)

    refused(content[:-64], "is cut off: it ends .* bytes too early")
    name = b"llama"
    other = content.replace(struct.pack("<Q", 5) + name, struct.pack("<Q", 5) + b"nobdy", 1).replace(
        b"llama.", b"nobdy."
    )
    refused(other, "cannot be read by transformers .*nobdy")
    refused(content.replace(b"blk.1.attn_norm.weight", b"blk.1.attn_nxrm.weight"), "transformers reads|lacks")
    path.write_bytes(content)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OutputError, match=r"has 0\.0 GB free, and toy\.gguf needs 0\.0 GB"):
        local_folder(path)


def test_a_file_that_llama_cpp_reads_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xllamacpp")
    path = write_file(tmp_path)
    before = gguf_import._open

    def spoiled(*arguments: Any) -> Any:
        model = before(*arguments)
        weight = model.model.layers[0].self_attn.q_proj.weight
        weight.data = weight.data.flip(0)
        return model

    monkeypatch.setattr(gguf_import, "_open", spoiled)
    with pytest.raises(BrokenPromise, match=r"writes other tokens in llama\.cpp"):
        local_folder(path)


def test_the_list_of_tensors(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    path = write_file(tmp_path)
    _, tensors, begin = read_header(path)
    expected = {
        t.name: (tuple(int(n) for n in t.shape[::-1]), int(t.data_offset))
        for t in gguf.GGUFReader(path).tensors
    }
    assert {t.name: (t.shape, begin + t.offset) for t in tensors} == expected


@pytest.mark.slow
def test_smollm2_from_its_wheel(tmp_path: Path) -> None:
    folder = local_folder(smollm2())
    model, tokenizer = open_model(folder)
    assert model.get_input_embeddings().weight.shape == (49_152, 576) and model.config.tie_word_embeddings
    assert tokenizer.eos_token == "<|im_end|>" and "<|im_start|>" in tokenizer.chat_template
