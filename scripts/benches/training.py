"""Pre-training steps on one core, in tokens per second and peak memory, against the published scripts' method.

The published method is that of Chinese-LLaMA-Alpaca's run_clm_pt_with_peft.py, reimplemented below: both matrices fully
trained (`modules_to_save`, in stage 1 with frozen layers), full logits, gradient checkpointing, AdamW. `stage1-input` is the
stage 1 of its paper, which trained only the embedding. Ours trains the new rows as views of their matrices, does not store
logits, separates the documents of a block, and uses a fused AdamW. Both take the same step on the same blocks: a random LLaMA
of hidden size 512, 8 layers and 49,953 untied rows, 4 blocks of 512 tokens, fp32.
"""

import os
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

from benches import Row, Scale, log, paired
from zhllama.training.attention import attend
from zhllama.training.choose_attention import choose_attention
from zhllama.training.compiled_layers import compile_layers
from zhllama.training.lora import add_adapters
from zhllama.training.options import Lora, Precision, WhichMatrices
from zhllama.training.packed_blocks import example
from zhllama.training.prepare_model import recompute_activations
from zhllama.training.trainable_rows import arrange_rows, make_rows_trainable
from zhllama.training.validation import collate

CORE = Scale()  # for one core of a CPU
PEER = "published scripts' way"  # as the table of bars names it
Step = Callable[[], float]


def run(rounds: int) -> list[Row]:
    """Both stages; memory before speed, because memory that a process reuses after freeing it does not show."""
    torch.set_num_threads(1)
    measures = [partial(memory, case, 1) for case in ("stage1", "stage2")]
    measures += [partial(speed, case, rounds) for case in ("stage1", "stage1-input", "stage2")]
    rows = []
    for measure in (*measures, partial(attention, rounds)):
        row = measure()
        log(
            f"training: {row.case} {row.ours:,.1f} {row.theirs:,.1f} {row.unit}",
            *(f"{x:.2f}" for x in row.ratios),
            row.equal,
        )
        rows.append(row)
    return rows


def attention(rounds: int) -> Row:
    """Forward and backward over one block of 2,048 positions with documents of 128: per document, and with a dense mask."""
    size, each, heads, width = 2048, 128, 8, 64
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, size, width, requires_grad=True) for _ in range(3))
    positions, document = torch.arange(size)[None] % each, torch.arange(size) // each
    mask = (document[:, None] == document) & torch.ones(size, size, dtype=torch.bool).tril()
    layer = torch.nn.Module()  # without grouped queries; `attend` reads nothing else

    def step(attention: Callable[[], torch.Tensor]) -> torch.Tensor:
        output = attention()
        output.sum().backward()
        return output

    def mine() -> torch.Tensor:
        return step(lambda: attend(layer, query, key, value, None, position_ids=positions)[0])

    def theirs() -> torch.Tensor:
        return step(lambda: sdpa(query, key, value, attn_mask=mask[None, None]).transpose(1, 2).contiguous())

    same = bool((mine() - theirs()).abs().max() < 1e-5)
    a, b, ratios = paired(mine, theirs, rounds)
    return Row("training", "attention", "SDPA under a mask", size / a, size / b, "tokens/s", ratios, same)


def speed(case: str, rounds: int) -> Row:
    """Tokens per second; `equal`: both start with the same loss if no document ends within a block."""
    few = blocks(replace(CORE, blocks=1), documents=1)
    same = abs(ours(case, few)() - published(case, few)()) < 1e-5
    mine, theirs, ratios = paired(ours(case, blocks(CORE)), published(case, blocks(CORE)), rounds)
    tokens = CORE.blocks * CORE.size
    return Row("training", case, PEER, tokens / mine, tokens / theirs, "tokens/s", ratios, same)


def memory(case: str, rounds: int) -> Row:
    """Peak memory in MB without imports, with the model; ours with gradient checkpointing in stage 2."""
    mine = [peak(lambda: ours(case, blocks(CORE), checkpointing=case == "stage2")) for _ in range(rounds)]
    theirs = [peak(lambda: published(case, blocks(CORE))) for _ in range(rounds)]
    ratios = sorted(b / a for a, b in zip(mine, theirs, strict=True))
    spread = (statistics.median(ratios), ratios[0], ratios[-1])
    return Row(
        "training", f"{case}-memory", PEER, statistics.median(mine), statistics.median(theirs), "MB", spread
    )


def model(scale: Scale = CORE) -> Any:
    """The same random weights each time."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=scale.rows, hidden_size=scale.hidden, intermediate_size=scale.inner, num_hidden_layers=scale.layers,
        num_attention_heads=scale.heads, max_position_embeddings=scale.size, use_cache=False,
    )  # fmt: skip
    with torch.device(scale.device):
        built = LlamaForCausalLM(config)
    return built.to(torch.bfloat16) if scale.low else built


def blocks(scale: Scale, documents: int = 2) -> dict[str, torch.Tensor]:
    """Blocks of equal documents; three of four tokens have new ids, as in Chinese text."""
    rng = np.random.default_rng(0)
    starts = np.arange(documents) * (scale.size // documents)
    shape = (scale.blocks, scale.size)
    new, old = rng.integers(scale.old, scale.rows, shape), rng.integers(3, scale.old, shape)
    ids = np.where(rng.random(shape) < 0.75, new, old)
    return collate([example(row, starts, scale.size) for row in ids])


def ours(case: str, batch: dict[str, torch.Tensor], checkpointing: bool = False, scale: Scale = CORE) -> Step:
    """Trains the new rows, and LoRA in stage 2."""
    which: WhichMatrices = "input" if case == "stage1-input" else "both"
    lora = Lora() if case == "stage2" else None
    trained = in_training(model(scale), lora, scale.old, which, checkpointing, batch, scale)
    return stepper(trained, batch, fused=True, low=scale.low)


def in_training(
    inner: Any, lora: Lora | None, first: int, which: WhichMatrices, checkpointing: bool, batch: dict[str, torch.Tensor],
    scale: Scale,
) -> Any:  # fmt: skip
    """The model as zhllama trains it: trained matrices in fp32, the attention of the device, the rows from `first` on."""
    inner.requires_grad_(False)
    for matrix in (inner.get_input_embeddings(), inner.get_output_embeddings()):
        matrix.float()
    device, autocast = torch.device(scale.device), torch.bfloat16 if scale.low else None
    precision: Precision = "bf16" if scale.low else "fp32"
    choose_attention(inner, scale.attention, precision, device, length=scale.size, autocast=autocast)  # type: ignore[arg-type]
    trained = inner if lora is None else add_adapters(inner, lora)
    make_rows_trainable(inner, arrange_rows(range(first, scale.rows), scale.rows), which)
    if checkpointing:
        recompute_activations(inner)
    trained.train()
    if scale.compiled and (failure := compile_layers(trained, batch, autocast)):
        raise RuntimeError(f"not compiled: {failure}")
    return trained


def published(case: str, batch: dict[str, torch.Tensor], scale: Scale = CORE) -> Step:
    """As in the published script, whose blocks are concatenated text without document boundaries."""
    inner = model(scale).train()
    recompute_activations(inner)
    if case == "stage2":
        trained: Any = published_adapters(inner, Lora().modules)
    else:
        trained = inner.requires_grad_(False)
        matrices = [inner.model.embed_tokens, *([inner.lm_head] if case == "stage1" else [])]
        for matrix in matrices:
            matrix.float().weight.requires_grad_(True)
    ids = batch["input_ids"]
    return stepper(trained, {"input_ids": ids, "labels": ids.clone()}, fused=False, low=scale.low)


def published_adapters(inner: Any, modules: Sequence[str], dropout: float = 0.05) -> Any:
    """LoRA and both matrices fully trained, as in both published scripts; PEFT keeps what is trained in fp32."""
    from peft import LoraConfig, get_peft_model

    inner.enable_input_require_grads()
    config = LoraConfig(
        task_type="CAUSAL_LM", r=8, lora_alpha=32, lora_dropout=dropout, target_modules=list(modules),
        modules_to_save=["embed_tokens", "lm_head"],
    )  # fmt: skip
    return get_peft_model(inner, config)


def stepper(trained: Any, batch: dict[str, torch.Tensor], fused: bool, low: bool = False) -> Step:
    """A function that takes one optimizer step on the batch and returns its loss."""
    trainable = [p for p in trained.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=2e-4, weight_decay=0.01, fused=fused or None)
    device = trainable[0].device
    there = {name: tensor.to(device) for name, tensor in batch.items()}

    def step() -> float:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=low):
            loss = trained(**there).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def peak(make: Callable[[], Step]) -> float:
    """Peak MB of creating a model and taking two steps, in a separate process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            before = status("VmRSS")
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets VmHWM
            step = make()
            step()
            step()
            os.write(writing, str(status("VmHWM") - before).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as answer:
        peak_mb = answer.read()
    os.waitpid(child, 0)
    return float(peak_mb)


def status(name: str) -> float:
    """A value of /proc/self/status in MB."""
    match = re.search(
        rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert match is not None
    return int(match[1]) / 1024
