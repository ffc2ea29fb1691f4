"""Trainable rows and the fused loss equal transformers' own losses and gradients."""

import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.training_toys import toy_batch, toy_model
from zhllama.errors import InputError, OptionError
from zhllama.training import loss as losses
from zhllama.training.loss import head_loss
from zhllama.training.trainable_rows import arrange_rows, make_rows_trainable

SCATTERED = [3, 7, 8, 50, 90, 91, 92, 93, 94, 95, 96]


def plain_gradients(model: Any, batch: dict[str, torch.Tensor]) -> tuple[float, torch.Tensor, torch.Tensor]:
    loss = model(**batch, use_cache=False).loss
    loss.backward()
    return loss.item(), model.get_input_embeddings().weight.grad, model.get_output_embeddings().weight.grad


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("ids", [range(60, 97), range(97), SCATTERED])
def test_loss_and_gradients_equal_those_of_transformers(tied: bool, whole: bool, ids: Any) -> None:
    batch = toy_batch()
    loss, embedding, head = plain_gradients(toy_model(tied=tied), batch)
    rows = make_rows_trainable(model := toy_model(tied=tied), arrange_rows(ids, 97, whole))
    ours = model(**batch).loss
    ours.backward()
    assert ours.item() == pytest.approx(loss, abs=1e-6)
    for part, plain in ((rows.embedding, embedding), (rows.head, head)):
        first, start = part.layout.first, part.layout.start
        assert (part.rows.grad[first - start :] - plain[list(ids)]).abs().max() < 1e-6
        assert not part.rows.grad[: first - start].any()


def test_gradients_of_the_body_equal_those_of_transformers() -> None:
    batch, plain, ours = toy_batch(), toy_model(), toy_model()
    plain(**batch, use_cache=False).loss.backward()
    make_rows_trainable(ours, arrange_rows(range(60, 97), 97))
    ours(**batch).loss.backward()
    for name, parameter in plain.model.layers.named_parameters():
        assert (ours.model.layers.get_parameter(name).grad - parameter.grad).abs().max() < 1e-6, name


def test_a_frozen_head_gets_no_gradient_and_the_embedding_gets_its_own() -> None:
    batch = toy_batch()
    _, embedding, _ = plain_gradients(toy_model(), batch)
    rows = make_rows_trainable(model := toy_model(), arrange_rows(range(97), 97), "input")
    model(**batch).loss.backward()
    assert rows.head.rows.grad is None
    assert (rows.embedding.rows.grad - embedding).abs().max() < 1e-6
    assert rows.trained().keys() == {"input_rows", "input_ids"}


@pytest.mark.parametrize("ids", [range(60, 97), SCATTERED])
def test_a_step_writes_the_trainable_rows_and_no_other_byte(ids: Any) -> None:
    before = toy_model().get_input_embeddings().weight.detach()
    rows = make_rows_trainable(model := toy_model(), arrange_rows(ids, 97))
    optimizer = torch.optim.AdamW([rows.embedding.rows, rows.head.rows], lr=0.1, weight_decay=0.1)
    model(**toy_batch()).loss.backward()
    optimizer.step()
    place = rows.embedding.layout.rows_of(torch.arange(97))
    after = rows.embedding.weight[place]
    others = [id for id in range(97) if id not in ids]
    assert torch.equal(after[others], before[others])
    assert (after[list(ids)] != before[list(ids)]).any(1).all()
    trained = rows.trained()
    assert trained["input_ids"].tolist() == list(ids)
    assert torch.equal(trained["input_rows"], after[list(ids)])


@pytest.mark.parametrize("tied", [False, True])
def test_the_parameter_stays_a_view_when_the_model_is_moved(tied: bool) -> None:
    rows = make_rows_trainable(model := toy_model(tied=tied), arrange_rows(range(60, 97), 97))
    model.to("cpu:0")  # under torchrun a CPU has a number, and .to() copies
    model.to(torch.float64)
    with torch.no_grad():
        rows.embedding.rows.fill_(7)
    assert (rows.embedding.weight[60:] == 7).all() and (rows.head.weight[60:] == 7).all() == tied
    assert rows.embedding.rows.dtype == torch.float64
    assert sum("rows" in name for name, _ in model.named_parameters()) == 2 - tied


def test_a_parameter_that_is_no_view_any_more_is_detected() -> None:
    rows = make_rows_trainable(model := toy_model(), arrange_rows(range(60, 97), 97))
    rows.head.rows.data = rows.head.rows.data.clone()
    with pytest.raises(AssertionError, match="no view any more"):
        model(**toy_batch())


def test_packed_documents_do_not_attend_to_each_other() -> None:
    batch = toy_batch()
    rows = make_rows_trainable(model := toy_model(), arrange_rows(range(97), 97))
    assert rows.head is model.get_output_embeddings()
    packed = model(**batch, num_items_in_batch=1).loss.item()
    alone = 0.0
    for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        for low, high in ((0, 11), (11, 12), (12, 30), (30, 40)):
            one = {"input_ids": ids[None, low:high], "labels": labels[None, low:high]}
            alone += model(**one, num_items_in_batch=1).loss.item()
    assert packed == pytest.approx(alone, rel=1e-6)


def test_masked_labels_cost_nothing_and_all_masked_is_zero() -> None:
    hidden, rows = torch.randn(5, 8, requires_grad=True), torch.randn(11, 8, requires_grad=True)
    loss = head_loss(hidden, rows, rows.detach(), torch.full((5,), -100))
    loss.backward()
    assert loss.item() == 0 and not hidden.grad.any() and not rows.grad.any()


def test_long_input_is_processed_in_chunks() -> None:
    torch.manual_seed(0)
    hidden, matrix = torch.randn(700, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    labels = torch.randint(50, (700,))
    plain = torch.nn.functional.cross_entropy(hidden @ matrix.T, labels, reduction="sum")
    wanted = torch.autograd.grad(plain, (hidden, matrix))
    ours = head_loss(hidden, matrix, matrix.detach(), labels)
    gradients = torch.autograd.grad(ours / 700, (hidden, matrix))
    assert ours.item() == pytest.approx(plain.item(), rel=1e-6)
    assert all((g - w / 700).abs().max() < 1e-6 for g, w in zip(gradients, wanted, strict=True))


def test_without_gradients_only_the_loss_is_computed() -> None:
    model = toy_model()
    wanted = model(**toy_batch(), use_cache=False).loss.item()
    make_rows_trainable(model, arrange_rows(range(60, 97), 97))
    with torch.no_grad():
        assert model(**toy_batch()).loss.item() == pytest.approx(wanted, abs=1e-6)


def liger() -> Any:
    """Imitate the one function of liger_kernel 0.8.5 that we call: it writes the gradient into the logits' memory."""

    class InPlace(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            logs = logits.float().log_softmax(1)
            if logits.requires_grad:
                logits.copy_(logs.exp() - torch.nn.functional.one_hot(labels, logits.shape[1]))
            ctx.save_for_backward(logits.detach())
            return -logs.gather(1, labels[:, None]).sum()

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> Any:
            return ctx.saved_tensors[0] * grads[0], None

    module = ModuleType("liger_kernel.transformers.functional")
    module.calls = []

    def liger_cross_entropy(
        input: torch.Tensor, target: torch.Tensor, reduction: str = "mean"
    ) -> torch.Tensor:
        module.calls.append(
            (tuple(input.shape), input.dtype, input.requires_grad, int(target.min()), reduction)
        )
        return InPlace.apply(input, target)

    module.liger_cross_entropy = liger_cross_entropy
    return module


@pytest.mark.parametrize("ids", [range(60, 97), range(97), SCATTERED])
def test_the_kernel_gives_the_same_loss_and_gradients(ids: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = liger()
    packages = ("liger_kernel", "liger_kernel.transformers")
    for name in packages:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(losses, "find_spec", lambda name: name)
    batch = toy_batch()
    wanted, embedding, head = plain_gradients(toy_model(), batch)
    kernel = losses.kernel.__wrapped__("cuda")
    monkeypatch.setattr(losses, "kernel", lambda device: kernel)
    rows = make_rows_trainable(model := toy_model(), arrange_rows(ids, 97))
    ours = model(**batch).loss
    ours.backward()
    assert ours.item() == pytest.approx(wanted, abs=1e-6)
    for part, plain in ((rows.embedding, embedding), (rows.head, head)):
        assert (part.rows.grad - plain[list(ids)]).abs().max() < 1e-6
    with torch.no_grad():
        assert model(**batch).loss.item() == pytest.approx(wanted, abs=1e-6)
    labels = int((batch["labels"][:, 1:] >= 0).sum())
    assert [call[2] for call in module.calls] == [True, False]
    assert all(call[0] == (labels, 97) and call[3] >= 0 and call[4] == "sum" for call in module.calls)


def test_without_a_gpu_or_the_package_the_loss_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "find_spec", lambda name: name)
    assert losses.kernel.__wrapped__("cpu") is None
    monkeypatch.setattr(losses, "find_spec", lambda name: None)
    assert losses.kernel.__wrapped__("cuda") is None


def test_bf16_autocast_is_close_to_fp32() -> None:
    rows = make_rows_trainable(model := toy_model(), arrange_rows(range(60, 97), 97))
    wanted = model(**toy_batch(), use_cache=False).loss.item()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**toy_batch()).loss
    loss.backward()
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(wanted, rel=0.02)
    assert rows.head.rows.grad.dtype == torch.float32


def test_errors() -> None:
    with pytest.raises(OptionError, match="no row is left to train"):
        arrange_rows(range(97, 97), 97)
    model = toy_model()
    model.lm_head = torch.nn.Linear(32, 97)
    with pytest.raises(InputError, match="an LM head that is more than a matrix"):
        make_rows_trainable(model, arrange_rows(range(97), 97))
