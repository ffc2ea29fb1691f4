"""Opens the model of `chat` and `serve`."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from zhllama.commands.shared import check_torch, warn
from zhllama.errors import OptionError
from zhllama.inference.options import ChatModelOptions

if TYPE_CHECKING:
    from zhllama.inference.llamacpp_chat_model import LlamaCppChatModel
    from zhllama.inference.transformers_chat_model import TransformersChatModel


def extra_for(options: ChatModelOptions) -> str:
    """The extra that runs a model."""
    return "llamacpp" if _by_llamacpp(options) else "train"


def _by_llamacpp(options: ChatModelOptions) -> bool:
    """Whether llama.cpp runs the model: a GGUF file without adapters, where xllamacpp is there or transformers is not."""
    from zhllama.inference.llamacpp_chat_model import is_gguf

    if options.adapter or not is_gguf(options.model):
        return False
    return find_spec("xllamacpp") is not None or any(find_spec(name) is None for name in ("torch", "gguf"))


def open_model(options: ChatModelOptions, command: str) -> "TransformersChatModel | LlamaCppChatModel":
    """Load the model with the library that its format needs."""
    from zhllama.inference.llamacpp_chat_model import LlamaCppChatModel, is_gguf

    if _by_llamacpp(options):
        return LlamaCppChatModel(Path(options.model), _jinja(options.template))
    check_torch(command)
    if is_gguf(options.model) and not options.adapter:
        warn(
            f"{options.model} is dequantized and run by transformers: the package xllamacpp is not installed"
        )
    from transformers.utils import logging

    from zhllama.inference.transformers_chat_model import open_chat_model
    from zhllama.model.folded_models import with_adapters

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]

    model = open_chat_model(with_adapters(options.model, options.adapter), options.template)
    if model.assumed:
        warn(
            f"{options.model} has no chat template, so it may not be a chat model; it is prompted in the format of "
            f"{model.template.name}. With --template another format is chosen."
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
