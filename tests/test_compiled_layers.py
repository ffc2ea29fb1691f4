"""Compiled layers compute what they computed before, are compiled once for all batches, or are not taken.

The compiler's last stage, which makes machine code, takes a minute here: quick tests leave it out (aot_eager).
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from tests.model_toys import line
from tests.test_choose_attention import CUDA, flash_by_torch, flex_on_a_cpu, gpu
from tests.test_training_run import cache, losses, stage, workspace
from tests.training_toys import toy_batch, toy_model
from zhllama.training.attention import use_document_attention
from zhllama.training.choose_attention import choose_attention
from zhllama.training.compiled_layers import compile_layers
from zhllama.training.lora import add_adapters
from zhllama.training.options import Lora
from zhllama.training.prepare_model import recompute_activations
from zhllama.training.trainable_rows import arrange_rows, make_rows_trainable

__all__ = ["cache", "flash_by_torch", "flex_on_a_cpu", "gpu", "workspace"]
STEPS = ("--rows", "all", "--steps", 4, "--save-every", 2, "--lora-dropout", 0.1)


@pytest.fixture
def without_machine_code(monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    counters.clear()
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", partial_method(compile_module, backend="aot_eager"))


def partial_method(method: Any, **given: Any) -> Any:
    def call(self: Any, *args: Any, **more: Any) -> Any:
        return method(self, *args, **more, **given)

    return call


def in_training(attention: str = "sdpa", checkpointing: bool = False, **changed: Any) -> Any:
    """Return a model as in stage 2, with rows and adapters."""
    model = toy_model(**changed)
    model.requires_grad_(False)
    if attention == "documents":
        assert use_document_attention(model)
    elif attention == "flash":
        assert choose_attention(model, "flash", "bf16", CUDA, length=40).kernel == "flash"
    torch.manual_seed(1)
    trained = add_adapters(model, Lora(dropout=0.0))
    make_rows_trainable(model, arrange_rows(range(50, 97), 97))
    if checkpointing:
        recompute_activations(model)
    return trained.train()


def step(model: Any, seed: int) -> tuple[float, list[torch.Tensor]]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    loss = model(**toy_batch(seed=seed)).loss
    return loss.item(), list(torch.autograd.grad(loss, parameters))


@pytest.mark.parametrize(
    ("attention", "checkpointing"),
    [("documents", True), ("flash", False),
     *(pytest.param(*more, marks=pytest.mark.slow) for more in (("documents", False), ("flash", True), ("sdpa", False), ("sdpa", True)))],
)  # fmt: skip
def test_compiled_layers_compute_the_same_and_are_compiled_once(
    attention: str, checkpointing: bool, gpu: None, flash_by_torch: None, without_machine_code: None
) -> None:
    plain, compiled = (in_training(attention, checkpointing, num_hidden_layers=4) for _ in range(2))
    names = list(compiled.state_dict())
    assert compile_layers(compiled, toy_batch(), None) is None
    assert list(compiled.state_dict()) == names and compiled.training
    graphs = counters["stats"]["unique_graphs"]
    assert 0 < graphs < 30
    for seed in range(3):
        (loss, gradients), (wanted, expected) = step(compiled, seed), step(plain, seed)
        assert loss == pytest.approx(wanted, abs=1e-5)
        for gradient, other in zip(gradients, expected, strict=True):
            assert (gradient - other).abs().max() < 1e-5
    assert counters["stats"]["unique_graphs"] == graphs, "compiled again for another batch"


def test_a_compiler_that_fails_leaves_the_layers_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, **options: Any) -> None:
        def call(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError("no C++\n compiler")

        self._compiled_call_impl = call

    monkeypatch.setattr(torch.nn.Module, "compile", fail)
    model, plain = in_training(), in_training()
    state = torch.get_rng_state()
    assert compile_layers(model, toy_batch(), None) == "it fails with RuntimeError (no C++ compiler)"
    assert torch.equal(state, torch.get_rng_state()) and model.training
    assert step(model, 0)[0] == step(plain, 0)[0]


@pytest.mark.parametrize(
    ("factor", "reason"), [(1.5, "its loss becomes"), (float("nan"), "its loss becomes nan")]
)
def test_layers_that_compute_something_else_are_not_taken(
    factor: float, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(self: Any, **options: Any) -> None:
        self._compiled_call_impl = lambda *args, **kwargs: factor * self.forward(*args, **kwargs)

    monkeypatch.setattr(torch.nn.Module, "compile", wrong)
    model, plain = in_training(), in_training()
    found = compile_layers(model, toy_batch(), None)
    assert found is not None and found.startswith(reason)
    assert step(model, 0)[0] == step(plain, 0)[0]


def test_layers_with_other_gradients_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def detached(self: Any, **options: Any) -> None:
        def call(hidden: torch.Tensor, **kwargs: Any) -> Any:
            return hidden + (self.forward(hidden, **kwargs) - hidden).detach()

        self._compiled_call_impl = call

    monkeypatch.setattr(torch.nn.Module, "compile", detached)
    found = compile_layers(in_training(), toy_batch(), None)
    assert found is not None and found.startswith("its gradients change by")


def test_a_model_without_layers_of_transformers_is_named() -> None:
    assert (
        compile_layers(torch.nn.Linear(2, 2), toy_batch(), None)
        == "the model has no layers of transformers' kind"
    )


@pytest.mark.slow
def test_a_compiled_run_resumes_to_the_same_bytes(
    workspace: Path, without_machine_code: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert line(workspace, *stage(2, "base", "whole", *STEPS, "--compile")).code == 0
    assert line(workspace, *stage(2, "base", "plain", *STEPS)).code == 0
    assert losses(workspace / "whole") == pytest.approx(losses(workspace / "plain"), abs=1e-4)

    from zhllama.training.trainer import TrainingLog

    end = TrainingLog.on_step_end

    def stop(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        end(self, args, state, control, **more)
        if state.global_step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingLog, "on_step_end", stop)
    assert line(workspace, *stage(2, "base", "cut", *STEPS, "--compile")).code == 130
    monkeypatch.setattr(TrainingLog, "on_step_end", end)
    result = line(workspace, *stage(2, "base", "cut", *STEPS, "--compile", "--resume"))
    assert result.code == 0, result.err
    for name in ("rows.safetensors", "adapter/adapter_model.safetensors"):
        assert (workspace / "cut" / name).read_bytes() == (workspace / "whole" / name).read_bytes(), name


def test_a_run_says_why_it_was_not_compiled(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, **options: Any) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch.nn.Module, "compile", fail)
    result = line(workspace, *stage(1, "base", "run", "--rows", "all", "--steps", 2, "--compile"))
    assert (
        result.code == 0
        and "llama: trained without compiling, since it fails with RuntimeError (no compiler)" in result.err
    )
    assert line(workspace, *stage(1, "base", "plain", "--rows", "all", "--steps", 2)).code == 0
    assert (workspace / "run/rows.safetensors").read_bytes() == (
        workspace / "plain/rows.safetensors"
    ).read_bytes()


def test_sharded_parameters_are_refused(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zhllama.training.train.is_sharded", lambda: True)
    result = line(workspace, *stage(1, "base", "run", "--rows", "all", "--compile"))
    assert result.code == 1
    assert (
        result.err
        == "zhllama: --compile: does not work with sharded parameters (FSDP, ZeRO). Leave it out.\n"
    )
    assert not (workspace / "run").exists()


@pytest.mark.slow
def test_machine_code_computes_the_same(workspace: Path) -> None:
    torch._dynamo.reset()
    plain, compiled = in_training("documents"), in_training("documents")
    assert compile_layers(compiled, toy_batch(), None) is None
    for seed in range(3):
        (loss, gradients), (wanted, expected) = step(compiled, seed), step(plain, seed)
        assert loss == pytest.approx(wanted, abs=1e-5)
        for gradient, other in zip(gradients, expected, strict=True):
            assert (gradient - other).abs().max() < 1e-5
