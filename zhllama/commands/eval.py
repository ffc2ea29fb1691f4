"""The command `eval`, which measures bits per byte and per character, scores on tasks, and the cost of serving."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from zhllama.commands.declare import command
from zhllama.commands.progress import Bar
from zhllama.commands.shared import (
    AsJson,
    Config,
    Force,
    LineOptions,
    check_torch,
    headings,
    print_json,
    progress,
    say,
    screen,
    warn,
)
from zhllama.errors import OptionError
from zhllama.evaluation.options import EvalOptions, ServingOptions
from zhllama.options import recorded
from zhllama.run import Run

if TYPE_CHECKING:
    from zhllama.evaluation.measure_serving import ServingFigures

# The text to serve if none is given, and how many characters of each Chinese file.
SAMPLE, OF_A_SAMPLE = "corpora/sample", 400


@command
def evaluate(
    options: EvalOptions,
    serving: ServingOptions,
    reading: LineOptions,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder for results.json, with a manifest, and for the page of --serving.",
            show_default=False,
            readable=False,
        ),
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Bits per byte and per character of texts under models, whatever their vocabularies; tasks; and the cost of serving."""
    check_torch("eval", *(["eval"] if options.tasks else []))
    from zhllama.io.files import to_json
    from zhllama.io.text import find_files
    from zhllama.pages.serving import serving_page

    if not options.text and not options.tasks and not serving.serving:
        raise OptionError("eval", "has nothing to measure", "Give --text FILE or --tasks NAME")
    if serving.shape is not None and options.tasks:
        raise OptionError("tasks", "needs a model, and `shape` only computes", "Leave one of them out")
    if options.adapter and len(options.models) > 1:
        raise OptionError(
            "adapter", "is for one model", "Name one model, and evaluate the others by themselves"
        )
    files = find_files(options.text)
    run = (
        None if out is None else Run(out, "eval", recorded(options, serving), _inputs(options, files), force)
    )
    if run is not None:
        run.check()
    texts = _texts(files, options.limit, serving.serving)
    rows, scores = ([], []) if serving.shape is not None else _bits_and_scores(options, texts)
    served = None if not serving.serving else _serve(options, texts, rows, serving)
    result: dict[str, Any] = {"texts": rows, "tasks": scores}
    if served is not None:
        result["serving"] = served.figures()
    if run is not None:
        with run:
            run.write("results.json", to_json(result))
            if served is not None:
                run.write("report.html", serving_page(served))
            run.finish({"texts": len(rows), "scores": len(scores)})
    if as_json:
        print_json(result)
        return
    if rows:
        screen.print(_bits_table(rows))
    if scores:
        screen.print(_scores_table(scores))
    if served is not None:
        from zhllama.commands.serving_screen import draw

        draw(served)
    if out is not None:
        say(f"Written to {out}: {'results.json' if served is None else 'results.json, report.html'}")


def _inputs(options: EvalOptions, files: Sequence[Path]) -> list[Path]:
    """The files of the models and the texts, for the manifest; a tokenizer that stands for a model is none."""
    from zhllama.errors import InputError
    from zhllama.model.chain import chain_files, resolve_chain
    from zhllama.model.folded_models import with_adapters

    inputs = list(files)
    for name in options.models:
        try:
            inputs += chain_files(resolve_chain(with_adapters(name, options.adapter)))
        except InputError:  # reported where the model is opened
            continue
    return inputs


def _texts(files: Sequence[Path], limit: int | None, serving: bool) -> dict[str, str]:
    """The content of each file by its path; for serving without a file, a piece of each shipped Chinese text as one."""
    from zhllama.evaluation.bits_per_byte import read_text
    from zhllama.resources import sample_files

    if files or not serving:
        return {str(path): read_text(path, limit) for path in files}
    pieces = [read_text(path, OF_A_SAMPLE) for path in sample_files("zh")]
    return {SAMPLE: "\n\n".join(pieces)[:limit]}


def _bits_and_scores(
    options: EvalOptions, texts: dict[str, str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of the texts and of the tasks, each model opened once."""
    from zhllama.evaluation.bits_per_byte import measure_bits
    from zhllama.evaluation.lm_eval_tasks import run_tasks
    from zhllama.model.chain import resolve_chain
    from zhllama.model.folded_models import with_adapters
    from zhllama.model.load import open_model
    from zhllama.vocab.any_tokenizer import load_any_tokenizer

    rows: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    for name in options.models:
        chain = resolve_chain(with_adapters(name, options.adapter))
        opened = open_model(chain)
        vocabulary = load_any_tokenizer(chain.tokenizer)
        for path, content in texts.items():
            with progress(f"{name} on {Path(path).name}", len(content), "bytes") as bar:
                bits = measure_bits(
                    opened.model,
                    vocabulary,
                    content,
                    window=options.window,
                    stride=options.stride,
                    advance=bar,
                )
            rows.append(
                {
                    "model": name,
                    "text": path,
                    "bits_per_byte": bits.per_byte,
                    "bits_per_character": bits.per_character,
                    "tokens_per_character": bits.tokens / bits.characters,
                    "tokens": bits.tokens,
                    "bytes": bits.bytes,
                    "characters": bits.characters,
                    "unknown": bits.unknown,
                }
            )
        if options.tasks:
            with progress(f"{name}: reading the tasks", None, "answers") as bar:
                begin, wanted = _answering(name, bar), options.tasks.split(",")
                found = run_tasks(opened, wanted, options.task_path, options.samples, begin)
            scores += [{"model": name, **score} for score in found]
    return rows, scores


def _answering(name: str, bar: Bar) -> Callable[[int], Bar]:
    """Begins the stage in which the model `name` answers."""

    def begin(total: int) -> Bar:
        bar.stage(f"{name}: answering", total, "answers")
        return bar

    return begin


def _serve(
    options: EvalOptions, texts: dict[str, str], rows: list[dict[str, Any]], serving: ServingOptions
) -> "ServingFigures":
    """The figures of serving the first text."""
    from zhllama.evaluation.measure_serving import measure_serving, replies, serving_costs
    from zhllama.model.chain import resolve_chain
    from zhllama.model.folded_models import with_adapters

    path, content = next(iter(texts.items()))
    if serving.shape is not None:
        return serving_costs(options.models, (path, content), serving)
    chains = {name: resolve_chain(with_adapters(name, options.adapter)) for name in options.models}
    bits = [row["bits_per_character"] for row in rows if row["text"] == path]
    total = replies(len(options.models), serving)
    with progress("serving", None, "replies") as bar:
        return measure_serving(
            chains,
            (path, content),
            serving,
            bits,
            stage=lambda name: bar.stage(name, total, "replies"),
            advance=bar,
            skip=lambda reason: warn(f"not measured in llama.cpp: {reason}"),
        )


def _table(names: Sequence[str]) -> Table:
    """An empty table with these columns; only the first two, which contain names, may be folded."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for number, name in enumerate(names):
        table.add_column(name, no_wrap=number > 1)
    return table


def _bits_table(rows: list[dict[str, Any]]) -> Table:
    table = _table(headings("model", "text", "bits/byte", "bits/character", "tokens/character"))
    for row in rows:
        table.add_row(
            row["model"],
            Path(row["text"]).name,
            f"{row['bits_per_byte']:.4f}",
            f"{row['bits_per_character']:.4f}",
            f"{row['tokens_per_character']:.3f}",
        )
        if row["unknown"]:
            warn(
                f"{row['unknown']} tokens of {row['text']} are unknown tokens of {row['model']}: its bits are too low"
            )
    return table


def _scores_table(scores: list[dict[str, Any]]) -> Table:
    table = _table(headings("model", "task", "metric", "value", "±", "chance", "above"))
    for score in scores:
        error, chance = score["error"], score["chance"]
        table.add_row(
            *(str(score[name]) for name in ("model", "task", "metric")),
            f"{score['value']:.4f}",
            "" if error is None else f"{error:.4f}",
            "" if chance is None else f"{chance:.4f}",
            f"{(score['value'] - chance) / error:+.1f}σ" if error and chance is not None else "",
        )
    return table
