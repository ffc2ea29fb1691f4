"""Measures one way of training for scripts/gpu_proof.py: `python scripts/gpu_legs.py SUITE/WAY RESULT.json [--size card|toy]`.

Suites and ways are those of scripts/benches: stages 1 and 2 of pre-training and fine-tuning, by zhllama, by the published
scripts' way, and by trl, some with Liger's kernels. The result has tokens per second, the share of the GPU's peak FLOP/s,
and the peak memory beside the plan's.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import torch  # noqa: E402 - after the path is set

from benches import Scale  # noqa: E402
from benches import sft as sft_bench  # noqa: E402
from benches import training as training_bench  # noqa: E402
from zhllama.errors import ZhllamaError  # noqa: E402
from zhllama.training.hardware import UTILIZATION, this_hardware  # noqa: E402
from zhllama.training.options import ChatTuningOptions, PretrainingOptions, TrainingOptions  # noqa: E402
from zhllama.training.plan import TrainingPlan, plan_training, shape_of  # noqa: E402

CARD = Scale(2048, 5504, 16, 16, size=4096, device="cuda", low=True)
TOY = Scale(64, 96, 2, 4, old=300, rows=500, blocks=2, size=64)
FILL = 0.7  # share of the card's memory that the planned step takes
MICRO_BATCHES = (32, 16, 8, 4, 2, 1)
SAMPLES_AT_ONCE = 64  # padded samples of a step, in the published way of fine-tuning
WAYS = {
    "stage1": ("ours", "published"),
    "stage2": (
        "ours", "published", "ours-flash", "ours-flex", "ours-sdpa", "ours-compiled", "published-liger",
    ),
    "sft": ("ours", "published", "trl", "trl-liger"),
}  # fmt: skip
Work = Callable[[], Any]


@dataclass(frozen=True)
class Prepared:
    """What is measured: one call of `work` trains on `tokens` real tokens."""

    work: Work
    tokens: int
    model: Any = None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("leg", choices=[f"{suite}/{way}" for suite, ways in WAYS.items() for way in ways])
    parser.add_argument("result", type=Path)
    parser.add_argument("--size", choices=["auto", "card", "toy"], default="auto")
    args = parser.parse_args()
    cuda = torch.cuda.is_available()
    size = ("card" if cuda else "toy") if args.size == "auto" else args.size
    scale = replace(
        CARD if size == "card" else TOY, device="cuda" if cuda else "cpu", low=cuda or size == "card"
    )
    try:
        result = measure(*args.leg.split("/"), scale, seconds=6.0 if size == "card" else 0.2)
    except (ImportError, ZhllamaError) as error:
        result = {"skipped": " ".join(str(error).split())}
    result["device"] = torch.cuda.get_device_name(0) if cuda else "CPU"
    args.result.write_text(json.dumps(result, ensure_ascii=False), encoding="utf-8")


def measure(suite: str, way: str, scale: Scale, seconds: float) -> dict[str, Any]:
    """Return the figures of a way; half as many blocks at a time where the memory does not suffice."""
    options = options_of(suite, way, scale)
    if scale.device == "cuda":
        scale = replace(scale, blocks=filling_micro_batch(options, scale))
    while True:
        try:
            return _measured(suite, way, scale, options, seconds)
        except torch.cuda.OutOfMemoryError:
            if scale.blocks == 1:
                raise
            # The exception holds the frames, and they the tensors, until this block ends.
            scale = replace(scale, blocks=scale.blocks // 2)
        torch.cuda.empty_cache()


def _measured(suite: str, way: str, scale: Scale, options: TrainingOptions, seconds: float) -> dict[str, Any]:
    before = start_of_memory()
    prepared = prepare(suite, way, scale)
    loss = prepared.work()  # the first step compiles and allocates
    prepared.work()
    started, rounds = time.perf_counter(), 0
    while rounds < 2 or time.perf_counter() - started < seconds:
        prepared.work()  # reads the loss, and so waits for the GPU
        rounds += 1
    spent = (time.perf_counter() - started) / rounds
    speed = prepared.tokens / spent
    plan = planned(options, scale, prepared.model)
    assert plan.flops is not None and plan.tokens is not None
    reached = plan.flops / plan.tokens * speed
    peak = None if plan.hardware.speed is None or not scale.low else plan.hardware.speed / UTILIZATION
    return {
        "tokens_per_second": round(speed, 1),
        "seconds_per_step": round(spent, 4),
        "micro_batch": scale.blocks,
        "block_size": scale.size,
        "mfu": None if peak is None else round(reached / peak, 4),
        "peak_bytes": peak_of_memory() - before,
        "planned_bytes": plan.peak if way.startswith("ours") else None,
        "attention": None if prepared.model is None else prepared.model.config._attn_implementation,
        "loss": round(loss, 4) if isinstance(loss, float) else None,
    }


def prepare(suite: str, way: str, scale: Scale) -> Prepared:
    """Build the model of a way, and its data; ImportError for a peer that is not installed."""
    kind, _, more = way.partition("-")
    if more == "liger":
        from liger_kernel.transformers import apply_liger_kernel_to_llama

        apply_liger_kernel_to_llama()
    if more in ("flash", "flex", "sdpa"):
        scale = replace(scale, attention=more)
    scale = replace(scale, compiled=more == "compiled")
    built: list[Any] = []
    build = training_bench.model

    def kept(*args: Any) -> Any:
        built.append(build(*args))
        return built[-1]

    training_bench.model = sft_bench.model = kept  # the benches return steps without their model
    try:
        work, tokens = _work(suite, kind, more, scale)
    finally:
        training_bench.model = sft_bench.model = build
    return Prepared(work, tokens, built[-1])


def _work(suite: str, kind: str, more: str, scale: Scale) -> tuple[Work, int]:
    if suite != "sft":
        batch = training_bench.blocks(scale, documents=8)
        make = training_bench.ours if kind == "ours" else training_bench.published
        return make(suite, batch, scale=scale), scale.blocks * scale.size
    samples = sft_bench.samples(scale, sample_count(scale))
    tokens = sum(len(sample.ids) for sample in samples)
    if kind == "ours":
        return sft_bench.ours(samples, scale.old, scale=scale), tokens
    if kind == "published":
        at_once = min(SAMPLES_AT_ONCE, len(samples))
        return sft_bench.published(samples, scale=scale, at_once=at_once), tokens
    return sft_bench.packed_by_trl(samples, scale, liger=more == "liger"), tokens


def sample_count(scale: Scale) -> int:
    """Return about as many samples as fill two steps of packed blocks; they have 165 tokens on average."""
    return max(4, 2 * scale.blocks * scale.size // 165)


def options_of(suite: str, way: str, scale: Scale) -> TrainingOptions:
    """Return the options of `zhllama pretrain` or `sft` that train what a way trains."""
    kind, _, more = way.partition("-")
    attention: Any = more if more in ("flash", "flex", "sdpa") else "auto"
    common: dict[str, Any] = {
        "rows": "new" if kind == "ours" else "all", "steps": 1, "batch": scale.blocks, "micro_batch": scale.blocks,
        "block_size": scale.size, "gradient_checkpointing": "off", "precision": "bf16" if scale.low else "fp32",
        "attention": attention if kind == "ours" else "sdpa",
    }  # fmt: skip
    if suite == "sft":
        return ChatTuningOptions(lora_alpha=32, lora_module=sft_bench.LAYERS, **common)
    return PretrainingOptions(stage=int(suite[-1]), **common)


def planned(options: TrainingOptions, scale: Scale, model: Any = None) -> TrainingPlan:
    """Return the plan of such a run on this machine, with the attention that the model has."""
    options = replace(options, batch=scale.blocks, micro_batch=scale.blocks)
    with torch.device("meta"):
        config = training_bench.model(replace(scale, device="meta")).config if model is None else model.config
    dense = (
        model.config._attn_implementation == "sdpa" if model is not None and scale.device == "cuda" else None
    )
    shape = shape_of(config, options.lora, scale.rows)
    return plan_training(options, shape, scale.old, this_hardware(), dense_mask=dense)


def filling_micro_batch(options: TrainingOptions, scale: Scale) -> int:
    """Return the largest number of blocks whose step, as zhllama plans it, leaves a share of the memory free."""
    room = FILL * this_hardware().memory
    return next((n for n in MICRO_BATCHES if planned(options, replace(scale, blocks=n)).peak <= room), 1)


def start_of_memory() -> int:
    """Begin to watch the peak memory of the device, and return what is in use now, in bytes."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets VmHWM
    return round(training_bench.status("VmRSS") * 2**20)


def peak_of_memory() -> int:
    """Return the peak memory of the device in bytes."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return round(training_bench.status("VmHWM") * 2**20)


if __name__ == "__main__":
    main()
