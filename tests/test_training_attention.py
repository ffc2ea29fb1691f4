"""Attention within documents equals transformers' own under its mask."""

from typing import Any

import pytest
import torch

from tests.training_toys import toy_batch, toy_model
from zhllama.training.attention import FAMILIES, NAME, document_lengths, use_document_attention
from zhllama.training.prepare_model import recompute_activations
from zhllama.training.trainable_rows import arrange_rows, make_rows_trainable


def trained(model: Any, batch: dict[str, torch.Tensor]) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the loss and every gradient."""
    make_rows_trainable(model, arrange_rows(range(97), 97))
    loss = model(**batch).loss
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_the_mask(family: str, checkpointing: bool) -> None:
    masked, ours = (toy_model(family=family, sliding_window=None) for _ in range(2))
    assert use_document_attention(ours) and ours.config._attn_implementation == NAME
    if checkpointing:
        recompute_activations(ours.train())
    (loss, gradients), (wanted, plain) = trained(ours, toy_batch()), trained(masked, toy_batch())
    assert loss == pytest.approx(wanted, abs=1e-6)
    for name, gradient in gradients.items():
        assert (gradient - plain[name]).abs().max() < 1e-6, name


def test_blocks_of_one_document_with_and_without_positions() -> None:
    masked, ours = toy_model(), toy_model()
    assert use_document_attention(ours)
    ids = toy_batch()["input_ids"]
    positions = torch.arange(40)[None]
    for inputs in ({"input_ids": ids}, {"input_ids": ids, "position_ids": positions}):
        assert torch.equal(ours(**inputs, use_cache=False).logits, masked(**inputs, use_cache=False).logits)


@pytest.mark.parametrize(
    ("family", "changed"),
    [
        ("mistral", {"sliding_window": 16}),
        ("qwen3", {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 16}),
        ("gemma2", {"head_dim": 8}),
        ("llama", {"attn_implementation": "eager"}),
    ],
)
def test_models_with_other_masks_are_unchanged(family: str, changed: dict[str, Any]) -> None:
    model = toy_model(family=family, **changed)
    before = model.config._attn_implementation
    assert not use_document_attention(model) and model.config._attn_implementation == before


def test_document_lengths() -> None:
    assert document_lengths(torch.tensor([0, 1, 2, 0, 0, 1])) == [3, 1, 2]
    assert document_lengths(torch.tensor([5, 6, 0, 1])) == [2, 2]
    assert document_lengths(torch.tensor([0])) == [1]
