"""The commands `train-vocab` and `merge-vocab`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from zhllama.commands.audit import sample_texts
from zhllama.commands.shared import (
    AsJson,
    Config,
    Field,
    Force,
    MaxLineBytes,
    Out,
    Seed,
    note,
    options_of,
    print_json,
    progress,
    say,
    screen,
)
from zhllama.errors import OptionError
from zhllama.io.files import LONGEST_LINE
from zhllama.run import Run
from zhllama.vocab.vocabulary import Recipe

if TYPE_CHECKING:
    from zhllama.vocab.sample import LineSample

MB = 1_000_000

SampleBytes = Annotated[
    int, typer.Option("--sample-bytes", min=1, help="How much text to draw for training, evenly from all.")
]
Cover = Annotated[
    str,
    typer.Option(
        "--cover", help="Character sets to give single pieces, e.g. gb2312,big5-1.", show_default=False
    ),
]


def train_vocab(
    context: typer.Context,
    out: Out,
    text: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Files, folders or globs: .txt, .jsonl, .parquet, also .gz, .xz, .zst. Without any: jieba's word list.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[int, typer.Option("--size", min=300, help="How many pieces.")] = 20_000,
    model_type: Annotated[
        Literal["bpe", "unigram"],
        typer.Option("--model-type", help="bpe is ten times faster and leaves no dead pieces when merged."),
    ] = "bpe",
    character_coverage: Annotated[
        float,
        typer.Option(
            "--character-coverage",
            min=0.9,
            max=1.0,
            help="Share of all characters that get a piece of their own.",
        ),
    ] = 0.9995,
    cover: Cover = "",
    script: Annotated[
        Literal["as-is", "simplified", "traditional", "both"],
        typer.Option("--script", help="Turn the text into one script, or train on both."),
    ] = "as-is",
    sample_bytes: SampleBytes = 40 * MB,
    field: Field = "text",
    max_line_bytes: MaxLineBytes = LONGEST_LINE,
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Train a Chinese SentencePiece model: zh.model, for merge-vocab --zh."""
    from zhllama.characters import charsets
    from zhllama.io.text import find_files
    from zhllama.vocab.train import COST, train_on_text, train_on_words
    from zhllama.vocab.word_lists import jieba_file

    files = find_files(text or [])
    sets = charsets(cover)
    with Run(out, "train-vocab", options_of(context), files or [jieba_file()], force, seed=seed) as run:
        sample = _draw(files, field, sample_bytes, seed) if files else None
        if sample is not None:
            seconds, memory = (rate * sample.size for rate in COST[model_type])
            note(
                f"Training on {sample.size / MB:.1f} of {sample.seen / MB:.1f} MB: about {seconds:.0f} CPU seconds "
                f"and {memory / MB + 100:.0f} MB of memory."
            )
        with progress(f"{size:,} pieces", total=1.0) as bar:
            rest = (size, model_type, character_coverage, sets, script, out / "sentencepiece.log", bar.at)
            training = train_on_words(*rest) if sample is None else train_on_text(sample.lines, *rest)
        run.write("zh.model", training.model.content)
        run.write("zh.vocab", "".join(f"{p.text}\t{p.score:g}\n" for p in training.model.pieces))
        figures: dict[str, Any] = {"pieces": len(training.model.pieces), "sentencepiece": training.options}
        if sample is not None:
            figures |= {"sampled_bytes": sample.size, "seen_bytes": sample.seen, "lines_cut": sample.cut}
        manifest = run.finish(figures)
    if as_json:
        print_json({"out": str(out), **manifest["figures"]})
        return
    say(
        f"{figures['pieces']:,} pieces from {'jieba’s word list' if sample is None else _told(sample)} in "
        f"{manifest['seconds']:.0f} s: {out / 'zh.model'}"
    )
    say(f"Next: zhllama merge-vocab --zh {out / 'zh.model'} --recipe safe --out VOCAB")


def merge_vocab(
    context: typer.Context,
    out: Out,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            help="The model's vocabulary: a .model, a byte-level tokenizer.json, a folder, a hub name. Without it: "
            "the embedded 32,000-piece one.",
            show_default=False,
        ),
    ] = None,
    zh: Annotated[
        Path | None,
        typer.Option(
            "--zh",
            help="Chinese pieces: a .model, or a .txt with a word a line. Without it: 20,000 from jieba's list.",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        Recipe,
        typer.Option(
            "--recipe",
            help="chinese-llama: as published. safe: the same list without its harm. continued: go on with the "
            "base's own BPE on --text. A byte-level base takes the last two.",
        ),
    ] = "chinese-llama",
    pad: Annotated[bool, typer.Option("--pad", help="Add [PAD] after the last piece, for tuning.")] = False,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            "--text",
            help="For continued: files, folders or globs to train on. Without any: jieba's list. For --prune: what "
            "the model is still to write, English too.",
            show_default=False,
        ),
    ] = None,
    add: Annotated[
        int | None,
        typer.Option(
            "--add",
            min=0,
            help="For continued: pieces to add. Without it: up to --size, else 17,953 as published.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            "--size",
            help="For continued: pieces in all, [PAD] not counted. For --prune: what is left, by default the base's number.",
            show_default=False,
        ),
    ] = None,
    prune: Annotated[
        Literal["leaf"] | None,
        typer.Option(
            "--prune",
            help="leaf: then take away the rarest pieces on --text that nothing is built from.",
            show_default=False,
        ),
    ] = None,
    prior: Annotated[
        float,
        typer.Option(
            "--prior",
            min=0,
            help="For continued: weight of jieba's list, where the text weighs 1; 0 leaves it out.",
        ),
    ] = 0.1,
    character_coverage: Annotated[
        float,
        typer.Option(
            "--character-coverage",
            min=0.9,
            max=1.0,
            help="For continued, SentencePiece: share of Chinese characters that get a piece of their own.",
        ),
    ] = 0.999,
    cover: Cover = "",
    sample_bytes: SampleBytes = 40 * MB,
    field: Field = "text",
    max_line_bytes: MaxLineBytes = LONGEST_LINE,
    fuzz: Annotated[
        int, typer.Option("--fuzz", min=0, help="Fuzzed strings in the proof of parity.")
    ] = 20_000,
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Merge Chinese pieces into a model's vocabulary, and prove what that changed."""
    from zhllama.characters import charsets
    from zhllama.vocab.folder import id_map, report_files
    from zhllama.vocab.proof import prove
    from zhllama.vocab.read import read_vocabulary
    from zhllama.vocab.recipes import MergeOptions, merge_vocabulary
    from zhllama.vocab.word_lists import base_file, jieba_file, listed_pieces

    if text and recipe != "continued" and not prune:
        raise OptionError(
            "--text", f"is not used by --recipe {recipe}", "Train a list first: zhllama train-vocab"
        )
    if prune and not text:
        raise OptionError("--prune", "needs text to tell what is rare", "Give --text FILE")
    if zh is not None and recipe == "continued":
        raise OptionError("--zh", "is not used by --recipe continued", "Give --text, or --recipe safe")
    if size is not None and add is not None and not prune:
        raise OptionError("--size and --add", "say the same thing twice", "Give one of them")
    options = MergeOptions(
        recipe, pad, add, size, prune is not None, prior, character_coverage, tuple(charsets(cover))
    )
    source = base_file(base)
    vocabulary = read_vocabulary(source)
    inputs = [source, *([zh] if zh else [])]
    run = Run(out, "merge-vocab", options_of(context), inputs, force, seed=seed)
    run.check()
    sample, files = _read(text or [], field, sample_bytes, seed)
    uses_jieba = recipe == "continued" and (sample is None or prior > 0)
    run.inputs = [*inputs, *files, *([jieba_file()] if uses_jieba else [])]
    title = f"{options.count(vocabulary):,} more pieces" if recipe == "continued" else "merging"
    lines = None if sample is None else sample.lines
    words = None if zh is None else listed_pieces(zh)
    with progress(title, total=1.0) as bar:
        merge = merge_vocabulary(vocabulary, options, words, lines, bar.at)
    with run, progress("audit", unit="lines") as bar:
        base_ids = merge.base_ids if merge.removed else None
        products = merge.vocabulary.transformers_files(source, base_ids, merge.pad)
        for name, content in {**products, **id_map(merge)}.items():
            run.write(name, content)
        written = out / ("tokenizer.model" if "tokenizer.model" in products else "tokenizer.json")
        found = prove(written, vocabulary, sample_texts(), recipe, fuzz, seed, bar, source.parent)
        for name, content in report_files(merge, found).items():
            run.write(name, content)
        manifest = run.finish(
            {
                "pieces": found.size,
                "base_pieces": found.base_size,
                "added": merge.counts(),
                "left_out": len(merge.left_out),
                "dead": len(found.dead),
                "drift": [found.drift.differ, found.drift.lines],
                "sentence_tokens": [len(pieces) for pieces in found.sentence],
                "tied": found.tied,
                "exact_fast_tokenizer": found.why_no_fast_tokenizer is None,
                "pruned": found.pruned,
            }
        )
    if as_json:
        print_json({"out": str(out), **manifest["figures"]})
        return
    from zhllama.commands.audit_screen import draw

    draw(screen, found, f"{out}", str(source))
    added = ", ".join(f"{n:,} {why}" for why, n in merge.counts().items()) or "0"
    less = f", {found.pruned:,} of the base pruned (id_map.json)" if merge.removed else ""
    say(f"{added} added{less}, {len(merge.left_out):,} of the list left out. Written to {out}", "bold")
    if recipe == "chinese-llama" and merge.added:
        say("--recipe safe adds the same Chinese pieces without the drift, the dead pieces and the ties.")


def _read(
    text: list[Path], field: str, sample_bytes: int, seed: int
) -> tuple["LineSample | None", list[Path]]:
    """A sample of the text and the files that it is from; None without any."""
    from zhllama.io.text import find_files

    files = find_files(text)
    return (_draw(files, field, sample_bytes, seed) if files else None), files


def _draw(files: list[Path], field: str, sample_bytes: int, seed: int) -> "LineSample":
    from zhllama.io.text import read_lines
    from zhllama.vocab.sample import sample_lines

    with progress("reading", total=sum(f.stat().st_size for f in files)) as bar:
        return sample_lines(read_lines(files, field, bar), sample_bytes, seed)


def _told(sample: "LineSample") -> str:
    cut = f", {sample.cut:,} long lines cut at sentence ends" if sample.cut else ""
    return f"{sample.size / MB:.1f} of {sample.seen / MB:.1f} MB of text{cut}"
