"""Published PEFT adapters: folded in order as PEFT merges them, and refused where they do not fit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.model_toys import (
    ENGLISH,
    base_vocabulary,
    larger_vocabulary,
    line,
    logits,
    write_model,
    write_tokenizer,
)
from zhllama.errors import InputError
from zhllama.model.foreign_adapters import plan_fold
from zhllama.model.load import load_base

IDS = base_vocabulary().processor.encode(ENGLISH)
ROWS = len(larger_vocabulary().pieces)
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def write_adapter(
    folder: Path,
    base: Path,
    rows: int = ROWS,
    whole: bool = True,
    binary: bool = False,
    seed: int = 1,
    **more: Any,
) -> Path:
    """An adapter as Chinese-LLaMA was published: LoRA on all layers, and a whole embedding and head for more rows."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    model = load_base(base, torch.float32)
    if model.get_input_embeddings().weight.shape[0] != rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ALL, "init_lora_weights": False, **more}
    wrapped = get_peft_model(
        model, LoraConfig(modules_to_save=["embed_tokens", "lm_head"] if whole else None, **settings)
    )
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora" in name:
                parameter.mul_(0.3)
            if "modules_to_save" in name:
                parameter.add_(torch.randn_like(parameter) * 0.02)
    wrapped.save_pretrained(folder, safe_serialization=not binary)
    if binary and not (folder / "adapter_model.bin").is_file():  # PEFT 0.21 writes safetensors alone
        held = load_file(folder / "adapter_model.safetensors")
        torch.save({k: v.half() for k, v in held.items()}, folder / "adapter_model.bin")
        (folder / "adapter_model.safetensors").unlink()
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_model(tmp_path / "base")


@pytest.mark.parametrize(
    ("first", "second"), [(ROWS - 1, ROWS), (ROWS - 3, ROWS), (len(base_vocabulary().pieces), ROWS)]
)
def test_a_second_adapter_may_have_more_rows(tmp_path: Path, base: Path, first: int, second: int) -> None:
    """Chinese-LLaMA-Plus has 49,953 rows, Chinese-Alpaca-Plus 49,954: PEFT could not open the first on the rows of both."""
    write_adapter(tmp_path / "one", base, rows=first)
    two = write_adapter(tmp_path / "two", base, rows=second, seed=2)
    write_tokenizer(larger_vocabulary(), two)
    done = line(
        tmp_path,
        "export",
        "--model",
        "base",
        "--adapter",
        "one",
        "--adapter",
        "two",
        "--out",
        "plain",
        "--json",
    )
    assert done.code == 0, done.err
    assert json.loads(done.out)["rows"] == second and json.loads(done.out)["difference"] < 1e-5
    kept = load_file(tmp_path / "plain" / "model.safetensors")["lm_head.weight"]
    (head,) = {k: v for k, v in load_file(two / "adapter_model.safetensors").items() if "lm_head.modules_to_save" in k}.values()  # fmt: skip
    assert len(kept) == second and torch.equal(kept, head)


@pytest.mark.parametrize("binary", [False, True])
def test_two_adapters_are_folded_in_their_order(tmp_path: Path, base: Path, binary: bool) -> None:
    """Chinese-LLaMA-Plus is one adapter, Chinese-Alpaca-Plus a second one on it with one row more."""
    from peft import PeftModel

    one = write_adapter(tmp_path / "one", base, binary=binary)
    write_tokenizer(larger_vocabulary(), one)
    two = write_adapter(tmp_path / "two", base, binary=binary, seed=2, r=2, use_rslora=True)
    asked = ("export", "--model", "base", "--adapter", "one", "--adapter", "two", "--tokenizer", "one")
    done = line(tmp_path, *asked, "--out", "plain", "--json")
    assert done.code == 0, done.err
    figures = json.loads(done.out)
    assert figures["rows"] == ROWS and figures["difference"] < 1e-5 and figures["agree"] == 1
    model = load_base(base, torch.float32)
    model.resize_token_embeddings(ROWS, mean_resizing=False)
    for folder in (one, two):
        model = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor([IDS])).logits[0]
    torch.testing.assert_close(logits(tmp_path / "plain", IDS), expected, rtol=1e-4, atol=1e-4)
    swapped = line(
        tmp_path, "export", "--model", "base", "--adapter", "two", "--adapter", "one", "--out", "other"
    )
    assert swapped.code == 0, swapped.err
    assert not torch.allclose(logits(tmp_path / "other", IDS), expected, atol=0.01), "the order counts"
    text = tmp_path / "text.txt"
    text.write_text(f"{ENGLISH}\n" * 4, encoding="utf-8")
    assert line(tmp_path, "eval", "plain", "--text", text).code == 0


def test_an_adapter_without_matrices(tmp_path: Path, base: Path) -> None:
    write_adapter(tmp_path / "one", base, rows=600, whole=False, target_modules=["q_proj"])
    done = line(tmp_path, "export", "--model", "base", "--adapter", "one", "--out", "plain")
    assert done.code == 0, done.err
    before, after = (load_file(f / "model.safetensors") for f in (base, tmp_path / "plain"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"model.layers.{n}.self_attn.q_proj.weight" for n in (0, 1)}
    told = line(tmp_path, "eval", "one", "--text", "text.txt")
    assert told.code == 1


def test_what_does_not_fit(tmp_path: Path, base: Path) -> None:
    one = write_adapter(tmp_path / "one", base)
    larger = write_tokenizer(larger_vocabulary(), tmp_path / "larger")
    with pytest.raises(InputError, match=r"has 600 ids, and the model with its adapters \d+ rows"):
        plan_fold(base, [one], None)
    wide = write_model(tmp_path / "wide", hidden_size=128)
    with pytest.raises(InputError, match=r"changes model\.layers\.0.*, and its base stores"):
        plan_fold(wide, [one], larger)
    shallow = write_model(tmp_path / "shallow", num_hidden_layers=1)
    with pytest.raises(InputError, match=r"changes model\.layers\.1.*, which its base lacks"):
        plan_fold(shallow, [one], larger)
    tied = write_model(tmp_path / "tied", tied=True)
    with pytest.raises(InputError, match=r"replaces .*, which its base ties to another matrix"):
        plan_fold(tied, [one], larger)
    held = load_file(one / "adapter_model.safetensors")
    heads = {name: value for name, value in held.items() if "lm_head" in name}
    save_file(held | {k: v[:-1].clone() for k, v in heads.items()}, one / "adapter_model.safetensors")
    with pytest.raises(InputError, match="rows in its matrices"):
        plan_fold(base, [one], larger)
    save_file({k: v for k, v in held.items() if k not in heads}, one / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"for 600 of its base, and none for lm_head\.weight"):
        plan_fold(base, [one], larger)
    save_file(held | {"base_model.model.model.norm.other": torch.ones(2)}, one / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"contains .*norm\.other, which its base lacks"):
        plan_fold(base, [one], larger)
    (one / "adapter_config.json").write_text('{"peft_type": "IA3"}', encoding="utf-8")
    with pytest.raises(InputError, match="is not a plain LoRA adapter"):
        plan_fold(base, [one], larger)


def test_the_command_line(tmp_path: Path, base: Path) -> None:
    def told(*arguments: str) -> str:
        done = line(tmp_path, "export", *arguments, "--out", "out")
        assert done.code == 1 and done.err.count("\n") == 1 and not (tmp_path / "out").exists(), done
        return done.err

    assert "RUN: is missing" in told()
    assert "--adapter: is for a base" in told("base", "--adapter", "one")
    assert "--adapter: needs a base" in told("--adapter", "one")
    write_adapter(tmp_path / "one", base, rows=600, whole=False)
    (base / "README.md").write_text(ENGLISH, encoding="utf-8")
    done = line(tmp_path, "eval", "one", "--text", "base/README.md")
    assert "is an adapter, not a model. Give its base as the model, and --adapter one" in done.err


def test_a_wrong_base_is_told(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_adapter(tmp_path / "one", base, rows=600, whole=False)
    bits = iter([1.0, 2.0])
    monkeypatch.setattr("zhllama.model.folded_models._bits_per_byte", lambda *_: next(bits))
    done = line(tmp_path, "export", "--model", "base", "--adapter", "one", "--out", "plain")
    assert done.code == 0 and "2.00 bits per byte on English text and its base 1.00" in done.err


def test_single_rows_and_tied_matrices(tmp_path: Path) -> None:
    """PEFT's trainable tokens, and a tied matrix as PEFT keeps it tied; GPT-2 has linear layers that are transposed."""
    from peft import LoraConfig, PeftModel, get_peft_model

    for kind, tied, module in (
        ("llama", True, "q_proj"),
        ("llama", False, "q_proj"),
        ("gpt2", True, "c_attn"),
    ):
        base = write_model(tmp_path / f"{kind}-{tied}", kind, tied)
        model = load_base(base, torch.float32)
        path = {m: n for n, m in model.named_modules()}[model.get_input_embeddings()]
        for number, whole in enumerate((False, True) if kind == "llama" else (False,)):
            matrices: dict[str, Any] = (
                {"modules_to_save": [path], "ensure_weight_tying": tied}
                if whole
                else {"trainable_token_indices": {path: [7, 3, 599]}}
            )
            settings = LoraConfig(r=4, target_modules=[module], init_lora_weights=False, **matrices)
            wrapped = get_peft_model(load_base(base, torch.float32), settings)
            with torch.no_grad():
                for name, parameter in wrapped.named_parameters():
                    if "trainable_tokens" in name or "modules_to_save" in name:
                        parameter.add_(torch.randn_like(parameter) * 0.1)
            folder = tmp_path / f"{kind}-{tied}-{number}"
            wrapped.save_pretrained(folder)
            opened = PeftModel.from_pretrained(load_base(base, torch.float32), str(folder)).eval()
            with torch.inference_mode():
                expected = opened(input_ids=torch.tensor([[3, *IDS]])).logits[0]
            out = tmp_path / f"{folder.name}-out"
            done = line(tmp_path, "export", "--model", base, "--adapter", folder, "--out", out)
            assert done.code == 0, done.err
            torch.testing.assert_close(logits(out, [3, *IDS]), expected, rtol=1e-4, atol=1e-4)
            path_of_ids = folder / "adapter_config.json"
            told = json.loads(path_of_ids.read_text(encoding="utf-8"))
            if not whole:
                told["trainable_token_indices"] = {path: [7, 3, 600]}
                path_of_ids.write_text(json.dumps(told), encoding="utf-8")
                with pytest.raises(InputError, match="trained rows beyond the 600 of its base"):
                    plan_fold(base, [folder], None)
                del told["trainable_token_indices"]
                path_of_ids.write_text(json.dumps(told), encoding="utf-8")
                with pytest.raises(InputError, match="without ids in trainable_token_indices"):
                    plan_fold(base, [folder], None)


def test_low_rank_updates_of_the_embedding(tmp_path: Path, base: Path) -> None:
    """They are exact; biases of LoRA layers, which a merged layer has no place for, are refused."""
    one = write_adapter(
        tmp_path / "one", base, rows=600, whole=False, target_modules=["embed_tokens", "q_proj"]
    )
    done = line(tmp_path, "export", "--model", "base", "--adapter", "one", "--out", "plain")
    assert done.code == 0, done.err
    before, after = (load_file(f / "model.safetensors") for f in (base, tmp_path / "plain"))
    assert not torch.allclose(
        before["model.embed_tokens.weight"], after["model.embed_tokens.weight"], atol=1e-3
    )
    assert torch.equal(before["lm_head.weight"], after["lm_head.weight"])
    tied = write_model(tmp_path / "tied", tied=True)
    with pytest.raises(InputError, match=r"which its base ties to another matrix"):
        plan_fold(tied, [one], None)
    held = load_file(one / "adapter_model.safetensors")
    layer = next(name for name in held if "lora_B" in name).replace(".weight", ".bias")
    save_file(held | {layer: torch.ones(2)}, one / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"lora_B\.bias, which is not a LoRA weight"):
        plan_fold(base, [one], None)
