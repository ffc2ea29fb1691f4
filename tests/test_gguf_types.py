"""K types: llama.cpp's mixtures, its own quantizer by an installed package, and the proof of the file that was written."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from tests.llamacpp import Llama
from tests.model_toys import CHINESE, ENGLISH, line, write_model
from zhllama.errors import BrokenPromise, MissingPackage, ZhllamaError
from zhllama.model import gguf_export, llamacpp_quantizer
from zhllama.model.gguf_export import write_gguf
from zhllama.model.gguf_proof import WEIGHTS, prove_gguf
from zhllama.model.gguf_types import (
    EMBEDDING,
    FILE_TYPES,
    HEAD,
    MixtureShape,
    Quantization,
    is_mixture,
    tensor_type,
)
from zhllama.model.llamacpp_quantizer import ROUNDING, Quantizer, open_quantizer

KINDS: tuple[Quantization, ...] = get_args(Quantization)
MIXTURES = [kind for kind in KINDS if is_mixture(kind)]
QWEN3 = MixtureShape(28, 2, tied=True)
MORE = {0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 24, 25, 26, 27}  # of 28 layers


def sizes(kind: Quantization) -> int:
    """Bytes of all matrices and vectors of Qwen3-0.6B in a file of a kind."""
    import gguf

    per_layer = {
        "attn_q.weight": (2048, 1024), "attn_k.weight": (1024, 1024), "attn_v.weight": (1024, 1024),
        "attn_output.weight": (1024, 2048), "ffn_gate.weight": (3072, 1024), "ffn_up.weight": (3072, 1024),
        "ffn_down.weight": (1024, 3072), "attn_norm.weight": (1024,), "ffn_norm.weight": (1024,),
        "attn_q_norm.weight": (128,), "attn_k_norm.weight": (128,),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (151936, 1024), "output_norm.weight": (1024,)}
    for layer in range(28):
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in per_layer.items()}
    total = 0
    for name, shape in shapes.items():
        type = gguf.GGMLQuantizationType[tensor_type(kind, name, shape, QWEN3)]
        total += int(np.prod(gguf.quants.quant_shape_to_byte_shape(shape, type)))
    return total


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("q8_0", 633_495_552), ("q6_k", 489_155_584), ("q5_k_m", 438_463_488), ("q5_k_s", 430_664_704),
        ("q4_k_m", 390_753_280), ("q4_k_s", 377_318_400), ("q3_k_m", 341_175_296), ("q3_k_s", 317_123_584),
        ("q2_k", 290_286_592),
    ],
)  # fmt: skip
def test_a_file_is_as_large_as_the_published_one(kind: Quantization, size: int) -> None:
    """Tensor bytes of unsloth's Qwen3-0.6B-GGUF, which llama.cpp quantized: each file less its header of 5,952,192 bytes."""
    assert sizes(kind) == size


def test_the_first_and_last_layers_and_every_third_have_more_bits() -> None:
    def layers(kind: Quantization, part: str, type: str) -> set[int]:
        return {
            n for n in range(28) if tensor_type(kind, f"blk.{n}.{part}.weight", (512, 512), QWEN3) == type
        }

    for part in ("attn_v", "ffn_down"):
        assert layers("q4_k_m", part, "Q6_K") == layers("q5_k_m", part, "Q6_K") == MORE
    assert layers("q4_k_m", "attn_q", "Q4_K") == set(range(28))
    assert layers("q4_k_s", "attn_v", "Q5_K") == {0, 1, 2, 3}
    assert layers("q4_k_s", "ffn_down", "Q5_K") == {0, 1, 2}
    assert layers("q3_k_m", "attn_v", "Q5_K") == {0, 1} and layers("q3_k_m", "ffn_down", "Q5_K") == {0}


def test_what_a_tensor_falls_back_to() -> None:
    for tied, head, embedding in ((True, "Q6_K", "Q6_K"), (False, "Q6_K", "Q4_K")):
        shape = MixtureShape(28, 2, tied)
        assert tensor_type("q4_k_m", "output.weight", (900, 512), shape) == head
        assert tensor_type("q4_k_m", "token_embd.weight", (900, 512), shape) == embedding
        assert tensor_type("q4_k_m", "token_embd.weight", (900, 96), shape) == ("Q8_0" if tied else "Q5_0")
    for kind, type in (
        ("q2_k", "Q4_0"),
        ("q3_k_s", "Q4_0"),
        ("q4_k_m", "Q5_0"),
        ("q5_k_m", "Q5_1"),
        ("q6_k", "Q8_0"),
    ):
        assert tensor_type(kind, "blk.3.attn_q.weight", (64, 96), QWEN3) == type
        assert tensor_type(kind, "blk.3.attn_q.weight", (64, 40), QWEN3) == "F16"
        assert tensor_type(kind, "blk.3.attn_norm.weight", (512,), QWEN3) == "F32"
    large = MixtureShape(80, 8, tied=False)  # Llama-2-70B
    assert tensor_type("q4_k_m", "blk.10.attn_v.weight", (1024, 8192), large) == "Q5_K"
    assert (
        tensor_type("q4_k_m", "blk.11.attn_v.weight", (1024, 8192), MixtureShape(80, 1, tied=False)) == "Q4_K"
    )
    assert tensor_type("q2_k", "blk.5.attn_v.weight", (256, 512), MixtureShape(28, 4, tied=True)) == "Q4_K"
    assert FILE_TYPES.keys() == set(KINDS) and WEIGHTS.keys() == set(KINDS) - {"f16"}


@pytest.fixture(scope="module")
def quantizer() -> Quantizer:
    pytest.importorskip("gguf")
    pytest.importorskip("xllamacpp")
    return open_quantizer("this test", threads=3)


@pytest.mark.parametrize("type", ROUNDING)
@pytest.mark.parametrize("rows", [1, 2, 17])
def test_blocks_are_what_gguf_reads(quantizer: Quantizer, type: str, rows: int) -> None:
    import gguf

    values = np.random.default_rng(rows).normal(size=(rows, 768)).astype(np.float32)
    values[:, 256:512] = 0
    blocks = quantizer.quantize(values, type)
    one = Quantizer.__new__(Quantizer)
    one._chunk, one.threads = quantizer._chunk, 1
    assert np.array_equal(blocks, one.quantize(values, type)), "threads write other blocks"
    read = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[type])
    assert llamacpp_quantizer.relative_difference(read, values) <= ROUNDING[type]
    assert not read[:, 256:512].any()


@pytest.mark.parametrize("kind", MIXTURES)
@pytest.mark.parametrize(("width", "architecture"), [(256, "llama"), (96, "qwen3")])
def test_llamacpp_writes_what_the_file_says(
    tmp_path: Path, kind: Quantization, width: int, architecture: str
) -> None:
    pytest.importorskip("xllamacpp")
    base = write_model(
        tmp_path / "base", architecture, dtype=torch.float16, hidden_size=width, intermediate_size=512, num_hidden_layers=3
    )  # fmt: skip
    write_gguf(base, tmp_path / "model.gguf", kind)
    proof = prove_gguf(base, tmp_path / "model.gguf", [ENGLISH, CHINESE], kind)
    assert proof is not None and proof.gguf_gap < 0.4 and proof.gguf_weights is not None
    assert 0.004 < proof.gguf_weights < WEIGHTS[kind]


def llamacpp_quantize(source: Path, target: Path, kind: Quantization) -> None:
    """llama.cpp's own quantizer: `llama-quantize` on PATH, else the function it calls, in the library that LIBLLAMA names."""
    if binary := shutil.which("llama-quantize"):
        command = [binary, str(source), str(target), kind.upper(), "1"]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        return
    if "LIBLLAMA" not in os.environ:
        pytest.skip(
            "needs llama-quantize on PATH, or LIBLLAMA=bins/linux-x64/libllama.so of `npm pack @node-llama-cpp/linux-x64`"
        )
    path = Path(os.environ["LIBLLAMA"])
    for beside in [*path.parent.glob("libggml-base*"), *path.parent.glob("libggml.*")]:
        ctypes.CDLL(str(beside), ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(path))
    library.llama_model_quantize_default_params.restype = QuantizeParameters
    parameters = library.llama_model_quantize_default_params()
    parameters.threads, parameters.kind = 1, FILE_TYPES[kind]
    assert library.llama_model_quantize(bytes(source), bytes(target), ctypes.byref(parameters)) == 0


class QuantizeParameters(ctypes.Structure):
    """The first fields of llama_model_quantize_params, and more room than the others take."""

    _fields_ = (("threads", ctypes.c_int32), ("kind", ctypes.c_int32), ("others", ctypes.c_char * 512))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "f16"])
@pytest.mark.parametrize(("width", "architecture"), [(256, "llama"), (96, "llama"), (256, "qwen3")])
def test_llamacpp_quantizes_to_the_same_bytes(
    tmp_path: Path, kind: Quantization, width: int, architecture: str
) -> None:
    """All tensors but two of q4_0: its embedding and head keep 8 bits here."""
    gguf = pytest.importorskip("gguf")
    if is_mixture(kind):
        pytest.importorskip("xllamacpp")
    base = write_model(
        tmp_path / "base", architecture, dtype=torch.float16, hidden_size=width, intermediate_size=512, num_hidden_layers=3
    )  # fmt: skip
    write_gguf(base, tmp_path / "f16.gguf", "f16")
    llamacpp_quantize(tmp_path / "f16.gguf", tmp_path / "theirs.gguf", kind)
    write_gguf(base, tmp_path / "ours.gguf", kind)
    ours, theirs = (
        {t.name: (t.tensor_type.name, bytes(t.data)) for t in gguf.GGUFReader(tmp_path / name).tensors}
        for name in ("ours.gguf", "theirs.gguf")
    )
    assert ours.keys() == theirs.keys()
    different = {name for name in ours if ours[name] != theirs[name]}
    assert different <= ({EMBEDDING, HEAD} if kind == "q4_0" else set())


def test_export_writes_and_proves_k_types(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    write_model(tmp_path / "base", hidden_size=256, intermediate_size=512)
    done = line(tmp_path, "export", "base", "--gguf", "q4_k_m", "--out", "out")
    assert done.code == 0, done.err
    assert len(Llama(tmp_path / "out" / "model-q4_k_m.gguf").greedy([1, 5, 9], 4)) == 4
    assert (tmp_path / "out" / "Modelfile").read_text(encoding="utf-8").startswith("FROM ./model-q4_k_m.gguf")


@pytest.mark.parametrize("kind", ["q8_0", "q4_k_m"])
def test_a_file_with_other_weights_is_refused(tmp_path: Path, kind: Quantization) -> None:
    """One matrix is another's; greedy tokens alone would hardly show it at few bits."""
    pytest.importorskip("xllamacpp")
    from safetensors.torch import load_file, save_file

    base = write_model(tmp_path / "base", hidden_size=256, intermediate_size=512)
    other = write_model(tmp_path / "other", hidden_size=256, intermediate_size=512)
    held = load_file(base / "model.safetensors")
    held["model.layers.1.mlp.up_proj.weight"] = held["model.layers.1.mlp.gate_proj.weight"].clone()
    save_file(held, other / "model.safetensors", metadata={"format": "pt"})
    write_gguf(other, tmp_path / "model.gguf", kind)
    with pytest.raises(BrokenPromise, match=r"stores model.layers.1.mlp.up_proj.weight with a rounding of"):
        prove_gguf(base, tmp_path / "model.gguf", [ENGLISH], kind)


def test_without_a_quantizer_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "base")
    monkeypatch.setattr(llamacpp_quantizer, "PACKAGES", ())
    monkeypatch.setattr(
        gguf_export, "open_quantizer", lambda what, threads: open_quantizer(what, threads, ())
    )
    done = line(tmp_path, "export", "base", "--gguf", "q4_k_m", "--out", "out")
    assert done.code == 1 and "xllamacpp" in done.err and "[llamacpp]" in done.err, done.err
    assert not (tmp_path / "out").exists()
    with pytest.raises(MissingPackage):
        open_quantizer("`gguf`", packages=("no_such_package", "json"))


def test_a_quantizer_of_another_kind_of_blocks_is_refused(
    quantizer: Quantizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Quantizer.quantize

    def shifted(self: Quantizer, values: "np.ndarray[object, object]", type: str) -> object:
        return np.roll(write(self, values, type), 2, axis=1)  # type: ignore[arg-type]

    monkeypatch.setattr(Quantizer, "quantize", shifted)
    with pytest.raises(ZhllamaError, match="are not what the package gguf reads"):
        open_quantizer("this test")


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    from safetensors.torch import load_file, save_file

    base = write_model(tmp_path / "base", hidden_size=256, intermediate_size=512)
    held = load_file(base / "model.safetensors")
    held["model.layers.0.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(held, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ZhllamaError, match=r"up_proj.weight that are no numbers"):
        write_gguf(base, tmp_path / "model.gguf", "q4_k_m")
    assert not (tmp_path / "model.gguf").exists()
