"""Counts the tokens of turns, as text alone or under a chat template, with the tokenizer of a file, folder, run or hub name."""

from pathlib import Path

from zhllama.conversation.split import Length, template_length, text_length
from zhllama.conversation.template import template_for
from zhllama.errors import OptionError
from zhllama.model.chain import resolve_chain
from zhllama.model.load import VOCABULARY_FILES, load_transformers_tokenizer
from zhllama.run_folder import CONFIG
from zhllama.vocab.any_tokenizer import load_any_tokenizer


def tokenizer_path(tokenizer: str) -> Path:
    """The folder of a tokenizer; for a run, the tokenizer of its model."""
    path = Path(tokenizer)
    if (path / CONFIG).is_file() and not any((path / name).is_file() for name in VOCABULARY_FILES):
        return resolve_chain(path).tokenizer
    return path


def length_function(tokenizer: str, template: str | None) -> Length:
    """The function that counts the tokens of turns; OptionError for a template without the folder of a tokenizer."""
    path = tokenizer_path(tokenizer)
    if template is None:
        return text_length(load_any_tokenizer(path if path.exists() else tokenizer))
    if not path.is_dir():
        raise OptionError("template", "needs a tokenizer's folder", "Name one that has tokenizer_config.json")
    opened = load_transformers_tokenizer(path)
    return template_length(opened, template_for(template, opened))
