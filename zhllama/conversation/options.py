"""The options of `sharegpt clean`, `split` and `export`: files, which conversations are accepted, and in which form they are written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zhllama.options import option, required


@dataclass(frozen=True, kw_only=True)
class ConversationFiles:
    """The files of conversations."""

    files: tuple[str, ...] = required(
        "Conversations as JSON lines or one JSON list, also .gz, .xz, .zst; folders, globs, runs of sharegpt clean.",
        positional=True,
        metavar="FILE...",
    )


@dataclass(frozen=True, kw_only=True)
class CleanOptions:
    """Which conversations are accepted."""

    keep: Literal["zh+en", "zh", "en", "any"] = option("zh+en", "Languages that are accepted.")
    min_share: float = option(
        0.3, "Share of Han in the letters of Chinese; code is left out.", minimum=0, maximum=1
    )
    min_chars: int = option(10, "Characters of all turns together, at least.", minimum=1)
    word_list: tuple[Path, ...] = option((), "Blacklist: a file of words, one a line.")
    word_hits: int = option(1, "Words of one list that reject a conversation.", minimum=1)
    drop_ai: bool = option(False, "Reject answers that say 作为一个人工智能语言模型 and the like.")
    exact: bool = option(True, "Reject exact duplicates.", flags=("--exact/--no-exact",))
    near: bool = option(True, "Reject near duplicates (Jaccard about .7 up).", flags=("--near/--no-near",))


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """How long a part is."""

    tokenizer: str = required(
        "The tokenizer of the training: a folder, file, hub name or run.", flags=("--tokenizer", "-t")
    )
    max_length: int = option(2048, "Tokens of a part, at most.", minimum=8)
    template: str | None = option(
        None,
        "Count the chat template's text too: alpaca, vicuna, chatml, llama3 or own, as sft will. Without it, only the turns' text.",
    )


@dataclass(frozen=True, kw_only=True)
class ConversionOptions:
    """Into which form rows are converted."""

    export_to: Literal["llama-factory", "trl", "openai"] = required(
        "The form: that of LLaMA-Factory, TRL or OpenAI."
    )
    field_map: tuple[str, ...] = option((), "NEW=OLD: read the field OLD of the rows as NEW.")
