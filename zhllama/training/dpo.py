"""Direct preference optimisation (arXiv:2305.18290): a model learns to prefer the better answers, by trl's trainer."""

import os
from dataclasses import dataclass
from typing import Any

import torch

from zhllama.errors import OptionError
from zhllama.model.chain import ADAPTER, TUNED
from zhllama.run import Run
from zhllama.training.options import TrainingOptions
from zhllama.training.outputs import write_adapter, write_tuned
from zhllama.training.pair_training import (
    PairModelInfo,
    PairTrainer,
    PairTrainingJob,
    accuracy,
    arguments,
    lora_config,
    train_on_pairs,
)
from zhllama.training.plan import TrainingPlan
from zhllama.training.train import Hooks


@dataclass(frozen=True)
class Preference:
    """`beta`: how dear it is to leave the model that was begun with; `label_smoothing`: the share of pairs taken to be wrong."""

    beta: float = 0.1
    label_smoothing: float = 0.0


def dpo(
    task: PairTrainingJob,
    options: TrainingOptions,
    preference: Preference,
    found: PairModelInfo,
    run: Run,
    hooks: Hooks,
) -> dict[str, Any] | None:
    """Train and return the manifest, None in processes other than the first; the run holds an adapter, or with `options.full` the whole model.

    Figures on pairs kept aside, before and after: `accuracy_aside`, the share whose better answer gained more probability
    against the model begun with (.5 before, by nature); `margin_aside`, by how much, times beta; `likelier_aside`, the
    share whose better answer is the likelier one, which long answers seldom are.
    """
    if options.full and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        # trl writes what the model begun with thought of the answers into a file of the first process's own.
        told = "goes with one process alone"
        raise OptionError("full", told, "Leave it out, or start without torchrun")

    def build(model: Any, planned: TrainingPlan, given: dict[str, Any]) -> PairTrainer:
        return _trainer(model, options, preference, planned, run, given)

    def write(trainer: PairTrainer, run: Run) -> None:
        if options.full:
            write_tuned(trainer.model, found.ground.chain.base, found.ground.tokens, run.out / TUNED)
        else:
            write_adapter(trainer.model, run.out / ADAPTER)

    return train_on_pairs(task, options, found, run, hooks, False, build, write)


def _trainer(
    model: Any,
    options: TrainingOptions,
    preference: Preference,
    planned: TrainingPlan,
    run: Run,
    given: dict[str, Any],
) -> PairTrainer:
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    class Preferring(PairTrainer, DPOTrainer):
        """trl's trainer, measured on whole answers."""

        began: torch.Tensor | None = None  # of pairs kept aside, under the model that was begun with

        def measure(self) -> dict[str, float]:
            now = self.on_pairs(False, self._of_answers)
            if self.began is None:
                self.began = now
            gained = now - self.began
            return {
                "accuracy_aside": accuracy(gained[0], gained[1]),
                "margin_aside": float(self.beta * (gained[0] - gained[1]).mean()),
                "likelier_aside": accuracy(now[0], now[1]),
            }

        def _of_answers(self, batch: dict[str, Any]) -> torch.Tensor:
            """The log probability of each whole answer."""
            labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
            model: Any = self.model
            made = model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels,
                fused_lm_head=True, use_cache=False,
            )  # fmt: skip
            logs: torch.Tensor = made.log_probs.sum(dim=1)
            return logs

    settings = arguments(
        DPOConfig, options, planned, run.out, beta=preference.beta, label_smoothing=preference.label_smoothing,
        precompute_ref_log_probs=options.full,  # else a second copy of the model would be needed
    )  # fmt: skip
    return Preferring(model=model, args=settings, peft_config=lora_config(options, "CAUSAL_LM"), **given)
