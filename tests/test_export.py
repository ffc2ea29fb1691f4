"""Folding a chain of runs: equal to the run, tied and untied, refused where it does not fit."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.model_toys import (
    CHINESE,
    ENGLISH,
    base_vocabulary,
    larger_vocabulary,
    line,
    logits,
    write_chain,
    write_model,
    write_run,
    write_tokenizer,
)
from zhllama.errors import BrokenPromise
from zhllama.io.files import sha256
from zhllama.model import export
from zhllama.model.chain import resolve_chain
from zhllama.model.export import merge_chain, prove_export
from zhllama.model.grow import grow
from zhllama.model.load import open_model

N_OLD = 600
IDS = base_vocabulary().processor.encode(ENGLISH)


def _peft_logits(run: Path, ids: list[int]) -> torch.Tensor:
    model, _ = open_model(run, dtype=torch.float32, merge=False)
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0]
    return found


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("tied", [False, True])
def test_the_export_matches_the_run(tmp_path: Path, tied: bool, kind: str) -> None:
    run = write_chain(tmp_path, tied, kind=kind)
    changed = merge_chain(resolve_chain(run), tmp_path / "out")
    wanted, got = _peft_logits(run, IDS), logits(tmp_path / "out", IDS)
    assert torch.allclose(wanted, got, atol=2e-5)
    assert not torch.allclose(wanted, logits(tmp_path / "grown-model", IDS), atol=0.1)
    proof = prove_export(run, tmp_path / "out", [ENGLISH, CHINESE], changed)
    assert proof.difference < proof.limit == 1e-5 and proof.agree == 1


def test_later_rows_win_and_adapters_add_up(tmp_path: Path) -> None:
    run = write_chain(tmp_path)
    merge_chain(resolve_chain(run), tmp_path / "out")
    made, grown = (load_file(tmp_path / f / "model.safetensors") for f in ("out", "grown-model"))
    rows = load_file(tmp_path / "two" / "rows.safetensors")
    assert torch.equal(made["model.embed_tokens.weight"][N_OLD:], rows["input_rows"])
    assert torch.equal(made["lm_head.weight"][N_OLD:], rows["output_rows"])
    assert torch.equal(made["lm_head.weight"][:N_OLD], grown["lm_head.weight"][:N_OLD])
    name = "model.layers.0.self_attn.q_proj.weight"
    sum_of = torch.zeros_like(made[name])
    for folder, scale in (("two", 16 / 4), ("three", 16 / 2**0.5)):
        held = load_file(tmp_path / folder / "adapter" / "adapter_model.safetensors")
        a, b = (held[f"base_model.model.model.layers.0.self_attn.q_proj.lora_{x}.weight"] for x in "AB")
        sum_of += scale * b @ a
    assert torch.allclose(made[name], grown[name] + sum_of, atol=1e-6)
    untouched = "model.layers.1.mlp.gate_proj.weight"
    assert torch.equal(made[untouched], grown[untouched])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(tmp_path: Path, dtype: torch.dtype) -> None:
    run = write_chain(tmp_path, dtype=dtype)
    changed = merge_chain(resolve_chain(run), tmp_path / "out")
    assert load_file(tmp_path / "out" / "model.safetensors")["lm_head.weight"].dtype == dtype
    proof = prove_export(run, tmp_path / "out", [ENGLISH, CHINESE], changed)
    assert 1e-5 < proof.difference < proof.limit / 2, proof


@pytest.mark.parametrize("spoiled", ["model.layers.1.self_attn.v_proj.weight", "lm_head.weight"])
def test_an_export_that_differs_is_refused(tmp_path: Path, spoiled: str) -> None:
    run = write_chain(tmp_path, dtype=torch.bfloat16)
    changed = merge_chain(resolve_chain(run), tmp_path / "out")
    held = load_file(tmp_path / "out" / "model.safetensors")
    held[spoiled] = load_file(tmp_path / "grown-model" / "model.safetensors")[
        spoiled
    ]  # as if an update were left out
    save_file(held, tmp_path / "out" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BrokenPromise, match="differs from the run"):
        prove_export(run, tmp_path / "out", [ENGLISH, CHINESE], changed)


def test_a_missing_update_too_small_for_the_logits_is_found(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", dtype=torch.bfloat16)
    run = write_run(tmp_path / "run", base, lora=True, r=1, lora_alpha=0.05, target_modules=["down_proj"])
    chain = resolve_chain(run)
    changed = merge_chain(chain, tmp_path / "out")
    assert prove_export(run, tmp_path / "out", [ENGLISH], changed).difference < 3e-2
    merge_chain(replace(chain, runs=()), tmp_path / "unfolded")
    with pytest.raises(BrokenPromise, match=r"differs from the run in the weight .*down_proj.weight"):
        prove_export(run, tmp_path / "unfolded", [ENGLISH], changed)


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    run = write_chain(tmp_path)
    changed = merge_chain(resolve_chain(run), tmp_path / "out")
    write_tokenizer(base_vocabulary(), tmp_path / "out")
    with pytest.raises(BrokenPromise, match="tokenizes text differently"):
        prove_export(run, tmp_path / "out", [CHINESE], changed)


def test_a_bin_base_of_shards(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", shard="1GB")
    held = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    torch.save(held, base / "pytorch_model.bin")
    run = write_run(tmp_path / "run", base, range(500, N_OLD), lora=True)
    merge_chain(resolve_chain(run), tmp_path / "out")
    assert torch.allclose(_peft_logits(run, IDS), logits(tmp_path / "out", IDS), atol=2e-5)


def test_a_run_that_grew_its_model_begins_there(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    larger = write_tokenizer(larger_vocabulary(), tmp_path / "larger")
    grown = grow(base, larger, tmp_path / "elsewhere")
    run = write_run(tmp_path / "run", tmp_path / "elsewhere", range(N_OLD, grown.rows))
    shutil.move(tmp_path / "elsewhere", run / "grown")
    chain = resolve_chain(run)
    assert (chain.base, chain.runs) == (run / "grown", (run,))
    assert len(open_model(run).tokenizer) == grown.rows


def _wider_adapter(tmp_path: Path) -> Path:
    wide = write_model(tmp_path / "wide", hidden_size=128)
    other = write_run(tmp_path / "other", wide, lora=True)
    run = write_run(tmp_path / "run", tmp_path / "base")
    shutil.copytree(other / "adapter", run / "adapter")
    return run


def _beyond_the_rows(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", tmp_path / "base", range(N_OLD, N_OLD + 7))


def _wider_rows(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", tmp_path / "base", range(500, N_OLD), width=32)


def _unknown_module(tmp_path: Path) -> Path:
    write_model(tmp_path / "deep", num_hidden_layers=3)
    other = write_run(tmp_path / "other", tmp_path / "deep", lora=True)
    run = write_run(tmp_path / "run", tmp_path / "base")
    shutil.copytree(other / "adapter", run / "adapter")
    return run


def _dora(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", tmp_path / "base", lora=True, use_dora=True)


def _cut_off(tmp_path: Path) -> Path:
    run = write_run(tmp_path / "run", tmp_path / "base", range(500, N_OLD))
    path = run / "rows.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    return run


def _unfinished(tmp_path: Path) -> Path:
    run = write_run(tmp_path / "run", tmp_path / "base", lora=True)
    (run / "manifest.json").unlink()
    return run


def _changed_base(tmp_path: Path) -> Path:
    run = write_run(tmp_path / "run", tmp_path / "base", lora=True)
    path = tmp_path / "base" / "model.safetensors"
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    manifest["inputs"] = [{"path": str(path), "bytes": path.stat().st_size, "sha256": sha256(path)}]
    (run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    resolve_chain(run)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return run


def _gone_base(tmp_path: Path) -> Path:
    run = write_run(tmp_path / "run", tmp_path / "base", lora=True)
    shutil.move(tmp_path / "base", tmp_path / "moved")
    return run


def _no_model(tmp_path: Path) -> Path:
    run = write_run(tmp_path / "run", tmp_path / "base")
    (run / "config.yaml").write_text("command: train-vocab\n", encoding="utf-8")
    return run


@pytest.mark.parametrize(
    ("breaks", "told"),
    [
        (_wider_adapter, "does not fit"),
        (_beyond_the_rows, "trained the row of id 606, and its base has 600 rows"),
        (_wider_rows, "contains rows of width 32, and its base has width 64"),
        (_unknown_module, "layers.2.self_attn.q_proj, which its base lacks"),
        (_dora, "is not a plain LoRA adapter"),
        (_cut_off, "is cut off"),
        (_unfinished, "is not a finished zhllama run"),
        (_changed_base, "has changed since"),
        (_gone_base, "is not a model folder"),
        (_no_model, "is a run that trained no model"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(
    tmp_path: Path, breaks: Callable[[Path], Path], told: str
) -> None:
    write_model(tmp_path / "base")
    run = breaks(tmp_path)
    done = line(tmp_path, "export", run, "--out", "out")
    assert done.code == 1 and told in done.err and done.err.count("\n") == 1, done.err
    assert not (tmp_path / "out").exists()


def test_the_command_writes_a_whole_model(tmp_path: Path) -> None:
    run = write_chain(tmp_path)
    told_chain = line(tmp_path, "export", run, "--out", "told")
    assert told_chain.out.startswith(
        "told: one (pretrain) → two (pretrain) → three (pretrain), folded into one model"
    )
    done = line(tmp_path, "export", run, "--out", "out", "--json")
    assert done.code == 0, done.err
    out = tmp_path / "out"
    assert {p.name for p in out.iterdir()} >= {"README.md", "config.json", "generation_config.json", "manifest.json",
                                               "model.safetensors", "tokenizer.json", "tokenizer.model"}  # fmt: skip
    told = json.loads(done.out)
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["figures"] == {k: v for k, v in told.items() if k != "out"}
    assert manifest["parents"] == [str(tmp_path / name) for name in ("one", "three", "two")]
    card = (out / "README.md").read_text(encoding="utf-8")
    assert (
        card.count("| continued pre-training | `pretrain` |") == 3
        and "loss 1.5" in card
        and "## 中文" in card
    )
    assert str(tmp_path) not in card and str(Path.home()) not in card
    # And a plain model is exported as it is, which is how it becomes a GGUF.
    again = line(tmp_path, "export", "out", "--out", "again")
    assert again.code == 0 and "logits differ by 0.0e+00" in again.out, again.err
    assert again.out.startswith(
        "again: one (pretrain) → two (pretrain) → three (pretrain) → out (export), folded"
    ), again.out
    (tmp_path / "one" / "manifest.json").unlink()  # an earlier run is gone: what is at hand is told
    third = line(tmp_path, "export", "out", "--out", "third")
    assert third.code == 0 and third.out.startswith("third: out, folded"), third.out


def test_nothing_is_left_where_the_proof_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_chain(tmp_path)
    monkeypatch.setattr(export, "PRECISION", {"F32": -1.0})
    done = line(tmp_path, "export", run, "--out", "out")
    assert done.code == 1 and "differs from the run" in done.err
    assert not (tmp_path / "out").exists()
