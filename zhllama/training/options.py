"""The options of a training run, checked before anything is read."""

from dataclasses import dataclass
from typing import Literal

from zhllama.errors import OptionError

Precision = Literal["fp32", "bf16", "fp16"]
WhichMatrices = Literal["input", "both"]
WhichRows = Literal["new", "used", "all", "none"]
Fit = Literal["concatenate", "best-fit", "one-per-block"]
Schedule = Literal["cosine", "linear", "constant"]
Checkpointing = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters beside the named linear layers (arXiv:2106.09685); the scale is alpha / rank."""

    rank: int = 8
    alpha: int = 32
    dropout: float = 0.05
    modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True)
class TrainingOptions:
    """One stage, or a tuning. `batch` is in blocks a step over all processes, `micro_batch` those that one device takes at a time.

    `steps` None: as many as `epochs` times round the text takes. `lora` None is stage 1: the transformer is frozen.
    With `full` everything learns; with `four_bit` the frozen layers are held in 4 bits. `old_rows` says how many rows the model had before it grew; None: what the grown model's manifest says.
    """

    lora: Lora | None
    full: bool = False
    four_bit: bool = False
    rows: WhichRows = "new"
    matrices: WhichMatrices = "both"
    old_rows: int | None = None
    steps: int | None = None
    epochs: float = 1.0
    batch: int = 64
    micro_batch: int = 8
    block_size: int = 512
    lr: float = 2e-4
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    weight_decay: float = 0.01
    precision: Precision | None = None
    checkpointing: Checkpointing = "auto"
    eval_every: int = 500
    save_every: int = 500
    log_every: int = 10
    english_limit: float = 0.02
    strict: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch", "micro_batch", "eval_every", "save_every", "log_every"):
            _require(getattr(self, name) >= 1, name, "is below 1", "Give a whole number above 0")
        _require(self.steps is None or self.steps >= 1, "steps", "is below 1", "Give a whole number above 0")
        _require(self.block_size >= 8, "block_size", "is below 8 tokens", "Give 512 or so")
        _require(self.epochs > 0, "epochs", "is not above 0", "Give 1, or 0.5, or 3")
        _require(0 < self.lr < 1, "lr", "is not between 0 and 1", "Give e.g. 2e-4")
        _require(
            0 <= self.warmup < 1, "warmup", "is not between 0 and 1", "Give the share of steps, e.g. 0.05"
        )
        _require(self.weight_decay >= 0, "weight_decay", "is negative", "Give 0 or 0.01")
        _require(self.english_limit >= 0, "english_limit", "is negative", "Give a share, e.g. 0.02")
        _require(
            self.lora is not None or self.full or self.rows != "none",
            "rows",
            "none leaves stage 1 nothing to learn",
            "Give new",
        )
        _require(
            not self.full or (self.lora is None and self.rows == "all" and self.matrices == "both"),
            "full",
            "trains everything, adapters and chosen rows aside",
            "Give --rows all and --matrices both with it",
        )
        _require(
            not self.four_bit or self.lora is not None,
            "load_in_4bit",
            "holds the layers still, so that adapters must learn",
            "Give --stage 2, or sft without --full",
        )
        if self.lora is not None:
            _require(self.lora.rank >= 1, "lora_rank", "is below 1", "Give 8 or so")
            _require(0 <= self.lora.dropout < 1, "lora_dropout", "is not between 0 and 1", "Give 0 or 0.05")
            _require(bool(self.lora.modules), "lora_module", "names no layer", "Give q_proj and others")

    @property
    def stage(self) -> int:
        return 1 if self.lora is None else 2

    def accumulation(self, processes: int) -> int:
        """Micro-batches that one process adds up to a step; OptionError where the batch does not divide."""
        at_once = self.micro_batch * processes
        if self.batch % at_once:
            told = (
                f"{self.micro_batch} blocks x {processes} processes"
                if processes > 1
                else f"{self.micro_batch}"
            )
            raise OptionError(
                "--batch", f"{self.batch} is no multiple of {told}", "Change --micro-batch or --batch"
            )
        return self.batch // at_once


def _require(holds: bool, name: str, what: str, remedy: str) -> None:
    if not holds:
        raise OptionError(f"--{name.replace('_', '-')}", what, remedy)
