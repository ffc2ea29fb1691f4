"""Checks that transformers tokenizes as a tokenizer.json says where it takes another class for a type of model.

For Qwen2 and Qwen3.5, AutoTokenizer ignores the class that tokenizer_config.json names, if config.json stands beside it, and builds
the pre-tokenizer of its own class.
"""

import json
import tempfile
from pathlib import Path

from zhllama.errors import InputError
from zhllama.model.copy_files import copy_tokenizer
from zhllama.model.load import load_transformers_tokenizer
from zhllama.resources import shipped
from zhllama.vocab.any_tokenizer import load_any_tokenizer
from zhllama.vocab.tokenizer_config import CONFIG, read_settings

AS_IT_IS = ("PreTrainedTokenizer", "TokenizersBackend")  # classes that take a tokenizer.json unchanged
TEXTS = ("zh_news.txt", "en_essay.txt", "code_python.txt")
LENGTH = 2000  # characters of each


def check_tokenizer_class(
    tokenizer: Path, model_type: str, remedy: str = "Extend the vocabulary of that model instead"
) -> None:
    """Raise InputError where transformers tokenizes differently in a folder of a model of this type."""
    from transformers.models.auto.tokenization_auto import (
        MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS as REPLACED,
    )

    named = str(read_settings(tokenizer).get("tokenizer_class") or "").removesuffix("Fast")
    if model_type not in REPLACED or named not in AS_IT_IS:
        return
    with tempfile.TemporaryDirectory(prefix="zhllama-") as folder:
        beside = Path(folder)
        copy_tokenizer(tokenizer, beside)
        (beside / "config.json").write_text(json.dumps({"model_type": model_type}), encoding="utf-8")
        loaded = load_transformers_tokenizer(beside)
    expected = load_any_tokenizer(tokenizer)
    for name in TEXTS:
        text = shipped("corpora", "sample", name).read_text(encoding="utf-8")[:LENGTH]
        if loaded(text, add_special_tokens=False).input_ids != expected.encode([text])[0]:
            message = (
                f"tokenizes text differently beside a model of the type {model_type}: transformers replaces its class by "
                f"{type(loaded).__name__} there, whatever {CONFIG} says"
            )
            raise InputError(tokenizer, message, remedy)
