"""Opens the model of `chat` and `serve`."""

from pathlib import Path
from typing import TYPE_CHECKING

from zhllama.commands.shared import check_torch, warn
from zhllama.errors import OptionError
from zhllama.inference.options import ChatModelOptions

if TYPE_CHECKING:
    from zhllama.inference.llamacpp_chat_model import LlamaCppChatModel
    from zhllama.inference.transformers_chat_model import TransformersChatModel


def extra_for(model: str) -> str:
    """The extra that runs a model."""
    from zhllama.inference.llamacpp_chat_model import is_gguf

    return "llamacpp" if is_gguf(model) else "train"


def open_model(options: ChatModelOptions, command: str) -> "TransformersChatModel | LlamaCppChatModel":
    """Load the model with the library that its format needs."""
    from zhllama.inference.llamacpp_chat_model import LlamaCppChatModel, is_gguf

    if is_gguf(options.model):
        return LlamaCppChatModel(Path(options.model), _jinja(options.template))
    check_torch(command)
    from transformers.utils import logging

    from zhllama.inference.transformers_chat_model import open_chat_model

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]

    model = open_chat_model(options.model, options.template)
    if model.assumed:
        warn(
            f"{options.model} has no chat template, so it may not be a chat model; it is prompted in the format of "
            f"{model.template.name}. Choose another format with --template."
        )
    return model


def _jinja(template: str | None) -> str | None:
    """A template for llama.cpp, which adds the begin-of-text token itself."""
    from zhllama.conversation.template import FRAMED, PLAIN

    if template in (None, "own"):
        return None
    known = {**PLAIN, **{name: jinja for name, (jinja, _) in FRAMED.items()}}
    if template not in known:
        raise OptionError("template", f"{template!r} is not known", f"Give one of {', '.join(known)}")
    return known[template]
