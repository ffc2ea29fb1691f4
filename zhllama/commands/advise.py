"""The command `advise`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zhllama.commands.shared import (
    AsJson,
    Config,
    Field,
    Force,
    MaxLineBytes,
    Seed,
    options_of,
    print_json,
    progress,
    say,
    screen,
)
from zhllama.errors import OptionError
from zhllama.io.files import LONGEST_LINE
from zhllama.run import Run

if TYPE_CHECKING:
    from zhllama.efficiency.advise import Advice


def advise(
    context: typer.Context,
    text: Annotated[
        list[str] | None,
        typer.Option(
            "--text",
            help="Files, folders or globs of Chinese text, each file a domain. A tenth of the lines is only measured on.",
            show_default=False,
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            help="The model's vocabulary: a .model, a byte-level tokenizer.json, a folder, a hub name. Without it: "
            "the embedded 32,000-piece one.",
            show_default=False,
        ),
    ] = None,
    hidden: Annotated[int, typer.Option("--hidden", min=1, help="Width of the model: hidden_size.")] = 4096,
    layers: Annotated[
        int, typer.Option("--layers", min=1, help="Layers of the model: num_hidden_layers.")
    ] = 32,
    tied: Annotated[
        bool, typer.Option("--tied", help="Embedding and output matrix are one (tie_word_embeddings).")
    ] = False,
    train_tokens: Annotated[
        float, typer.Option("--train-tokens", min=1, help="Tokens of such text you will train on, e.g. 2e9.")
    ] = 2e9,
    bits: Annotated[
        float | None,
        typer.Option(
            "--bits",
            min=0.1,
            help="Bits per character of the model on Chinese before any training, from `zhllama eval`: the better it reads, "
            "the more training new rows need to catch up.",
            show_default=False,
        ),
    ] = None,
    most: Annotated[
        int, typer.Option("--most", min=1000, help="The largest number of pieces to look at.")
    ] = 32_000,
    prior: Annotated[
        float, typer.Option("--prior", min=0, help="Weight of jieba's list, where the text weighs 1.")
    ] = 0.1,
    sample_bytes: Annotated[
        int, typer.Option("--sample-bytes", min=1, help="How much text to draw, as evenly as files allow.")
    ] = 20_000_000,
    field: Field = "text",
    max_line_bytes: MaxLineBytes = LONGEST_LINE,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder for advice.json and advice.html, with a manifest.", show_default=False
        ),
    ] = None,
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Say how far to extend a vocabulary for Chinese, and whether that pays at all."""
    from zhllama.efficiency.advise import AdvisedModel
    from zhllama.efficiency.advise import advise as advised
    from zhllama.efficiency.bpe_extension import extend, kept_aside
    from zhllama.io.files import to_json
    from zhllama.io.text import find_files
    from zhllama.pages.advice import advice_page
    from zhllama.vocab.read import read_vocabulary
    from zhllama.vocab.word_lists import base_file

    if not text:
        raise OptionError("--text", "is missing, and advice needs text", "Give --text FILE")
    named, files = base_file(base), find_files(text)
    vocabulary = read_vocabulary(named)
    run = None if out is None else Run(out, "advise", options_of(context), [named, *files], force, seed=seed)
    if run is not None:
        run.check()
    train, aside = kept_aside(_samples(files, field, sample_bytes, seed), seed)
    with progress(f"up to {most:,} pieces", total=1.0) as bar:
        found = extend(vocabulary, train, aside, most, prior, bar.at)
    model = AdvisedModel(hidden, layers, tied)
    advice = advised(found.first, found.parts, found.domains, found.training, model, train_tokens, bits)
    if run is not None:
        with run:
            run.write("advice.json", to_json(advice.to_dict()))
            run.write("advice.html", advice_page(advice, str(base or "the embedded base")))
            run.finish({"recommended": advice.recommended.added, "verdict": advice.verdict})
    if as_json:
        print_json(advice.to_dict())
        return
    draw(advice, str(named))
    if out is not None:
        say(f"Written to {out}: advice.html, advice.json")


def _samples(files: list[Path], field: str, size: int, seed: int) -> dict[str, list[str]]:
    """Lines of each file by its name, or by its path where names are the same; as many bytes of each where they have them."""
    from zhllama.io.text import read_lines
    from zhllama.vocab.sample import sample_lines

    names = [f.name.split(".")[0] for f in files]
    labels = names if len(set(names)) == len(names) else list(map(str, files))
    with progress("reading", total=sum(f.stat().st_size for f in files)) as bar:
        return {
            label: sample_lines(read_lines([f], field, bar), max(1, size // len(files)), seed).lines
            for label, f in zip(labels, files, strict=True)
        }


def draw(advice: "Advice", base: str) -> None:
    """The curve as a chart of lines, what each point costs, and the word on it."""
    from rich.table import Table
    from rich.text import Text

    from zhllama.efficiency.advise import SEEN, shown_steps

    table = Table(
        box=None,
        padding=(0, 1, 0, 0),
        header_style="dim",
        title=base,
        title_style="bold",
        title_justify="left",
    )
    headings = (
        "added",
        "chars/token",
        "",
        "saved",
        "next 1,000",
        "params",
        "head",
        "compute",
        f"seen {SEEN}×",
    )
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "" else "right", no_wrap=True)
    top = max(step.characters_per_token for step in advice.steps)
    for step in shown_steps(advice):
        best = step.added == advice.recommended.added
        bar = "█" * max(1, round(step.characters_per_token / top * 12))
        table.add_row(
            f"{step.added:,}",
            f"{step.characters_per_token:.3f}",
            Text(bar, "bold green" if best else "cyan"),
            f"{step.saved:.1%}",
            f"{step.next_saves:.2%}" if step is not advice.steps[-1] else "",
            f"{step.parameters / 1e6:,.0f} M",
            f"{step.compute:.2f}",
            f"{step.seen:.0%}",
            style="bold" if best else "",
        )
    screen.print(table)
    say(advice.sentence, "bold")
    for line in (advice.repaid, advice.caution):
        if line:
            say(line)
