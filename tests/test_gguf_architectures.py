"""Model types other than LLaMA's as GGUF: llama.cpp computes what transformers computes, and what it cannot compute is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.llamacpp import Llama
from tests.model_toys import CHINESE, ENGLISH, write_model
from tests.test_export_gguf import LLAMA3, _greedy
from zhllama.errors import InputError
from zhllama.io.gguf import read_metadata
from zhllama.model.gguf_export import write_gguf
from zhllama.model.gguf_import import imported_folder
from zhllama.model.gguf_proof import prove_gguf
from zhllama.pretrained import open_config

GRANITE = {
    "attention_multiplier": 0.4, "embedding_multiplier": 3.0, "residual_multiplier": 0.5, "logits_scaling": 4.0,
    "attention_bias": True, "mlp_bias": True,
}  # fmt: skip
GEMMA = {"tied": True, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16}
CAPS = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 1.0}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.5}
BY_LAYER = {
    "full_attention": {**LINEAR, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "smollm3": ("smollm3", {"num_hidden_layers": 8}),
    "granite": ("granite", GRANITE),
    "granite, tied, llama3": ("granite", {"tied": True, "rope_parameters": LLAMA3}),
    "olmo2": ("olmo2", {}),
    "gemma": ("gemma", {"tied": True, "head_dim": 32}),
    "gemma2": ("gemma2", {**GEMMA, **CAPS, "num_hidden_layers": 4}),
    "gemma3": ("gemma3_text", {**GEMMA, "num_hidden_layers": 7, "rope_parameters": BY_LAYER}),
    "gemma3, untied": ("gemma3_text", {**GEMMA, "tied": False, "num_hidden_layers": 6}),
    "linear": ("llama", {"rope_parameters": LINEAR}),
    "yarn": ("qwen3", {"rope_parameters": YARN}),
    "yarn with a factor of attention": ("llama", {"rope_parameters": {**YARN, "attention_factor": 2.0}}),
    "yarn without a factor": ("llama", {"rope_parameters": {**YARN, "factor": None}}),
}


def written(folder: Path, kind: str, **changed: Any) -> Path:
    """A random model whose norms and biases are random too, in float16."""
    write_model(folder, kind, dtype=torch.float16, **changed)
    tensors = load_file(folder / "model.safetensors")
    torch.manual_seed(3)
    for name, tensor in tensors.items():
        if tensor.ndim == 1:
            tensors[name] = (tensor + torch.randn(tensor.shape) * 0.3).half()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_llamacpp_writes_what_transformers_writes(tmp_path: Path, name: str) -> None:
    kind, changed = MODELS[name]
    base = written(tmp_path / "base", kind, **changed)
    write_gguf(base, tmp_path / "model.gguf", "f16")
    llama = Llama(tmp_path / "model.gguf")
    for ids in torch.randint(3, 600, (4, 150), generator=torch.Generator().manual_seed(1)).tolist():
        assert llama.greedy(ids, 2) == _greedy(base, ids, 2)


@pytest.mark.parametrize("name", ["gemma3", "granite"])
def test_the_proof_reads_what_was_written(tmp_path: Path, name: str) -> None:
    """Norms with an offset and interleaved queries are turned back before they are compared."""
    pytest.importorskip("xllamacpp")
    kind, changed = MODELS[name]
    base = written(tmp_path / "base", kind, **changed)
    write_gguf(base, tmp_path / "model.gguf", "q8_0")
    proof = prove_gguf(base, tmp_path / "model.gguf", [ENGLISH, CHINESE], "q8_0")
    assert proof is not None and proof.gguf_weights is not None and proof.gguf_weights < 0.01


def test_windows_that_llamacpp_has_do_not_limit_the_context(tmp_path: Path) -> None:
    base = written(tmp_path / "base", "gemma2", **GEMMA)
    write_gguf(base, tmp_path / "model.gguf", "f16")
    settings = read_metadata(tmp_path / "model.gguf", "gemma2.")
    assert settings["context_length"] == 512 and settings["attention.sliding_window"] == 16


def test_the_factor_of_attention_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp's attn_factor multiplies the factor that YaRN has by default, and transformers' replaces it."""
    monkeypatch.setenv("ZHLLAMA_CACHE", str(tmp_path / "cache"))
    rope = {**YARN, "attention_factor": 2.0}
    write_gguf(written(tmp_path / "base", "llama", rope_parameters=rope), tmp_path / "model.gguf", "f16")
    read = open_config(imported_folder(tmp_path / "model.gguf")).rope_parameters
    assert read["attention_factor"] == pytest.approx(2.0) and read["factor"] == 4.0


def test_one_part_of_a_split_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers reads the part alone, and what it lacks would be told as weights of a broken file."""
    gguf = pytest.importorskip("gguf")
    monkeypatch.setenv("ZHLLAMA_CACHE", str(tmp_path / "cache"))
    add_name = gguf.GGUFWriter.add_name

    def add_more(writer: Any, name: str) -> None:
        add_name(writer, name)
        writer.add_uint16("split.no", 0)
        writer.add_uint16("split.count", 2)

    monkeypatch.setattr(gguf.GGUFWriter, "add_name", add_more)
    write_gguf(write_model(tmp_path / "base"), tmp_path / "model-00001-of-00002.gguf", "f16")
    with pytest.raises(InputError, match=r"is one of 2 files of a model\. Join them first"):
        imported_folder(tmp_path / "model-00001-of-00002.gguf")


@pytest.mark.parametrize(
    ("kind", "changed", "told"),
    [
        ("llama", {"hidden_act": "gelu"}, "activation gelu, which llama.cpp replaces by silu"),
        ("smollm3", {"no_rope_layers": [1, 1]}, None),
        ("smollm3", {"no_rope_layers": [0, 1]}, "no_rope_layers other than every fourth"),
        ("smollm3", {"attention_bias": True}, r"k_proj.bias, which llama.cpp does not read"),
        ("qwen3", {"attention_bias": True}, r"k_proj.bias, which llama.cpp does not read"),
        ("olmo2", {"tied": True}, "ties its LM head to its embedding, which llama.cpp does not read"),
        ("gemma", {"head_dim": 16}, "has an LM head of its own, which llama.cpp does not read"),
        ("gemma2", {"tied": True, "head_dim": 16}, "query_pre_attn_scalar other than 16"),
        ("gemma2", {**GEMMA, "layer_types": ["full_attention"] * 2}, "sliding windows in other layers"),
        ("gemma3_text", {**GEMMA, "use_bidirectional_attention": True}, "attention to later tokens"),
        ("qwen3", {"rope_parameters": LLAMA3}, "scales its positions by llama3"),
        ("llama", {"rope_parameters": {**YARN, "rope_type": "dynamic"}}, "scales its positions by dynamic"),
        ("llama", {"rope_parameters": {**YARN, "beta_fast": 8.0}}, "another beta_fast in its positions"),
        ("llama", {"rope_parameters": {**YARN, "truncate": False}}, "another truncate in its positions"),
    ],
)  # fmt: skip
def test_what_llamacpp_computes_otherwise(
    tmp_path: Path, kind: str, changed: dict[str, Any], told: str | None
) -> None:
    base = write_model(tmp_path / "base", kind, **changed)
    if told is None:
        write_gguf(base, tmp_path / "model.gguf", "f16")
        return
    with pytest.raises(InputError, match=told):
        write_gguf(base, tmp_path / "model.gguf", "f16")
    assert not list(tmp_path.glob("*.gguf*"))
