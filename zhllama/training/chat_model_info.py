"""The model of a fine-tuning run, inspected before its weights are read: its chain, and its tokenizer with the template."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhllama.conversation.answer_segments import Thoughts
from zhllama.conversation.encode_conversation import ConversationEncoder
from zhllama.conversation.prepare_tokenizer import prepare_tokenizer
from zhllama.conversation.template import ChatTemplate
from zhllama.errors import InputError, OptionError
from zhllama.model.chain import resolve_chain
from zhllama.model.load import load_transformers_tokenizer, read_model_config
from zhllama.training.document_tokenizer import DocumentTokenizer
from zhllama.training.exportable import check_exportable
from zhllama.training.model_info import ModelInfo, check_length, check_old_rows, old_rows_from_manifests
from zhllama.training.options import TrainingOptions
from zhllama.vocab.any_tokenizer import load_any_tokenizer


@dataclass(frozen=True)
class ChatModelInfo:
    """A model and its conversation encoder."""

    info: ModelInfo
    encoder: ConversationEncoder


def inspect_chat_model(
    model: str, template: str | None, options: TrainingOptions, folder: Path, thoughts: Thoughts = "keep"
) -> ChatModelInfo:
    """Resolve the model's chain and write its tokenizer, with the tokens that the template needs, to `folder`.

    Without `template`, the tokenizer's own is used, or Alpaca's if it has none.
    Errors: InputError and OptionError for rows, a length or a template that do not fit the model.
    """
    chain = resolve_chain(model)
    config = read_model_config(chain.base)
    rows = int(config.get_text_config().vocab_size)
    check_old_rows(options, rows)
    check_length(config, options.block_size)
    check_exportable(chain, options)
    n_ids = load_any_tokenizer(chain.tokenizer).size
    if n_ids > rows:
        message = f"has {rows:,} rows and its tokenizer {n_ids:,} ids"
        raise InputError(chain.base, message, "Put the right tokenizer there")
    chat_template = prepare_tokenizer(chain.tokenizer, template, folder)
    document_tokenizer = DocumentTokenizer.open(folder)
    tokenizer = load_transformers_tokenizer(folder, chain.tokenizer)
    _check_new_tokens(chat_template, tokenizer, n_ids, options)
    n_old = options.old_rows if options.old_rows is not None else old_rows_from_manifests(chain)
    grows = document_tokenizer.size > rows
    if grows and not n_old:
        n_old = rows
    info = ModelInfo(chain, config, document_tokenizer, max(rows, document_tokenizer.size), n_old, grows)
    return ChatModelInfo(info, ConversationEncoder(tokenizer, chat_template, thoughts))


def _check_new_tokens(template: ChatTemplate, tokenizer: Any, n_ids: int, options: TrainingOptions) -> None:
    """Raise OptionError for new tokens of the template without trainable rows: the model would never write them."""
    new = [token for token in template.tokens if tokenizer.convert_tokens_to_ids(token) >= n_ids]
    if new and options.rows == "none" and not options.full:
        message = f"leaves the new rows of {', '.join(new)} untrained"
        raise OptionError("rows none", message, "Give `rows` new or all, or `template` alpaca")
