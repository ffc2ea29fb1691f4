"""transformers' Trainer, with whole checkpoints of what learns, bits on text kept aside, and an end to bad losses."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from transformers import Trainer, TrainerCallback

from zhllama.errors import BrokenPromise, ZhllamaError
from zhllama.io.files import read_utf8, to_json, write_whole
from zhllama.io.json import as_object, parse_json
from zhllama.training import checkpoint
from zhllama.training.validation import BitsSpent, ValidationSet, collate, measure_bits

MEND = "Start over with --force"

Told = Callable[[dict[str, Any]], None]
LOG = "log.jsonl"


class WholeTrainer(Trainer):
    """Checkpoints of what learns alone, each whole; a loss that is no number ends the run, its batch written to `out`.

    Stands before any other trainer in a class's bases, trl's too.
    """

    def __init__(self, *, out: Path, decode: Callable[[Sequence[int]], str], **trainer: Any) -> None:
        super().__init__(**trainer)
        self.out, self.decode = out, decode

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """One micro-batch; a loss that is no number stops the run before a step is taken with it."""
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
        remedy = f"The batch is in {path.name}; lower --lr, or give --precision fp32, and --force"
        return ZhllamaError(self.out, f"the loss of step {step} is {loss}", remedy)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """All processes write into one folder beside; the first one names it when the last is done."""
        folder = Path(str(self.args.output_dir))
        name = folder / f"checkpoint-{self.state.global_step}"
        part = checkpoint.part_of(name)
        wait, first = self.accelerator.wait_for_everyone, self.args.should_save
        with checkpoint.disk_errors(name):
            if first:
                checkpoint.begin(part)
            wait()
            self._write_state(part)
            wait()
            if first:
                checkpoint.finish_checkpoint(part, name)
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
            checkpoint.save_trained(cast(torch.nn.Module, self.model), Path(output_dir), state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            checkpoint.load_trained(cast(torch.nn.Module, self.model), Path(resume_from_checkpoint))


class BlockTrainer(WholeTrainer):
    """Trains on packed blocks.

    `english_limit` is the share by which bits a byte of the label `en` may rise over those before the first step;
    beyond, `warn` is told, or with `strict` the run stops (BrokenPromise). `masked`: whole matrices of which some rows
    must not change, so that no weight may decay there.
    """

    def __init__(
        self, *, out: Path, heldout: Sequence[ValidationSet], english_limit: float, strict: bool, masked: bool,
        warn: Callable[[str], None], decode: Callable[[Sequence[int]], str], **trainer: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            out=out, decode=decode, data_collator=collate, eval_dataset=list(heldout) or None, **trainer
        )
        self.heldout, self.masked = heldout, masked
        self.english_limit, self.strict, self.warn = english_limit, strict, warn

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """All weights decay as the Trainer has it, but rows that are masked by their gradient alone."""
        names: list[str] = super().get_decay_parameter_names(model)
        return [name for name in names if not (self.masked and name.endswith(".rows"))]

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Bits a character and a byte of every label, logged."""
        model = self.model_wrapped if self.is_fsdp_enabled else self.model
        with self.accelerator.autocast():
            found = {
                h.label: measure_bits(model, h, self.args.per_device_eval_batch_size, self.args.device)
                for h in self.heldout
            }
        figures = _figures(found)
        self.log(figures)
        if "en" in found:
            self._hold_english(found["en"].per_byte)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        return figures

    def _hold_english(self, now: float) -> None:
        first = next(h for h in self.state.log_history if "en_bits_per_byte" in h)["en_bits_per_byte"]
        if now <= first * (1 + self.english_limit):
            return
        share = 100 * (now / first - 1)
        told = f"English went from {first:.4f} to {now:.4f} bits a byte (+{share:.1f} %), beyond the limit"
        if self.strict:
            raise BrokenPromise(self.out, told, "Lower --lr, or give English text more weight")
        self.warn(f"step {self.state.global_step}: {told} of {100 * self.english_limit:g} %")


def _figures(found: dict[str, BitsSpent]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for label, bits in found.items():
        figures |= {
            f"{label}_bits_per_character": bits.per_character,
            f"{label}_bits_per_byte": bits.per_byte,
        }
    return figures


class TrainingLog(TrainerCallback):
    """Writes what the Trainer logs into log.jsonl, a line an event, and tells it on."""

    taken: tuple[str, ...] = ("loss", "grad_norm", "learning_rate")

    def __init__(self, path: Path, tokens_per_step: int, told: Told) -> None:
        self.path, self.tokens_per_step, self.told = path, tokens_per_step, told
        self._begun = self._spent = 0.0  # seconds in steps since the last line, measuring and saving left out
        self._steps = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Drops lines of steps that a resumed run takes again."""
        lines = read_log(self.path)
        kept = [line for line in lines if line["step"] <= state.global_step] if state.global_step else []
        write_whole(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Starts the watch."""
        self._begun = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stops the watch, and tells that a step is done."""
        self._spent += time.monotonic() - self._begun
        self._steps += 1
        self.told({"step": state.global_step, "steps": state.max_steps})

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Writes one line: a loss with its speed, or bits on text kept aside."""
        logs: dict[str, Any] = given["logs"]
        line = {"step": state.global_step, "tokens": state.global_step * self.tokens_per_step}
        if "loss" in logs:
            line |= {k: logs[k] for k in self.taken if k in logs}
            line["tokens_per_second"] = round(self._steps * self.tokens_per_step / max(self._spent, 1e-9), 1)
            self._spent, self._steps = 0.0, 0
        else:
            line |= {k: v for k, v in logs.items() if k.endswith(("_bits_per_character", "_bits_per_byte"))}
        if len(line) > 2:
            self.write(line, state)

    def write(self, line: dict[str, Any], state: Any) -> None:
        """Adds a line to the log, and tells it on."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.told({**line, "steps": state.max_steps})


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last one that a kill cut off is left out."""
    lines = read_utf8(path).split("\n")[:-1] if path.exists() else []
    places = ((f"{path}:{number}", line) for number, line in enumerate(lines, 1))
    return [as_object(parse_json(line, where, MEND, any_number=True), where, MEND) for where, line in places]
