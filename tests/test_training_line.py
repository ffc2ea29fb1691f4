"""LLaMA's own 32,000 pieces and the published 49,953 on a two-layer model: grow, stage 1, stage 2, export."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import read_xz
from tests.model_toys import line, write_model, write_tokenizer
from zhllama.model.load import open_model
from zhllama.vocab.merge import chinese_llama
from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary


def test_from_llama_to_an_exported_model(
    tmp_path: Path,
    data: Path,
    llama: SentencePieceVocabulary,
    published_list: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ZHLLAMA_CACHE", str(tmp_path / "cache"))
    write_model(tmp_path / "llama", rows=32_000, tokenizer=False)
    write_tokenizer(llama, tmp_path / "llama")
    merged = chinese_llama(llama, published_list).vocabulary
    assert len(merged.pieces) == 49_953
    write_tokenizer(merged, tmp_path / "tokenizer")
    for label, name, lines in (("zh", "zh_small.txt.xz", 400), ("en", "en_gutenberg.txt.xz", 100)):
        (tmp_path / f"{label}.txt").write_text(
            "\n\n".join(read_xz(data / "text" / name, lines)), encoding="utf-8"
        )
        (tmp_path / f"{label}.few.txt").write_text(
            "\n".join(read_xz(data / "text" / name, 8)), encoding="utf-8"
        )

    def succeed(*arguments: object) -> None:
        result = line(tmp_path, *arguments)
        assert result.code == 0, result.err

    text = ("--text", "zh=zh.txt:9", "--text", "en=en.txt:1", "--eval-text", "zh=zh.few.txt", "--eval-text", "en=en.few.txt",
            "--block-size", 128, "--batch", 4, "--micro-batch", 4, "--steps", 3, "--lr", 0.005)  # fmt: skip
    succeed("grow", "--model", "llama", "--tokenizer", "tokenizer", "--out", "grown")
    succeed("pretrain", "--stage", 1, "--model", "grown", *text, "--out", "one")
    succeed("pretrain", "--stage", 2, "--model", "one", *text, "--out", "two")
    succeed("export", "two", "--out", "plain")

    base, one = (
        load_file(tmp_path / "llama" / "model.safetensors"),
        open_model(tmp_path / "one").model.state_dict(),
    )
    for name, tensor in one.items():
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            assert tensor.shape[0] == 49_953 and torch.equal(tensor[:32_000], base[name])
        elif name in base:
            assert torch.equal(tensor, base[name]), name
    figures = json.loads((tmp_path / "two" / "manifest.json").read_text(encoding="utf-8"))["figures"]
    assert figures["n_old"] == 32_000 and figures["trained"] == 2 * 17_953 * 64 + figures_of_lora()
    two = open_model(tmp_path / "two").model.state_dict()
    plain = load_file(tmp_path / "plain" / "model.safetensors")
    assert all(torch.allclose(plain[name], two[name], atol=1e-6) for name in plain)


def figures_of_lora() -> int:
    """Rank 8 on q, k, v, o of two layers of width 64 with two heads of keys and values."""
    return 2 * 8 * (2 * (64 + 64) + 2 * (64 + 32))
