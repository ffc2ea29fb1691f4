"""The attention of packed blocks: flex_attention and FlashAttention equal SDPA under a mask, or are refused by name.

No GPU is needed. torch's flex_attention also computes on CPUs, without its compiler and once its check of the device is
off. A plain function stands in for the kernel of FlashAttention, and gets what transformers and we give to the kernel.
"""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from tests.model_toys import line
from tests.test_training_run import cache, stage, workspace
from tests.training_toys import toy_batch, toy_model
from zhllama.errors import OptionError
from zhllama.training import choose_attention as choosing
from zhllama.training import flash_attention
from zhllama.training.choose_attention import Gpu, check_attention, choose_attention, obstacle, packed_passes
from zhllama.training.flash_attention import document_bounds
from zhllama.training.lora import add_adapters
from zhllama.training.options import Lora
from zhllama.training.trainable_rows import arrange_rows, make_rows_trainable

__all__ = ["cache", "workspace"]
CUDA, CPU = torch.device("cuda"), torch.device("cpu")
HOPPER = Gpu((9, 0), triton=True)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tests' CPU pass for a GPU, whose tensors stay on the CPU."""
    monkeypatch.setattr(choosing, "this_gpu", lambda device: HOPPER)
    monkeypatch.setattr(choosing, "_is_on", lambda model, device: True)


@pytest.fixture
def flex_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *tensors: None)
    with torch.compiler.set_stance("force_eager"):
        yield


def reference_kernel(
    query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int, *,
    scale: float | None = None, window_size: tuple[int, int] = (-1, -1), **rest: Any,
) -> Tensor:  # fmt: skip
    """Compute what torch's kernel documents: [tokens, heads, width], one document after the other."""
    assert window_size == (-1, 0) and query.shape[1] == key.shape[1] and max_q == max_k
    bounds = cu_seq_q.tolist()
    assert bounds == cu_seq_k.tolist() and bounds[-1] == len(query)
    assert max(cu_seq_q.diff().tolist()) <= max_q
    parts = []
    for low, high in pairwise(bounds):
        q, k, v = (tensor[low:high].transpose(0, 1)[None] for tensor in (query, key, value))
        parts.append(sdpa(q, k, v, is_causal=True, scale=scale)[0].transpose(0, 1))
    return torch.cat(parts)


@pytest.fixture
def flash_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash_attention, "_torch_kernel", lambda: reference_kernel)
    monkeypatch.setattr(flash_attention, "is_flash_attn_2_available", lambda: False)


@pytest.fixture
def flash_by_package(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put plain functions in the place of the package flash_attn; return the names of those that were called."""
    import transformers.modeling_flash_attention_utils as flash
    import transformers.modeling_utils as modeling

    calls: list[str] = []

    def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0, softmax_scale: Any = None,
                        causal: bool = False, window_size: Any = (-1, -1), **rest: Any) -> Tensor:  # fmt: skip
        calls.append("whole")
        groups = q.shape[2] // k.shape[2]
        k, v = (tensor.repeat_interleave(groups, 2) for tensor in (k, v))
        q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
        return sdpa(q, k, v, is_causal=causal, scale=softmax_scale).transpose(1, 2)

    def flash_attn_varlen_func(q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor,
                               max_seqlen_q: int, max_seqlen_k: int, dropout_p: float = 0.0, softmax_scale: Any = None,
                               causal: bool = False, window_size: Any = (-1, -1), **rest: Any) -> Tensor:  # fmt: skip
        calls.append("documents")
        groups = q.shape[1] // k.shape[1]
        k, v = (tensor.repeat_interleave(groups, 1) for tensor in (k, v))
        bounds, longest = (cu_seqlens_q, cu_seqlens_k), (max_seqlen_q, max_seqlen_k)
        return reference_kernel(q, k, v, *bounds, *longest, scale=softmax_scale, window_size=(-1, 0))

    process = flash._lazy_define_process_function(flash_attn_varlen_func)
    functions = (flash_attn_func, flash_attn_varlen_func, None, None, None), (process, None)
    monkeypatch.setattr(flash, "lazy_import_flash_attention", lambda *_, **__: functions)
    monkeypatch.setattr(modeling, "lazy_import_flash_attention", lambda *_, **__: functions)
    monkeypatch.setattr(modeling.PreTrainedModel, "_flash_attn_can_dispatch", lambda *_, **__: True)
    monkeypatch.setattr(flash_attention, "is_flash_attn_2_available", lambda: True)
    return calls


def loss_and_gradients(model: Any, adapters: bool = False) -> tuple[float, dict[str, Tensor]]:
    """Return what a training step computes from packed blocks, in training, with rows and adapters as in stage 2."""
    model.requires_grad_(False)
    torch.manual_seed(1)
    trained = add_adapters(model, Lora(dropout=0.0)) if adapters else model
    make_rows_trainable(model, arrange_rows(range(50, 97), 97))
    loss = trained.train()(**toy_batch()).loss
    loss.backward()
    return loss.item(), {name: p.grad for name, p in trained.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("adapters", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
def test_flex_attention_equals_the_mask(family: str, adapters: bool, gpu: None, flex_on_a_cpu: None) -> None:
    changed = (
        {"head_dim": 8, "attn_logit_softcapping": 5.0, "sliding_window": 8} if family == "gemma2" else {}
    )
    masked, flex = (toy_model(family=family, **changed) for _ in range(2))
    choice = choose_attention(flex, "flex", "fp32", CPU, length=40)
    assert choice.kernel == "flex" and not choice.dense_mask and not choice.rejected
    assert flex.config._attn_implementation == "flex_attention"
    (loss, gradients), (wanted, plain) = (loss_and_gradients(model, adapters) for model in (flex, masked))
    assert loss == pytest.approx(wanted, abs=1e-5) and gradients.keys() == plain.keys() and len(plain) > 1
    for name, gradient in gradients.items():
        assert (gradient - plain[name]).abs().max() < 1e-5, name


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3", "olmo2"])
def test_flash_attention_of_torch_equals_the_mask(family: str, gpu: None, flash_by_torch: None) -> None:
    masked, flash = (toy_model(family=family, sliding_window=None) for _ in range(2))
    assert choose_attention(flash, "auto", "bf16", CUDA, length=40).kernel == "flash"
    assert flash.config._attn_implementation == flash_attention.NAME
    (loss, gradients), (wanted, plain) = (loss_and_gradients(model, True) for model in (flash, masked))
    assert loss == pytest.approx(wanted, abs=1e-5)
    for name, gradient in gradients.items():
        assert (gradient - plain[name]).abs().max() < 1e-5, name


def test_the_package_gets_the_bounds_of_all_blocks(gpu: None, flash_by_package: list[str]) -> None:
    """transformers alone finds documents in batches of one block only; a toy batch has three."""
    masked, flash = toy_model(), toy_model()
    assert choose_attention(flash, "auto", "bf16", CUDA, length=40).kernel == "flash"
    assert flash.config._attn_implementation == "flash_attention_2"
    flash_by_package.clear()
    loss, _ = loss_and_gradients(flash, True)
    assert set(flash_by_package) == {"documents"}
    assert loss == pytest.approx(loss_and_gradients(masked, True)[0], abs=1e-5)


def test_without_the_bounds_flash_attention_is_not_taken(
    gpu: None, flash_by_package: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "this_gpu", lambda device: Gpu((9, 0), triton=False))
    monkeypatch.setattr(flash_attention, "_add_bounds", lambda module, args, kwargs: None)
    model = toy_model()
    choice = choose_attention(model, "auto", "bf16", CUDA, length=40)
    assert choice.rejected["flash"] == "lets the documents of a block see each other"
    monkeypatch.undo()
    assert model.config._attn_implementation != "flash_attention_2"


def test_a_kernel_that_computes_something_else_is_not_taken(
    gpu: None, flash_by_torch: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*tensors: Any, scale: float, **rest: Any) -> Tensor:
        return reference_kernel(*tensors, scale=scale * 1.5, **rest)

    monkeypatch.setattr(flash_attention, "_torch_kernel", lambda: wrong)
    model, untouched = toy_model(), toy_model()
    with pytest.raises(
        OptionError, match=r"attention flash.*computes logits that differ from those of sdpa by"
    ):
        choose_attention(model, "flash", "bf16", CUDA, length=40)
    assert model.config._attn_implementation == "sdpa" and not model.base_model._forward_pre_hooks
    batch = toy_batch()
    assert torch.equal(model(**batch).logits, untouched(**batch).logits)


@pytest.mark.parametrize(
    ("family", "changed", "reason"),
    [
        ("llama", {"attention_dropout": 0.1}, "fails with ValueError (torch's FlashAttention has no dropout"),
        ("mistral", {"sliding_window": 8}, "fails with ValueError (torch's FlashAttention has no dropout"),
        ("gemma2", {"head_dim": 8}, "fails with ValueError (torch's FlashAttention has no dropout"),
        ("bloom", {}, "needs positions, which BloomForCausalLM does not take"),
    ],
)  # fmt: skip
def test_auto_falls_back_and_says_why(
    family: str,
    changed: dict[str, Any],
    reason: str,
    gpu: None,
    flash_by_torch: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choosing, "this_gpu", lambda device: Gpu((9, 0), triton=False))
    model = toy_model(family=family, **changed)
    choice = choose_attention(model, "auto", "bf16", CUDA, length=40)
    assert choice.kernel == "sdpa" and choice.dense_mask and list(choice.rejected) == ["flash", "flex"]
    assert reason in choice.rejected["flash"] and "\n" not in choice.rejected["flash"]


def test_flash_leads_and_flex_follows(
    gpu: None, flash_by_torch: None, flex_on_a_cpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "this_gpu", lambda device: Gpu((7, 5), triton=True))
    choice = choose_attention(toy_model(), "auto", "fp16", CUDA, length=40)
    assert choice.kernel == "flex"
    assert choice.rejected == {"flash": "needs compute capability 8.0 (Ampere) or later"}


def test_a_model_that_is_sharded_later_is_checked_by_two_of_its_layers(
    flash_by_torch: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "this_gpu", lambda device: HOPPER)
    monkeypatch.setattr(choosing, "_is_on", lambda model, device: False)
    on_the_cpu = choosing._two_layers
    built = []
    monkeypatch.setattr(
        choosing, "_two_layers", lambda model, device: built.append(on_the_cpu(model, CPU)) or built[0]
    )
    model = toy_model(num_hidden_layers=5)
    before = torch.get_rng_state()
    assert choose_attention(model, "auto", "bf16", CUDA, length=40).kernel == "flash"
    assert torch.equal(before, torch.get_rng_state())
    assert len(built[0].model.layers) == 2 and len(model.model.layers) == 5
    assert model.config._attn_implementation == flash_attention.NAME and model.config.num_hidden_layers == 5
    assert loss_and_gradients(model)[0] == pytest.approx(
        loss_and_gradients(toy_model(num_hidden_layers=5))[0], abs=1e-5
    )


def test_the_check_sees_documents_that_see_each_other() -> None:
    masked = packed_passes(toy_model(), 40, None)
    assert all(
        torch.equal(after, before[first:])
        for before, after, first in zip(masked.logits, masked.changed, masked.first, strict=True)
    )


@pytest.mark.parametrize(
    ("kernel", "precision", "gpu_of", "package", "reason"),
    [
        ("flex", "bf16", None, None, "needs a CUDA GPU, since torch has no backward pass of it for CPUs"),
        ("flash", "bf16", None, None, "needs a CUDA GPU"),
        ("flex", "bf16", Gpu((9, 0), False), None, "needs Triton, which is not installed"),
        ("flash", "bf16", Gpu((7, 0), True), "x", "needs compute capability 8.0 (Ampere) or later"),
        ("flash", "fp32", HOPPER, "x", "computes in 16 bits, not in fp32"),
        ("flash", "bf16", HOPPER, None, "needs the package flash_attn, or torch 2.11"),
        ("flash", "bf16", HOPPER, "x", None),
        ("flex", "fp32", HOPPER, None, None),
    ],
)  # fmt: skip
def test_obstacles_are_named_before_the_work(
    kernel: Any, precision: Any, gpu_of: Gpu | None, package: str | None, reason: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(choosing, "flash_implementation", lambda: package)
    monkeypatch.setattr(choosing, "this_gpu", lambda device: gpu_of)
    model_class = type(toy_model())
    assert obstacle(kernel, model_class, precision, gpu_of) == reason
    if reason is None:
        check_attention(kernel, model_class, precision, CUDA)
    else:
        with pytest.raises(OptionError) as error:
            check_attention(kernel, model_class, precision, CUDA)
        assert error.value.what == reason
    old = SimpleNamespace(
        _supports_flex_attn=False, _supports_flash_attn=False, __name__="Old", forward=model_class.forward
    )
    if reason is None:
        assert obstacle(kernel, old, precision, gpu_of) == "is not supported by Old"


def test_document_bounds() -> None:
    positions = torch.tensor([[0, 1, 2, 0], [0, 0, 1, 2], [5, 6, 0, 1]])
    assert document_bounds(positions).tolist() == [0, 3, 4, 5, 8, 10, 12]
    assert document_bounds(torch.arange(4)[None].expand(2, 4)).tolist() == [0, 4, 8]
    assert document_bounds(positions).dtype == torch.int32 and positions[2, 0] == 5


@pytest.mark.parametrize("kernel", ["flex", "flash"])
def test_refused_on_a_cpu_in_one_line(workspace: Path, kernel: str) -> None:
    result = line(workspace, *stage(1, "base", "run", "--rows", "all", "--attention", kernel))
    assert result.code == 1 and result.err.count("\n") == 1
    assert result.err.startswith(f"zhllama: --attention {kernel}: needs a CUDA GPU") and "sdpa" in result.err
    assert not (workspace / "run").exists()


def test_sdpa_is_honoured_and_computes_the_same(workspace: Path) -> None:
    for out, attention in (("auto", "auto"), ("sdpa", "sdpa")):
        result = line(
            workspace, *stage(1, "base", out, "--rows", "all", "--steps", 3, "--attention", attention)
        )
        assert result.code == 0, result.err
    manifests = [json.loads((workspace / out / "manifest.json").read_text()) for out in ("auto", "sdpa")]
    assert [m["figures"]["attention"] for m in manifests] == ["documents", "sdpa"]
    assert manifests[0]["figures"]["loss"] == pytest.approx(manifests[1]["figures"]["loss"], abs=1e-5)
