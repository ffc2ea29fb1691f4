"""What is known of a tuning before a weight is read: the model's chain, its tokenizer made ready, and whether all fits."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhllama.conversation.encode_conversation import ConversationEncoder
from zhllama.conversation.prepare_tokenizer import prepare_tokenizer
from zhllama.conversation.template import ChatTemplate
from zhllama.errors import InputError, OptionError
from zhllama.model.chain import resolve_chain
from zhllama.model.load import load_transformers_tokenizer, read_model_config
from zhllama.training.document_tokenizer import DocumentTokenizer
from zhllama.training.model_info import ModelInfo, check_length, check_old_rows, old_rows_by_manifest
from zhllama.training.options import TrainingOptions
from zhllama.training.plan import shape_of
from zhllama.vocab.any_tokenizer import load_any_tokenizer as load_vocabulary


@dataclass(frozen=True)
class ChatModelInfo:
    """`alone`: the model takes no position_ids, so that two samples in one block would see each other."""

    ground: ModelInfo
    encoder: ConversationEncoder
    alone: bool


def inspect_chat_model(model: str, template: str, options: TrainingOptions, folder: Path) -> ChatModelInfo:
    """Resolve the model's chain and write its tokenizer, with what the template needs, to `folder`.

    Errors: InputError and OptionError for what does not fit: rows, length, a template without an end.
    """
    chain = resolve_chain(model)
    config = read_model_config(chain.base)
    rows = int(config.get_text_config().vocab_size)
    check_old_rows(options, rows)
    check_length(config, options.block_size)
    shape_of(config, options.lora)  # refuses adapters for layers that the model does not have
    had = load_vocabulary(chain.tokenizer).size
    if had > rows:
        raise InputError(
            chain.base, f"has {rows:,} rows and its tokenizer {had:,} ids", "Put the right tokenizer there"
        )
    made = prepare_tokenizer(chain.tokenizer, template, folder)
    tokens = DocumentTokenizer.open(folder)
    tokenizer = load_transformers_tokenizer(folder)
    _refuse_untrained(made, tokenizer, had, options)
    n_old = options.old_rows if options.old_rows is not None else old_rows_by_manifest(chain)
    grows = tokens.size > rows
    ground = ModelInfo(
        chain, config, tokens, max(rows, tokens.size), n_old if n_old or not grows else rows, grows
    )
    return ChatModelInfo(ground, ConversationEncoder(tokenizer, made), not keeps_samples_apart(config))


def _refuse_untrained(template: ChatTemplate, tokenizer: Any, had: int, options: TrainingOptions) -> None:
    """A new end of answers whose row does not learn would never be said."""
    fresh = [t for t in template.tokens if tokenizer.convert_tokens_to_ids(t) >= had]
    if fresh and options.rows == "none" and not options.full:
        told = f"leaves the new rows of {', '.join(fresh)} untrained"
        raise OptionError("--rows none", told, "Give --rows new or all, or --template alpaca")


def keeps_samples_apart(config: Any) -> bool:
    """Whether a model of this config tells the samples of a block apart, by position_ids that restart."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    return "position_ids" in inspect.signature(kind.forward).parameters
