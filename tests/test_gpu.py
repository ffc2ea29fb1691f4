"""What a GPU can break: loss kernels, attention of packed blocks, 4-bit layers, compiled layers, resumption in bf16.

    pytest -m cuda tests/test_gpu.py        # as scripts/gpu_proof.sh runs it

Without a GPU the same runs on the CPU, except for kernels that exist for GPUs alone.
"""

import gc
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.model_toys import line
from tests.test_training_run import cache, losses, stage, workspace
from tests.training_toys import toy_batch, toy_model
from zhllama.training.choose_attention import choose_attention, obstacle, this_gpu
from zhllama.training.compiled_layers import compile_layers
from zhllama.training.hardware import this_hardware
from zhllama.training.lora import add_adapters
from zhllama.training.loss import head_loss, kernel
from zhllama.training.options import Lora, Precision
from zhllama.training.prepare_model import recompute_activations
from zhllama.training.probe import relative_difference
from zhllama.training.trainable_rows import arrange_rows, make_rows_trainable

__all__ = ["cache", "workspace"]
pytestmark = pytest.mark.cuda
ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda", torch.cuda.current_device()) if ON_GPU else torch.device("cpu")
LOW: Precision = "fp16" if ON_GPU and this_hardware().precision == "fp16" else "bf16"
DTYPE = torch.float16 if LOW == "fp16" else torch.bfloat16
ROWS, WIDTH, TOKENS = (49_953, 512, 1500) if ON_GPU else (997, 64, 600)
RUN = ("--rows", "all", "--steps", 6, "--save-every", 2, "--precision", LOW)


@pytest.fixture(autouse=True)
def free_memory() -> Any:
    """Free the memory of a test before the next one."""
    yield
    gc.collect()
    if ON_GPU:
        torch.cuda.empty_cache()


@pytest.mark.parametrize("liger", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, DTYPE])
@pytest.mark.parametrize("first", [0, 700])
def test_the_loss_kernel_equals_a_reference_in_fp64(
    first: int, dtype: torch.dtype, liger: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss, gradients of hidden states and of the trainable rows, with masked labels, in several chunks and a part of one."""
    if liger and kernel("cuda" if ON_GPU else "cpu") is None:
        pytest.skip("Liger's kernel needs a GPU and the package liger_kernel")
    if not liger:
        monkeypatch.setattr("zhllama.training.loss.kernel", lambda device: None)
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(2, TOKENS // 2, WIDTH, generator=generator).to(DEVICE, dtype)
    matrix = (0.05 * torch.randn(ROWS, WIDTH, generator=generator)).to(DEVICE, dtype)
    labels = torch.randint(0, ROWS, (2, TOKENS // 2), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.3] = -100
    labels = labels.to(DEVICE)
    states, rows = hidden.clone().requires_grad_(True), matrix[first:].requires_grad_(True)
    loss = head_loss(states, rows, matrix, labels, first, first)
    (loss / 2).backward()
    exact, whole = hidden.double().requires_grad_(True), matrix.double().requires_grad_(True)
    logits = exact.flatten(0, 1) @ whole.T
    expected = torch.nn.functional.cross_entropy(logits, labels.flatten(), ignore_index=-100, reduction="sum")
    (expected / 2).backward()
    assert exact.grad is not None and whole.grad is not None
    limit = 1e-4 if dtype == torch.float32 else 2e-2  # rounding of logits to 16 bits
    pairs = ((loss, expected), (states.grad, exact.grad), (rows.grad, whole.grad[first:]))
    assert [relative_difference(ours, theirs) < limit for ours, theirs in pairs] == [True] * 3


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("wanted", ["auto", "sdpa", "flex", "flash"])
def test_documents_of_a_block_stay_apart(wanted: Any, checkpointing: bool) -> None:
    """Loss and gradients equal those of SDPA under a mask in fp32, and no document changes the next one's loss."""
    precision: Precision = LOW if ON_GPU else "fp32"
    model = _on_device(precision, head_dim=64)
    if wanted in ("flex", "flash") and (reason := obstacle(wanted, type(model), precision, this_gpu(DEVICE))):
        pytest.skip(f"{wanted} {reason}")
    autocast = DTYPE if ON_GPU else None
    choice = choose_attention(model, wanted, precision, DEVICE, length=40, autocast=autocast)
    if wanted != "auto":
        assert choice.kernel == wanted
    if checkpointing:
        recompute_activations(model.train())
    exact = _on_device("fp32", head_dim=64)
    ours, theirs = (_gradients(one, amp) for one, amp in ((model, autocast), (exact, None)))
    limit = 5e-2 if ON_GPU else 1e-5
    for name, gradient in theirs.items():
        assert relative_difference(ours[name], gradient) < limit, name


def test_compiled_layers_compute_the_same() -> None:
    if not ON_GPU:
        pytest.skip("compiling takes minutes here; tests/test_compiled_layers.py does it")
    model, plain = (_in_training() for _ in range(2))
    assert compile_layers(model, toy_batch(), DTYPE) is None
    for (name, gradient), expected in zip(
        _gradients(model, DTYPE).items(), _gradients(plain, DTYPE).values(), strict=True
    ):
        assert relative_difference(gradient, expected) < 5e-2, name


def test_a_cut_run_resumes_to_the_same_losses(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _resumed(workspace, monkeypatch, *RUN)


def test_four_bits_resume_to_the_same_losses(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not ON_GPU or find_spec("bitsandbytes") is None:
        pytest.skip("4 bits need a GPU and the package bitsandbytes")
    _resumed(workspace, monkeypatch, *RUN, "--load-in-4bit")


def test_a_run_exports_what_it_trained(workspace: Path) -> None:
    """Stage 2 on the device, exported and read back; chat and eval open models on a GPU too."""
    result = line(workspace, *stage(2, "base", "run", *RUN))
    assert result.code == 0, result.err
    exported = line(workspace, "export", "run", "--out", "plain")
    assert exported.code == 0, exported.err
    measured = line(workspace, "eval", "plain", "--text", "few.zh.txt", "--json")
    assert measured.code == 0, measured.err


def _resumed(workspace: Path, monkeypatch: pytest.MonkeyPatch, *settings: object) -> None:
    """Compare an uninterrupted run with one that was stopped after a checkpoint, by the losses of all steps."""
    from zhllama.training.trainer import TrainingLog

    result = line(workspace, *stage(2, "base", "whole", *settings))
    assert result.code == 0, result.err
    end = TrainingLog.on_step_end

    def stop(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        end(self, args, state, control, **more)
        if state.global_step == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingLog, "on_step_end", stop)
    assert line(workspace, *stage(2, "base", "cut", *settings)).code == 130
    monkeypatch.setattr(TrainingLog, "on_step_end", end)
    result = line(workspace, *stage(2, "base", "cut", *settings, "--resume"))
    assert result.code == 0, result.err
    # Sums of gradients run in no fixed order on GPUs.
    assert losses(workspace / "cut") == pytest.approx(
        losses(workspace / "whole"), abs=1e-3 if ON_GPU else 1e-7
    )


def _on_device(precision: Precision, **changed: Any) -> Any:
    model = toy_model(num_attention_heads=4, num_key_value_heads=2, **changed).requires_grad_(False)
    dtype = torch.float32 if precision == "fp32" else DTYPE
    model.model.layers.to(dtype)
    return model.to(DEVICE)


def _in_training() -> Any:
    torch.manual_seed(1)
    model = _on_device(LOW, head_dim=64)
    trained = add_adapters(model, Lora(dropout=0.0))
    make_rows_trainable(model, arrange_rows(range(50, 97), 97))
    return trained.train()


def _gradients(model: Any, autocast: torch.dtype | None) -> dict[str, Tensor]:
    """Return the loss and the gradients of all trainable parameters for one packed batch; of the rows if there are none."""
    if not any(p.requires_grad for p in model.parameters()):
        make_rows_trainable(model, arrange_rows(range(97), 97))
    batch = {name: tensor.to(DEVICE) for name, tensor in toy_batch().items()}
    with torch.autocast(DEVICE.type, dtype=autocast, enabled=autocast is not None):
        loss = model(**batch).loss
    loss.backward()
    return {"loss": loss.detach()} | {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
