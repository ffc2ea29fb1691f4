"""What a run is planned for: the devices at hand or named ones, their memory, their speed, the precision that suits them."""

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from zhllama.errors import OptionError
from zhllama.training.options import Precision

# Peak dense fp16/bf16 TFLOPS and GiB from the vendors' data sheets; whether bf16 is native.
GPUS = {
    "H200": (989, 141, True), "H100": (989, 80, True), "A100": (312, 80, True), "A800": (312, 80, True),
    "L40S": (362, 48, True), "A6000": (155, 48, True), "4090": (165, 24, True), "3090": (71, 24, True),
    "A10": (125, 24, True), "L4": (121, 24, True), "V100": (125, 32, False), "T4": (65, 16, False),
}  # fmt: skip
UTILISATION = 0.4  # share of the peak that training reaches; nanoGPT and PaLM report 0.4-0.5


DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Hardware:
    """`count` equal devices; memory in bytes of one. `speed`: operations a second of all in dense products of 16 bits,
    what else a training does counted in; None on processors, where both are measured when they are asked for."""

    name: str
    count: int
    memory: int
    speed: float | None
    precision: Precision

    def products(self, precision: Precision) -> float:
        """Operations a second in dense products."""
        if self.speed is None:
            return _product_speed(precision) * self.count
        return self.speed / (8 if precision == "fp32" else 1)

    def softmax(self) -> float | None:
        """Numbers a second that go through a softmax; None where `speed` tells all."""
        return _softmax_speed() * self.count if self.speed is None else None

    @property
    def told(self) -> str:
        return f"{self.count} x {self.name}" if self.count > 1 else self.name


def named_hardware(given: str) -> Hardware:
    """`8xA100`, `A100-40GB`, `4090`; OptionError for one whose speed is not known here."""
    found = re.fullmatch(r"(?:(\d+)\s*[x*]\s*)?([A-Za-z0-9]+?)(?:-(\d+)GB)?", given.strip(), re.IGNORECASE)
    gpu = next((g for g in GPUS if found and found[2].upper().removeprefix("RTX") == g), None)
    if found is None or gpu is None or found[1] == "0":
        raise OptionError(
            "machine", f"{given!r} is not known", f"Give e.g. 8xA100 or A100-40GB; known: {', '.join(GPUS)}"
        )
    teraflops, memory, native = GPUS[gpu]
    count = int(found[1] or 1)
    size = int(found[3] or memory) << 30
    return Hardware(gpu, count, size, teraflops * 1e12 * UTILISATION * count, "bf16" if native else "fp16")


def this_hardware(processes: int = 1) -> Hardware:
    """The GPUs here, or the processor."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name(0)
        known = next((g for g in GPUS if g in name.replace(" ", "")), None)
        memory = torch.cuda.get_device_properties(0).total_memory
        speed = (GPUS[known][0] if known else 100) * 1e12 * UTILISATION
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return Hardware(known or name, processes, memory, speed * processes, "bf16" if native else "fp16")
    precision: Precision = "bf16" if has_amx() else "fp32"
    return Hardware("CPU", processes, _free_memory() // processes, None, precision)


def has_amx() -> bool:
    """Whether the processor multiplies bf16 in hardware; without, bf16 is 6-10 times slower than fp32 [measured]."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return re.search(r"^flags.*\b(amx_bf16|avx512_bf16)\b", flags, re.MULTILINE) is not None


def _free_memory() -> int:
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    return int(found[1]) * 1024 if found else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@cache
def _product_speed(precision: Precision) -> float:
    a = torch.ones(512, 1024, dtype=DTYPES[precision])
    b = torch.ones(1024, 1024, dtype=DTYPES[precision])
    return 2 * 512 * 1024 * 1024 / _seconds(lambda: a @ b)


@cache
def _softmax_speed() -> float:
    logits = torch.zeros(256, 8192)
    return logits.numel() / _seconds(lambda: torch.log_softmax(logits, 1).exp_())


def _seconds(work: Callable[[], object]) -> float:
    """The lower quartile of some times: a process that was put aside for a moment is not slow."""
    work()
    taken = []
    for _ in range(12):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return sorted(taken)[3]
