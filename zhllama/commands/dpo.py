"""The command `dpo`, which trains a model to prefer the better answers."""

from typing import TYPE_CHECKING, Any

from zhllama.commands.declare import command
from zhllama.commands.pair_training import PairRun, train_pairs
from zhllama.commands.shared import AsJson, Config, Force, LineOptions, MaybeOut, Resume, check_torch
from zhllama.commands.training_screen import check_model, fold_adapters, with_all_layers
from zhllama.run import Run
from zhllama.training.data_options import PairData
from zhllama.training.options import DpoOptions, PlanOptions, TrainingOptions

if TYPE_CHECKING:
    from zhllama.training.pair_training import PairModelInfo, PairTrainingJob
    from zhllama.training.train import Hooks


@command
def dpo(
    data: PairData,
    options: DpoOptions,
    reading: LineOptions,
    plan: PlanOptions,
    out: MaybeOut = None,
    resume: Resume = False,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Train a model to prefer the better answers (direct preference optimization)."""
    check_torch("dpo", "align")
    from zhllama.training.preference_pairs import PAIRS

    check_model(data.model, plan)
    data, origin = fold_adapters(data)
    complete = with_all_layers(options.with_rate(), data.model, plan)

    def train(
        job: "PairTrainingJob", complete: TrainingOptions, info: "PairModelInfo", run: Run, hooks: "Hooks"
    ) -> dict[str, Any] | None:
        from zhllama.training.dpo import Preference
        from zhllama.training.dpo import dpo as train_on_pairs

        return train_on_pairs(
            job, complete, Preference(options.beta, options.label_smoothing), info, run, hooks
        )

    start = PairRun("dpo", "model", out, resume, force, as_json, "pairs", data.pairs, data.eval_pairs, origin)
    train_pairs(data, complete, plan, options, start, PAIRS, train)
