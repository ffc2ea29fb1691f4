"""Steps of pre-training on one core, tokens a second and peak memory, beside the published scripts' way.

The published way is that of Chinese-LLaMA-Alpaca's run_clm_pt_with_peft.py, written out below: whole matrices, PEFT's
`modules_to_save`, full logits, gradient checkpointing, AdamW. Ours trains the new rows as views of their matrices, never
holds logits, keeps the documents of a block apart, and has a fused AdamW. Both take the same step on the same
blocks: a random LLaMA of hidden size 512, 8 layers and 49,953 untied rows, 4 blocks of 512 tokens, fp32.
"""

import os
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benches import Row, paired, tell

from zhllama.training.blocks import example
from zhllama.training.heldout import collate
from zhllama.training.options import Lora
from zhllama.training.rows import lay_out, train_rows
from zhllama.training.setup import add_adapters

OLD, ROWS, BLOCKS, SIZE = 32_000, 49_953, 4, 512
PEER = "published scripts' way"
Step = Callable[[], float]


def run(rounds: int) -> list[Row]:
    """Both stages, speed and memory."""
    torch.set_num_threads(1)
    rows = []
    for stage in (1, 2):
        rows.append(speed(stage, rounds))
        rows.append(memory(stage, max(1, min(rounds, 3))))
        for row in rows[-2:]:
            tell(
                f"training: {row.case}",
                " ".join(f"{x:.2f}" for x in row.ratios),
                f"{row.ours:,.1f} {row.theirs:,.1f} {row.unit}",
            )
    return rows


def speed(stage: int, rounds: int) -> Row:
    """Tokens a second; `equal` says that both began with the same loss where no document ends inside a block."""
    same = abs(ours(stage, documents=1)() - published(stage, documents=1)()) < 1e-5
    mine, theirs, ratios = paired(ours(stage), published(stage), rounds)
    tokens = BLOCKS * SIZE
    return Row("training", f"stage{stage}", PEER, tokens / mine, tokens / theirs, "tokens/s", ratios, same)


def memory(stage: int, rounds: int) -> Row:
    """Peak over what the imports hold, in MB, model included; ours with gradient checkpointing in stage 2."""
    mine = [peak(lambda: ours(stage, checkpointing=stage == 2)) for _ in range(rounds)]
    theirs = [peak(lambda: published(stage)) for _ in range(rounds)]
    ratios = sorted(b / a for a, b in zip(mine, theirs, strict=True))
    found = (statistics.median(ratios), ratios[0], ratios[-1])
    return Row(
        "training",
        f"stage{stage}-memory",
        PEER,
        statistics.median(mine),
        statistics.median(theirs),
        "MB",
        found,
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


def blocks(documents: int) -> dict[str, torch.Tensor]:
    """Blocks of as many documents each, three tokens of four from the new ids, as Chinese text has them."""
    dice = np.random.default_rng(0)
    starts = np.arange(documents) * (SIZE // documents)
    ids = np.where(
        dice.random((BLOCKS, SIZE)) < 0.75,
        dice.integers(OLD, ROWS, (BLOCKS, SIZE)),
        dice.integers(3, OLD, (BLOCKS, SIZE)),
    )
    return collate([example(row, starts, SIZE) for row in ids])


def ours(stage: int, documents: int = 2, checkpointing: bool = False) -> Step:
    """New rows alone, of the input in stage 1 as published, of both matrices in stage 2 beside LoRA."""
    inner = model().requires_grad_(False).train()
    trained = add_adapters(inner, Lora()) if stage == 2 else inner
    train_rows(inner, lay_out(range(OLD, ROWS), ROWS), "input" if stage == 1 else "both")
    if checkpointing:
        inner.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    return stepper(trained, blocks(documents), fused=True)


def published(stage: int, documents: int = 2) -> Step:
    """As the published script has it; its blocks are concatenated text, and nothing tells documents apart."""
    inner = model().train()
    inner.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    if stage == 1:
        inner.requires_grad_(False)
        inner.model.embed_tokens.weight.requires_grad_(True)
        trained = inner
    else:
        from peft import LoraConfig, get_peft_model

        inner.enable_input_require_grads()
        config = LoraConfig(
            task_type="CAUSAL_LM", r=8, lora_alpha=32, lora_dropout=0.05, target_modules=list(Lora().modules),
            modules_to_save=["embed_tokens", "lm_head"],
        )  # fmt: skip
        trained = get_peft_model(inner, config)
    ids = blocks(documents)["input_ids"]
    return stepper(trained, {"input_ids": ids, "labels": ids.clone()}, fused=False)


def stepper(trained: Any, batch: dict[str, torch.Tensor], fused: bool) -> Step:
    """One optimiser step on the batch, which gives its loss."""
    learning = [p for p in trained.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=2e-4, weight_decay=0.01, fused=fused or None)

    def step() -> float:
        loss = trained(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        return float(loss)

    return step


def peak(make: Callable[[], Step]) -> float:
    """MB that making a model and two steps with it take at their highest, in a process of their own."""
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
    with os.fdopen(reading) as answer:
        told = answer.read()
    os.waitpid(child, 0)
    return float(told)


def status(name: str) -> float:
    """A figure of /proc/self/status in MB."""
    found = re.search(
        rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert found is not None
    return int(found[1]) / 1024
