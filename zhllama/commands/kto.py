"""The command `kto`, which trains a model on answers labelled good or bad."""

from typing import TYPE_CHECKING, Any

from zhllama.commands.declare import command
from zhllama.commands.pair_training import PairRun, train_pairs
from zhllama.commands.shared import AsJson, Config, Force, LineOptions, MaybeOut, Resume, check_torch
from zhllama.commands.training_screen import check_model, fold_adapters, with_all_layers
from zhllama.run import Run
from zhllama.training.data_options import LabelledData
from zhllama.training.options import KtoOptions, PlanOptions, TrainingOptions

if TYPE_CHECKING:
    from zhllama.training.pair_training import PairModelInfo, PairTrainingJob
    from zhllama.training.train import Hooks


@command
def kto(
    data: LabelledData,
    options: KtoOptions,
    reading: LineOptions,
    plan: PlanOptions,
    out: MaybeOut = None,
    resume: Resume = False,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Train a model on answers that are good or bad by themselves (Kahneman-Tversky optimization)."""
    check_torch("kto", "align")
    from zhllama.training.labelled_answers import LABELLED

    check_model(data.model, plan)
    data, origin = fold_adapters(data)
    complete = with_all_layers(options.with_rate(), data.model, plan)

    def train(
        job: "PairTrainingJob", complete: TrainingOptions, info: "PairModelInfo", run: Run, hooks: "Hooks"
    ) -> dict[str, Any] | None:
        from zhllama.training.kto import Judgment
        from zhllama.training.kto import kto as train_on_answers

        judgment = Judgment(options.beta, options.good_weight, options.bad_weight)
        return train_on_answers(job, complete, judgment, info, run, hooks)

    start = PairRun("kto", "model", out, resume, force, as_json, "data", data.data, data.eval_data, origin)
    train_pairs(data, complete, plan, options, start, LABELLED, train)
