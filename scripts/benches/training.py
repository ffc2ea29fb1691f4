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
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

from benches import Row, log, paired
from zhllama.training.attention import attend, use_document_attention
from zhllama.training.lora import add_adapters
from zhllama.training.options import Lora
from zhllama.training.packed_blocks import example
from zhllama.training.trainable_rows import arrange_rows, make_rows_trainable
from zhllama.training.validation import collate

OLD, ROWS, BLOCKS, SIZE = 32_000, 49_953, 4, 512
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
    few = {"documents": 1, "count": 1}
    same = abs(ours(case, blocks(**few))() - published(case, blocks(**few))()) < 1e-5
    mine, theirs, ratios = paired(ours(case, blocks()), published(case, blocks()), rounds)
    tokens = BLOCKS * SIZE
    return Row("training", case, PEER, tokens / mine, tokens / theirs, "tokens/s", ratios, same)


def memory(case: str, rounds: int) -> Row:
    """Peak memory in MB without imports, with the model; ours with gradient checkpointing in stage 2."""
    mine = [peak(lambda: ours(case, blocks(), checkpointing=case == "stage2")) for _ in range(rounds)]
    theirs = [peak(lambda: published(case, blocks())) for _ in range(rounds)]
    ratios = sorted(b / a for a, b in zip(mine, theirs, strict=True))
    spread = (statistics.median(ratios), ratios[0], ratios[-1])
    return Row(
        "training", f"{case}-memory", PEER, statistics.median(mine), statistics.median(theirs), "MB", spread
    )


def model() -> Any:
    """The same random weights each time."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=ROWS, hidden_size=512, intermediate_size=1376, num_hidden_layers=8, num_attention_heads=8,
            max_position_embeddings=SIZE, use_cache=False,
        )
    )  # fmt: skip


def blocks(documents: int = 2, count: int = BLOCKS) -> dict[str, torch.Tensor]:
    """Blocks of equal documents; three of four tokens have new ids, as in Chinese text."""
    rng = np.random.default_rng(0)
    starts = np.arange(documents) * (SIZE // documents)
    new, old = rng.integers(OLD, ROWS, (count, SIZE)), rng.integers(3, OLD, (count, SIZE))
    ids = np.where(rng.random((count, SIZE)) < 0.75, new, old)
    return collate([example(row, starts, SIZE) for row in ids])


def ours(case: str, batch: dict[str, torch.Tensor], checkpointing: bool = False) -> Step:
    """Trains the new rows, and LoRA in stage 2."""
    inner = model().requires_grad_(False).train()
    use_document_attention(inner)
    trained = add_adapters(inner, Lora()) if case == "stage2" else inner
    make_rows_trainable(
        inner, arrange_rows(range(OLD, ROWS), ROWS), "input" if case == "stage1-input" else "both"
    )
    if checkpointing:
        inner.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    return stepper(trained, batch, fused=True)


def published(case: str, batch: dict[str, torch.Tensor]) -> Step:
    """As in the published script, whose blocks are concatenated text without document boundaries."""
    inner = model().train()
    inner.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    if case == "stage2":
        from peft import LoraConfig, get_peft_model

        inner.enable_input_require_grads()
        config = LoraConfig(
            task_type="CAUSAL_LM", r=8, lora_alpha=32, lora_dropout=0.05, target_modules=list(Lora().modules),
            modules_to_save=["embed_tokens", "lm_head"],
        )  # fmt: skip
        trained: Any = get_peft_model(inner, config)
    else:
        trained = inner.requires_grad_(False)
        inner.model.embed_tokens.weight.requires_grad_(True)
        inner.lm_head.weight.requires_grad_(case == "stage1")
    ids = batch["input_ids"]
    return stepper(trained, {"input_ids": ids, "labels": ids.clone()}, fused=False)


def stepper(trained: Any, batch: dict[str, torch.Tensor], fused: bool) -> Step:
    """A function that takes one optimizer step on the batch and returns its loss."""
    trainable = [p for p in trained.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=2e-4, weight_decay=0.01, fused=fused or None)

    def step() -> float:
        loss = trained(**batch).loss
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
