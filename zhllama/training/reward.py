"""A reward model: the body of a language model with one number for a head, taught which answer of two is better."""

import copy
from pathlib import Path
from typing import Any

import torch

from zhllama.conversation.encode_conversation import ConversationEncoder
from zhllama.conversation.records import Conversation
from zhllama.conversation.template import template_for
from zhllama.errors import InputError
from zhllama.manifest import check_outputs, read_config, read_manifest
from zhllama.model.chain import TOKENIZER
from zhllama.model.load import load_transformers_tokenizer, open_model
from zhllama.pretrained import build_scoring, open_adapter
from zhllama.run import Run
from zhllama.training.options import TrainingOptions
from zhllama.training.outputs import write_adapter
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

REWARD = "reward"  # not `adapter`: what opens a language model must not take this for one
HEAD = "score"


def reward(
    task: PairTrainingJob, options: TrainingOptions, found: PairModelInfo, run: Run, hooks: Hooks
) -> dict[str, Any] | None:
    """Train and return the manifest, None in processes other than the first; the run holds the adapter and the head in `reward/`.

    Figures on pairs kept aside, before (a random head) and after: `accuracy_aside`, the share whose better answer scores
    higher, and `margin_aside`, by how much.
    """

    def build(model: Any, planned: TrainingPlan, given: dict[str, Any]) -> PairTrainer:
        torch.manual_seed(options.seed)
        return _trainer(with_score(model), options, planned, run, given)

    def write(trainer: PairTrainer, run: Run) -> None:
        write_adapter(trainer.model, run.out / REWARD)

    return train_on_pairs(task, options, found, run, hooks, True, build, write)


def with_score(model: Any) -> Any:
    """The body of a causal language model under a fresh head of one number; no weight is copied.

    Errors: InputError for kinds of models that transformers has no such form of.
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
    model: Any, options: TrainingOptions, planned: TrainingPlan, run: Run, given: dict[str, Any]
) -> PairTrainer:
    from trl.trainer.reward_config import RewardConfig
    from trl.trainer.reward_trainer import RewardTrainer

    class Scoring(PairTrainer, RewardTrainer):
        """trl's trainer, measured pair by pair."""

        def measure(self) -> dict[str, float]:
            model: Any = self.model
            scores = self.on_pairs(True, lambda batch: model(**batch, use_cache=False).logits[:, 0])
            return {
                "accuracy_aside": accuracy(scores[0], scores[1]),
                "margin_aside": float((scores[0] - scores[1]).mean()),
            }

    settings = arguments(RewardConfig, options, planned, run.out)
    adapters = lora_config(options, "SEQ_CLS", modules_to_save=[HEAD])
    return Scoring(model=model, args=settings, peft_config=adapters, **given)


class RewardModel:
    """A finished reward run, opened to score answers."""

    def __init__(self, run: Path) -> None:
        if not (run / REWARD).is_dir():
            raise InputError(run, "is no run of zhllama reward", "Name the folder of one")
        read_manifest(run)
        check_outputs([run], REWARD, TOKENIZER)
        base = str(read_config(run)["base"])
        opened = open_model(base)
        model = with_score(opened.model)
        tokenizer = load_transformers_tokenizer(run / TOKENIZER)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        model.config.get_text_config().pad_token_id = self._pad = pad
        self._model = open_adapter(model, run / REWARD).eval()
        self._encoder = ConversationEncoder(tokenizer, template_for("own", tokenizer))

    def score(self, conversation: Conversation) -> float:
        """How good the last answer is; only differences between answers to one prompt mean something.

        Errors: InputError for an answer that the template cannot write.
        """
        encoded = self._encoder.encode(conversation)
        ids = torch.tensor([encoded.ids[: encoded.ends[-1]]], device=self._model.device)
        with torch.inference_mode():
            found = self._model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        return float(found.logits[0, 0])
