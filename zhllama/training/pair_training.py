"""What a reward model and DPO share: a model and its template, pairs in their order, a trl trainer that measures and resumes."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import PrinterCallback

from zhllama.conversation.encode_conversation import ConversationEncoder
from zhllama.conversation.template import refuse_lacking, template_for
from zhllama.errors import MissingPackage, OptionError
from zhllama.io.files import json_lines, to_json
from zhllama.model.chain import TOKENIZER, resolve_chain
from zhllama.model.copy_files import copy_tokenizer
from zhllama.model.load import load_transformers_tokenizer, open_model, read_model_config
from zhllama.run import Run
from zhllama.training import checkpoint
from zhllama.training import outputs as products
from zhllama.training.checkpoint import whole_folder
from zhllama.training.document_tokenizer import DocumentTokenizer
from zhllama.training.hardware import DTYPES, Hardware, this_hardware
from zhllama.training.model_info import ModelInfo, check_length
from zhllama.training.options import TrainingOptions
from zhllama.training.outputs import CHECKPOINTS, FIGURES, PAGE
from zhllama.training.page import draw_page
from zhllama.training.plan import ModelShape, TrainingPlan, plan_training, shape_of
from zhllama.training.preference_pairs import TokenizedPair, TokenizedPairs, as_rows, read_pairs
from zhllama.training.prepare_model import adapters_of, norms_in_fp32
from zhllama.training.train import Arguments, Hooks, arguments_of, is_sharded
from zhllama.training.trainer import LOG, TrainingLog, WholeTrainer, read_log
from zhllama.vocab.tokenizer_config import TEMPLATE

REJECTED = "rejected.jsonl"


@dataclass(frozen=True)
class PairTrainingJob:
    """Ranked pairs from files, a share of the prompts kept aside or files of others to measure on."""

    files: tuple[Path, ...]
    given_aside: tuple[Path, ...] = ()
    aside: float = 0.1
    skip_bad: bool = False


@dataclass(frozen=True)
class PairModelInfo:
    """A model that can be trained on pairs: its ground, and how pairs become ids."""

    ground: ModelInfo
    encoder: ConversationEncoder


@contextmanager
def inspect_pair_model(model: str, template: str | None, length: int) -> Iterator[PairModelInfo]:
    """What is known before a weight is read; the tokenizer with its template lies in a folder that lives as long.

    Without `template` it is the tokenizer's own, or Alpaca's where it has none. The vocabulary never grows here.
    Errors: InputError and OptionError for what does not fit.
    """
    chain = resolve_chain(model)
    config = read_model_config(chain.base)
    rows = int(config.get_text_config().vocab_size)
    check_length(config, length)
    with TemporaryDirectory(prefix="zhllama-") as name:
        folder = Path(name)
        copy_tokenizer(chain.tokenizer, folder)
        tokenizer = load_transformers_tokenizer(folder)
        found = template_for(template or ("own" if tokenizer.chat_template else "alpaca"), tokenizer)
        refuse_lacking(found, tokenizer, "Tune the model with it first (zhllama sft)")
        (folder / TEMPLATE).write_text(found.jinja, encoding="utf-8")
        ground = ModelInfo(chain, config, DocumentTokenizer.open(folder), rows, None, grows=False)
        yield PairModelInfo(ground, ConversationEncoder(tokenizer, found))


class PairTrainer(WholeTrainer):
    """Stands before a trl trainer in a class's bases: pairs come as ids already, and those kept aside are measured our way."""

    def __init__(self, *, aside: Sequence[TokenizedPair], **trainer: Any) -> None:
        super().__init__(**trainer)
        self.aside = sorted(aside, key=lambda p: len(p.prompt) + max(len(p.chosen), len(p.rejected)))

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def measure(self) -> dict[str, float]:
        """Figures on the pairs kept aside, by names that end in `_aside`."""
        raise NotImplementedError

    def on_pairs(self, whole: bool, values: Callable[[dict[str, Any]], torch.Tensor]) -> torch.Tensor:
        """What `values` makes of each batch of pairs kept aside: better answers in the first row, worse in the second."""
        rows, size = as_rows(self.aside, whole), self.args.per_device_eval_batch_size
        model: Any = self.model
        model.eval()
        found = []
        with torch.inference_mode(), self.compute_loss_context_manager():
            for start in range(0, len(rows), size):
                batch = self._prepare_inputs(self.data_collator(rows[start : start + size]))
                found.append(torch.stack(values(batch).float().chunk(2)).cpu())
        model.train()
        return torch.cat(found, dim=1)


class PairJournal(TrainingLog):
    """Writes what trl's trainers log, and every so many steps what is measured on the pairs kept aside."""

    taken = (
        "loss",
        "grad_norm",
        "learning_rate",
        "accuracy",
        "margin",
        "rewards/accuracies",
        "rewards/margins",
    )

    def __init__(
        self, path: Path, tokens_per_step: int, told: Callable[[dict[str, Any]], None], every: int
    ) -> None:
        super().__init__(path, tokens_per_step, told)
        self.every = every
        self.measure: Callable[[], dict[str, float]] | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measures where it is time; the end is measured in any case."""
        super().on_step_end(args, state, control)
        step = state.global_step
        if self.measure is not None and step % self.every == 0 and step < state.max_steps:
            self.write({"step": step, "tokens": step * self.tokens_per_step, **self.measure()}, state)


def accuracy(better: torch.Tensor, worse: torch.Tensor) -> float:
    """The share of pairs whose better answer has more; equal ones count half."""
    return float(((better > worse).float() + (better == worse).float() / 2).mean())


Build = Callable[[Any, TrainingPlan, dict[str, Any]], PairTrainer]  # model, plan, what every trainer is given
Product = Callable[[PairTrainer, Run], None]


def train_on_pairs(
    task: PairTrainingJob, options: TrainingOptions, found: PairModelInfo, run: Run, hooks: Hooks, whole: bool, build: Build, write: Product
) -> dict[str, Any] | None:  # fmt: skip
    """Train on pairs into the folder of `run` and return the manifest; None in processes other than the first.

    Goes on from the last whole checkpoint. `options.batch` and `micro_batch` count pairs; under torchrun every process
    calls this alike. Errors: ZhllamaError of all kinds.
    """
    if find_spec("trl") is None:
        raise MissingPackage("learning from pairs", "trl", "align")
    if is_sharded():
        raise OptionError("FSDP and ZeRO", "do not go with this command", "Start it with torchrun")
    processes, first = int(os.environ.get("WORLD_SIZE", 1)), os.environ.get("RANK", "0") == "0"
    if first:
        run.check()
    else:
        hooks = Hooks()
    if run.resume and (run.out / FIGURES).is_file():  # only the manifest is missing
        with run if first else nullcontext():
            return products.finish(run) if first else None
    pairs = read_pairs(
        task.files, found.encoder, options.block_size, aside=task.aside, given_aside=task.given_aside,
        seed=options.seed, skip_bad=task.skip_bad, advance=hooks.read,
    )  # fmt: skip
    shape = shape_of(found.ground.config, options.lora, found.ground.rows)
    planned = plan_pairs(options, shape, this_hardware(processes), len(pairs.learnt))
    options = replace(options, steps=planned.steps)
    options.accumulation(processes)  # refuses a batch that does not divide, before a folder is made
    hooks.planned(planned)
    with run if first else nullcontext():
        if pairs.left_out and first:
            run.write(REJECTED, json_lines(map(asdict, pairs.left_out)))
            hooks.note(f"{len(pairs.left_out):,} pairs were left out: {run.out / REJECTED} says why")
        trainer = _trainer(options, found, planned, pairs, run.out, hooks, whole, build)
        measures = bool(pairs.aside) and first
        before = trainer.measure() if measures else {}
        since = checkpoint.last_checkpoint(run.out / CHECKPOINTS)
        trainer.train(resume_from_checkpoint=None if since is None else str(since))
        if not first:
            return None
        after = trainer.measure() if measures else {}
        write(trainer, run)
        with whole_folder(run.out / TOKENIZER) as folder:
            products.save_tokenizer(found.ground.tokens, folder)
        log = read_log(run.out / LOG)
        figures = {
            **pairs.figures(), **planned.figures(), **products.learned(log),
            **{key: {"before": before[key], "after": after[key]} for key in after},
            "template": found.encoder.template.name,
        }  # fmt: skip
        lines = [{"step": 0, **before}, *log, {"step": options.steps, **after}]
        run.write(PAGE, draw_page(run.out.name, figures, lines))
        run.write(FIGURES, to_json(figures))
        return products.finish(run)


def open_for_training(found: PairModelInfo, options: TrainingOptions, planned: TrainingPlan) -> Any:
    """The model with all that was trained before folded in, frozen unless all of it learns."""
    chain = found.ground.chain
    dtype = torch.float32 if options.full else DTYPES[planned.precision]
    model = open_model(chain.runs[-1] if chain.runs else chain.base, dtype=dtype).model
    norms_in_fp32(model)
    return model.requires_grad_(options.full)


def arguments(
    kind: type[Arguments], options: TrainingOptions, planned: TrainingPlan, out: Path, **more: Any
) -> Arguments:
    """A trl trainer's arguments; trl's own defaults for what is not asked."""
    return arguments_of(
        kind, options, out, gradient_checkpointing=planned.checkpointing, max_length=None, **more
    )


def lora_config(options: TrainingOptions, kind: str, **more: Any) -> Any:
    """PEFT's config of the adapters; None where all of the model learns."""
    return None if options.lora is None else adapters_of(options.lora, kind, **more)


def plan_pairs(
    options: TrainingOptions, shape: ModelShape, machine: Hardware, pairs: int | None
) -> TrainingPlan:
    """The plan of a run on so many pairs, each of them two sequences; steps unknown where their number is."""
    doubled = replace(options, batch=2 * options.batch, micro_batch=2 * options.micro_batch)
    return plan_training(doubled, shape, 0, machine, blocks=None if pairs is None else 2.0 * pairs)


def _trainer(
    options: TrainingOptions, found: PairModelInfo, planned: TrainingPlan, pairs: TokenizedPairs, out: Path, hooks: Hooks, whole: bool, build: Build
) -> PairTrainer:  # fmt: skip
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    os.environ["TQDM_DISABLE"] = "1"  # read when a bar is made; trl has no other switch
    assert options.steps is not None
    order = _order(len(pairs.learnt), options.steps * options.batch, options.seed)
    tokens = sum(2 * len(p.prompt) + len(p.chosen) + len(p.rejected) for p in pairs.learnt)
    a_step = round(tokens / len(pairs.learnt) * options.batch)
    journal = PairJournal(out / LOG, a_step, hooks.step, options.eval_every)
    model = open_for_training(found, options, planned)
    trainer = build(model, planned, {
        "out": out, "decode": found.encoder.tokenizer.decode, "aside": pairs.aside,
        "processing_class": found.encoder.tokenizer,
        "train_dataset": Dataset.from_list(as_rows(pairs.learnt, whole)).select(order),
        "callbacks": [journal],
    })  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    if not trainer.is_world_process_zero():
        trainer.remove_callback(journal)
    journal.measure = trainer.measure if pairs.aside else None
    return trainer


def _order(pairs: int, count: int, seed: int) -> list[int]:
    """The pairs in the order in which they are learnt, each once before any comes again."""
    order: list[int] = []
    for turn in range(-(-count // pairs)):
        order += Random(f"{seed}/{turn}").sample(range(pairs), pairs)
    return order[:count]
