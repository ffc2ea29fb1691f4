"""Kahneman-Tversky optimization (arXiv:2402.01306): trains on answers that are good or bad by themselves, by trl's trainer."""

from dataclasses import dataclass
from typing import Any

import torch

from zhllama.errors import InputError, OptionError
from zhllama.run import Run
from zhllama.training.labelled_answers import LABELLED, to_rows
from zhllama.training.options import TrainingOptions
from zhllama.training.pair_training import (
    PairModelInfo,
    PairTrainer,
    PairTrainingJob,
    accuracy,
    adapter_config,
    pair_arguments,
    precomputes_reference,
    reference_of,
    train_on_pairs,
    writer_of,
)
from zhllama.training.plan import TrainingPlan
from zhllama.training.train import Hooks

# Of the weights of all good answers over those of all bad ones; the paper advises 1 to 4/3.
BALANCED = (0.5, 2.0)


@dataclass(frozen=True)
class Judgment:
    """`beta`: strength of the penalty for moving away from the reference model; the weights of good and of bad answers."""

    beta: float = 0.1
    good_weight: float = 1.0
    bad_weight: float = 1.0


def kto(
    job: PairTrainingJob,
    options: TrainingOptions,
    judgment: Judgment,
    model_info: PairModelInfo,
    run: Run,
    hooks: Hooks,
) -> dict[str, Any] | None:
    """Train and return the manifest, None in processes other than the first; write an adapter, or with `full` the model.

    Figures on the validation split, before and after: `accuracy_validation`, the share of answers whose log probability
    moved to the right side, up for good ones and down for bad ones, over the reference model (always .5 before);
    `margin_validation`, the mean move to the right side, times beta.
    """
    if options.micro_batch < 2:
        message = "is too small for the estimate of how far the model has moved"
        raise OptionError(f"micro_batch {options.micro_batch}", message, "Give 2 or more")

    def build(model: Any, plan: TrainingPlan, common: dict[str, Any]) -> PairTrainer:
        labels = common["train_dataset"]["label"]
        if (note := balance_note(sum(labels), len(labels) - sum(labels), judgment)) is not None:
            hooks.note(note)
        reference = reference_of(model_info, options, plan)
        return _trainer(model, options, judgment, plan, run, reference, common)

    return train_on_pairs(
        job, options, model_info, run, hooks, LABELLED, build, writer_of(options, model_info)
    )


def balance_note(good: int, bad: int, judgment: Judgment) -> str | None:
    """What to say where the answers of one kind weigh more than twice as much as those of the other; None elsewhere."""
    weights = judgment.good_weight * good, judgment.bad_weight * bad
    if not min(good, bad) or (min(weights) and BALANCED[0] <= weights[0] / weights[1] <= BALANCED[1]):
        return None  # a run of a few steps may draw answers of one kind alone
    if good < bad:
        return f"{good:,} good and {bad:,} bad answers: a weight of {bad / good:.3g} for good ones would make both count equally"
    return f"{good:,} good and {bad:,} bad answers: a weight of {good / bad:.3g} for bad ones would make both count equally"


def _trainer(
    model: Any,
    options: TrainingOptions,
    judgment: Judgment,
    plan: TrainingPlan,
    run: Run,
    reference: dict[str, Any],
    common: dict[str, Any],
) -> PairTrainer:
    try:
        from trl.trainer import kto_trainer as trl_kto
        from trl.trainer.kto_config import KTOConfig

        trl_kto.DataCollatorForUnpairedPreference  # noqa: B018 # before it, trl's batches had another form
    except (ImportError, AttributeError):
        raise InputError("trl", "is too old for kto", "Install trl 1.16 or newer") from None

    class JudgedTrainer(PairTrainer, trl_kto.KTOTrainer):
        """trl's trainer with validation on whole answers."""

        def measure(self) -> dict[str, float]:
            current = torch.cat(self.on_rows(to_rows(self.validation), self.log_probabilities))
            if self.initial is None:
                self.initial = current
            sign = torch.tensor([1.0 if answer.good else -1.0 for answer in self.validation])
            moved = sign * (current - self.initial)
            return {
                "accuracy_validation": accuracy(moved, torch.zeros_like(moved)),
                "margin_validation": float(self.beta * moved.mean()),
            }

    settings = pair_arguments(
        KTOConfig, options, plan, run.out, beta=judgment.beta, desirable_weight=judgment.good_weight,
        undesirable_weight=judgment.bad_weight,
        precompute_ref_log_probs=precomputes_reference(options),
    )  # fmt: skip
    return JudgedTrainer(
        model=model, args=settings, peft_config=adapter_config(options, "CAUSAL_LM"), **reference, **common
    )
