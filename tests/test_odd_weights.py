"""Weights that are not as their config says: refused by name before the work, or taken as transformers takes them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.model_toys import (
    base_vocabulary,
    config,
    larger_vocabulary,
    line,
    logits,
    write_model,
    write_run,
    write_tokenizer,
)
from zhllama.errors import InputError, OptionError
from zhllama.model.chain import resolve_chain
from zhllama.model.export import first_difference
from zhllama.model.grow import grow
from zhllama.model.load import load_base
from zhllama.model.stored_model import read_stored_model
from zhllama.pretrained import build_causal, unstored_parameters
from zhllama.training.model_info import check_length
from zhllama.training.model_shape import shape_of
from zhllama.training.prepare_model import open_for_training

Tensors = dict[str, torch.Tensor]
ADAPTER_FILE = "adapter/adapter_model.safetensors"
EMBEDDING, NORM = "model.embed_tokens.weight", "model.layers.1.input_layernorm.weight"
DOWN = "model.layers.0.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(larger_vocabulary(), tmp_path_factory.mktemp("larger"))


def rewritten(folder: Path, change: Callable[[Tensors], Tensors]) -> Path:
    path = folder / "model.safetensors"
    tensors = change(load_file(path))
    save_file({n: t.contiguous() for n, t in tensors.items()}, path, metadata={"format": "pt"})
    return folder


def with_config(folder: Path, **changed: Any) -> Path:
    path = folder / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(settings | changed), encoding="utf-8")
    return folder


def without_norm(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name != NORM}


def with_nan(name: str) -> Callable[[Tensors], Tensors]:
    def change(tensors: Tensors) -> Tensors:
        tensors[name][-1] = float("nan")
        return tensors

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without_norm, f"lacks the weights {NORM}. Download the model again"),
        (
            lambda tensors: {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()},
            r"stores lm_head.weight as _orig_mod.lm_head.weight, a name that transformers does not know. "
            r"Remove _orig_mod. from the names of its weights",
        ),
        (lambda tensors: {f"module.{name}": tensor for name, tensor in tensors.items()}, r"Remove module\. from"),
        (with_nan(EMBEDDING), f"contains values in {EMBEDDING} that are infinite or no numbers"),
        (with_nan("lm_head.weight"), "contains values in lm_head.weight that are infinite or no numbers"),
        (with_nan(NORM), f"model.safetensors: contains values in {NORM} that are infinite or no numbers"),
        (with_nan(DOWN), f"contains values in {DOWN} that are infinite or no numbers"),
    ],
)  # fmt: skip
def test_grow_names_what_is_wrong(
    tmp_path: Path, larger: Path, change: Callable[[Tensors], Tensors], told: str
) -> None:
    base = rewritten(write_model(tmp_path / "base"), change)
    with pytest.raises(InputError, match=told):
        grow(base, larger, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without_norm, f"base: lacks the weights {NORM}. Download the model again."),
        (
            with_nan(NORM),
            f"contains values in {NORM} that are infinite or no numbers as float32. Download the model",
        ),
    ],
)
def test_training_names_what_is_wrong(
    tmp_path: Path, change: Callable[[Tensors], Tensors], told: str
) -> None:
    """The weight is named, where the loss of the first step would be NaN and a lower rate advised."""
    rewritten(write_model(tmp_path / "base"), change)
    (tmp_path / "zh.txt").write_text("我们今天没有时间研究历史。\n" * 30, encoding="utf-8")
    common = ("--text", "zh=zh.txt", "--eval-text", "zh=zh.txt", "--block-size", 16, "--steps", 1, "--batch", 8,
              "--precision", "fp32")  # fmt: skip
    for words in (("--stage", 1), ("--stage", 2)):
        done = line(tmp_path, "pretrain", *words, "--model", "base", "--rows", "all", *common, "--out", "run")
        assert done.code == 1 and told in done.err, done.err


def test_values_too_large_for_the_precision_are_named(tmp_path: Path) -> None:
    def large(tensors: Tensors) -> Tensors:
        return tensors | {NORM: tensors[NORM] * 1e5}

    chain = resolve_chain(rewritten(write_model(tmp_path / "base"), large))
    device = torch.device("cpu")
    open_for_training(chain, "both", "bf16", device)
    with pytest.raises(InputError, match=f"values in {NORM} that are infinite or no numbers as float16"):
        open_for_training(chain, "both", "fp16", device)


def test_an_export_of_a_run_on_such_weights_is_compared(tmp_path: Path) -> None:
    """A run of an earlier version may stand on a base with a row that is no number: no internal error."""
    base = rewritten(write_model(tmp_path / "base"), with_nan(EMBEDDING))
    model = load_base(base, torch.float32)
    assert first_difference(model, base) is None
    model.model.embed_tokens.weight.data[5, 5] += 1
    assert first_difference(model, base) == EMBEDDING


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_grow_names_the_shard(tmp_path: Path, larger: Path, dtype: torch.dtype, value: float) -> None:
    """Also of a shard that it would only link."""
    base = write_model(tmp_path / "base", dtype=dtype, shard="60KB")
    index = json.loads((base / "model.safetensors.index.json").read_text(encoding="utf-8"))
    file = index["weight_map"][DOWN]
    assert file not in {index["weight_map"][name] for name in (EMBEDDING, "lm_head.weight")}
    tensors = load_file(base / file)
    tensors[DOWN][-1, -1] = value
    save_file(tensors, base / file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"base/{file}: contains values in {DOWN} that are infinite"):
        grow(base, larger, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_grow_reads_bin_files_too(tmp_path: Path, larger: Path) -> None:
    base = write_model(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    tensors[DOWN][0, 0] = float("inf")
    torch.save(tensors, base / "pytorch_model.bin")
    with pytest.raises(InputError, match=f"pytorch_model.bin: contains values in {DOWN} that are infinite"):
        grow(base, larger, tmp_path / "out")


def test_tensors_that_transformers_ignores_may_be_infinite(tmp_path: Path, larger: Path) -> None:
    """GPT-J's file in float16 has masks of -1e9, which float16 stores as infinite."""
    mask = "model.layers.0.self_attn.masked_bias"
    base = rewritten(write_model(tmp_path / "base"), lambda t: t | {mask: torch.tensor(-float("inf"))})
    assert grow(base, larger, tmp_path / "out").n_new


def test_export_names_what_is_wrong(tmp_path: Path) -> None:
    """In the base, the rows and the adapter; without a folder left behind."""
    for name in ("base", "fine"):
        write_model(tmp_path / name)
    rewritten(tmp_path / "base", with_nan(DOWN))
    rows = write_run(tmp_path / "rows", tmp_path / "fine", range(590, 600))
    lora = write_run(tmp_path / "lora", tmp_path / "fine", lora=True)
    for path, name in ((rows / "rows.safetensors", "input_rows"), (lora / ADAPTER_FILE, None)):
        tensors = load_file(path)
        tensors[name or next(iter(tensors))][0, 0] = float("nan")
        save_file(tensors, path)
    for model, told in (
        ("base", f"base/model.safetensors: contains values in {DOWN} that are infinite or no numbers"),
        (rows, "rows/rows.safetensors: contains values in input_rows that are infinite or no numbers"),
        (lora, "adapter_model.safetensors: contains values in base_model.model.model.layers.0."),
    ):
        done = line(tmp_path, "export", model, "--out", "out", "--force")
        assert done.code == 1 and told in done.err, done.err
        assert not (tmp_path / "out").exists()


def test_layers_that_the_config_does_not_count_are_named(tmp_path: Path, larger: Path) -> None:
    """transformers leaves them out without a word: another model would be trained."""
    base = with_config(write_model(tmp_path / "base"), num_hidden_layers=1)
    told = r"base: stores model\.layers\.1\.\S+, a layer beyond those that its config counts. Correct config.json"
    with pytest.raises(InputError, match=told):
        grow(base, larger, tmp_path / "out")
    with pytest.raises(InputError, match=told):
        load_base(base)
    with_config(base, num_hidden_layers=2)
    assert read_stored_model(base).names
    with_config(base, num_hidden_layers=1, num_nextn_predict_layers=1)  # as DeepSeek-V3 stores them
    assert load_base(base).config.num_hidden_layers == 1


def test_layers_without_the_prefix_of_the_model_are_named_too(tmp_path: Path) -> None:
    base = with_config(write_model(tmp_path / "base", "gpt2"), n_layer=1)
    rewritten(base, lambda t: {name.removeprefix("transformer."): tensor for name, tensor in t.items()})
    with pytest.raises(InputError, match=r"stores h\.1\.\S+, a layer beyond"):
        read_stored_model(base)


def test_a_padding_token_without_a_row(tmp_path: Path, larger: Path) -> None:
    """LLaMA's config of some releases names a pad token that was never given a row."""
    base = with_config(write_model(tmp_path / "base"), pad_token_id=600)
    told = "llama: names id 600 as pad_token_id, and has 600 rows. Set pad_token_id in config.json to null"
    with pytest.raises(InputError, match=told):
        grow(base, larger, tmp_path / "out")
    done = line(tmp_path, "pretrain", "--stage", 2, "--model", "base", "--dry-run")
    assert done.code == 1 and told in done.err


def test_a_padding_token_of_minus_one_is_none(tmp_path: Path, larger: Path) -> None:
    """The first LLaMA in transformers' format has -1; nn.Embedding counts it from the last row, which gets no gradient."""
    base = with_config(write_model(tmp_path / "base"), pad_token_id=-1)
    grown = grow(base, larger, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))["pad_token_id"] is None
    ids = list(range(5, 30))
    assert torch.equal(logits(tmp_path / "out", ids)[:, :600], logits(base, ids))
    model = load_base(tmp_path / "out", torch.float32)
    labels = torch.tensor([[5, grown.rows - 1, 6, 7]])
    model(input_ids=labels, labels=labels).loss.backward()
    assert model.model.embed_tokens.weight.grad[-1].abs().max() > 0


def test_numbers_that_are_no_weights_are_not_taken_for_quantized_ones(tmp_path: Path) -> None:
    """DeepSeek-V4 stores a table of expert ids in int64."""
    from scripts.experiments.toy_architectures import toy_model

    toy_model("deepseek_v4").save_pretrained(tmp_path / "base")
    assert read_stored_model(tmp_path / "base").names


@pytest.mark.parametrize("kind", ["bloom", "gpt_neox", "mixtral", "phi3", "qwen3_moe", "gemma"])
def test_no_stored_parameter_counts_as_lacking(tmp_path: Path, kind: str) -> None:
    base = write_model(tmp_path / "base", kind, tokenizer=False)
    stored = read_stored_model(base)
    assert not unstored_parameters(stored.model, stored.weights.tensors)
    with torch.device("meta"):
        model = build_causal(config(len(base_vocabulary().pieces), kind))
    some = dict(list(stored.weights.tensors.items())[3:])
    assert unstored_parameters(model, some)


def test_encoder_decoder_models_and_other_kinds(tmp_path: Path, larger: Path) -> None:
    """BART has a causal language model in transformers, too, as which its weights would be incomplete."""
    from transformers import AutoModel, AutoModelForSeq2SeqLM, BartConfig, ViTConfig

    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
             "encoder_attention_heads": 2, "decoder_attention_heads": 2}  # fmt: skip
    AutoModelForSeq2SeqLM.from_config(BartConfig(vocab_size=600, **sizes)).save_pretrained(tmp_path / "bart")
    vit = ViTConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    AutoModel.from_config(vit).save_pretrained(tmp_path / "vit")
    for kind, told in (
        ("bart", "is an encoder-decoder model"),
        ("vit", "is no causal language model in transformers"),
    ):
        write_tokenizer(base_vocabulary(), tmp_path / kind)
        with pytest.raises(InputError, match=told):
            grow(tmp_path / kind, larger, tmp_path / "out")
        for stage in (1, 2):
            done = line(tmp_path, "pretrain", "--stage", stage, "--model", kind, "--rows", "all", "--dry-run")
            assert done.code == 1 and told in done.err, done.err


def test_an_embedding_under_a_third_name(tmp_path: Path, larger: Path) -> None:
    """ProphetNet stores one matrix for `word_embeddings`, the decoder's, and the head."""
    from scripts.experiments.toy_architectures import toy_model

    base = write_tokenizer(base_vocabulary(), tmp_path / "base")
    toy_model("prophetnet").save_pretrained(base)
    grow(base, larger, tmp_path / "out")
    ids = list(range(5, 30))
    assert torch.equal(logits(tmp_path / "out", ids)[:, :600], logits(base, ids))


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (
            "marian",
            "cannot grow: model.decoder.embed_tokens.weight would be",
        ),  # counted by decoder_vocab_size
        ("deepseek_v4", "cannot grow: .*tid2eid would be"),  # a table from ids to experts
        (
            "cpmant",
            "cannot grow: cpmant.input_embedding.weight would be",
        ),  # with rows of prompts beside those of ids
        ("rembert", None),  # a head that is wider than the embedding
        ("inkling_text", None),  # a config without tie_word_embeddings
    ],
)
def test_what_else_counts_the_vocabulary(tmp_path: Path, larger: Path, kind: str, told: str | None) -> None:
    from scripts.experiments.toy_architectures import toy_model

    base = write_tokenizer(base_vocabulary(), tmp_path / "base")
    toy_model(kind).save_pretrained(base)
    if told is not None:
        with pytest.raises(InputError, match=told):
            grow(base, larger, tmp_path / "out")
        return
    grown = grow(base, larger, tmp_path / "out")
    model = load_base(tmp_path / "out", torch.float32)
    assert model.get_output_embeddings().weight.shape[0] == grown.rows
    assert shape_of(model.config).rows == grown.rows


def test_a_tokenizer_that_transformers_replaces_is_refused_before_training(tmp_path: Path) -> None:
    """Its run would be exported into a folder where it cuts text differently, and export refuses that."""
    base = write_tokenizer(base_vocabulary(), write_model(tmp_path / "base", "qwen2"))
    (tmp_path / "zh.txt").write_text("我们今天没有时间研究历史。\n" * 30, encoding="utf-8")
    words = ("--rows", "all", "--text", "zh=zh.txt", "--block-size", 16, "--steps", 1, "--precision", "fp32")
    done = line(tmp_path, "pretrain", "--stage", 1, "--model", base, *words, "--out", "run")
    assert done.code == 1 and "tokenizes text differently beside a model of the type qwen2" in done.err


def test_any_length_is_minus_one_position() -> None:
    settings = config(600)
    check_length(settings, 512)
    with pytest.raises(OptionError, match="was made for 512 tokens"):
        check_length(settings, 513)
    settings.max_position_embeddings = -1
    check_length(settings, 513)


def test_a_run_on_a_complete_base_still_exports(tmp_path: Path) -> None:
    write_run(tmp_path / "run", write_model(tmp_path / "base"), range(590, 600), lora=True)
    done = line(tmp_path, "export", "run", "--out", "plain")
    assert done.code == 0, done.err
