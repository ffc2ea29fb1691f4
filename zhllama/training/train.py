"""Pre-training, one stage: text into blocks, a model made ready, the Trainer, and what was learned as whole files."""

import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from transformers import PrinterCallback, TrainingArguments, set_seed
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.utils import logging

from zhllama.errors import OptionError
from zhllama.model.chain import GROWN, Chain
from zhllama.model.grow import Grown
from zhllama.model.load import read_model_config
from zhllama.run import Run
from zhllama.training import checkpoint
from zhllama.training import outputs as products
from zhllama.training.document_tokenizer import DocumentTokenizer
from zhllama.training.four_bit import refuse_four_bit
from zhllama.training.hardware import Hardware, this_hardware
from zhllama.training.mixture import frequent_ids
from zhllama.training.model_info import ModelInfo
from zhllama.training.options import TrainingOptions
from zhllama.training.outputs import CHECKPOINTS, FIGURES
from zhllama.training.packed_blocks import PackedBlocks
from zhllama.training.plan import TrainingPlan, plan_training, shape_of
from zhllama.training.prepare_model import PreparedModel, prepare_model
from zhllama.training.trainable_rows import RowLayout, lay_out
from zhllama.training.trainer import LOG, BlockTrainer, TrainingLog
from zhllama.training.validation import ValidationSet
from zhllama.vocab.any_tokenizer import load_any_tokenizer


class TrainingJob(Protocol):
    """What is to be learnt: all in which pre-training (ground.Job) and tuning (tuning.Tuning) differ."""

    @property
    def alone(self) -> bool:
        """Whether each sample has a block of its own."""

    def blocks(self, tokens: DocumentTokenizer, size: int, read: Callable[[int], None]) -> list[PackedBlocks]:
        """The packed blocks of each source; none where the text is streamed."""

    def examples(
        self, tokens: DocumentTokenizer, options: TrainingOptions, blocks: Sequence[PackedBlocks], count: int
    ) -> Any:
        """The data set of `count` blocks that the Trainer draws from."""

    def held_out(
        self, tokens: DocumentTokenizer, size: int, blocks: Sequence[PackedBlocks]
    ) -> list[ValidationSet]:
        """What is measured and never trained on."""

    def grow(self, ground: ModelInfo, folder: Path, seed: int) -> Grown:
        """Write the model with the rows that it lacks."""

    def report(self, run: Run, blocks: Sequence[PackedBlocks]) -> dict[str, Any]:
        """Figures of what was learnt from; what was left out is written into the run."""


@dataclass(frozen=True)
class Hooks:
    """Who is told what; each may be left out."""

    planned: Callable[[TrainingPlan], None] = lambda plan_training: None
    step: Callable[[dict[str, Any]], None] = lambda line: None
    note: Callable[[str], None] = lambda text: None
    read: Callable[[int], None] = lambda count: None


def plan_run(
    options: TrainingOptions,
    ground: ModelInfo,
    machine: Hardware,
    *,
    learning: int | None = None,
    blocks: float | None = None,
) -> TrainingPlan:
    """The plan of a surveyed run."""
    shape = shape_of(ground.config, options.lora, ground.rows)
    n_old = ground.old_rows() if options.rows in ("new", "used") else 0
    return plan_training(
        options, shape, n_old, machine, learning=learning, blocks=blocks, sharded=is_sharded()
    )


def is_sharded() -> bool:
    """Whether `accelerate launch` cuts the parameters up (FSDP, ZeRO)."""
    return any(
        os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true" for name in ("FSDP", "DEEPSPEED")
    )


def train(
    job: TrainingJob, options: TrainingOptions, ground: ModelInfo, run: Run, hooks: Hooks
) -> dict[str, Any] | None:
    """Train one stage into the folder of `run` and return the manifest; None in processes other than the first.

    Under torchrun every process calls this alike. Errors: ZhllamaError of all kinds.
    """
    if options.load_in_4bit:
        refuse_four_bit(ground.chain, is_sharded())
    arguments = trainer_arguments(options, run.out)
    first = arguments.process_index == 0
    if not first:
        hooks = Hooks()
    # All was trained and written, and only the manifest is missing.
    written = bool(run.resume) and (run.out / FIGURES).is_file()
    with run if first else nullcontext():
        if written:
            return products.finish(run) if first else None
        with arguments.main_process_first(local=False):
            blocks = job.blocks(ground.tokens, options.block_size, hooks.read)
            heldout = job.held_out(ground.tokens, options.block_size, blocks)
            ground = _grown(job, ground, run.out, options.seed, hooks) if ground.grows else ground
        layout = _layout(options, ground, blocks)
        machine = this_hardware(arguments.world_size)
        planned = plan_run(
            options,
            ground,
            machine,
            learning=ground.rows - layout.first,
            blocks=float(sum(map(len, blocks))) if blocks else None,
        )
        if planned.steps is None:
            raise OptionError("steps", "is needed where the text is streamed", "Give the number of steps")
        hooks.planned(planned)
        set_seed(options.seed)
        ready = prepare_model(
            ground.chain, layout, options.matrices, options.lora, planned.precision, arguments.device,
            full=options.full, four_bit=options.load_in_4bit, checkpointing=planned.checkpointing, sharded=is_sharded(),
        )  # fmt: skip
        if not ready.keeps_documents_apart:
            how = (
                "each sample has a block of its own" if job.alone else "documents in one block see each other"
            )
            hooks.note(f"{ground.config.model_type} takes no position_ids: {how}")
        trainer = _trainer(job, options, ground, ready, planned, blocks, heldout, arguments, run.out, hooks)
        since = checkpoint.last_checkpoint(run.out / CHECKPOINTS)
        arguments.eval_on_start = bool(heldout) and since is None
        if is_sharded():  # of hidden states handed on as the view that they are; nothing writes into them
            warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
        trainer.train(resume_from_checkpoint=None if since is None else str(since))
        state = products.gather(trainer)
        if not first:
            return None
        known = {"rows": ground.rows, "n_old": ground.n_old, **job.report(run, blocks)}
        whole = ground.chain.base if options.full else None
        return products.write(run, ground.tokens, ready, planned, known, state, whole)


Arguments = TypeVar("Arguments", bound=TrainingArguments)


def trainer_arguments(options: TrainingOptions, out: Path) -> TrainingArguments:
    """The Trainer's arguments; making them joins the other processes."""
    return arguments_of(TrainingArguments, options, out)


def arguments_of(kind: type[Arguments], options: TrainingOptions, out: Path, **more: Any) -> Arguments:
    """The same of another kind, such as trl's, with what else that kind takes."""
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    cuda = torch.cuda.is_available()
    precision = options.precision or this_hardware().precision
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(out / "tensorboard"))
    arguments = kind(
        output_dir=str(out / CHECKPOINTS),
        per_device_train_batch_size=options.micro_batch,
        per_device_eval_batch_size=options.micro_batch,
        max_steps=options.steps or 1,
        learning_rate=options.lr,
        lr_scheduler_type="constant_with_warmup" if options.schedule == "constant" else options.schedule,
        warmup_steps=options.warmup,
        weight_decay=options.weight_decay,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        optim="adamw_torch_fused",
        logging_steps=options.log_every,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=options.save_every,
        eval_steps=options.eval_every,
        seed=options.seed,
        use_cpu=not cuda,
        ddp_backend="gloo" if not cuda and int(os.environ.get("WORLD_SIZE", 1)) > 1 else None,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=cuda,
        train_sampling_strategy="sequential",  # the mixture is in its order already
        report_to="tensorboard" if find_spec("tensorboard") or find_spec("tensorboardX") else "none",
        disable_tqdm=True,
        log_level="error",
        **more,
    )
    arguments.gradient_accumulation_steps = options.accumulation(arguments.world_size)
    # Else transformers cuts up every model that it makes under ZeRO-3, in all processes at once. Ours is opened whole,
    # gets its rows and adapters, and the Trainer cuts it up.
    unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]
    return arguments


def _grown(job: TrainingJob, ground: ModelInfo, out: Path, seed: int, hooks: Hooks) -> ModelInfo:
    """The model grown into the run's own folder, once."""
    folder = out / GROWN
    if not (folder / "config.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        grown = job.grow(ground, folder, seed)
        hooks.note(
            f"the model had {grown.n_old:,} rows and grew to {grown.rows:,}, new ones the mean of their old pieces"
        )
    return replace(ground, chain=Chain(folder, (), folder), config=read_model_config(folder), grows=False)


def _layout(options: TrainingOptions, ground: ModelInfo, blocks: list[PackedBlocks]) -> RowLayout:
    rows = ground.rows
    if options.rows == "none":
        return RowLayout(rows, 0)
    if options.rows == "all":
        return lay_out(range(rows), rows, is_sharded())
    n_old = ground.old_rows()
    ids: list[int] | range = range(n_old, rows)
    if options.rows == "used":
        if not blocks:
            raise OptionError(
                "rows used", "counts the text, which `stream` does not", "Give `rows` new or all"
            )
        ids = [*frequent_ids(blocks, n_old), *ids]
    return lay_out(ids, rows, is_sharded())


def _trainer(
    job: TrainingJob, options: TrainingOptions, ground: ModelInfo, ready: PreparedModel, planned: TrainingPlan, blocks: list[PackedBlocks],
    heldout: list[ValidationSet], arguments: TrainingArguments, out: Path, hooks: Hooks,
) -> BlockTrainer:  # fmt: skip
    assert planned.steps is not None
    arguments.max_steps = planned.steps
    arguments.eval_strategy = "steps" if heldout else "no"
    text = job.examples(ground.tokens, options, blocks, planned.steps * options.batch)
    layout = ready.rows.embedding.layout
    trainer = BlockTrainer(
        model=ready.model, args=arguments, train_dataset=text, out=out, heldout=heldout,
        english_limit=options.english_limit, strict=options.strict, warn=hooks.note, decode=load_any_tokenizer(ground.tokens.path).decode,
        masked=layout.start < layout.first,
        callbacks=[TrainingLog(out / LOG, _tokens_a_step(options, blocks), hooks.step)]
        if arguments.process_index == 0 else [],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    return trainer


def _tokens_a_step(options: TrainingOptions, blocks: list[PackedBlocks]) -> int:
    """Positions in use: a block that one short conversation has for itself is mostly none."""
    count, used = sum(map(len, blocks)), sum(some.meta.tokens for some in blocks)
    return round(options.batch * (used / count if count else options.block_size))
