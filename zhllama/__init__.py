"""Adds Chinese to a language model, and verifies every step.

The names below are the Python API, the same functions that the command line calls (docs/reference/api.md); each is
imported when it is first used, so that `import zhllama` costs nothing.

    >>> from pathlib import Path
    >>> import zhllama
    >>> base = zhllama.SentencePieceVocabulary.read(Path("llama.model"))
    >>> merge = zhllama.safe(base, ["人工智能", "计算机"])
    >>> merge.vocabulary.processor.encode("人工智能", out_type=str)
    ['▁', '人工智能']
"""

import sys

# From here on `python -m zhllama` must not import from the current folder, nor show a traceback at Ctrl-C.
if getattr(sys, "argv", [""])[:1] == ["-m"]:
    from zhllama.safe_path import leave_current_folder, quiet_interrupt

    quiet_interrupt()
    leave_current_folder()

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zhllama.encoding.encoder import Encoder as Encoder
    from zhllama.errors import ZhllamaError as ZhllamaError
    from zhllama.evaluation.bits_per_byte import measure_bits as measure_bits
    from zhllama.model.grow import grow as grow
    from zhllama.model.load import open_model as open_model
    from zhllama.vocab.any_tokenizer import load_any_tokenizer as load_any_tokenizer
    from zhllama.vocab.audit import audit as audit
    from zhllama.vocab.continued import continued as continued
    from zhllama.vocab.fast_tokenizer import transformers_files as transformers_files
    from zhllama.vocab.merge import chinese_llama as chinese_llama
    from zhllama.vocab.merge import safe as safe
    from zhllama.vocab.read import read_vocabulary as read_vocabulary
    from zhllama.vocab.recipes import MergeOptions as MergeOptions
    from zhllama.vocab.recipes import merge_vocabulary as merge_vocabulary
    from zhllama.vocab.sentencepiece_vocabulary import SentencePieceVocabulary as SentencePieceVocabulary

_MODULES = {
    "Encoder": "zhllama.encoding.encoder",
    "MergeOptions": "zhllama.vocab.recipes",
    "SentencePieceVocabulary": "zhllama.vocab.sentencepiece_vocabulary",
    "ZhllamaError": "zhllama.errors",
    "audit": "zhllama.vocab.audit",
    "chinese_llama": "zhllama.vocab.merge",
    "continued": "zhllama.vocab.continued",
    "grow": "zhllama.model.grow",
    "load_any_tokenizer": "zhllama.vocab.any_tokenizer",
    "measure_bits": "zhllama.evaluation.bits_per_byte",
    "merge_vocabulary": "zhllama.vocab.recipes",
    "open_model": "zhllama.model.load",
    "read_vocabulary": "zhllama.vocab.read",
    "safe": "zhllama.vocab.merge",
    "transformers_files": "zhllama.vocab.fast_tokenizer",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'zhllama' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
