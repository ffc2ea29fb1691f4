"""Runs whose results export would refuse are refused before they begin; all others can be exported afterwards."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from scripts.experiments.toy_architectures import toy_config
from tests.align_toys import write_ranked
from tests.model_toys import ENGLISH, larger_vocabulary, line, write_model, write_tokenizer
from tests.test_stored_model import KINDS
from tests.training_toys import write_text
from zhllama.errors import InputError
from zhllama.model.load import load_base, open_model
from zhllama.pretrained import build_causal, zeroed_row
from zhllama.training.lora import add_adapters, linear_names
from zhllama.training.model_info import read_shape
from zhllama.training.model_shape import shape_of
from zhllama.training.options import Lora

TEXT = ("--text", "en=text.txt", "--eval-text", "en=text.txt")  # the shipped sample takes seconds to measure
SHORT = ("--steps", 1, "--batch", 2, "--micro-batch", 2, "--precision", "fp32", "--log-every", 1)
EXPERTS = ("--lora-module", "gate_proj", "--lora-module", "up_proj", "--lora-module", "down_proj")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZHLLAMA_CACHE", str(tmp_path / "cache"))
    write_text(tmp_path / "text.txt", [f"{ENGLISH} {n}" for n in range(60)])
    rows = [{"instruction": f"say {n}", "input": "", "output": f"{n} is a number"} for n in range(30)]
    (tmp_path / "data.json").write_text(json.dumps(rows), encoding="utf-8")
    write_ranked(tmp_path / "pairs.jsonl", 20)
    return tmp_path


def _runs(*more: object) -> list[tuple[object, ...]]:
    common = ("--model", "base", "--out", "run", *SHORT, *more)
    return [
        ("pretrain", "--stage", 2, *TEXT, "--block-size", 64, "--rows", "none", *common),
        ("sft", "--data", "data.json", "--max-length", 64, "--rows", "none", *common),
        ("dpo", "--pairs", "pairs.jsonl", "--max-length", 64, *common),
        ("reward", "--pairs", "pairs.jsonl", "--max-length", 64, *common),
    ]


@pytest.mark.parametrize("kind", ["deepseek_v3", "glm4_moe"])
def test_adapters_of_stacked_experts_are_refused_by_every_training_command(files: Path, kind: str) -> None:
    write_model(files / "base", kind, **KINDS[kind])
    for arguments in _runs(*EXPERTS):
        done = line(files, *arguments)
        assert done.code == 1 and done.err.count("\n") == 1, done
        assert "--lora-module: adds adapters to model.layers.1.mlp.experts" in done.err, done.err
        assert not (files / "run").exists()


@pytest.mark.parametrize("kind", ["deepseek_v3", "gpt2", "gpt_neox", "phi"])
def test_default_adapters_can_be_exported(files: Path, kind: str) -> None:
    write_model(files / "base", kind, tied=kind == "gpt2", **KINDS[kind])
    done = line(files, *_runs()[1], "--max-length", 256)
    assert done.code == 0, done.err
    done = line(files, "export", "run", "--out", "plain")
    assert done.code == 0, done.err


@pytest.mark.parametrize("kind", ["gpt2", "phi3", "bloom", "falcon", "gpt_neox", "opt"])
def test_every_linear_layer_as_in_peft(tmp_path: Path, kind: str) -> None:
    """The names of layers are those that PEFT takes for `all-linear`."""
    from peft import LoraConfig, get_peft_model

    base = write_model(tmp_path / "base", kind, tokenizer=False, **KINDS[kind])
    names = linear_names(read_shape(str(base), None))
    model: Any = get_peft_model(
        load_base(base), LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM")
    )
    wanted = {n.split(".lora_A")[0].rpartition(".")[2] for n, _ in model.named_parameters() if ".lora_A" in n}
    assert set(names) == wanted


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
def test_full_training_writes_stacked_experts(files: Path, kind: str) -> None:
    """transformers stacks the experts that files store one by one; they are written one by one again."""
    base = write_model(files / "base", kind, **KINDS[kind])
    done = line(files, "sft", "--data", "data.json", "--full", "--rows", "all", "--max-length", 256, "--model", "base",
                "--out", "run", "--lr", 0.01, *SHORT, "--steps", 2, "--warmup", 0)  # fmt: skip
    assert done.code == 0, done.err
    before, after = (load_file(f / "model.safetensors") for f in (base, files / "run" / "tuned"))
    assert before.keys() == after.keys()
    experts = [name for name in before if ".experts." in name]
    changed = [name for name in experts if not torch.equal(before[name], after[name])]
    assert len(experts) >= 24 and len(changed) >= 12, "those that no token was sent to stay"
    old, new = load_base(base), load_base(files / "run" / "tuned")
    for (name, left), right in zip(old.named_parameters(), new.parameters(), strict=True):
        # Adam moves each weight by at most twice the rate in two steps.
        assert left.shape[1:] == right.shape[1:] and float((left - right[: len(left)]).abs().max()) < 0.03, (
            name
        )


def test_full_training_of_what_cannot_be_written_is_refused(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(files / "base", "mixtral", **KINDS["mixtral"])
    monkeypatch.setattr("zhllama.model.stored_model.split_parameter", lambda *_: {})
    for arguments in (
        ("sft", "--data", "data.json", "--full", "--rows", "all"),
        ("dpo", "--pairs", "pairs.jsonl", "--full"),
    ):
        done = line(files, *arguments, "--max-length", 64, "--model", "base", "--out", "run", *SHORT)
        assert done.code == 1 and done.err.count("\n") == 1, done
        assert "--full: cannot be exported for this model" in done.err and not (files / "run").exists()


@pytest.mark.parametrize("kind", ["mamba", "mamba2", "falcon_h1"])
def test_a_model_without_attention_is_planned(kind: str) -> None:
    """Its config has no heads, and PEFT refuses adapters of its out_proj."""
    settings = toy_config(kind)
    names = linear_names(settings)
    assert "out_proj" not in names and "in_proj" in names
    shape = shape_of(settings, Lora(modules=names))
    assert shape.keys > 0 and shape.lora > 0


def test_full_training_writes_renamed_tensors(files: Path) -> None:
    base = write_model(files / "base", "gpt_neox")
    done = line(files, "sft", "--data", "data.json", "--full", "--max-length", 256, "--model", "base", "--out", "run",
                "--lr", 0.01, *SHORT, "--steps", 2, "--warmup", 0)  # fmt: skip
    assert done.code == 0, done.err
    before, after = (load_file(f / "model.safetensors") for f in (base, files / "run" / "tuned"))
    assert before.keys() <= after.keys()
    for name in before:
        same = after[name][: len(before[name])]
        assert not torch.equal(before[name], same) or before[name].ndim == 1, name


def test_an_earlier_run_that_cannot_be_merged_is_found(files: Path) -> None:
    write_model(files / "base")
    assert line(files, *_runs()[1], "--max-length", 256).code == 0
    config = files / "run" / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"use_dora": True}), encoding="utf-8")
    manifest = files / "run" / "manifest.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    content["outputs"] = {}  # as if the run had been written so
    manifest.write_text(json.dumps(content), encoding="utf-8")
    done = line(
        files, "sft", "--data", "data.json", "--rows", "none", "--model", "run", "--out", "two", *SHORT
    )
    assert done.code == 1 and "is not a plain LoRA adapter" in done.err and not (files / "two").exists()


@pytest.mark.parametrize("kind", ["gpt2", "opt", "llama"])
def test_blocks_longer_than_the_positions_are_refused(files: Path, kind: str) -> None:
    longest = {"max_position_embeddings": 32}  # GPT-2's n_positions
    write_model(files / "base", kind, tied=kind != "llama", **{**KINDS.get(kind, {}), **longest})
    for arguments in _runs():
        done = line(files, *arguments)
        assert done.code == 1 and "is 64 and the model was made for 32 tokens" in done.err, done.err
        assert not (files / "run").exists()


def test_spare_rows_without_an_id_stay_unchanged(files: Path) -> None:
    write_model(files / "base")
    write_tokenizer(larger_vocabulary(), files / "larger")
    done = line(
        files, "grow", "--model", "base", "--tokenizer", "larger", "--pad-rows-to", 64, "--out", "grown"
    )
    assert done.code == 0, done.err
    done = line(files, "pretrain", "--stage", 1, *TEXT, "--block-size", 512, "--model", "grown",
                "--out", "run", *SHORT)  # fmt: skip
    assert done.code == 0, done.err
    ids = load_file(files / "run" / "rows.safetensors")["input_ids"].tolist()
    assert ids == list(range(600, len(larger_vocabulary().pieces))) and ids[-1] < 703
    figures = json.loads((files / "run" / "manifest.json").read_text(encoding="utf-8"))["figures"]
    assert figures["trained"] == 2 * len(ids) * 64  # the plan of the run counts what is trained


@pytest.mark.parametrize("row", [0, 7])
def test_a_row_that_opening_sets_to_zero_is_not_trained(files: Path, row: int) -> None:
    """transformers initializes Youtu's padding row again although it was loaded, so the export would not be the run."""
    sizes: dict[str, Any] = {
        "kv_lora_rank": 16,
        "q_lora_rank": 24,
        "qk_rope_head_dim": 8,
        "v_head_dim": 16,
        "qk_nope_head_dim": 16,
    }
    write_model(
        files / "base",
        "youtu",
        tied=True,
        pad_token_id=row,
        num_key_value_heads=4,
        **sizes,
    )
    held = load_file(files / "base" / "model.safetensors")
    held["model.embed_tokens.weight"][row] = 0
    save_file(held, files / "base" / "model.safetensors", metadata={"format": "pt"})
    for rows in ("all", "used"):
        done = line(files, "pretrain", "--stage", 1, "--model", "base", "--rows", rows, "--old-rows", 590, *TEXT,
                    "--block-size", 64, "--out", rows, "--steps", 3, *SHORT[2:])  # fmt: skip
        assert done.code == 0, done.err
        ids = load_file(files / rows / "rows.safetensors")["input_ids"].tolist()
        assert row not in ids and (len(ids) == 599 or rows == "used")
        done = line(files, "export", rows, "--out", f"plain-{rows}")
        assert done.code == 0, done.err
        plain = load_file(files / f"plain-{rows}" / "model.safetensors")["model.embed_tokens.weight"]
        assert not plain[row].any() and not torch.equal(plain[599], held["model.embed_tokens.weight"][599])
    done = line(files, "sft", "--model", "base", "--data", "data.json", "--full", "--rows", "all", "--out", "full",
                "--max-length", 256, "--steps", 3, *SHORT[2:])  # fmt: skip
    assert done.code == 0, done.err
    full = load_file(files / "full" / "tuned" / "model.safetensors")["model.embed_tokens.weight"][:600]
    before = held["model.embed_tokens.weight"]
    assert not full[row].any()
    # each row moved by at most a few steps of Adam, so all are in their own places
    assert not torch.equal(full[599], before[599]) and (full - before).abs().max() < 0.01


@pytest.mark.parametrize("kind", ["llama", "qwen3", "bloom", "gpt2", "opt", "mixtral"])
def test_most_types_open_a_padding_row_as_it_is_stored(kind: str) -> None:
    assert zeroed_row(toy_config(kind)) is None


def test_a_file_of_old_torch_is_read(tmp_path: Path) -> None:
    """torch before 1.6 wrote no archive."""
    base = write_model(tmp_path / "base")
    held = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    torch.save(held, base / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    model = open_model(base).model
    assert torch.equal(model.lm_head.weight, held["lm_head.weight"])
    write_tokenizer(larger_vocabulary(), tmp_path / "larger")
    done = line(tmp_path, "grow", "--model", "base", "--tokenizer", "larger", "--out", "grown")
    assert done.code == 0, done.err
    (base / "pytorch_model.bin").write_bytes((base / "pytorch_model.bin").read_bytes()[:5000])
    done = line(tmp_path, "grow", "--model", "base", "--tokenizer", "larger", "--out", "other")
    assert done.code == 1 and "is cut off" in done.err


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"])
def test_another_shape_than_the_config_says(tmp_path: Path, name: str) -> None:
    base = write_model(tmp_path / "base")
    held = load_file(base / "model.safetensors")
    held[name] = held[name][:-1].clone()
    save_file(held, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=rf"stores {name} as \(\d+, 64\), and by its config it is") as caught:
        load_base(base)
    assert "ignore_mismatched" not in str(caught.value)
    write_tokenizer(larger_vocabulary(), tmp_path / "larger")
    done = line(tmp_path, "grow", "--model", "base", "--tokenizer", "larger", "--out", "grown")
    assert done.code == 1 and f"stores {name} as" in done.err


@pytest.mark.parametrize(
    ("kind", "without", "among"),
    [
        ("phimoe", "router", "q_proj"),  # a Linear whose forward returns weights and logits
        ("afmoe", "gate", "q_proj"),  # PEFT takes the name for that of experts, which get no dropout
        ("falcon", "lm_head", "dense_h_to_4h"),  # a Linear whose own forward is a product
    ],
)
def test_routers_get_no_adapter(kind: str, without: str, among: str) -> None:
    config = toy_config(kind)
    names = linear_names(config)
    assert without not in names and among in names
    with torch.device("meta"):
        model = build_causal(config)
    add_adapters(model, Lora(rank=2, modules=names))
