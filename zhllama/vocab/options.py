"""The options of `train-vocab`, `merge-vocab` and `audit`: vocabularies, the text they are trained on, and proofs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zhllama.errors import OptionError
from zhllama.options import option, required
from zhllama.vocab.vocabulary import Recipe

MB = 1_000_000


@dataclass(frozen=True, kw_only=True)
class TextSampleOptions:
    """Which characters get pieces of their own, and how much text is read."""

    cover: str = option(
        "",
        "Character sets whose characters get a piece each, e.g. gb2312,big5-1; symbols too: bopomofo (ㄅ), enclosed (①), "
        "fullwidth-signs (￥), kangxi-radicals, radicals-supplement, ideographic-description, small-forms (﹐), "
        "vertical-forms.",
    )
    sample_bytes: int = option(40 * MB, "Bytes of text to draw for training, evenly from all.", minimum=1)
    seed: int = option(0, "Seed of everything random.")
    min_documents: int = option(
        1,
        "In how many documents of the sample a piece of two characters or more has to occur. A document is a record, in "
        "plain text the lines up to a blank line, and a line in a file without blank lines.",
        minimum=1,
    )
    exclude: Path | None = option(
        None, "File of pieces, one a line, that are left out, as the report saves it."
    )


@dataclass(frozen=True, kw_only=True)
class TrainVocabularyOptions:
    """The text and the SentencePiece model trained on it."""

    text: tuple[Path, ...] = option(
        (),
        "Files, folders or globs: .txt, .jsonl, .parquet, also .gz, .xz, .zst. Without any: jieba's word list.",
        positional=True,
    )
    size: int = option(20_000, "Number of pieces.", minimum=300)
    model_type: Literal["bpe", "unigram"] = option(
        "bpe", "bpe is ten times faster and leaves no dead pieces when merged."
    )
    character_coverage: float = option(
        0.9995, "Share of all characters that get a piece of their own.", minimum=0.9, maximum=1.0
    )
    script: Literal["as-is", "simplified", "traditional", "both"] = option(
        "as-is", "Convert the text to one script, or train on both."
    )


@dataclass(frozen=True, kw_only=True)
class MergeVocabularyOptions:
    """The vocabulary, the pieces that are added to it, and the proof."""

    base: str | None = option(
        None,
        "The model's vocabulary: a .model, a byte-level tokenizer.json, a folder, a hub name. Without it: the "
        "embedded 32,000-piece one.",
    )
    zh: Path | None = option(
        None,
        "Chinese pieces: a .model, or a file with a word a line, also with counts, tags or a header, as CSV, or jieba's "
        "user dictionary. Without it: 20,000 from jieba's list.",
    )
    recipe: Recipe | None = option(
        None,
        "chinese-llama: as published. safe: the same list without its harm. continued: continue the base's own BPE "
        "training on --text. A byte-level base accepts the last two.",
        show_default="chinese-llama; of a byte-level base continued, with --zh safe",
    )
    mixed: bool = option(False, "For safe: admit words of Han characters with letters or digits, as 维生素C.")
    pad: bool = option(False, "Add [PAD] after the last piece, for tuning.")
    text: tuple[Path, ...] = option(
        (),
        "For continued: files, folders or globs to train on. Without any: jieba's list. For --prune: text that the "
        "model still has to write, English too.",
    )
    add: int | None = option(
        None, "For continued: pieces to add. Without it: up to --size, else 17,953 as published.", minimum=0
    )
    size: int | None = option(
        None,
        "For continued: pieces in all, without [PAD]. For --prune: pieces that remain, by default the base's number.",
        above=0,
    )
    prune: Literal["leaf"] | None = option(
        None, "leaf: then remove the rarest pieces on --text that no other piece is built from."
    )
    prior: float = option(
        0.1, "For continued: weight of jieba's list, where the text weighs 1; 0 leaves it out.", minimum=0
    )
    character_coverage: float = option(
        0.999,
        "For continued, SentencePiece: share of Chinese characters that get a piece of their own.",
        minimum=0.9,
        maximum=1.0,
    )
    fuzz: int = option(20_000, "Fuzzed strings in the proof of parity.", minimum=0)

    def __post_init__(self) -> None:
        if self.size is not None and self.add is not None and not self.prune:
            raise OptionError("size", "and `add` contradict each other", "Give one of them")
        if self.recipe is None:  # the base decides
            return
        if self.text and self.recipe != "continued" and not self.prune:
            raise OptionError(
                "text", f"is not used by `recipe` {self.recipe}", "Train a list first: zhllama train-vocab"
            )
        if self.prune and not self.text:
            raise OptionError("prune", "needs text to count rare pieces", "Give `text` FILE")
        if self.zh is not None and self.recipe == "continued":
            raise OptionError("zh", "is not used by `recipe` continued", "Give `text`, or `recipe` safe")
        if self.mixed and self.recipe != "safe":
            raise OptionError("mixed", f"is not used by `recipe` {self.recipe}", "Take `recipe` safe")


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """The extended vocabulary, its base, and the texts that both tokenize."""

    tokenizer: str = required(
        "The extended vocabulary: a folder of merge-vocab, or a .model.", positional=True
    )
    base: str | None = option(None, "The vocabulary it extends. Without it: the base in its manifest.")
    text: tuple[Path, ...] = option((), "Files, folders or globs. Without any: the texts of corpora/sample.")
    recipe: Recipe | None = option(
        None, "The recipe whose promises are checked. Without it: the recipe in its manifest."
    )
    model: str | None = option(
        None,
        "Also name the tokens that this model, a folder or a run, hardly learned, by their rows. Where no base is known, "
        "nothing else is audited.",
        flags=("--model", "-m"),
    )
    fuzz: int = option(20_000, "Fuzzed strings in the proof of parity.", minimum=0)
    seed: int = option(0, "Seed of everything random.")
