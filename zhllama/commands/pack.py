"""The command `pack`, which encodes documents into memory-mapped blocks."""

from zhllama.commands.declare import command
from zhllama.commands.shared import AsJson, Config, Force, Out, TextOptions, print_json, progress, say
from zhllama.options import recorded
from zhllama.run import Run
from zhllama.training.data_options import PackingData
from zhllama.training.options import PackingOptions


@command
def pack(
    data: PackingData,
    options: PackingOptions,
    reading: TextOptions,
    out: Out,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Encode documents into memory-mapped blocks of one length, an end of text after each."""
    from zhllama.io.text import find_files
    from zhllama.training.document_tokenizer import DocumentTokenizer
    from zhllama.training.mixture import WeightedSource, pack_source
    from zhllama.training.packed_blocks import BlocksOrigin

    source = WeightedSource("text", tuple(find_files(data.text)))
    tokens = DocumentTokenizer.open(data.tokenizer)
    with (
        Run(out, "pack", recorded(data, options, reading), [*source.files, *tokens.files()], force) as run,
        progress("encoding", sum(path.stat().st_size for path in source.files)) as bar,
    ):
        origin = BlocksOrigin(
            source.hash(), tokens.hash, options.block_size, options.fit, validation_split=False
        )
        blocks = pack_source(source, tokens, origin, run.out / "blocks", field=reading.field, advance=bar)
        meta = blocks.meta
        figures = {
            "blocks": meta.blocks, "block_size": meta.size, "tokens": meta.tokens, "filled": round(meta.filled, 4),
            "documents": meta.documents, "characters": meta.characters,
        }  # fmt: skip
        run.finish(figures)
    if as_json:
        print_json(figures)
        return
    counts = f"{meta.blocks:,} blocks of {meta.size}: {meta.documents:,} documents, {meta.tokens:,} tokens"
    say(f"{counts}, {100 * meta.filled:.1f} % of positions used\n{out / 'blocks'}")
