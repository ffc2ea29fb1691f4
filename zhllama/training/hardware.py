"""The hardware that a run is planned for: this machine or a GPU by name, its memory, speed and native precision."""

import re
import resource
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from zhllama.errors import OptionError
from zhllama.io.memory import available_memory
from zhllama.io.processor import multiplies_bf16
from zhllama.training.options import Precision

if TYPE_CHECKING:
    import torch

# Peak dense fp16/bf16 TFLOPS and GiB from the vendors' data sheets; whether bf16 is native.
GPUS = {
    "H200": (989, 141, True), "H100": (989, 80, True), "A100": (312, 80, True), "A800": (312, 80, True),
    "L40S": (362, 48, True), "A6000": (155, 48, True), "4090": (165, 24, True), "3090": (71, 24, True),
    "A10": (125, 24, True), "L4": (121, 24, True), "V100": (125, 32, False), "T4": (65, 16, False),
}  # fmt: skip
UTILIZATION = 0.4  # share of the peak that training reaches; nanoGPT and PaLM report 0.4-0.5


@dataclass(frozen=True)
class Hardware:
    """`count` equal devices: memory of one in bytes; FLOP/s of all in 16 bits that training reaches, None if unknown."""

    name: str
    count: int
    memory: int
    speed: float | None
    precision: Precision

    def flops_per_second(self, precision: Precision) -> float | None:
        """Return the expected FLOP/s of all devices; None for CPUs and GPUs whose peak is not listed."""
        if self.speed is None:
            return None
        return self.speed / (8 if precision == "fp32" else 1)

    @property
    def label(self) -> str:
        return f"{self.count} x {self.name}" if self.count > 1 else self.name


def named_hardware(text: str) -> Hardware:
    """Parse `8xA100`, `A100-40GB` or `4090`; OptionError for a GPU that is not listed."""
    match = re.fullmatch(r"(?:(\d+)\s*[x*]\s*)?([A-Za-z0-9]+?)(?:-(\d+)GB)?", text.strip(), re.IGNORECASE)
    gpu = next((g for g in GPUS if match and match[2].upper().removeprefix("RTX") == g), None)
    if match is None or gpu is None or match[1] == "0":
        remedy = f"Give e.g. 8xA100 or A100-40GB; known: {', '.join(GPUS)}"
        raise OptionError("machine", f"{text!r} is not known", remedy)
    teraflops, memory, native = GPUS[gpu]
    count = int(match[1] or 1)
    size = int(match[3] or memory) << 30
    return Hardware(gpu, count, size, teraflops * 1e12 * UTILIZATION * count, "bf16" if native else "fp16")


def this_hardware(processes: int = 1) -> Hardware:
    """Describe this machine's GPUs, or its CPU, shared by `processes`; without torch, its CPU."""
    if find_spec("torch") is None:
        return _cpu(processes)
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name(0)
        words = re.split(r"[\s-]+", name)  # "NVIDIA L40" is no L4
        gpu = next((g for g in GPUS if g in words), None)
        memory = torch.cuda.get_device_properties(0).total_memory
        speed = GPUS[gpu][0] * 1e12 * UTILIZATION * processes if gpu else None
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return Hardware(gpu or name, processes, memory, speed, "bf16" if native else "fp16")
    return _cpu(processes)


def peak_memory(device: "torch.device") -> int:
    """The most bytes that this process has taken so far: of the GPU's memory where it trains there, else of this machine's."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_reserved(device)
    # Linux counts in kB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _cpu(processes: int) -> Hardware:
    precision: Precision = "bf16" if multiplies_bf16() else "fp32"
    return Hardware("CPU", processes, available_memory() // processes, None, precision)
