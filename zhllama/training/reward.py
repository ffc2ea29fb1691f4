"""A reward model: the body of a language model with a scalar head, trained on which of two answers is better."""

import copy
from pathlib import Path
from typing import Any

import torch

from zhllama.conversation.encode_conversation import ConversationEncoder
from zhllama.conversation.records import Conversation
from zhllama.conversation.template import template_for
from zhllama.errors import InputError
from zhllama.manifest import check_outputs, read_manifest
from zhllama.model.chain import TOKENIZER, base_of
from zhllama.model.load import load_transformers_tokenizer, open_model
from zhllama.pretrained import build_scoring, open_adapter
from zhllama.run import Run
from zhllama.training.options import TrainingOptions
from zhllama.training.outputs import write_adapter
from zhllama.training.pair_training import (
    PairModelInfo,
    PairTrainer,
    PairTrainingJob,
    State,
    accuracy,
    adapter_config,
    pair_arguments,
    train_on_pairs,
)
from zhllama.training.plan import TrainingPlan
from zhllama.training.preference_pairs import JOINED_PAIRS
from zhllama.training.train import Hooks

REWARD = "reward"  # not `adapter`, so that no code that opens language models takes it for one
HEAD = "score"


def reward(
    job: PairTrainingJob, options: TrainingOptions, model_info: PairModelInfo, run: Run, hooks: Hooks
) -> dict[str, Any] | None:
    """Train and return the manifest, None in processes other than the first; write adapter and head to `reward/`.

    Figures on the validation split, before (with a random head) and after: `accuracy_validation`, the share of pairs whose
    better answer scores higher, and `margin_validation`, the mean difference of the scores.
    """

    def build(model: Any, plan: TrainingPlan, common: dict[str, Any]) -> PairTrainer:
        torch.manual_seed(options.seed)
        return _trainer(with_score_head(model), options, plan, run, common)

    def write(trainer: PairTrainer, run: Run, state: State) -> None:
        write_adapter(trainer.model, run.out / REWARD, state)

    return train_on_pairs(job, options, model_info, run, hooks, JOINED_PAIRS, build, write)


def with_score_head(model: Any) -> Any:
    """Put a new scalar head on the body of a causal language model; no weight is copied.

    Errors: InputError for models without a sequence classification class in transformers.
    """
    config = copy.deepcopy(model.config)
    config.num_labels = 1
    try:
        with torch.device("meta"):
            scoring = build_scoring(config)
    except ValueError:
        scoring = None
    prefix = model.base_model_prefix
    if scoring is None or scoring.base_model_prefix != prefix or not hasattr(scoring, HEAD):
        raise InputError(config.model_type, "has no form with a score in transformers", "Name another model")
    body = getattr(model, prefix)
    setattr(scoring, prefix, body)
    weight = next(body.parameters())
    width = scoring.score.weight.shape[1]
    head = torch.nn.Linear(width, 1, bias=False, dtype=torch.float32, device=weight.device)
    torch.nn.init.normal_(head.weight, std=float(getattr(config, "initializer_range", None) or 0.02))
    scoring.score = head.to(weight.dtype)
    return scoring


def _trainer(
    model: Any, options: TrainingOptions, plan: TrainingPlan, run: Run, common: dict[str, Any]
) -> PairTrainer:
    from trl.trainer.reward_config import RewardConfig
    from trl.trainer.reward_trainer import RewardTrainer

    class ScoreTrainer(PairTrainer, RewardTrainer):
        """trl's trainer with validation pair by pair."""

        def measure(self) -> dict[str, float]:
            model: Any = self.model
            scores = self.on_pairs(True, lambda batch: model(**batch, use_cache=False).logits[:, 0])
            return {
                "accuracy_validation": accuracy(scores[0], scores[1]),
                "margin_validation": float((scores[0] - scores[1]).mean()),
            }

    settings = pair_arguments(RewardConfig, options, plan, run.out)
    adapters = adapter_config(options, "SEQ_CLS", modules_to_save=[HEAD])
    return ScoreTrainer(model=model, args=settings, peft_config=adapters, **common)


class RewardModel:
    """A reward model, opened from a finished run to score answers."""

    def __init__(self, run: Path) -> None:
        if not (run / REWARD).is_dir():
            raise InputError(run, "is no run of zhllama reward", "Name the folder of one")
        read_manifest(run)
        check_outputs([run], REWARD, TOKENIZER)
        model = with_score_head(open_model(base_of(run, "base")).model)
        tokenizer = load_transformers_tokenizer(run / TOKENIZER)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        model.config.get_text_config().pad_token_id = self._pad = pad
        self._model = open_adapter(model, run / REWARD).eval()
        self._encoder = ConversationEncoder(tokenizer, template_for("own", tokenizer))

    def score(self, conversation: Conversation) -> float:
        """Return the score of the last answer; only differences between answers to the same prompt are meaningful.

        Errors: InputError for an answer that the template cannot write.
        """
        encoded = self._encoder.encode(conversation)
        ids = torch.tensor([encoded.ids[: encoded.ends[-1]]], device=self._model.device)
        with torch.inference_mode():
            output = self._model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        return float(output.logits[0, 0])
