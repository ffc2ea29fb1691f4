"""Runs pre-training and fine-tuning: packs the data, prepares the model, runs or resumes the Trainer, and writes the outputs."""

import math
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PrinterCallback, TrainingArguments, set_seed
from transformers.utils import logging

from zhllama.errors import OptionError
from zhllama.model.chain import GROWN, Chain
from zhllama.model.grow import Grown
from zhllama.model.load import read_model_config
from zhllama.pretrained import zeroed_row
from zhllama.run import Run
from zhllama.training import checkpoint, outputs
from zhllama.training.choose_attention import check_attention
from zhllama.training.compiled_layers import compile_layers
from zhllama.training.document_tokenizer import DocumentTokenizer
from zhllama.training.four_bit import check_four_bit
from zhllama.training.hardware import Hardware, this_hardware
from zhllama.training.mixture import frequent_ids
from zhllama.training.model_info import ModelInfo
from zhllama.training.new_rows import new_row_figures
from zhllama.training.options import TrainingOptions
from zhllama.training.outputs import CHECKPOINTS, FIGURES
from zhllama.training.packed_blocks import PackedBlocks
from zhllama.training.plan import TrainingPlan, plan_training, shape_of
from zhllama.training.prepare_model import (
    PreparedModel,
    autocast_type,
    open_for_training,
    prepare_model,
)
from zhllama.training.probe import takes_position_ids
from zhllama.training.sharding import gather_parameters, is_sharded, open_whole_models
from zhllama.training.trackers import chosen_tracker
from zhllama.training.trainable_rows import RowLayout, arrange_rows
from zhllama.training.trainer import LOG, BlockTrainer, TrainingLog
from zhllama.training.validation import ValidationSet, collate
from zhllama.vocab.any_tokenizer import load_any_tokenizer


class TrainingJob(Protocol):
    """The data of a run, in which pre-training (PretrainingJob) and fine-tuning (ChatTuningJob) differ."""

    def blocks(
        self, tokenizer: DocumentTokenizer, size: int, one_per_block: bool, advance: Callable[[int], None]
    ) -> list[PackedBlocks]:
        """Return the packed blocks of each source; none if the text is streamed.

        `one_per_block`: each document or conversation gets a block of its own.
        """

    def examples(
        self,
        tokenizer: DocumentTokenizer,
        options: TrainingOptions,
        blocks: Sequence[PackedBlocks],
        count: int,
        one_per_block: bool,
    ) -> Any:
        """Return the Trainer's data set of `count` blocks."""

    def validation_sets(
        self, tokenizer: DocumentTokenizer, size: int, blocks: Sequence[PackedBlocks], one_per_block: bool
    ) -> list[ValidationSet]:
        """Return the data that is measured and never trained on."""

    def grow(self, info: ModelInfo, folder: Path, seed: int) -> Grown:
        """Write the model with the rows that its tokenizer needs to `folder`."""

    def report(self, run: Run, blocks: Sequence[PackedBlocks]) -> dict[str, Any]:
        """Write rejected rows into the run, and return figures of the data."""


@dataclass(frozen=True)
class Hooks:
    """Callbacks of a run; each is optional: the plan, each step and log line, notes to the user, bytes read."""

    planned: Callable[[TrainingPlan], None] = lambda plan: None
    step: Callable[[dict[str, Any]], None] = lambda line: None
    note: Callable[[str], None] = lambda text: None
    read: Callable[[int], None] = lambda count: None


def plan_run(
    options: TrainingOptions,
    info: ModelInfo,
    hardware: Hardware,
    *,
    trainable_rows: int | None = None,
    blocks: float | None = None,
    dense_mask: bool | None = None,
) -> TrainingPlan:
    """Plan a run of an inspected model; `dense_mask` None: as is likely on that hardware."""
    shape = shape_of(info.config, options.lora, info.rows)
    n_old = info.old_rows() if options.rows in ("new", "used") else 0
    return plan_training(
        options, shape, n_old, hardware, trainable_rows=trainable_rows, blocks=blocks, sharded=is_sharded(),
        dense_mask=dense_mask,
    )  # fmt: skip


def train(
    job: TrainingJob, options: TrainingOptions, info: ModelInfo, run: Run, hooks: Hooks
) -> dict[str, Any] | None:
    """Train one stage into the folder of `run` and return the manifest; None in processes other than the first.

    Resumes from the last checkpoint. Under torchrun every process calls this alike. Errors: ZhllamaError of all kinds.
    """
    if options.load_in_4bit:
        check_four_bit(info.chain, is_sharded())
    if options.compile and is_sharded():
        raise OptionError("compile", "does not work with sharded parameters (FSDP, ZeRO)", "Leave it out")
    arguments = trainer_arguments(options, run.out)
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING[type(info.config)]
    precision = options.precision or this_hardware().precision
    check_attention(options.attention, model_class, precision, arguments.device)
    first = arguments.process_index == 0
    if not first:
        hooks = Hooks()
    only_manifest_missing = bool(run.resume) and (run.out / FIGURES).is_file()
    with run if first else nullcontext():
        if only_manifest_missing:
            return outputs.finish_run(run) if first else None
        one_per_block = not takes_position_ids(model_class)
        with arguments.main_process_first(local=False):
            blocks = job.blocks(info.tokenizer, options.block_size, one_per_block, hooks.read)
            validation = job.validation_sets(info.tokenizer, options.block_size, blocks, one_per_block)
            info = _grow_model(job, info, run.out, options.seed, hooks) if info.grows else info
        layout, plan = _plan_rows(options, info, blocks, arguments.world_size)
        hooks.planned(plan)
        opened = open_for_training(
            info.chain, None if options.rows == "none" else options.matrices, plan.precision, arguments.device,
            full=options.full, four_bit=options.load_in_4bit, sharded=is_sharded(),
            attention=options.attention, length=options.block_size,
        )  # fmt: skip
        for kernel, reason in opened.attention.rejected.items():
            taken = opened.attention.kernel
            hooks.note(f"{info.config.model_type}: attention by {taken} instead of {kernel}, which {reason}")
        if not opened.separates_documents:
            hooks.note(
                f"{info.config.model_type}: documents of one block would see each other, so each has a block of its own"
            )
        repacked = not (opened.separates_documents or one_per_block)
        if repacked:
            one_per_block = True
            with arguments.main_process_first(local=False):
                blocks = job.blocks(info.tokenizer, options.block_size, True, hooks.read)
                validation = job.validation_sets(info.tokenizer, options.block_size, blocks, True)
        # On CPUs the plan counts a mask in any case.
        other_mask = opened.attention.dense_mask is not plan.dense_mask and arguments.device.type != "cpu"
        if repacked or other_mask:
            layout, plan = _plan_rows(
                options, info, blocks, arguments.world_size, opened.attention.dense_mask
            )
            hooks.planned(plan)
        assert plan.steps is not None
        set_seed(options.seed)
        prepared = prepare_model(
            opened, layout, options.matrices, options.lora,
            full=options.full, checkpointing=plan.checkpointing, sharded=is_sharded(),
        )  # fmt: skip
        if prepared.plain_reason is not None:
            hooks.note(
                f"{info.config.model_type}: {prepared.plain_reason}; trained with whole matrices and transformers' own loss"
            )
        examples = job.examples(info.tokenizer, options, blocks, plan.steps * options.batch, one_per_block)
        if options.compile:
            first_batch = collate([*islice(examples, options.micro_batch)], whole=True)
            failure = compile_layers(prepared.model, first_batch, autocast_type(plan.precision))
            if failure is not None:
                hooks.note(f"{info.config.model_type}: trained without compiling, since {failure}")
        trainer = _trainer(
            options, info, prepared, plan, blocks, examples, validation, arguments, run.out, hooks
        )
        last = checkpoint.last_checkpoint(run.out / CHECKPOINTS)
        arguments.eval_on_start = bool(validation) and last is None
        if is_sharded():  # warns that hidden states are returned as views; nothing writes into them
            warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
        state = gather_parameters(trainer)
        if not first:
            return None
        vocabulary = load_any_tokenizer(info.tokenizer.path)
        figures = {
            "rows": info.rows, "n_old": info.n_old, "attention": opened.attention.kernel, **job.report(run, blocks),
            **new_row_figures(run, examples, info.n_old, info.rows, vocabulary),
        }  # fmt: skip
        full_base = info.chain.base if options.full else None
        return outputs.write_outputs(run, info.tokenizer, prepared, plan, figures, state, full_base)


Arguments = TypeVar("Arguments", bound=TrainingArguments)


def trainer_arguments(options: TrainingOptions, out: Path) -> TrainingArguments:
    """Return the Trainer's arguments; creating them joins the process group."""
    return arguments_of(TrainingArguments, options, out)


def arguments_of(kind: type[Arguments], options: TrainingOptions, out: Path, **more: Any) -> Arguments:
    """Return a Trainer's arguments, of transformers' class or a subclass such as trl's, which takes `more`."""
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
        warmup_steps=warmup_steps(options, options.steps or 1),
        weight_decay=options.weight_decay,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        optim="adamw_torch_fused",
        logging_steps=options.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=options.save_every,
        eval_steps=options.eval_every,
        seed=options.seed,
        use_cpu=not cuda,
        ddp_backend="gloo" if not cuda and int(os.environ.get("WORLD_SIZE", 1)) > 1 else None,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=cuda,
        train_sampling_strategy="sequential",  # the data set is shuffled already
        report_to=chosen_tracker(options.report_to),
        run_name=out.resolve().name,
        disable_tqdm=True,
        log_level="error",
        **more,
    )
    arguments.gradient_accumulation_steps = options.accumulation(arguments.world_size)
    open_whole_models()  # to add rows and adapters; the Trainer shards them
    return arguments


def _grow_model(job: TrainingJob, info: ModelInfo, out: Path, seed: int, hooks: Hooks) -> ModelInfo:
    """Grow the model into the run's own folder, unless an earlier start of the run did."""
    folder = out / GROWN
    if not (folder / "config.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        grown = job.grow(info, folder, seed)
        hooks.note(
            f"the model had {grown.n_old:,} rows and grew to {grown.rows:,}, new ones the mean of their old pieces"
        )
    return replace(info, chain=Chain(folder, (), folder), config=read_model_config(folder), grows=False)


def _plan_rows(
    options: TrainingOptions, info: ModelInfo, blocks: list[PackedBlocks], processes: int, dense_mask: bool | None = None
) -> tuple[RowLayout, TrainingPlan]:  # fmt: skip
    """Return which rows are trainable, and the plan; OptionError for a stream without a number of steps."""
    layout = _layout(options, info, blocks)
    count = float(sum(map(len, blocks))) if blocks else None
    trainable = info.rows - layout.first
    plan = plan_run(
        options, info, this_hardware(processes), trainable_rows=trainable, blocks=count, dense_mask=dense_mask
    )
    if plan.steps is None:
        raise OptionError("steps", "is needed where the text is streamed", "Give the number of steps")
    return layout, plan


def _layout(options: TrainingOptions, info: ModelInfo, blocks: list[PackedBlocks]) -> RowLayout:
    """Return which rows are trainable."""
    rows = info.rows
    if options.rows == "none":
        return RowLayout(rows, 0)
    ids: list[int] | range = range(rows)
    if options.rows != "all":
        n_old = info.old_rows()
        ids = range(n_old, min(rows, info.tokenizer.size))  # spare rows have no id
    if options.rows == "used":
        if not blocks:
            raise OptionError(
                "rows used", "counts the text, which `stream` does not", "Give `rows` new or all"
            )
        ids = [*frequent_ids(blocks, n_old), *ids]
    # What this row learned would be gone once the model is opened.
    if (lost := zeroed_row(info.config)) is not None:
        ids = [id for id in ids if id != lost]
    return arrange_rows(ids, rows, is_sharded())


def warmup_steps(options: TrainingOptions, steps: int) -> int:
    """Return the steps of the warmup, at least one fewer than all: its first has the rate 0, and a run of that alone trains nothing."""
    return min(math.ceil(steps * options.warmup), steps - 1)


def _trainer(
    options: TrainingOptions, info: ModelInfo, prepared: PreparedModel, plan: TrainingPlan, blocks: list[PackedBlocks],
    examples: Any, validation: list[ValidationSet], arguments: TrainingArguments, out: Path, hooks: Hooks,
) -> BlockTrainer:  # fmt: skip
    assert plan.steps is not None
    arguments.max_steps = plan.steps
    arguments.warmup_steps = warmup_steps(options, plan.steps)
    arguments.eval_strategy = "steps" if validation else "no"
    log = TrainingLog(out / LOG, _tokens_per_step(options, blocks), hooks.step)
    trainer = BlockTrainer(
        model=prepared.model,
        args=arguments,
        train_dataset=examples,
        out=out,
        validation=validation,
        english_limit=options.english_limit,
        strict=options.strict,
        warn=hooks.note,
        decode=load_any_tokenizer(info.tokenizer.path).decode,
        masked=prepared.rows.masked,
        # Kernels that are compiled for one size would be compiled again for each size of a shortened batch.
        whole_blocks=options.compile or prepared.model.config._attn_implementation == "flex_attention",
        rates=_rates(options, prepared),
        callbacks=[log] if arguments.process_index == 0 else [],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _rates(options: TrainingOptions, prepared: PreparedModel) -> dict[str, float]:
    """The learning rates of embedding and head rows that differ from `lr`, by the ends of the parameters' names.

    Errors: OptionError for a rate of the head in a model that ties it to its embedding.
    """
    names = prepared.rows.parameter_names
    if options.head_lr is not None and "output" not in names:
        message = "is a rate of the LM head, which is tied to the embedding"
        raise OptionError("head_lr", message, "Give `rows_lr`, or grow the model with `untie`")
    head = options.head_lr if options.head_lr is not None else options.rows_lr
    rates = {"input": options.rows_lr, "output": head}
    return {names[side]: rate for side, rate in rates.items() if side in names and rate is not None}


def _tokens_per_step(options: TrainingOptions, blocks: list[PackedBlocks]) -> int:
    """Count used positions: a block that holds a single short conversation is mostly filler."""
    count, used = sum(map(len, blocks)), sum(packed.meta.tokens for packed in blocks)
    return round(options.batch * (used / count if count else options.block_size))
