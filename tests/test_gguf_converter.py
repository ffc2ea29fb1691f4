"""Types that llama.cpp's converter writes: it is found, tried before the work, and what it wrote is completed and checked."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.llamacpp import Llama
from tests.model_toys import (
    CHINESE,
    ENGLISH,
    base_vocabulary,
    larger_vocabulary,
    line,
    write_model,
    write_tokenizer,
)
from tests.test_export_gguf import SENTENCES, _byte_level, _greedy
from zhllama.errors import BrokenPromise
from zhllama.io.gguf import read_header, read_metadata
from zhllama.model import gguf_converted, llamacpp
from zhllama.model.copy_files import copy_tokenizer
from zhllama.model.gguf_converted import check_file, converted, converter_of, write_any_gguf
from zhllama.model.gguf_converter import SCRIPT, VARIABLE, Converter, find_converter, run_converter
from zhllama.model.gguf_types import MixtureShape, tensor_type
from zhllama.model.load import load_transformers_tokenizer

pytest.importorskip("gguf")
REAL = os.environ.get(VARIABLE)

# As llama.cpp's: classes of models below ModelBase, whose set_vocab refuses vocabularies that it does not know.
CONVERTER = '''
import argparse, json, os, sys
from pathlib import Path
import gguf, numpy as np
from safetensors.numpy import load_file

class ModelBase:
    def __init__(self, folder, out, dry_run):
        self.folder, self.out, self.dry_run = folder, out, dry_run
        self.config = json.loads((folder / "config.json").read_text(encoding="utf-8"))

    def write(self):
        config = self.config
        self.tensors = {}
        for part in sorted(self.folder.glob("model*.safetensors")):
            self.tensors |= load_file(part)
        arch = gguf.MODEL_ARCH.PHI3
        writer = gguf.GGUFWriter(self.out, gguf.MODEL_ARCH_NAMES[arch])
        writer.add_context_length(config["max_position_embeddings"])
        writer.add_rope_scaling_orig_ctx_len(config["original_max_position_embeddings"])
        writer.add_embedding_length(config["hidden_size"])
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_block_count(config["num_hidden_layers"])
        writer.add_head_count(config["num_attention_heads"])
        writer.add_head_count_kv(config["num_key_value_heads"])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
        writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
        writer.add_vocab_size(7)
        self.set_vocab()
        names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
        for stored, values in self.tensors.items():
            name = names.get_name(stored, try_suffixes=(".weight", ".bias"))
            assert name is not None, stored
            values = values.astype(np.float32 if values.ndim == 1 else np.float16)
            # CHANGE
            writer.add_tensor(name, values)
        if self.dry_run:
            return
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

class Phi3(ModelBase):
    def set_vocab(self):
        raise NotImplementedError("BPE pre-tokenizer was not recognized - update get_vocab_base_pre()")

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--outfile", type=Path)
    parser.add_argument("--outtype", choices=["f16"])
    parser.add_argument("--model-name")
    parser.add_argument("--dry-run", action="store_true")
    args = parser.parse_args()
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    model = Phi3(args.model, args.outfile, args.dry_run)
    if model.config["architectures"] != ["Phi3ForCausalLM"]:
        print("ERROR:hf-to-gguf:Model", *model.config["architectures"], "is not supported", file=sys.stderr)
        sys.exit(1)
    model.write()

if __name__ == "__main__":
    main()
'''  # fmt: skip


def converter(folder: Path, change: str = "", **replaced: str) -> Path:
    """The script, with statements for each tensor and texts replaced."""
    content = CONVERTER.replace("# CHANGE", change)
    for old, new in replaced.items():
        content = content.replace(old, new)
    path = folder / SCRIPT
    path.write_text(content, encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def not_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


@pytest.fixture
def phi3(tmp_path: Path) -> Path:
    return write_model(tmp_path / "base", "phi3", dtype=torch.float16)


def test_without_a_converter_nothing_is_begun(tmp_path: Path, phi3: Path) -> None:
    done = line(tmp_path, "export", "base", "--gguf", "f16", "--out", "out")
    assert done.code == 1 and not (tmp_path / "out").exists()
    assert "has the type phi3, which --gguf writes by llama.cpp's own converter alone" in done.err
    assert (
        "Download llama.cpp's sources, and set ZHLLAMA_GGUF_CONVERTER to their convert_hf_to_gguf.py"
        in done.err
    )


def test_a_grown_model_of_a_type_that_the_converter_writes(
    tmp_path: Path, phi3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its vocabulary part, which refuses every grown vocabulary; ours is in the file, as many tokens as rows."""
    pytest.importorskip("xllamacpp")
    monkeypatch.setenv(VARIABLE, str(converter(tmp_path)))
    write_tokenizer(larger_vocabulary(), tmp_path / "larger")
    assert line(tmp_path, "grow", "--model", "base", "--tokenizer", "larger", "--out", "grown").code == 0
    done = line(tmp_path, "export", "grown", "--gguf", "f16", "--out", "out", "--json")
    assert done.code == 0 and not done.err, done.err
    figures = json.loads(done.out)
    assert figures["gguf_gap"] <= figures["gguf_limit"] < 0.02 and figures["gguf_agree"] > 0.9
    path = tmp_path / "out" / "model-f16.gguf"
    assert not [p for p in (tmp_path / "out").iterdir() if p.name.startswith(".")]
    keys, tensors, _ = read_header(path)
    rows = next(tensor.shape[0] for tensor in tensors if tensor.name == "token_embd.weight")
    assert (
        len(keys["tokenizer.ggml.tokens"])
        == rows
        == keys["phi3.vocab_size"]
        == len(larger_vocabulary().pieces)
    )
    assert keys["general.file_type"] == 1 and keys["phi3.context_length"] == 512
    llama, tokenizer = Llama(path), load_transformers_tokenizer(tmp_path / "out")
    for sentence in SENTENCES:
        ids = tokenizer(sentence).input_ids
        assert llama.ids(sentence) == ids
        assert llama.greedy(ids, 4) == _greedy(tmp_path / "out", ids, 4)


def test_a_byte_level_vocabulary_is_named_by_its_patterns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = write_model(
        tmp_path / "base", "phi3", tied=True, dtype=torch.float16, rows=640, tokenizer=False, shard="100KB"
    )
    _byte_level(base)
    assert len(list(base.glob("model-*.safetensors"))) > 1
    monkeypatch.setenv(VARIABLE, str(converter(tmp_path)))
    assert line(tmp_path, "export", "base", "--gguf", "f16", "--out", "out").code == 0
    keys = read_metadata(tmp_path / "out" / "model-f16.gguf", "tokenizer.ggml.")
    assert (keys["model"], keys["pre"], len(keys["tokens"])) == ("gpt2", "smollm", 640)
    _byte_level(base, individual_digits=False)
    refused = line(tmp_path, "export", "base", "--gguf", "f16", "--out", "other")
    assert refused.code == 1 and "has a pre-tokenizer that llama.cpp does not know" in refused.err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("kind", "most"), [("q8_0", 0.01), ("q4_k_m", 0.15)])
def test_other_types_are_quantized_from_the_proved_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, most: float
) -> None:
    pytest.importorskip("xllamacpp")
    write_model(tmp_path / "base", "phi3", hidden_size=256, intermediate_size=512, dtype=torch.float16)
    monkeypatch.setenv(VARIABLE, str(converter(tmp_path)))
    done = line(tmp_path, "export", "base", "--gguf", kind, "--out", "out", "--json")
    assert done.code == 0, done.err
    figures = json.loads(done.out)
    assert figures["gguf_limit"] < 0.02 and 0.002 < figures["gguf_weights"] < most
    keys, tensors, _ = read_header(tmp_path / "out" / f"model-{kind}.gguf")
    assert keys["general.file_type"] == {"q8_0": 7, "q4_k_m": 15}[kind]
    assert {tensor.type for tensor in tensors if len(tensor.shape) > 1} == {"q8_0": {8}, "q4_k_m": {12, 14}}[
        kind
    ]


def test_it_is_found_on_path_and_run_by_the_interpreter_of_ones_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_converter() is None
    (tmp_path / "bin").mkdir()
    on_path = converter(tmp_path / "bin")
    assert find_converter() is None  # no program
    on_path.chmod(0o755)
    assert find_converter() == Converter(sys.executable, on_path.resolve())
    (tmp_path / "a folder").mkdir()
    named = converter(tmp_path / "a folder")
    monkeypatch.setenv(VARIABLE, str(named))
    assert find_converter() == Converter(sys.executable, named.resolve())
    other = tmp_path / "bin" / "python-of-llama.cpp"
    other.symlink_to(sys.executable)
    monkeypatch.setenv(VARIABLE, f"python-of-llama.cpp '{named}'")
    assert find_converter() == Converter("python-of-llama.cpp", named.resolve())


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("/no/such/file.py", "ZHLLAMA_GGUF_CONVERTER: names /no/such/file.py, which is no file. Set it to"),
        ("{folder}", "which is no file"),
        ("no-such-python {script}", "names the interpreter no-such-python, which cannot be run"),
        ("{script} {script}", "convert_hf_to_gguf.py, which cannot be run"),
        ("python -I {script}", "more than an interpreter and a file"),
        ("{text}", "is not llama.cpp's converter"),
        ("{binary}", "cannot be loaded (SyntaxError"),
        ("{lacking}", "cannot be loaded (ModuleNotFoundError: No module named 'no_such_module')"),
        ("{other}", "does not convert base (Model Phi3ForCausalLM is not supported). Take a newer llama.cpp"),
        ("{fails}", "does not convert base (KeyError: 'n_ctx')"),
        ("{silent}", "does not convert base (exit code 3)"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_converter_is_told_before_the_work(
    tmp_path: Path, phi3: Path, monkeypatch: pytest.MonkeyPatch, named: str, told: str
) -> None:
    contents = {
        "text": "print('hello')\n",
        "binary": "\x7fELF",
        "lacking": "import no_such_module\n",
        "other": CONVERTER.replace("Phi3ForCausalLM", "OtherForCausalLM"),
        "fails": CONVERTER.replace(
            "        config = self.config\n", "        config = self.config['n_ctx']\n"
        ),
        "silent": CONVERTER.replace("    model.write()", "    sys.exit(3)"),
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.py").write_text(content, encoding="utf-8")
    paths = {name: str(tmp_path / f"{name}.py") for name in contents}
    script = str(converter(tmp_path))
    monkeypatch.setenv(VARIABLE, named.format(**paths, script=script, folder=tmp_path))
    done = line(tmp_path, "export", "base", "--gguf", "f16", "--out", "out")
    assert done.code == 1 and told in done.err and len(done.err.splitlines()) == 1, done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("if name == 'token_embd.weight': values[599, 3] += 1", "with other values in row 599 of token_embd.weight"),
        ("if name == 'output.weight': values[5:7] *= 2", "with other values in row 5 of output.weight"),
        ("if name == 'token_embd.weight': values[9, 0] = np.nan", "contains values in token_embd.weight that are no num"),
        ("if name == 'output.weight': continue", "without output.weight"),
        ("if name == 'token_embd.weight': values = values[:599]", "with 599 x 64 values in token_embd.weight, and the model has 600 rows"),
        ("if name.startswith('blk.1.'): continue", "without the layer 1"),
        ("if values.ndim > 1: values = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)", "in Q8_0 instead of float16"),
        ("if 'attn_output' in name: values = values[::-1].copy()", "writes other tokens in llama.cpp than in transformers"),
        ("if 'blk.1.ffn_norm' in name: continue", "model-f16.gguf: cannot be loaded by llama.cpp (check_tensor_dims: tensor 'blk.1.ffn_norm.weight' not found). Take another"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_the_models_is_refused(
    tmp_path: Path, phi3: Path, monkeypatch: pytest.MonkeyPatch, change: str, told: str
) -> None:
    if "llama.cpp" in told:
        pytest.importorskip("xllamacpp")
    replaced = {"writer.add_tensor(name, values)": "writer.add_tensor(name, values, raw_dtype=gguf.GGMLQuantizationType.Q8_0 if values.dtype == np.uint8 else None)"}  # fmt: skip
    monkeypatch.setenv(VARIABLE, str(converter(tmp_path, change, **replaced)))
    done = line(tmp_path, "export", "base", "--gguf", "f16", "--out", "out")
    assert done.code == 1 and told in done.err, done.err
    assert not (tmp_path / "out").exists()


def test_another_vocabulary_is_told(tmp_path: Path, phi3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the vocabulary had been written of another folder, token by token and by its special ids."""
    monkeypatch.setenv(VARIABLE, str(converter(tmp_path)))
    found = converter_of(phi3)
    assert found is not None
    settings = json.loads((phi3 / "tokenizer_config.json").read_text(encoding="utf-8"))
    others: dict[str, Callable[[Path], object]] = {
        "model": lambda folder: _byte_level(_without(folder, "tokenizer.model")),
        "eos_token_id": lambda folder: (folder / "tokenizer_config.json").write_text(
            json.dumps(settings | {"eos_token": "<s>"}), encoding="utf-8"
        ),
    }
    with converted(found, phi3, tmp_path / "model.gguf") as half:
        check_file(half, phi3)
        for key, change in others.items():
            other = shutil.copytree(phi3, tmp_path / key)
            change(other)
            gguf_converted._copy(half, tmp_path / f"{key}.gguf", other, "f16", lambda share: None)
            with pytest.raises(BrokenPromise, match=rf"has another tokenizer\.ggml\.{key} than the model's"):
                check_file(tmp_path / f"{key}.gguf", phi3)
        piece = base_vocabulary().pieces[400].text.encode()
        changed = half.read_bytes().replace(piece, piece[:-1] + b"~", 1)
        (tmp_path / "tokens.gguf").write_bytes(changed)
        with pytest.raises(BrokenPromise, match=r"has another tokenizer\.ggml\.tokens than the model's"):
            check_file(tmp_path / "tokens.gguf", phi3)


def _without(folder: Path, name: str) -> Path:
    (folder / name).unlink()
    return folder


def test_the_converter_gets_no_code(tmp_path: Path, phi3: Path) -> None:
    """It opens some tokenizers with trust_remote_code, which runs what auto_map names."""
    code = {"AutoConfig": "code.Config", "AutoTokenizer": ["code.Tokenizer", None]}
    for name in ("config.json", "tokenizer_config.json"):
        content = json.loads((phi3 / name).read_text(encoding="utf-8"))
        (phi3 / name).write_text(json.dumps(content | {"auto_map": code}), encoding="utf-8")
    (phi3 / "code.py").write_text("raise SystemExit('ran')\n", encoding="utf-8")
    seen = "(self.out.parent / 'seen.json').write_text(json.dumps({p.name: 'auto_map' in p.read_text(errors='replace') for p in self.folder.iterdir()}))"
    path = converter(tmp_path, **{"        self.set_vocab()": f"        {seen}\n        self.set_vocab()"})
    run_converter(Converter(sys.executable, path), phi3, tmp_path / "raw.gguf")
    files = json.loads((tmp_path / "seen.json").read_text(encoding="utf-8"))
    assert {"config.json", "tokenizer_config.json", "model-00001-of-00001.safetensors"} <= files.keys()
    assert "code.py" not in files and not any(files.values())


def test_an_architecture_that_this_llamacpp_lacks_is_not_tried(
    tmp_path: Path, phi3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xllamacpp")
    newer = {"gguf.MODEL_ARCH_NAMES[arch]": "'phi9'"}
    monkeypatch.setenv(VARIABLE, str(converter(tmp_path, **newer)))
    done = line(tmp_path, "export", "base", "--gguf", "q8_0", "--out", "out", "--json")
    assert done.code == 0, done.err
    assert "not tried in llama.cpp" in done.err and "unknown model architecture: 'phi9'" in done.err
    assert "gguf_gap" not in json.loads(done.out)
    assert read_metadata(tmp_path / "out" / "model-q8_0.gguf", "general.")["architecture"] == "phi9"


def test_a_file_that_ends_llamacpp_is_told(
    tmp_path: Path, phi3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LFM2 of two layers fails an assertion of llama.cpp, which would end the export without a word."""
    pytest.importorskip("xllamacpp")
    monkeypatch.setenv(VARIABLE, str(converter(tmp_path)))
    for last, told in (
        ("x.cpp:345: GGML_ASSERT(buffer) failed", "GGML_ASSERT(buffer) failed"),
        ("", "it ends by signal 6"),
    ):
        ends = f"import os, sys; print({last!r}, file=sys.stderr, flush=True); os.abort()"
        monkeypatch.setattr(llamacpp, "LOADING", ends)
        done = line(tmp_path, "export", "base", "--gguf", "f16", "--out", "out")
        assert done.code == 1 and f"model-f16.gguf: cannot be loaded by llama.cpp ({told})" in done.err, (
            done.err
        )
        assert not (tmp_path / "out").exists()


def test_a_process_that_loads_a_file_ends(tmp_path: Path) -> None:
    """A server of xllamacpp that ended before its loop had begun waited for it forever: 7 times of 15 on a busy machine."""
    pytest.importorskip("xllamacpp")
    base, file = write_model(tmp_path / "base", "llama"), tmp_path / "model.gguf"
    copy_tokenizer(write_tokenizer(base_vocabulary(), tmp_path / "vocabulary"), base)
    write_any_gguf(base, file, "f16")
    loading = [subprocess.Popen([sys.executable, "-c", llamacpp.LOADING, str(file)]) for _ in range(12)]
    try:
        assert [process.wait(60) for process in loading] == [0] * len(loading)
    finally:
        for process in loading:
            process.kill()


def test_mixtures_of_experts_and_joined_queries_have_more_bits() -> None:
    """llama.cpp's src/llama-quant.cpp: values joined with queries, and what leads out of experts, as those of dense models."""
    dense, eight = MixtureShape(32, 4, tied=False), MixtureShape(32, 4, tied=False, experts=8)
    for part in ("attn_v", "attn_qkv", "attn_kv_b", "ffn_down", "ffn_down_exps", "ffn_down_shexp"):
        types = [tensor_type("q4_k_m", f"blk.{n}.{part}.weight", (512, 512), dense) for n in (0, 4, 6, 31)]
        assert types == ["Q6_K", "Q4_K", "Q6_K", "Q6_K"], part
    for part in ("attn_v", "attn_k"):
        assert tensor_type("q4_k_m", f"blk.4.{part}.weight", (512, 512), eight) == "Q8_0"
    outputs = {kind: tensor_type(kind, "blk.4.attn_output.weight", (512, 512), eight) for kind in ("q2_k", "q4_k_m", "q3_k_l", "q6_k")}  # fmt: skip
    assert outputs == {"q2_k": "Q5_K", "q4_k_m": "Q5_K", "q3_k_l": "Q3_K", "q6_k": "Q6_K"}
    assert tensor_type("q4_k_m", "blk.4.ffn_gate_exps.weight", (8, 512, 512), eight) == "Q4_K"


SMALL: dict[str, dict[str, Any]] = {
    "phi3": {},
    "glm4": {"head_dim": 16, "pad_token_id": 0},
    "mixtral": {"num_local_experts": 4},
    "starcoder2": {},
}


@pytest.mark.skipif(REAL is None, reason=f"needs {VARIABLE}, llama.cpp's own {SCRIPT}")
@pytest.mark.parametrize("kind", SMALL)
def test_llamacpps_own_converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    pytest.importorskip("xllamacpp")
    monkeypatch.setenv(VARIABLE, str(REAL))
    write_model(tmp_path / "base", kind, dtype=torch.float16, **SMALL[kind])
    write_tokenizer(larger_vocabulary(), tmp_path / "larger")
    assert line(tmp_path, "grow", "--model", "base", "--tokenizer", "larger", "--out", "grown").code == 0
    done = line(tmp_path, "export", "grown", "--gguf", "q8_0", "--out", "out", "--json")
    assert done.code == 0, done.err
    figures = json.loads(done.out)
    assert figures["gguf_gap"] <= figures["gguf_limit"] < 0.02 and figures["gguf_weights"] < 0.01
    tokens = read_metadata(tmp_path / "out" / "model-q8_0.gguf", "tokenizer.ggml.")["tokens"]
    assert len(tokens) == len(larger_vocabulary().pieces)
    llama, tokenizer = (
        Llama(tmp_path / "out" / "model-q8_0.gguf"),
        load_transformers_tokenizer(tmp_path / "out"),
    )
    for sentence in (ENGLISH, CHINESE):
        assert llama.ids(sentence) == tokenizer(sentence).input_ids
