"""The command `advise`, which recommends how far to extend a vocabulary."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zhllama.commands.declare import command
from zhllama.commands.shared import (
    AsJson,
    Config,
    Force,
    TextOptions,
    check_torch,
    headings,
    print_json,
    progress,
    say,
    screen,
)
from zhllama.efficiency.options import AdviceOptions
from zhllama.errors import OptionError
from zhllama.options import recorded
from zhllama.run import Run

if TYPE_CHECKING:
    from zhllama.efficiency.advise import Advice

MEASURED = 20_000  # characters on which a model's bits per character are measured


@command
def advise(
    options: AdviceOptions,
    reading: TextOptions,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder for advice.json and advice.html, with a manifest.",
            show_default=False,
            readable=False,
        ),
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Recommend how far to extend a vocabulary for Chinese, and whether it pays at all."""
    from zhllama.efficiency.advise import AdvisedModel
    from zhllama.efficiency.advise import advise as advised
    from zhllama.efficiency.bpe_extension import extend, split_validation
    from zhllama.io.files import to_json
    from zhllama.io.text import find_files
    from zhllama.pages.advice import advice_page
    from zhllama.vocab.read import read_vocabulary
    from zhllama.vocab.word_lists import base_file

    if not options.text:
        raise OptionError("text", "is missing, and advice needs text", "Give `text` FILE")
    base, files = base_file(options.base), find_files(options.text)
    if options.model is not None:
        base, options = _of_model(options.model, options)
    vocabulary = read_vocabulary(base)
    run = (
        None
        if out is None
        else Run(out, "advise", recorded(options, reading), [base, *files], force, seed=options.seed)
    )
    if run is not None:
        run.check()
    train, validation = split_validation(_samples(files, reading, options), options.seed)
    if options.model is not None and options.bits is None:
        options = replace(options, bits=_bits_per_character(options.model, validation))
    with progress(f"up to {options.most:,} pieces", total=1.0) as bar:
        extension = extend(vocabulary, train, validation, options.most, options.prior, bar.at)
    model = AdvisedModel(options.hidden, options.layers, options.tied)
    advice = advised(
        extension.first, extension.parts, extension.domains, extension.training, model, options.train_tokens,
        options.bits,
    )  # fmt: skip
    if run is not None:
        with run:
            run.write("advice.json", to_json(advice.to_dict()))
            run.write("advice.html", advice_page(advice, None if options.base is None else str(options.base)))
            run.finish({"recommended": advice.recommended.added, "verdict": advice.verdict})
    if as_json:
        print_json(advice.to_dict())
        return
    draw(advice, str(base))
    if out is not None:
        say(f"Written to {out}: advice.html, advice.json")


def _of_model(model: str, options: AdviceOptions) -> tuple[Path, AdviceOptions]:
    """The file of a model's vocabulary, and the options with its width, layers and head."""
    check_torch("advise")
    from zhllama.model.chain import resolve_chain
    from zhllama.model.load import read_model_config
    from zhllama.vocab.any_tokenizer import tokenizer_file

    chain = resolve_chain(model)
    config = read_model_config(chain.base)
    text = config.get_text_config()
    tied = bool(getattr(config, "tie_word_embeddings", False))
    shape = replace(options, hidden=text.hidden_size, layers=text.num_hidden_layers, tied=tied)
    return tokenizer_file(chain.tokenizer), shape


def _bits_per_character(model: str, validation: Mapping[str, Sequence[str]]) -> float:
    """The bits per character of a model on the first lines of each text's validation split."""
    from zhllama.evaluation.bits_per_byte import measure_bits
    from zhllama.model.chain import resolve_chain
    from zhllama.model.load import open_model
    from zhllama.vocab.any_tokenizer import load_any_tokenizer

    share = MEASURED // len(validation)
    text = "\n".join("\n".join(lines)[:share] for lines in validation.values())
    tokenizer = load_any_tokenizer(resolve_chain(model).tokenizer)
    with progress("bits per character", len(text)) as bar:
        return measure_bits(open_model(model).model, tokenizer, text, advance=bar).per_character


def _samples(files: Sequence[Path], reading: TextOptions, options: AdviceOptions) -> dict[str, list[str]]:
    """Lines of each file by its name, or by its path where names are equal; evenly many bytes of each file."""
    from zhllama.io.text import read_lines
    from zhllama.vocab.sample import sample_lines

    names = [f.name.split(".")[0] for f in files]
    labels = names if len(set(names)) == len(names) else list(map(str, files))
    size = max(1, options.sample_bytes // len(files))
    with progress("reading", total=sum(f.stat().st_size for f in files)) as bar:
        return {
            label: sample_lines(read_lines([f], reading.field, bar), size, options.seed).lines
            for label, f in zip(labels, files, strict=True)
        }


def draw(advice: "Advice", base: str) -> None:
    """Print the curve as bars, the costs of each point, and the recommendation."""
    from rich.table import Table
    from rich.text import Text

    from zhllama.efficiency.advise import SEEN, shown_steps

    screen.print(base, style="bold", soft_wrap=True)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    names = headings(
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
    for heading in names:
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
            f"{step.head_share:.1%}",
            f"{step.compute:.2f}",
            f"{step.seen:.0%}",
            style="bold" if best else "",
        )
    screen.print(table)
    say(advice.sentence, "bold")
    for line in (advice.repaid, advice.caution):
        if line:
            say(line)
