"""The command `merge-vocab`, which adds Chinese pieces to a model's vocabulary."""

from collections.abc import Mapping
from dataclasses import replace

from zhllama.commands.declare import command
from zhllama.commands.shared import (
    AsJson,
    Config,
    Force,
    Out,
    TextOptions,
    note,
    print_json,
    progress,
    say,
    screen,
    warn,
)
from zhllama.commands.translation import comma, number_of
from zhllama.options import recorded
from zhllama.run import Run
from zhllama.vocab.options import MergeVocabularyOptions, TextSampleOptions

# What was added, in words, by the reason of a piece.
ADDED_AS: Mapping[str, str] = {
    "list": "pieces of the list",
    "intermediate": "intermediate pieces",
    "character": "characters",
    "merge": "merges",
    "pad": "padding token",
}


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
    from zhllama.errors import OptionError
    from zhllama.io.text import find_files
    from zhllama.vocab.counted_text import CountedText, DocumentLines
    from zhllama.vocab.merge_folder import write_merge
    from zhllama.vocab.piece_filter import PieceFilter, read_exclude_list
    from zhllama.vocab.read import read_vocabulary
    from zhllama.vocab.recipes import MergeOptions, check_recipe, default_recipe, merge_vocabulary
    from zhllama.vocab.sample import sample_lines
    from zhllama.vocab.tokenizer_config import settings_files
    from zhllama.vocab.word_lists import base_file, jieba_file, word_list

    source = base_file(options.base)
    vocabulary = read_vocabulary(source)
    recipe = options.recipe or default_recipe(vocabulary, options.zh is not None)
    if options.recipe is None:
        options = replace(options, recipe=recipe)
        if vocabulary.kind != "sentencepiece":
            note(f"--recipe {recipe}, since the base is {vocabulary.kind}.")
    if sampling.min_documents > 1 and (recipe != "continued" or not options.text):
        raise OptionError("min_documents", "counts documents of text", "Take `recipe` continued with `text`")
    merge_options = MergeOptions(
        recipe, options.pad, options.add, options.size, options.prune is not None, options.prior,
        options.character_coverage, tuple(charsets(sampling.cover)), options.mixed,
    )  # fmt: skip
    check_recipe(vocabulary, recipe, options.zh is not None)
    inputs = [source, *settings_files(source), *([options.zh] if options.zh else [])]
    inputs += [sampling.exclude] if sampling.exclude else []
    run = Run(out, "merge-vocab", recorded(options, sampling, reading), inputs, force, seed=sampling.seed)
    run.check()
    if vocabulary.settings is not None and vocabulary.settings.reread is not None:
        warn(f"{source.parent}: {vocabulary.settings.reread}")
    why_no_json = vocabulary.why_no_fast_tokenizer()
    if why_no_json is not None:
        note(
            f"There will be no tokenizer.json: none can be exact for this base, because {why_no_json}. AutoTokenizer "
            "will call SentencePiece."
        )
    files = find_files(options.text)
    sample = counted = None
    if files:
        with progress("reading", sum(file.stat().st_size for file in files)) as bar:
            source_lines = DocumentLines(files, reading.field, bar)
            sample = sample_lines(
                source_lines, sampling.sample_bytes, sampling.seed, lambda: source_lines.document
            )
        counted = CountedText.sampled(sample.lines, sample.documents, source_lines)
    uses_jieba = recipe == "continued" and (sample is None or options.prior > 0)
    run.inputs = [*inputs, *files, *([jieba_file()] if uses_jieba else [])]
    title = f"{merge_options.count(vocabulary):,} more pieces" if recipe == "continued" else "merging pieces"
    lines = None if sample is None else sample.lines
    listed = None if options.zh is None else word_list(options.zh, reading.field)
    if listed is not None:
        note(f"{options.zh}: {len(listed.words):,} words, read as {listed.reading}.")
    words = None if listed is None else listed.words
    exclude = read_exclude_list(sampling.exclude) if sampling.exclude else frozenset()
    merge_options = replace(merge_options, pieces=PieceFilter(exclude, sampling.min_documents, counted))
    with progress(title, total=1.0) as bar:
        merge = merge_vocabulary(vocabulary, merge_options, words, lines, bar.at)
    with run, progress("proving", unit="lines") as bar:
        proven = write_merge(merge, source, run, fuzz=options.fuzz, seed=sampling.seed, advance=bar)
    for remark in proven.audit.carried.notes if proven.audit.carried is not None else ():
        note(f"special and added tokens: {remark}")
    if as_json:
        print_json({"out": str(out), **proven.manifest["figures"]})
        return
    from zhllama.commands.audit_screen import draw

    draw(screen, proven.audit, f"{out}", str(source))
    added = comma().join(number_of(f"{n:,}", ADDED_AS[reason]) for reason, n in merge.counts().items()) or "0"
    pruned = f"; {proven.audit.pruned:,} of the base pruned (id_map.json)" if merge.removed else ""
    left_out = f"; {len(merge.left_out):,} of the list left out" if merge.left_out else ""
    say(f"Added {added}{pruned}{left_out}. Written to {out}", "bold")
    if recipe == "chinese-llama" and merge.added:
        say("--recipe safe adds the same Chinese pieces without the drift, the dead pieces and the ties.")
