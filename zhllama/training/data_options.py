"""The options of the training commands that name their model and data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zhllama.model.options import AdapterOptions
from zhllama.options import option, required
from zhllama.training.options import HARDWARE, LENGTH, MONITORING


@dataclass(frozen=True, kw_only=True)
class PretrainingData(AdapterOptions):
    """The model, its text, and the cache of packed blocks."""

    model: str | None = option(
        None, "Folder, hub name, run or GGUF file. Required, except for a plan.", flags=("--model", "-m")
    )
    tokenizer: Path | None = option(
        None, "Tokenizer folder; by default the model's own. A larger one grows the model.",
        flags=("--tokenizer", "-t"),
    )  # fmt: skip
    text: tuple[str, ...] = option(
        (), "LABEL=PATH[:WEIGHT], e.g. zh=corpus.txt:9. Required, except for a plan."
    )
    eval_text: tuple[str, ...] = option(
        (), "LABEL=PATH of the validation text; by default 1 % of the text, or the shipped sample."
    )
    stream: bool = option(False, "Tokenize during training, without packed blocks on disk.", panel=LENGTH)
    cache: Path | None = option(None, "Folder of packed blocks.", panel=HARDWARE, recorded=False)


@dataclass(frozen=True, kw_only=True)
class ChatTuningData(AdapterOptions):
    """The model, its chat template, and the conversations."""

    model: str | None = option(
        None, "Folder, hub name, run or GGUF file. Required, except for a plan.", flags=("--model", "-m")
    )
    data: tuple[str, ...] = option(
        (),
        "FILE[:WEIGHT]: rows of Alpaca, BELLE, ShareGPT, Firefly, messages and others: JSON, Parquet or CSV. "
        "Required, except for a plan.",
    )
    eval_data: tuple[str, ...] = option(
        (), "FILE of conversations for validation; by default 1 % of the data."
    )
    template: str | None = option(
        None,
        "alpaca, vicuna, chatml, llama3; own: the model's chat_template.",
        show_default="own; alpaca without one",
    )
    thoughts: Literal["keep", "drop", "mask"] = option(
        "keep", "Thoughts before answers: train on them, leave them out, or give them as context."
    )
    field_map: tuple[str, ...] = option((), "NEW=OLD: read the field OLD of the rows as NEW.")
    skip_bad: bool = option(False, "Reject bad rows into rejected.jsonl instead of stopping.")
    cache: Path | None = option(None, "Folder of packed blocks.", panel=HARDWARE, recorded=False)


@dataclass(frozen=True, kw_only=True)
class PairData(AdapterOptions):
    """The model, its chat template, and the ranked pairs."""

    model: str | None = option(
        None,
        "Folder, hub name, run or GGUF file. Required, except for a plan.",
        flags=("--model", "-m"),
        recorded=False,
    )
    pairs: tuple[str, ...] = option(
        (),
        "Ranked answers: chosen and rejected, ranked_outputs, responses_and_scores, completion_a and _b; .gz, .xz too.",
    )
    eval_pairs: tuple[str, ...] = option(
        (), "FILE of pairs for validation, instead of --validation-share.", panel=MONITORING
    )
    validation_share: float = option(
        0.1,
        "Share of the prompts in the validation split, 200 at most.",
        panel=MONITORING,
        former=("--aside",),
    )
    template: str | None = option(
        None, "alpaca, vicuna, chatml, llama3 or own.", show_default="own; alpaca without one"
    )
    field_map: tuple[str, ...] = option((), "NEW=OLD: read the field OLD of the rows as NEW.")
    skip_bad: bool = option(False, "Reject bad rows into rejected.jsonl instead of stopping.")


@dataclass(frozen=True, kw_only=True)
class LabelledData(AdapterOptions):
    """The model, its chat template, and the labelled answers."""

    model: str | None = option(
        None, "Folder, hub name, run or GGUF file.", flags=("--model", "-m"), recorded=False
    )
    data: tuple[str, ...] = option(
        (), "Answers labelled by kto_tag or label as true or false, in any format of sft; or ranked pairs."
    )
    eval_data: tuple[str, ...] = option(
        (), "FILE of labelled answers for validation, instead of --validation-share.", panel=MONITORING
    )
    validation_share: float = option(
        0.1, "Share of the prompts in the validation split, 200 at most.", panel=MONITORING
    )
    template: str | None = option(
        None, "alpaca, vicuna, chatml, llama3 or own.", show_default="own; alpaca without one"
    )
    field_map: tuple[str, ...] = option((), "NEW=OLD: read the field OLD of the rows as NEW.")
    skip_bad: bool = option(False, "Reject bad rows into rejected.jsonl instead of stopping.")


@dataclass(frozen=True, kw_only=True)
class PackingData:
    """The text and its tokenizer."""

    text: tuple[Path, ...] = required("Files, folders or globs.")
    tokenizer: Path = required("Folder, .model or tokenizer.json.", flags=("--tokenizer", "-t"))
