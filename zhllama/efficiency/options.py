"""The options of `report` and `advise`: tokenizers, texts, and the model whose costs are estimated."""

from dataclasses import dataclass

from zhllama.errors import OptionError
from zhllama.options import check_bounds, option, required


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """The tokenizers, the texts, and the model whose costs are estimated."""

    tokenizer: tuple[str, ...] = required(
        "Tokenizers, the first one the reference: a .model, tokenizer.json, tekken.json, .tiktoken or .gguf file, a "
        "folder, a hub name; or LABEL=any of these.",
        positional=True,
    )
    text: tuple[str, ...] = option(
        (),
        "A file, folder or glob, reported as one text; or LABEL=it. Without any: the texts of corpora/sample.",
    )
    sample_bytes: int | None = option(
        None, "Bytes to draw, evenly, from each text; without it each text is read whole.", minimum=1
    )
    sentence: tuple[str, ...] = option((), "A sentence that the page shows tokenized by every tokenizer.")
    hidden: int = option(4096, "Hidden size of the model whose costs are estimated.", minimum=1)
    layers: int = option(32, "Its layers.", minimum=1)
    seed: int = option(0, "Seed of everything random.")


@dataclass(frozen=True, kw_only=True)
class AdviceOptions:
    """The vocabulary, the text, and the model that the advice is for."""

    text: tuple[str, ...] = option(
        (),
        "Files, folders or globs of Chinese text, each file a domain. A tenth of the lines is the validation split.",
    )
    base: str | None = option(
        None,
        "The model's vocabulary: a .model, a byte-level tokenizer.json, a folder, a hub name. Without it: the "
        "embedded 32,000-piece one.",
    )
    model: str | None = option(
        None,
        "The model itself, a folder, hub name or run: its vocabulary, width, layers and head are taken from it, and its "
        "bits per character are measured on the validation split.",
        flags=("--model", "-m"),
    )
    hidden: int = option(4096, "Width of the model: hidden_size.", minimum=1)
    layers: int = option(32, "Layers of the model: num_hidden_layers.", minimum=1)
    tied: bool = option(False, "The embedding matrix is the LM head too (tie_word_embeddings).")
    train_tokens: float = option(2e9, "Tokens of such text you will train on, e.g. 2e9.", minimum=1)
    bits: float | None = option(
        None,
        "Bits per character of the model on Chinese before any training, from `zhllama eval`: the better it reads, "
        "the more training new rows need to catch up.",
        minimum=0.1,
    )
    most: int = option(32_000, "The largest number of pieces to consider.", minimum=1000)
    prior: float = option(0.1, "Weight of jieba's list, where the text weighs 1.", minimum=0)
    sample_bytes: int = option(20_000_000, "Bytes of text to draw, evenly from all files.", minimum=1)
    seed: int = option(0, "Seed of everything random.")

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.model is not None and self.base is not None:
            raise OptionError(
                "base", "is the model's own vocabulary where `model` is given", "Leave one of them out"
            )
