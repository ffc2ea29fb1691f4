"""SFT on one core in real tokens per second, against the published method and trl's packed SFTTrainer.

The published method is that of Chinese-LLaMA-Alpaca's run_clm_sft_with_peft.py, reimplemented below: samples padded to the
longest of their batch, both matrices fully trained, LoRA on all seven projections, full logits, gradient checkpointing, AdamW.
trl packs by best fit into blocks of 512 and separates samples, with the same LoRA and matrices. Ours is `zhllama sft`:
packed blocks, trainable rows as views (`--rows new`; case `-all` is `--rows all`), and logits for answers only. All use the
same samples with random prompts of 20-120 ids and answers of 20-300 ids, about as long as Alpaca's, in fp32, on the random
LLaMA of the training suite. Real tokens exclude padding.
"""

import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benches import Row, Scale, log, paired
from benches.training import CORE, in_training, model, published_adapters
from zhllama.training.options import Lora
from zhllama.training.packed_blocks import examples
from zhllama.training.packing import TokenizedSample, pack_samples
from zhllama.training.prepare_model import recompute_activations
from zhllama.training.validation import collate

SAMPLES = 16
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PUBLISHED, TRL = "published scripts' way", "trl SFTTrainer, packed"
Work = Callable[[], object]


def run(rounds: int) -> list[Row]:
    """Each case against each peer."""
    torch.set_num_threads(1)
    some = samples()
    tokens = sum(len(sample.ids) for sample in some)
    rows = []
    for case, first, peer, theirs in (
        ("alpaca", CORE.old, PUBLISHED, published), ("alpaca", CORE.old, TRL, packed_by_trl), ("alpaca-all", 0, PUBLISHED, published),
    ):  # fmt: skip
        try:
            other = theirs(some)
        except ImportError as error:
            rows.append(Row("sft", case, peer, skipped=str(error)))
            continue
        mine, their, ratios = paired(ours(some, first), other, rounds)
        equal = same(some) if peer == PUBLISHED else None
        row = Row("sft", case, peer, tokens / mine, tokens / their, "real tokens/s", ratios, equal)
        log(f"sft: {case} {peer} {row.ours:,.1f} {row.theirs:,.1f}", *(f"{x:.2f}" for x in ratios), equal)
        rows.append(row)
    return rows


def samples(scale: Scale = CORE, count: int = SAMPLES) -> list[TokenizedSample]:
    """Random prompts and answers; three of four tokens have new ids."""
    rng = np.random.default_rng(0)
    result = []
    for _ in range(count):
        prompt = 20 + int(rng.exponential(35))
        answer = 20 + int(rng.exponential(90))
        length = min(prompt + answer, scale.size)
        new, old = rng.integers(scale.old, scale.rows, length), rng.integers(3, scale.old, length)
        ids = np.where(rng.random(length) < 0.75, new, old).astype(np.int32)
        result.append(TokenizedSample(ids, np.arange(length) >= prompt, answer, answer))
    return result


def ours(some: list[TokenizedSample], first: int, dropout: float = 0.05, scale: Scale = CORE) -> Work:
    """Steps over packed blocks, as many at a time as a step of `scale` has."""
    blocks = [block for packed in pack_samples(some, scale.size, 2) for block in examples(packed)]
    batches = [collate(blocks[at : at + scale.blocks]) for at in range(0, len(blocks), scale.blocks)]
    trained = in_training(
        model(scale), Lora(dropout=dropout, modules=LAYERS), first, "both", False, batches[0], scale
    )
    return steps(trained, batches, fused=True, low=scale.low)


def published(
    some: list[TokenizedSample], dropout: float = 0.05, scale: Scale = CORE, at_once: int | None = None
) -> Work:
    """Steps over padded samples in their order, `at_once` in each: by default as many as a step has blocks."""
    inner = model(scale).train()
    recompute_activations(inner)
    trained = published_adapters(inner, LAYERS, dropout)
    count = at_once or scale.blocks
    batches = [padded(some[at : at + count]) for at in range(0, len(some), count)]
    return steps(trained, batches, fused=False, low=scale.low)


def padded(some: list[TokenizedSample]) -> dict[str, torch.Tensor]:
    """Padded ids, labels and attention mask, as in the published collator."""
    length = max(len(sample.ids) for sample in some)
    ids = torch.full((len(some), length), 2)
    labels = torch.full((len(some), length), -100)
    mask = torch.zeros(len(some), length, dtype=torch.bool)
    for row, sample in enumerate(some):
        end = len(sample.ids)
        ids[row, :end] = torch.from_numpy(sample.ids.astype(np.int64))
        mask[row, :end] = True
        answers = torch.from_numpy(sample.answers)
        labels[row, :end] = torch.where(answers, ids[row, :end], labels[row, :end])
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def steps(trained: Any, batches: list[dict[str, torch.Tensor]], fused: bool, low: bool = False) -> Work:
    """An optimizer step on each batch; the mean of their losses."""
    learning = [p for p in trained.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-4, weight_decay=0.0, fused=fused or None)
    device = learning[0].device
    there = [{name: tensor.to(device) for name, tensor in batch.items()} for batch in batches]

    def work() -> float:
        total = 0.0
        for batch in there:
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=low):
                loss = trained(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learning, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            total += float(loss.detach())
        return total / len(batches)

    return work


def packed_by_trl(some: list[TokenizedSample], scale: Scale = CORE, liger: bool = False) -> Work:
    """Once round the same samples by SFTTrainer, which packs them by best fit and learns the completions alone."""
    from datasets import Dataset
    from peft import LoraConfig
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, PrinterCallback
    from transformers.utils import logging
    from trl import SFTConfig, SFTTrainer

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    words = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", pad_token="</s>")
    arguments = SFTConfig(
        output_dir=tempfile.mkdtemp(prefix="zhllama-bench-"), per_device_train_batch_size=scale.blocks, max_length=scale.size, packing=True,
        completion_only_loss=True, num_train_epochs=1, report_to="none", save_strategy="no", logging_strategy="no", use_cpu=scale.device == "cpu",
        bf16=scale.low, use_liger_kernel=liger, gradient_checkpointing=False, disable_tqdm=True, learning_rate=1e-4,
    )  # fmt: skip
    config = LoraConfig(
        task_type="CAUSAL_LM", r=8, lora_alpha=32, lora_dropout=0.05, target_modules=list(LAYERS),
        modules_to_save=["embed_tokens", "lm_head"],
    )  # fmt: skip
    rows = [{"input_ids": s.ids.tolist(), "completion_mask": s.answers.astype(int).tolist()} for s in some]
    trainer = SFTTrainer(
        model=model(scale), args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, peft_config=config
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)  # prints to stdout, where the table goes
    return trainer.train


def same(some: list[TokenizedSample]) -> bool:
    """Whether ours and the published way begin with the same loss, on one sample, without dropout."""
    one = some[:1]
    return abs(float(ours(one, 0, 0.0)()) - float(published(one, 0.0)())) < 1e-4  # type: ignore[arg-type]
