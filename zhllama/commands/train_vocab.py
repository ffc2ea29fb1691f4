"""The command `train-vocab`, which trains a Chinese SentencePiece model."""

from typing import TYPE_CHECKING, Any

from zhllama.commands.declare import command
from zhllama.commands.shared import AsJson, Config, Force, Out, TextOptions, note, print_json, progress, say
from zhllama.options import recorded
from zhllama.run import Run
from zhllama.vocab.options import MB, TextSampleOptions, TrainVocabularyOptions

if TYPE_CHECKING:
    from zhllama.vocab.sample import LineSample


@command
def train_vocab(
    options: TrainVocabularyOptions,
    sampling: TextSampleOptions,
    reading: TextOptions,
    out: Out,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Train a Chinese SentencePiece model: zh.model, for merge-vocab --zh."""
    from zhllama.characters import charsets
    from zhllama.errors import OptionError
    from zhllama.io.text import find_files
    from zhllama.vocab.counted_text import CountedText, DocumentLines
    from zhllama.vocab.folder import table
    from zhllama.vocab.piece_filter import PieceFilter, plain, read_exclude_list, use_cells
    from zhllama.vocab.sample import sample_lines
    from zhllama.vocab.train import COST, train_on_text, train_on_words
    from zhllama.vocab.word_lists import jieba_file

    files = find_files(options.text)
    sets = charsets(sampling.cover)
    if sampling.min_documents > 1 and not files:
        raise OptionError("min_documents", "counts documents of text", "Name text")
    exclude = read_exclude_list(sampling.exclude) if sampling.exclude else frozenset()
    with Run(
        out,
        "train-vocab",
        recorded(options, sampling, reading),
        [*(files or [jieba_file()]), *([sampling.exclude] if sampling.exclude else [])],
        force,
        seed=sampling.seed,
    ) as run:
        sample = counted = None
        if files:
            with progress("reading", sum(file.stat().st_size for file in files)) as bar:
                lines = DocumentLines(files, reading.field, bar)
                sample = sample_lines(lines, sampling.sample_bytes, sampling.seed, lambda: lines.document)
            counted = CountedText.sampled(sample.lines, sample.documents, lines, options.script)
        if sample is not None:
            seconds, memory = (rate * sample.size for rate in COST[options.model_type])
            share = f"{sample.size / MB:.1f} of {sample.seen / MB:.1f} MB"
            note(
                f"Training on {share if sample.size < sample.seen else f'all {sample.seen / MB:.1f} MB'}: about {seconds:.0f} CPU seconds "
                f"and {memory / MB + 100:.0f} MB of memory."
            )
        with progress(f"{options.size:,} pieces", total=1.0) as bar:
            settings = (
                options.size,
                options.model_type,
                options.character_coverage,
                sets,
                options.script,
                out / "sentencepiece.log",
                bar.at,
                PieceFilter(exclude, sampling.min_documents, counted),
            )
            training = train_on_words(*settings) if sample is None else train_on_text(sample.lines, *settings)
        run.write("zh.model", training.model.content)
        run.write("zh.vocab", "".join(f"{p.text}\t{p.score:g}\n" for p in training.model.pieces))
        if counted is not None:
            pieces = {p.text: plain(p.text) for p in training.model.pieces if p.kind == "normal"}
            uses = counted.uses(pieces.values())
            rows = [
                {"piece": name, **use_cells(text, uses.get(text), exclude)} for name, text in pieces.items()
            ]
            run.write("pieces.tsv", table([list(rows[0]), *(list(row.values()) for row in rows)]))
        figures: dict[str, Any] = {"pieces": len(training.model.pieces), "sentencepiece": training.options}
        if sample is not None:
            figures |= {"sampled_bytes": sample.size, "seen_bytes": sample.seen, "lines_cut": sample.cut}
        manifest = run.finish(figures)
    if as_json:
        print_json({"out": str(out), **manifest["figures"]})
        return
    say(
        f"{figures['pieces']:,} pieces from {'jieba’s word list' if sample is None else _summary(sample)} in "
        f"{manifest['seconds']:.0f} s: {out / 'zh.model'}"
    )
    say(f"Next: zhllama merge-vocab --zh {out / 'zh.model'} --recipe safe --out VOCAB")


def _summary(sample: "LineSample") -> str:
    cut = f", {sample.cut:,} long lines split at sentence ends" if sample.cut else ""
    if sample.size == sample.seen:
        return f"{sample.seen / MB:.1f} MB of text{cut}"
    return f"{sample.size / MB:.1f} of {sample.seen / MB:.1f} MB of text{cut}"
