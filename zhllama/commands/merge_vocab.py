"""The command `merge-vocab`, which adds Chinese pieces to a model's vocabulary."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zhllama.commands.audit import sample_texts
from zhllama.commands.declare import command
from zhllama.commands.shared import AsJson, Config, Force, Out, TextOptions, print_json, progress, say, screen
from zhllama.commands.vocab_text import TextSampleOptions, sample_text
from zhllama.errors import OptionError
from zhllama.options import option, recorded
from zhllama.run import Run
from zhllama.vocab.vocabulary import Recipe


@dataclass(frozen=True, kw_only=True)
class MergeVocabularyOptions:
    """The vocabulary, the pieces that are added to it, and the proof."""

    base: str | None = option(
        None,
        "The model's vocabulary: a .model, a byte-level tokenizer.json, a folder, a hub name. Without it: the "
        "embedded 32,000-piece one.",
    )
    zh: Path | None = option(
        None, "Chinese pieces: a .model, or a .txt with a word a line. Without it: 20,000 from jieba's list."
    )
    recipe: Recipe = option(
        "chinese-llama",
        "chinese-llama: as published. safe: the same list without its harm. continued: continue the base's own BPE "
        "training on --text. A byte-level base accepts the last two.",
    )
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
        if self.text and self.recipe != "continued" and not self.prune:
            raise OptionError(
                "text", f"is not used by `recipe` {self.recipe}", "Train a list first: zhllama train-vocab"
            )
        if self.prune and not self.text:
            raise OptionError("prune", "needs text to count rare pieces", "Give `text` FILE")
        if self.zh is not None and self.recipe == "continued":
            raise OptionError("zh", "is not used by `recipe` continued", "Give `text`, or `recipe` safe")
        if self.size is not None and self.add is not None and not self.prune:
            raise OptionError("size", "and `add` contradict each other", "Give one of them")


@command
def merge_vocab(
    options: MergeVocabularyOptions,
    sampling: TextSampleOptions,
    reading: TextOptions,
    out: Out,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Merge Chinese pieces into a model's vocabulary, and prove what that changed."""
    from zhllama.characters import charsets
    from zhllama.io.text import find_files
    from zhllama.vocab.folder import id_map, report_files
    from zhllama.vocab.proof import prove
    from zhllama.vocab.read import read_vocabulary
    from zhllama.vocab.recipes import MergeOptions, merge_vocabulary
    from zhllama.vocab.word_lists import base_file, jieba_file, listed_pieces

    recipe = options.recipe
    merge_options = MergeOptions(
        recipe, options.pad, options.add, options.size, options.prune is not None, options.prior,
        options.character_coverage, tuple(charsets(sampling.cover)),
    )  # fmt: skip
    source = base_file(options.base)
    vocabulary = read_vocabulary(source)
    inputs = [source, *([options.zh] if options.zh else [])]
    run = Run(out, "merge-vocab", recorded(options, sampling, reading), inputs, force, seed=sampling.seed)
    run.check()
    files = find_files(options.text)
    sample = sample_text(files, reading, sampling) if files else None
    uses_jieba = recipe == "continued" and (sample is None or options.prior > 0)
    run.inputs = [*inputs, *files, *([jieba_file()] if uses_jieba else [])]
    title = f"{merge_options.count(vocabulary):,} more pieces" if recipe == "continued" else "merging"
    lines = None if sample is None else sample.lines
    words = None if options.zh is None else listed_pieces(options.zh)
    with progress(title, total=1.0) as bar:
        merge = merge_vocabulary(vocabulary, merge_options, words, lines, bar.at)
    with run, progress("audit", unit="lines") as bar:
        base_ids = merge.base_ids if merge.removed else None
        products = merge.vocabulary.transformers_files(source, base_ids, merge.pad)
        for name, content in {**products, **id_map(merge)}.items():
            run.write(name, content)
        written = out / ("tokenizer.model" if "tokenizer.model" in products else "tokenizer.json")
        audit = prove(
            written, vocabulary, sample_texts(), recipe, options.fuzz, sampling.seed, bar, source.parent
        )
        for name, content in report_files(merge, audit).items():
            run.write(name, content)
        manifest = run.finish(
            {
                "pieces": audit.size,
                "base_pieces": audit.base_size,
                "added": merge.counts(),
                "left_out": len(merge.left_out),
                "dead": len(audit.dead),
                "drift": [audit.drift.differ, audit.drift.lines],
                "sentence_tokens": [len(pieces) for pieces in audit.sentence],
                "tied": audit.tied,
                "exact_fast_tokenizer": audit.why_no_fast_tokenizer is None,
                "pruned": audit.pruned,
            }
        )
    if as_json:
        print_json({"out": str(out), **manifest["figures"]})
        return
    from zhllama.commands.audit_screen import draw

    draw(screen, audit, f"{out}", str(source))
    added = ", ".join(f"{n:,} {reason}" for reason, n in merge.counts().items()) or "0"
    pruned = f", {audit.pruned:,} of the base pruned (id_map.json)" if merge.removed else ""
    say(f"{added} added{pruned}, {len(merge.left_out):,} of the list left out. Written to {out}", "bold")
    if recipe == "chinese-llama" and merge.added:
        say("--recipe safe adds the same Chinese pieces without the drift, the dead pieces and the ties.")
