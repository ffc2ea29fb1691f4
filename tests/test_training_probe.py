"""The checks on opening a model for training: whichever way is taken, loss and row gradients are transformers' own."""

import copy
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.training_toys import toy_model
from zhllama.training.prepare_model import recompute_activations
from zhllama.training.probe import (
    embedding_scale,
    predicts_from_earlier_tokens,
    probe_model,
    random_ids,
    scales_loss_by_count,
    separates_documents,
)
from zhllama.training.trainable_rows import PlainRows, TrainableRows, arrange_rows, rows_by_probe

ROWS = 160
SIZES = {
    "vocab_size": ROWS, "hidden_size": 64, "d_model": 64, "n_embd": 64, "intermediate_size": 96, "ffn_dim": 96,
    "num_hidden_layers": 2, "num_layers": 2, "n_layer": 2, "num_attention_heads": 4, "n_head": 4, "attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "n_positions": 128, "num_experts": 4,
    "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "lru_width": 64, "rotary_dim": 8,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
OURS = (
    "llama",
    "gemma",
    "gemma3_text",
    "mixtral",
    "qwen3_moe",
    "olmoe",
    "gpt_oss",
    "granite",
    "cohere",
    "xglm",
    "bloom",
)
PLAIN = ("gemma2", "recurrent_gemma", "phi", "gptj")  # logit caps, and heads with a bias


def tiny(kind: str, **more: Any) -> Any:
    config = AutoConfig.for_model(kind)
    sizes = {name: value for name, value in SIZES.items() if hasattr(config, name)}
    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**sizes, **more})).float().eval()


def losses_and_gradients(model: Any, rows: Any, ids: torch.Tensor) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    if isinstance(rows, PlainRows):
        return loss.item(), {name: p.grad for name, p in rows.parameters.items() if p.grad is not None}
    parts = {"input": rows.embedding} if rows.tied else {"input": rows.embedding, "output": rows.head}
    return loss.item(), {n: torch.cat([torch.zeros(part.layout.start, part.rows.shape[1]), part.rows.grad]) for n, part in parts.items()}  # fmt: skip


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", [*OURS, *PLAIN])
def test_loss_and_gradients_are_those_of_transformers(kind: str, tied: bool) -> None:
    model = tiny(kind, tie_word_embeddings=tied)
    original = copy.deepcopy(model)
    rows, reason = rows_by_probe(model, arrange_rows(range(60, ROWS), ROWS), "both", probe_model(model))
    assert isinstance(rows, PlainRows if kind in PLAIN else TrainableRows), reason
    ids = torch.randint(3, ROWS, (3, 20))
    expected = original(input_ids=ids, labels=ids, use_cache=False).loss
    weights = {
        "input": original.get_input_embeddings().weight,
        "output": original.get_output_embeddings().weight,
    }
    gradients = dict(zip(weights, torch.autograd.grad(expected, list(weights.values())), strict=True))
    loss, ours = losses_and_gradients(model, rows, ids)
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert ours.keys() == ({"input"} if weights["input"] is weights["output"] else {"input", "output"})
    for name, gradient in ours.items():
        assert torch.count_nonzero(gradient[:60]) == 0 and torch.count_nonzero(gradient[60:])
        torch.testing.assert_close(gradient[60:], gradients[name][60:], rtol=1e-4, atol=1e-6)


def test_a_loss_that_nobody_has_seen_is_not_replaced() -> None:
    """A model that squares its logits, one whose embedding adds a constant, and one that averages its loss differently."""
    squared = tiny("llama")
    head = squared.lm_head.forward
    squared.lm_head.forward = lambda hidden: head(hidden) ** 2
    offset = tiny("llama")
    offset.model.embed_tokens.register_forward_hook(lambda module, args, output: output + 0.5)
    halved = tiny("llama")
    halved.loss_function = lambda logits, labels, **_: (
        0.5 * torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    )
    for model, reason in (
        (squared, "with our loss, its loss is"),
        (offset, "more than a lookup"),
        (halved, "its loss is"),
    ):
        loss = model.loss_function
        before = model(input_ids=torch.tensor([[5, 6, 7]])).logits
        rows, told = rows_by_probe(model, arrange_rows(range(60, ROWS), ROWS), "both", probe_model(model))
        assert isinstance(rows, PlainRows) and told is not None and reason in told
        assert model.loss_function == loss
        assert torch.equal(model(input_ids=torch.tensor([[5, 6, 7]])).logits, before)


@pytest.mark.parametrize("kind", ["llama", "gemma", "gemma3_text", "mixtral", "granite", "cohere"])
def test_in_bf16_a_scale_is_seen_and_so_is_a_cap(kind: str) -> None:
    model = tiny(kind).bfloat16()
    rows, reason = rows_by_probe(model, arrange_rows(range(60, ROWS), ROWS), "both", probe_model(model))
    assert isinstance(rows, TrainableRows), reason
    capped = tiny("gemma2", final_logit_softcapping=3.0).bfloat16()
    rows, reason = rows_by_probe(capped, arrange_rows(range(60, ROWS), ROWS), "both", probe_model(capped))
    assert isinstance(rows, PlainRows)


def test_trained_rows_of_the_plain_way() -> None:
    """AdamW with weight decay for all but the masked names changes exactly the rows that are trained."""
    model = tiny("gemma2", tie_word_embeddings=False)
    before = {n: p.clone() for n, p in model.named_parameters()}
    model.requires_grad_(False)
    chosen = [7, 30, *range(100, ROWS)]
    rows, _ = rows_by_probe(model, arrange_rows(chosen, ROWS), "both", probe_model(model))
    assert set(rows.masked) == {"model.embed_tokens.weight", "lm_head.weight"}
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=0.01, weight_decay=0.0
    )
    for _ in range(3):
        ids = torch.randint(3, ROWS, (2, 20))
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    trained = rows.trained()
    assert trained["input_ids"].tolist() == trained["output_ids"].tolist() == chosen
    others = [id for id in range(ROWS) if id not in chosen]
    for name, parameter in model.named_parameters():
        if name not in rows.masked:
            assert torch.equal(parameter, before[name]), name
        else:
            assert torch.equal(parameter[others], before[name][others])
    assert torch.equal(trained["output_rows"], model.lm_head.weight[chosen])
    assert not torch.equal(model.lm_head.weight[100:], before["lm_head.weight"][100:])


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "mixtral", "gpt2", "cohere"])
def test_documents_of_a_block_are_separated(kind: str) -> None:
    assert separates_documents(tiny(kind))


@pytest.mark.parametrize("kind", ["bloom", "opt", "xglm", "recurrent_gemma", "mamba", "rwkv", "gpt_oss"])
def test_documents_of_a_block_see_each_other(kind: str) -> None:
    assert not separates_documents(tiny(kind))


@pytest.mark.parametrize("kind", ["bert", "electra", "xlm-roberta"])
def test_encoders_read_what_they_are_to_predict(kind: str) -> None:
    assert not predicts_from_earlier_tokens(tiny(kind))
    assert predicts_from_earlier_tokens(tiny(kind, is_decoder=True))


def test_embedding_scales() -> None:
    ids = torch.arange(8)
    assert embedding_scale(tiny("llama").get_input_embeddings(), ids) == 1
    assert embedding_scale(tiny("gemma").get_input_embeddings(), ids) == pytest.approx(8, rel=1e-6)
    normed = tiny("llama").get_input_embeddings()
    normed.register_forward_hook(lambda module, args, output: output / output.norm(dim=-1, keepdim=True))
    assert embedding_scale(normed, ids) is None


def test_losses_that_ignore_the_token_count() -> None:
    model = tiny("llama")
    assert scales_loss_by_count(model, probe_model(model))
    forward = model.forward
    model.forward = lambda num_items_in_batch=None, **inputs: forward(**inputs)
    assert not scales_loss_by_count(model, probe_model(model))


def test_probed_ids_are_no_special_ones() -> None:
    model = tiny("llama", pad_token_id=ROWS - 1, eos_token_id=[2, 9, ROWS - 3])  # a list, as Llama 3.1 has it
    ids = random_ids(model, 140).tolist()
    assert not {1, 2, 9, ROWS - 1, ROWS - 3} & set(ids) and {ROWS - 2, ROWS - 4} <= set(ids)


def test_activations_are_recomputed_in_versions_of_transformers_that_have_another_name_for_it() -> None:
    """transformers 5.17 has `gradient_checkpointing_enable` alone, 5.23 also `activation_checkpointing_enable`."""

    class Older:
        def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any]) -> None:
            self.given = gradient_checkpointing_kwargs

    older = Older()
    recompute_activations(older)
    assert older.given == {"use_reentrant": False}
    model = toy_model()
    recompute_activations(model)
    assert all(layer.gradient_checkpointing for layer in model.model.layers)
