"""The command `reward`, which trains a reward model on ranked answers."""

from zhllama.commands.declare import command
from zhllama.commands.pair_training import PairRun, train_pairs
from zhllama.commands.shared import AsJson, Config, Force, LineOptions, MaybeOut, Resume, check_torch
from zhllama.commands.training_screen import check_model, fold_adapters, with_all_layers
from zhllama.training.data_options import PairData
from zhllama.training.options import PlanOptions, RewardOptions


@command
def reward(
    data: PairData,
    options: RewardOptions,
    reading: LineOptions,
    plan: PlanOptions,
    out: MaybeOut = None,
    resume: Resume = False,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Train a reward model that scores which of two answers is better, for zhllama judge --reward."""
    check_torch("reward", "align")
    from zhllama.training.preference_pairs import JOINED_PAIRS
    from zhllama.training.reward import reward as train

    check_model(data.model, plan)
    data, origin = fold_adapters(data)
    complete = with_all_layers(options, data.model, plan)
    # Not recorded as `model`, the key of a run's base in a chain: a reward model does not generate text.
    start = PairRun(
        "reward", "base", out, resume, force, as_json, "pairs", data.pairs, data.eval_pairs, origin
    )
    train_pairs(data, complete, plan, options, start, JOINED_PAIRS, train)
