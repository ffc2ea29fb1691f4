"""Direct preference optimization (arXiv:2305.18290): trains a model to prefer the better answers, by trl's trainer."""

from dataclasses import dataclass
from typing import Any

from zhllama.run import Run
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
from zhllama.training.preference_pairs import PAIRS
from zhllama.training.train import Hooks


@dataclass(frozen=True)
class Preference:
    """`beta`: strength of the penalty for moving away from the reference model; `label_smoothing`: assumed share of wrong pairs."""

    beta: float = 0.1
    label_smoothing: float = 0.0


def dpo(
    job: PairTrainingJob,
    options: TrainingOptions,
    preference: Preference,
    model_info: PairModelInfo,
    run: Run,
    hooks: Hooks,
) -> dict[str, Any] | None:
    """Train and return the manifest, None in processes other than the first; write an adapter, or with `full` the model.

    Figures on the validation split, before and after: `accuracy_validation`, the share of pairs whose better answer gained
    more log probability over the reference model (always .5 before); `margin_validation`, the mean difference of these gains,
    times beta; `likelier_validation`, the share whose better answer is the likelier one, which long answers seldom are.
    """

    def build(model: Any, plan: TrainingPlan, common: dict[str, Any]) -> PairTrainer:
        reference = reference_of(model_info, options, plan)
        return _trainer(model, options, preference, plan, run, reference, common)

    return train_on_pairs(job, options, model_info, run, hooks, PAIRS, build, writer_of(options, model_info))


def _trainer(
    model: Any,
    options: TrainingOptions,
    preference: Preference,
    plan: TrainingPlan,
    run: Run,
    reference: dict[str, Any],
    common: dict[str, Any],
) -> PairTrainer:
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    class PreferenceTrainer(PairTrainer, DPOTrainer):
        """trl's trainer with validation on whole answers."""

        def measure(self) -> dict[str, float]:
            current = self.on_pairs(False, self.log_probabilities)
            if self.initial is None:
                self.initial = current
            gained = current - self.initial
            return {
                "accuracy_validation": accuracy(gained[0], gained[1]),
                "margin_validation": float(self.beta * (gained[0] - gained[1]).mean()),
                "likelier_validation": accuracy(current[0], current[1]),
            }

    settings = pair_arguments(
        DPOConfig, options, plan, run.out, beta=preference.beta, label_smoothing=preference.label_smoothing,
        precompute_ref_log_probs=precomputes_reference(options),
    )  # fmt: skip
    return PreferenceTrainer(
        model=model, args=settings, peft_config=adapter_config(options, "CAUSAL_LM"), **reference, **common
    )
