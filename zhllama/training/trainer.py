"""transformers' Trainer with atomic checkpoints of trainable parameters, validation in bits, and a stop on bad losses."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from transformers import Trainer, TrainerCallback

from zhllama.errors import BrokenPromise, ZhllamaError
from zhllama.io.files import read_utf8, to_json, write_whole
from zhllama.io.json import as_object, parse_json
from zhllama.training import checkpoint
from zhllama.training.hardware import peak_memory
from zhllama.training.validation import BitsSpent, ValidationSet, collate, measure_bits

LOG = "log.jsonl"
REMEDY = "Start over with `force`"
Report = Callable[[dict[str, Any]], None]


class CheckpointingTrainer(Trainer):
    """Writes atomic checkpoints of the trainable parameters, and stops at a loss that is not finite, its batch in `out`.

    Precedes any other trainer in a class's bases, trl's too.
    """

    def __init__(self, *, out: Path, decode: Callable[[Sequence[int]], str], **trainer: Any) -> None:
        super().__init__(**trainer)
        self.out, self.decode = out, decode

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Run one micro-batch; raise ZhllamaError for a loss that is not finite, before the optimizer step."""
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            raise self._not_finite(inputs["input_ids"], float(loss))
        return loss

    def _not_finite(self, ids: torch.Tensor, loss: float) -> ZhllamaError:
        step = self.state.global_step + 1
        path = self.out / f"not-finite-step-{step}.json"
        batch = {
            "step": step,
            "loss": str(loss),
            "input_ids": ids.tolist(),
            "text": [self.decode(b.tolist()) for b in ids],
        }
        write_whole(path, to_json(batch))
        remedy = f"The batch is in {path.name}; lower `lr`, or give `precision` fp32, and `force`"
        return ZhllamaError(self.out, f"the loss of step {step} is {loss}", remedy)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint from all processes into one temporary folder, which the first process then renames."""
        folder = Path(str(self.args.output_dir))
        path = folder / f"checkpoint-{self.state.global_step}"
        part = checkpoint.temporary_path(path)
        wait, first = self.accelerator.wait_for_everyone, self.args.should_save
        with checkpoint.disk_errors(path):
            if first:
                checkpoint.make_empty(part)
            wait()
            self._write_state(part)
            wait()
            if first:
                checkpoint.finish_checkpoint(part, path)
                checkpoint.keep_newest(folder)
        wait()

    def _write_state(self, part: Path) -> None:
        self.save_model(str(part), _internal_call=True)
        self._save_optimizer_and_scheduler(str(part))
        self._save_scaler(str(part))
        self._save_rng_state(str(part))
        if self.args.should_save:
            self.state.save_to_json(str(part / "trainer_state.json"))

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if self.args.should_save and output_dir is not None:
            checkpoint.save_trainable(cast(torch.nn.Module, self.model), Path(output_dir), state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            checkpoint.load_trainable(cast(torch.nn.Module, self.model), Path(resume_from_checkpoint))


class BlockTrainer(CheckpointingTrainer):
    """Trains on packed blocks.

    `english_limit`: the share by which bits per byte of the label `en` may rise over those before the first step; above
    it the trainer calls `warn`, or with `strict` raises BrokenPromise. `masked`: the ends of the names of parameters with
    rows that must not change, so that weight decay must not touch them. `rates`: learning rates by the ends of parameters'
    names, where they are not that of all others. `whole_blocks`: batches are not shortened.
    """

    def __init__(
        self, *, out: Path, validation: Sequence[ValidationSet], english_limit: float, strict: bool, masked: tuple[str, ...],
        rates: Mapping[str, float], whole_blocks: bool, warn: Callable[[str], None],
        decode: Callable[[Sequence[int]], str], **trainer: Any,
    ) -> None:  # fmt: skip
        self.collate = partial(collate, whole=whole_blocks)
        super().__init__(
            out=out,
            decode=decode,
            data_collator=self.collate,
            eval_dataset=list(validation) or None,
            **trainer,
        )
        self.validation, self.masked, self.rates = validation, masked, rates
        self.english_limit, self.strict, self.warn = english_limit, strict, warn

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """Return the Trainer's choice of decayed parameters, without matrices that have masked rows."""
        names: list[str] = super().get_decay_parameter_names(model)
        return [name for name in names if not name.endswith(self.masked)]

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Return the Trainer's optimizer, with a group of its own for each parameter with another learning rate."""
        optimizer = super().create_optimizer(model)
        names = cast(torch.nn.Module, self.model if model is None else model).named_parameters()
        own = {
            id(parameter): rate
            for name, parameter in names
            for end, rate in self.rates.items()
            if name.endswith(end)
        }
        for group in list(optimizer.param_groups):
            for rate in sorted({own[id(p)] for p in group["params"] if id(p) in own}):
                chosen = [p for p in group["params"] if own.get(id(p)) == rate]
                group["params"] = [p for p in group["params"] if own.get(id(p)) != rate]
                optimizer.param_groups.append({**group, "params": chosen, "lr": rate})
        optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
        return optimizer

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure and log bits per character and per byte of every label."""
        model = self.model_wrapped if self.is_fsdp_enabled else self.model
        with self.accelerator.autocast():
            bits = {
                v.label: measure_bits(
                    model, v, self.args.per_device_eval_batch_size, self.args.device, self.collate
                )
                for v in self.validation
            }
        figures = _figures(bits)
        self.log(figures)
        if "en" in bits:
            self._check_english(bits["en"].per_byte)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        return figures

    def _check_english(self, now: float) -> None:
        before = next(h for h in self.state.log_history if "en_bits_per_byte" in h)["en_bits_per_byte"]
        if now <= before * (1 + self.english_limit):
            return
        share = 100 * (now / before - 1)
        message = (
            f"English went from {before:.4f} to {now:.4f} bits per byte (+{share:.1f} %), beyond the limit"
        )
        if self.strict:
            raise BrokenPromise(self.out, message, "Lower `lr`, or give English text more weight")
        self.warn(f"step {self.state.global_step}: {message} of {100 * self.english_limit:g} %")


def _figures(bits_by_label: dict[str, BitsSpent]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for label, bits in bits_by_label.items():
        figures |= {
            f"{label}_bits_per_character": bits.per_character,
            f"{label}_bits_per_byte": bits.per_byte,
        }
    return figures


class TrainingLog(TrainerCallback):
    """Writes what the Trainer logs into log.jsonl, one line per event, and reports it."""

    recorded: tuple[str, ...] = ("loss", "grad_norm", "learning_rate")

    def __init__(self, path: Path, tokens_per_step: int, report: Report) -> None:
        self.path, self.tokens_per_step, self.report = path, tokens_per_step, report
        # `_spent`: seconds in steps since the last line, without validation and saving.
        self._started = self._spent = 0.0
        self._steps = 0
        # `_begun`: when training began, moved back by what earlier starts of a resumed run took.
        self._begun = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Drop the lines of steps that a resumed run repeats, and report that training has begun."""
        lines = read_log(self.path)
        lines = [line for line in lines if line["step"] <= state.global_step] if state.global_step else []
        write_whole(self.path, "".join(json.dumps(line) + "\n" for line in lines))
        self._begun = time.monotonic() - max((line.get("seconds", 0.0) for line in lines), default=0.0)
        self.report({"step": state.global_step, "steps": state.max_steps})

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop the clock, and report the step; the last one is always logged."""
        self._spent += time.monotonic() - self._started
        self._steps += 1
        if state.global_step >= state.max_steps:
            control.should_log = True
        self.report({"step": state.global_step, "steps": state.max_steps})

    def on_log(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Write one line: a loss with its speed, time and memory, or bits on a validation set."""
        logs: dict[str, Any] = more["logs"]
        line = {"step": state.global_step, "tokens": state.global_step * self.tokens_per_step}
        if "loss" in logs:
            line |= {k: logs[k] for k in self.recorded if k in logs}
            line["tokens_per_second"] = round(self._steps * self.tokens_per_step / max(self._spent, 1e-9), 1)
            self._spent, self._steps = 0.0, 0
            line["steps"] = state.max_steps
            line["seconds"] = round(time.monotonic() - self._begun, 2)
            line["peak_memory_bytes"] = peak_memory(args.device)
        else:
            line |= {k: v for k, v in logs.items() if k.endswith(("_bits_per_character", "_bits_per_byte"))}
        if len(line) > 2:
            self.write(line, state)

    def write(self, line: dict[str, Any], state: Any) -> None:
        """Append a line to the log, and report it."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.report({**line, "steps": state.max_steps})


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a log, without a last one that was cut off by a kill."""
    lines = read_utf8(path).split("\n")[:-1] if path.exists() else []
    places = ((f"{path}:{number}", line) for number, line in enumerate(lines, 1))
    return [
        as_object(parse_json(line, where, REMEDY, any_number=True), where, REMEDY) for where, line in places
    ]
