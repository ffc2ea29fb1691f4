"""The options of the training commands: each declared once with its default, bounds and help."""

from dataclasses import dataclass, replace
from typing import Literal, Self

from zhllama.errors import OptionError
from zhllama.options import check_bounds, option, required, variant

Precision = Literal["fp32", "bf16", "fp16"]
WhichMatrices = Literal["input", "both"]
WhichRows = Literal["new", "used", "all", "none"]
Fit = Literal["concatenate", "best-fit", "one-per-block"]
Schedule = Literal["cosine", "linear", "constant"]
Checkpointing = Literal["auto", "on", "off"]
Attention = Literal["auto", "sdpa", "flex", "flash"]
Tracker = Literal["tensorboard", "swanlab", "wandb", "mlflow", "trackio", "none"]

LOSS_CHUNK = 256  # positions whose logits exist at one time: 51 MB for 49,953 rows in fp32
LENGTH, LEARNING, MONITORING, HARDWARE = "Length", "Learning", "Monitoring", "Hardware"


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters of the named linear layers (arXiv:2106.09685); the scale is alpha / rank."""

    rank: int = 8
    alpha: int = 32
    dropout: float = 0.05
    modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What every training run has: length, learning rate, adapters, intervals and hardware.

    `batch` counts the blocks of a step over all processes, `micro_batch` those that one device processes at a time.
    Without `steps`, `epochs` passes over the data decide the length. The properties are constants of a kind of training
    that subclasses turn into options.
    """

    steps: int | None = option(None, "Steps, instead of --epochs.", above=0, panel=LENGTH)
    epochs: float = option(1.0, "Passes over the data.", above=0, panel=LENGTH)
    batch: int = option(64, "Blocks of a step, over all processes.", above=0, panel=LENGTH)
    micro_batch: int = option(8, "Blocks that a device processes at a time.", above=0, panel=LENGTH)
    block_size: int = option(512, "Tokens of a block.", minimum=8, panel=LENGTH)
    lr: float = option(2e-4, "Peak learning rate.", above=0, below=1, panel=LEARNING)
    schedule: Schedule = option("cosine", "Decay of the learning rate after the warmup.", panel=LEARNING)
    warmup: float = option(0.05, "Warmup, as a share of the steps.", minimum=0, below=1, panel=LEARNING)
    weight_decay: float = option(0.01, "Weight decay of AdamW.", minimum=0, panel=LEARNING)
    lora_rank: int = option(8, "Rank of the adapters.", above=0, panel=LEARNING)
    lora_alpha: int = option(32, "Adapters are scaled by alpha / rank.", above=0, panel=LEARNING)
    lora_module: tuple[str, ...] = option(
        (), "Linear layers with adapters, by name; all by default.", panel=LEARNING
    )
    eval_every: int = option(500, "Steps between two evaluations.", above=0, panel=MONITORING)
    save_every: int = option(500, "Steps between two checkpoints.", above=0, panel=MONITORING)
    log_every: int = option(10, "Steps between two lines of the log.", above=0, panel=MONITORING)
    report_to: Tracker | None = option(
        None,
        "Tracker that gets the loss and the validation figures too, by its own settings.",
        show_default="tensorboard where it is installed",
        panel=MONITORING,
        recorded=False,
    )
    precision: Precision | None = option(
        None,
        "Number format of the frozen weights.",
        show_default="what the hardware supports",
        panel=HARDWARE,
    )
    gradient_checkpointing: Checkpointing = option(
        "auto", "Recompute activations to save memory; auto: where memory is short.", panel=HARDWARE
    )
    seed: int = option(0, "Seed of everything random.")

    def __post_init__(self) -> None:
        check_bounds(self)
        self.accumulation(1)  # what one process cannot divide, more cannot either
        if self.full and (self.rows != "all" or self.matrices != "both"):
            raise OptionError(
                "full",
                "trains everything, without a choice of rows",
                "Give `rows` all and `matrices` both with it",
            )
        if self.load_in_4bit and not self.has_adapters:
            raise OptionError(
                "load_in_4bit", "freezes the layers, so that adapters must be trained",
                "Leave `full` out" if self.full else "Give `stage` 2",
            )  # fmt: skip
        rate = next((name for name in ("head_lr", "rows_lr") if getattr(self, name) is not None), None)
        if rate is not None and self.rows == "none":
            raise OptionError(
                rate, "is a rate of rows, and none are trained", "Leave it out, or give `rows` new"
            )
        if self.head_lr is not None and self.matrices == "input":
            raise OptionError(
                "head_lr", "is a rate of the LM head, which `matrices` input does not train", "Leave it out"
            )
        if not (self.has_adapters or self.full) and self.rows == "none":
            raise OptionError("rows", "none leaves stage 1 nothing to learn", "Give new")

    @property
    def full(self) -> bool:
        """Whether every weight is trained, without adapters."""
        return False

    @property
    def has_adapters(self) -> bool:
        return not self.full

    @property
    def rows(self) -> WhichRows:
        """The rows of the embedding matrix and the LM head that are trained."""
        return "all" if self.full else "none"

    @property
    def matrices(self) -> WhichMatrices:
        """The matrices whose rows are trained."""
        return "both"

    @property
    def old_rows(self) -> int | None:
        """Rows before the model grew; None: as the grown model's manifest says."""
        return None

    @property
    def rows_lr(self) -> float | None:
        """Peak learning rate of the rows; None: that of everything else."""
        return None

    @property
    def head_lr(self) -> float | None:
        """Peak learning rate of the rows of an untied LM head; None: that of the rows."""
        return None

    @property
    def lora_dropout(self) -> float:
        return 0.0

    @property
    def load_in_4bit(self) -> bool:
        """Whether the frozen layers are quantized to 4 bits."""
        return False

    @property
    def attention(self) -> Attention:
        """The kernel of the attention in packed blocks."""
        return "sdpa"

    @property
    def compile(self) -> bool:
        """Whether torch.compile compiles the layers."""
        return False

    @property
    def logits_kept(self) -> int:
        """How many times the loss keeps the logits of all positions in fp32; 0: it takes them in chunks."""
        return 0

    @property
    def english_limit(self) -> float:
        """Relative increase of English bits per byte that is accepted."""
        return 0.02

    @property
    def strict(self) -> bool:
        """Whether the run stops beyond `english_limit`."""
        return False

    @property
    def lora(self) -> Lora | None:
        """The adapters; None in stage 1, where the transformer is frozen, and where every weight is trained."""
        if not self.has_adapters:
            return None
        return Lora(self.lora_rank, self.lora_alpha, self.lora_dropout, self.lora_module or Lora.modules)

    def accumulation(self, processes: int) -> int:
        """Micro-batches that one process accumulates to a step; OptionError where the batch does not divide."""
        at_once = self.micro_batch * processes
        if self.batch % at_once:
            divisor = (
                f"{self.micro_batch} blocks x {processes} processes"
                if processes > 1
                else f"{self.micro_batch}"
            )
            raise OptionError(
                "batch", f"{self.batch} is no multiple of {divisor}", "Change `micro_batch` or `batch`"
            )
        return self.batch // at_once


@dataclass(frozen=True, kw_only=True)
class RowTrainingOptions(TrainingOptions):
    """Training that updates chosen rows of the embedding matrix and the LM head beside the adapters."""

    rows: WhichRows = option(
        "new", "used: new rows, and old ones frequent in the text. none: adapters alone.", panel=LEARNING
    )
    matrices: WhichMatrices = option("both", "input leaves an untied LM head unchanged.", panel=LEARNING)
    old_rows: int | None = option(
        None, "Rows before the model grew, where no manifest has their number.", panel=LEARNING
    )
    rows_lr: float | None = option(
        None, "Peak learning rate of the rows.", above=0, below=1, show_default="that of --lr", panel=LEARNING
    )
    head_lr: float | None = option(
        None, "Peak learning rate of the rows of an untied LM head; 1e-4 for --init shared.", above=0, below=1,
        show_default="that of the rows", panel=LEARNING,
    )  # fmt: skip
    lora_dropout: float = option(0.05, "Dropout of the adapters.", minimum=0, below=1, panel=LEARNING)
    load_in_4bit: bool = option(
        False, "Quantize the frozen layers to 4 bits; needs a CUDA GPU and the extra cuda.", panel=HARDWARE
    )
    attention: Attention = option(
        "auto",
        "Attention in packed blocks. auto: the fastest that a check of the model finds equal to sdpa.",
        panel=HARDWARE,
    )
    compile: bool = option(
        False, "Compile the layers with torch.compile, if the losses stay the same.", panel=HARDWARE
    )


@dataclass(frozen=True, kw_only=True)
class PretrainingOptions(RowTrainingOptions):
    """One stage of pre-training: rows alone, or adapters and rows."""

    stage: int = required("1: rows alone. 2: adapters and rows. Recipes give it.", minimum=1, maximum=2)
    lora_module: tuple[str, ...] = variant(
        TrainingOptions,
        "lora_module",
        help="Linear layers with adapters, by name; q, k, v, o_proj by default, or all if the model has others.",
    )
    english_limit: float = option(
        0.02, "Relative increase of English bits per byte that is accepted.", minimum=0, panel=MONITORING
    )
    strict: bool = option(False, "Stop the run beyond --english-limit.", panel=MONITORING)

    @property
    def has_adapters(self) -> bool:
        return self.stage == 2


@dataclass(frozen=True, kw_only=True)
class ChatTuningOptions(RowTrainingOptions):
    """Supervised fine-tuning on conversations, with the values of Chinese-Alpaca."""

    full: bool = option(False, "Train every weight, without adapters; for small models.", panel=LEARNING)
    epochs: float = variant(TrainingOptions, "epochs", 3.0)
    block_size: int = variant(
        TrainingOptions, "block_size", key="max_length",
        help="Tokens of a conversation, and of a block; longer conversations are cut at a turn.",
    )  # fmt: skip
    rows: WhichRows = variant(RowTrainingOptions, "rows", "all")
    lr: float = variant(TrainingOptions, "lr", 1e-4)
    warmup: float = variant(TrainingOptions, "warmup", 0.03)
    weight_decay: float = variant(TrainingOptions, "weight_decay", 0.0)


@dataclass(frozen=True, kw_only=True)
class RewardOptions(TrainingOptions):
    """Training of a reward model on ranked pairs; `batch` and `micro_batch` count pairs."""

    epochs: float = variant(TrainingOptions, "epochs", help="Passes over the pairs.")
    batch: int = variant(TrainingOptions, "batch", 32, help="Pairs of a step.")
    micro_batch: int = variant(
        TrainingOptions, "micro_batch", 4, help="Pairs that a device processes at a time."
    )
    block_size: int = variant(
        TrainingOptions, "block_size", 1024, key="max_length",
        help="Tokens of a prompt with its answer; longer pairs are left out.",
    )  # fmt: skip
    lr: float = variant(TrainingOptions, "lr", 1e-4)
    warmup: float = variant(TrainingOptions, "warmup", 0.03)
    weight_decay: float = variant(TrainingOptions, "weight_decay", 0.0)


@dataclass(frozen=True, kw_only=True)
class PreferenceOptions(RewardOptions):
    """Training towards preferred answers. `lr` None: 5e-5, or 1e-6 where every weight is trained."""

    beta: float = option(0.1, "Penalty on leaving the initial model.", above=0, panel=LEARNING)
    full: bool = option(False, "Train every weight, without adapters; for small models.", panel=LEARNING)
    warmup: float = variant(TrainingOptions, "warmup", 0.1)
    lr: float | None = variant(TrainingOptions, "lr", None, show_default="5e-5; 1e-6 with --full")  # type: ignore[assignment]

    def with_rate(self) -> Self:
        """The same options with a number as `lr`."""
        return self if self.lr is not None else replace(self, lr=1e-6 if self.full else 5e-5)


@dataclass(frozen=True, kw_only=True)
class DpoOptions(PreferenceOptions):
    """Direct preference optimization on ranked pairs."""

    label_smoothing: float = option(
        0.0, "Share of the pairs assumed to be ranked wrongly.", minimum=0, below=0.5, panel=LEARNING
    )

    @property
    def logits_kept(self) -> int:
        """As measured of trl 1.16 (`pytest -m slow tests/test_training_plan_measured.py -k pairs`)."""
        return 8


@dataclass(frozen=True, kw_only=True)
class KtoOptions(PreferenceOptions):
    """Kahneman-Tversky optimization on labelled answers; `batch` and `micro_batch` count answers."""

    epochs: float = variant(TrainingOptions, "epochs", help="Passes over the answers.")
    batch: int = variant(RewardOptions, "batch", help="Answers of a step.")
    micro_batch: int = variant(
        RewardOptions, "micro_batch", help="Answers that a device processes at a time, at least 2."
    )
    block_size: int = variant(
        RewardOptions, "block_size", help="Tokens of a prompt with its answer; longer ones are left out."
    )
    good_weight: float = option(1.0, "Weight of the loss of good answers.", minimum=0, panel=LEARNING)
    bad_weight: float = option(1.0, "Weight of the loss of bad answers.", minimum=0, panel=LEARNING)

    @property
    def logits_kept(self) -> int:
        """As measured, too; half of the sequences are read without gradients."""
        return 4


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What --dry-run plans for in place of the model and the hardware at hand."""

    dry_run: bool = option(False, "Print the plan and stop.", panel=HARDWARE, recorded=False)
    shape: str | None = option(
        None,
        "Plan without a model: a config.json, or a shipped shape such as llama-7b.",
        panel=HARDWARE,
        recorded=False,
    )
    machine: str | None = option(
        None, "Plan for other hardware, e.g. 8xA100.", panel=HARDWARE, recorded=False
    )


@dataclass(frozen=True, kw_only=True)
class VocabularyPlanOptions(PlanOptions):
    """The same for training that may grow the vocabulary."""

    ids: int | None = option(
        None, "Plan without a tokenizer: the size of its vocabulary.", above=0, panel=HARDWARE, recorded=False
    )


@dataclass(frozen=True, kw_only=True)
class PackingOptions:
    """How documents are packed into blocks."""

    block_size: int = option(512, "Tokens of a block.", minimum=8)
    fit: Fit = option(
        "concatenate",
        "concatenate cuts documents at the end of a block; best-fit keeps them whole, for tuning.",
    )
