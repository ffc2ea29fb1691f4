"""Training on preferences, shared by the reward model, DPO and KTO: a model with its template, and a trl trainer that resumes."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback

from zhllama.conversation.encode_conversation import ConversationEncoder
from zhllama.conversation.row_fields import unused_field
from zhllama.conversation.row_forms import RowForm
from zhllama.conversation.template import refuse_lacking, template_for
from zhllama.extras import require
from zhllama.io.files import json_lines, to_json, write_whole
from zhllama.io.json import read_object
from zhllama.model.chain import ADAPTER, TOKENIZER, TUNED, resolve_chain
from zhllama.model.copy_files import copy_tokenizer
from zhllama.model.load import load_transformers_tokenizer, open_model, read_model_config
from zhllama.pages.training import training_page
from zhllama.run import Run
from zhllama.training import checkpoint, outputs
from zhllama.training.checkpoint import whole_folder
from zhllama.training.document_tokenizer import DocumentTokenizer
from zhllama.training.examples import ExampleForm, Examples, read_examples
from zhllama.training.exportable import check_exportable
from zhllama.training.hardware import Hardware, this_hardware
from zhllama.training.lora import lora_config
from zhllama.training.model_info import ModelInfo, check_length
from zhllama.training.options import TrainingOptions
from zhllama.training.outputs import CHECKPOINTS, FIGURES, PAGE
from zhllama.training.plan import ModelShape, TrainingPlan, plan_training, shape_of
from zhllama.training.preference_pairs import to_rows
from zhllama.training.prepare_model import DTYPES, norms_to_fp32, refuse_not_finite
from zhllama.training.sharding import gather_parameters, is_sharded
from zhllama.training.train import Arguments, Hooks, arguments_of
from zhllama.training.trainer import LOG, CheckpointingTrainer, TrainingLog, read_log
from zhllama.vocab.tokenizer_config import TEMPLATE

REJECTED = "rejected.jsonl"
BEFORE = "before.json"  # beside the checkpoints: what was measured before the first step


@dataclass(frozen=True)
class PairTrainingJob:
    """Files of ranked pairs or labelled answers; validation on a share of their prompts, or on files of its own."""

    files: tuple[Path, ...]
    validation_files: tuple[Path, ...] = ()
    validation_share: float = 0.1
    skip_bad: bool = False
    field_map: Mapping[str, str] = field(default_factory=dict)
    forms: Mapping[Path, RowForm] = field(default_factory=dict)


@dataclass(frozen=True)
class PairModelInfo:
    """A model to train on pairs, and its conversation encoder."""

    info: ModelInfo
    encoder: ConversationEncoder


@contextmanager
def inspect_pair_model(model: str, template: str | None, options: TrainingOptions) -> Iterator[PairModelInfo]:
    """Inspect a model before its weights are read; its tokenizer with the template is in a folder for the duration.

    Without `template`, the tokenizer's own is used, or Alpaca's if it has none. The vocabulary never grows here.
    Errors: InputError and OptionError for a length or a template that do not fit.
    """
    chain = resolve_chain(model)
    config = read_model_config(chain.base)
    rows = int(config.get_text_config().vocab_size)
    check_length(config, options.block_size)
    check_exportable(chain, options)
    with TemporaryDirectory(prefix="zhllama-") as name:
        folder = Path(name)
        copy_tokenizer(chain.tokenizer, folder)
        tokenizer = load_transformers_tokenizer(folder, chain.tokenizer)
        default = "own" if tokenizer.chat_template else "alpaca"
        chat_template = template_for(template or default, tokenizer)
        refuse_lacking(chat_template, tokenizer, "Tune the model with it first (zhllama sft)")
        (folder / TEMPLATE).write_text(chat_template.jinja, encoding="utf-8")
        info = ModelInfo(chain, config, DocumentTokenizer.open(folder), rows, None, grows=False)
        yield PairModelInfo(info, ConversationEncoder(tokenizer, chat_template))


class PairTrainer(CheckpointingTrainer):
    """Precedes a trl trainer in a class's bases: takes examples that are tokenized already, and measures the validation split.

    `initial`: log probabilities of the validation split under the reference model; None for a trainer without one.
    """

    initial: torch.Tensor | None = None

    def __init__(self, *, validation: Sequence[Any], **trainer: Any) -> None:
        super().__init__(**trainer)
        self.validation = sorted(validation, key=lambda example: example.longest)
        self.before: dict[str, float] = {}

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def measure(self) -> dict[str, float]:
        """Return figures on the validation split, by names that end in `_validation`."""
        raise NotImplementedError

    def measure_before(self, path: Path, resumed: bool) -> None:
        """Measure `before` the first step into `path`, or read it: a resumed run has the weights of its checkpoint.

        Errors: InputError for a resumed run without the file.
        """
        if resumed:
            kept = read_object(path, "Start over with `force`", any_number=True)
            self.before = kept["figures"]
            self.initial = None if kept["initial"] is None else torch.tensor(kept["initial"])
            return
        self.before = self.measure()
        if self.is_world_process_zero():
            initial = None if self.initial is None else self.initial.tolist()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, to_json({"figures": self.before, "initial": initial}))

    def on_pairs(self, joined: bool, values: Callable[[dict[str, Any]], torch.Tensor]) -> torch.Tensor:
        """Apply `values` to batches of the validation split; return [2, pairs]: chosen answers, then rejected ones.

        `joined`: see to_rows.
        """
        results = self.on_rows(to_rows(self.validation, joined), values)
        return torch.cat([torch.stack(both.chunk(2)) for both in results], dim=1)

    def on_rows(
        self, rows: list[dict[str, Any]], values: Callable[[dict[str, Any]], torch.Tensor]
    ) -> list[torch.Tensor]:
        """Apply `values` to batches of rows, and return its results."""
        size = self.args.per_device_eval_batch_size
        model: Any = self.model
        model.eval()
        results = []
        # FSDP keeps what it gathers, which inference mode would make unusable in training.
        with torch.no_grad() if is_sharded() else torch.inference_mode(), self.compute_loss_context_manager():
            for start in range(0, len(rows), size):
                batch = self._prepare_inputs(self.data_collator(rows[start : start + size]))
                results.append(values(batch).float().cpu())
        model.train()
        return results

    def log_probabilities(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return the log probability of each whole answer of a batch, by trl's fused LM head."""
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
        model: Any = self.model
        output = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels,
            fused_lm_head=True, use_cache=False,
        )  # fmt: skip
        total: torch.Tensor = output.log_probs.sum(dim=1)
        return total


class PairLog(TrainingLog):
    """Writes what trl's trainers log."""

    recorded = (
        "loss",
        "grad_norm",
        "learning_rate",
        "accuracy",
        "margin",
        "rewards/accuracies",
        "rewards/margins",
        "kl",
    )


class Measurements(TrainerCallback):
    """Measures the validation split before the first step and every `every` steps; the run itself measures the last one.

    Of sharded parameters every process has a part, so that all of them measure; `log` is that of the first one.
    """

    def __init__(self, trainer: PairTrainer, path: Path, every: int, log: PairLog | None) -> None:
        self.trainer, self.path, self.every, self.log = trainer, path, every, log

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure the model as it is before training."""
        self.trainer.measure_before(self.path, resumed=state.global_step > 0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure, and write the figures."""
        step = state.global_step
        if step % self.every == 0 and step < state.max_steps:
            figures = self.trainer.measure()
            if self.log is not None:
                self.log.write({"step": step, "tokens": step * self.log.tokens_per_step, **figures}, state)


def accuracy(better: torch.Tensor, worse: torch.Tensor) -> float:
    """Return the share of pairs whose better answer has the higher value; ties count half."""
    return float(((better > worse).float() + (better == worse).float() / 2).mean())


BuildTrainer = Callable[[Any, TrainingPlan, dict[str, Any]], PairTrainer]  # (model, plan, common arguments)
State = Mapping[str, torch.Tensor] | None  # the gathered parameters of a sharded model
WriteOutputs = Callable[[PairTrainer, Run, State], None]


def reference_of(model_info: PairModelInfo, options: TrainingOptions, plan: TrainingPlan) -> dict[str, Any]:
    """How a trl trainer gets the reference model of full training: adapters are switched off for it.

    One process computes its log probabilities before the first step, which saves a second copy of the model. Of several,
    trl writes them where only one process sees them, and of sharded parameters it opens another model; these get the copy.
    """
    if not options.full or precomputes_reference(options):
        return {}
    return {"ref_model": open_for_training(model_info, options, plan).requires_grad_(False).eval()}


def precomputes_reference(options: TrainingOptions) -> bool:
    """Whether the log probabilities of the reference model are computed before training: see `reference_of`."""
    return options.full and _processes() == 1


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def writer_of(options: TrainingOptions, model_info: PairModelInfo) -> WriteOutputs:
    """What writes a trained model: its adapter, or with `full` the whole model."""

    def write(trainer: PairTrainer, run: Run, state: State) -> None:
        if options.full:
            chain, tokenizer = model_info.info.chain, model_info.info.tokenizer
            outputs.write_tuned(trainer.model, chain.base, tokenizer, run.out / TUNED, state)
        else:
            outputs.write_adapter(trainer.model, run.out / ADAPTER, state)

    return write


def train_on_pairs(
    job: PairTrainingJob, options: TrainingOptions, model_info: PairModelInfo, run: Run, hooks: Hooks, form: ExampleForm,
    build: BuildTrainer, write: WriteOutputs,
) -> dict[str, Any] | None:  # fmt: skip
    """Train on examples into the folder of `run` and return the manifest; None in processes other than the first.

    Resumes from the last checkpoint. `options.batch` and `micro_batch` count examples; under torchrun every process
    calls this alike. Errors: ZhllamaError of all kinds.
    """
    require("learning from pairs", "align")
    processes, first = _processes(), os.environ.get("RANK", "0") == "0"
    if first:
        run.check()
    else:
        hooks = Hooks()
    if run.resume and (run.out / FIGURES).is_file():  # only the manifest is missing
        with run if first else nullcontext():
            return outputs.finish_run(run) if first else None
    examples = read_examples(
        form, job.files, model_info.encoder, options.block_size, validation_share=job.validation_share,
        validation_files=job.validation_files, seed=options.seed, skip_bad=job.skip_bad, field_map=job.field_map,
        forms=job.forms, advance=hooks.read,
    )  # fmt: skip
    shape = shape_of(model_info.info.config, options.lora, model_info.info.rows)
    plan = plan_pairs(options, shape, this_hardware(processes), len(examples.training))
    options = replace(options, steps=plan.steps)
    options.accumulation(
        processes
    )  # raises OptionError for a batch that does not divide, before a folder is made
    hooks.planned(plan)
    for row in examples.unused_fields:
        hooks.note(unused_field(row["file"], row["field"], row["rows"]))
    with run if first else nullcontext():
        if examples.rejected and first:
            rejected = [{"where": row.where, "reason": row.reason} for row in examples.rejected]
            run.write(REJECTED, json_lines(rejected))
            count, place = f"{len(examples.rejected):,}", run.out / REJECTED
            hooks.note(
                f"{count} pairs were left out: {place} says why"
                if form.noun == "pairs"
                else f"{count} answers were left out: {place} says why"
            )
        trainer = _trainer(options, model_info, plan, examples, run.out, hooks, form, build)
        last = checkpoint.last_checkpoint(run.out / CHECKPOINTS)
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
        before = trainer.before
        after = trainer.measure() if examples.validation and (first or is_sharded()) else {}
        state = gather_parameters(trainer)
        if not first:
            return None
        write(trainer, run, state)
        with whole_folder(run.out / TOKENIZER) as folder:
            outputs.save_tokenizer(model_info.info.tokenizer, folder)
        log = read_log(run.out / LOG)
        figures = {
            **examples.figures(), **plan.figures(), **outputs.log_figures(log),
            **{key: {"before": before[key], "after": after[key]} for key in after},
            "template": model_info.encoder.template.name,
            "unused_fields": examples.unused_fields,
        }  # fmt: skip
        lines = [{"step": 0, **before}, *log, {"step": options.steps, **after}]
        run.write(PAGE, training_page(run.out.name, figures, lines))
        run.write(FIGURES, to_json(figures))
        return outputs.finish_run(run)


def open_for_training(model_info: PairModelInfo, options: TrainingOptions, plan: TrainingPlan) -> Any:
    """Open the model with its earlier runs merged in, frozen unless all of it is trained."""
    chain = model_info.info.chain
    dtype = torch.float32 if options.full else DTYPES[plan.precision]
    model = open_model(chain.runs[-1] if chain.runs else chain.base, dtype=dtype).model
    refuse_not_finite(model, chain.model)
    norms_to_fp32(model)
    return model.requires_grad_(options.full)


def pair_arguments(
    kind: type[Arguments], options: TrainingOptions, plan: TrainingPlan, out: Path, **more: Any
) -> Arguments:
    """Return a trl trainer's arguments, with trl's own defaults for what no option sets."""
    return arguments_of(
        kind, options, out, gradient_checkpointing=plan.checkpointing, max_length=None, **more
    )


def adapter_config(options: TrainingOptions, task_type: str, **more: Any) -> Any:
    """Return PEFT's config of the adapters; None if all of the model is trained."""
    return None if options.lora is None else lora_config(options.lora, task_type, **more)


def plan_pairs(
    options: TrainingOptions, shape: ModelShape, hardware: Hardware, pairs: int | None
) -> TrainingPlan:
    """Plan a run on so many pairs, each of which is two sequences; steps are unknown if `pairs` is None.

    A labelled answer is two sequences too: another answer to its prompt is read for the KL term. Full training on several
    devices has a reference model beside the trained one: see `reference_of`.
    """
    doubled = replace(options, batch=2 * options.batch, micro_batch=2 * options.micro_batch)
    blocks = None if pairs is None else 2.0 * pairs
    reference = options.full and hardware.count > 1
    return plan_training(
        doubled, shape, 0, hardware, blocks=blocks, sharded=is_sharded(), reference=reference
    )


def _trainer(
    options: TrainingOptions, model_info: PairModelInfo, plan: TrainingPlan, examples: Examples, out: Path, hooks: Hooks,
    form: ExampleForm, build: BuildTrainer,
) -> PairTrainer:  # fmt: skip
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    os.environ["TQDM_DISABLE"] = "1"  # read when a bar is created; trl has no other switch
    assert options.steps is not None
    order = _training_order(len(examples.training), options.steps * options.batch, options.seed)
    tokens = sum(example.tokens for example in examples.training)
    tokens_per_step = round(tokens / len(examples.training) * options.batch)
    log = PairLog(out / LOG, tokens_per_step, hooks.step)
    model = open_for_training(model_info, options, plan)
    trainer = build(model, plan, {
        "out": out, "decode": model_info.encoder.tokenizer.decode, "validation": examples.validation,
        "processing_class": model_info.encoder.tokenizer,
        "train_dataset": Dataset.from_list(form.rows(examples.training)).select(order),
        "callbacks": [log],
    })  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    first = trainer.is_world_process_zero()
    if not first:
        trainer.remove_callback(log)
    if examples.validation and (first or is_sharded()):
        path = out / CHECKPOINTS / BEFORE
        trainer.add_callback(Measurements(trainer, path, options.eval_every, log if first else None))
    return trainer


def _training_order(examples: int, count: int, seed: int) -> list[int]:
    """Return `count` indices of examples, shuffled again every epoch."""
    order: list[int] = []
    for epoch in range(-(-count // examples)):
        order += Random(f"{seed}/{epoch}").sample(range(examples), examples)
    return order[:count]
