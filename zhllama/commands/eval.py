"""The command `eval`, which measures bits per byte and per character, and scores on tasks."""

from pathlib import Path
from typing import Any

from rich.table import Table

from zhllama.commands.declare import command
from zhllama.commands.shared import (
    AsJson,
    Config,
    LineOptions,
    check_torch,
    headings,
    print_json,
    progress,
    screen,
    warn,
)
from zhllama.errors import OptionError
from zhllama.evaluation.options import EvalOptions


@command
def evaluate(
    options: EvalOptions,
    reading: LineOptions,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Bits per byte and per character of texts under models, whatever their vocabularies; and tasks."""
    check_torch("eval", *(["eval"] if options.tasks else []))
    from zhllama.evaluation.bits_per_byte import measure_bits, read_text
    from zhllama.evaluation.lm_eval_tasks import run_tasks
    from zhllama.io.text import find_files
    from zhllama.model.chain import resolve_chain
    from zhllama.model.folded_models import with_adapters
    from zhllama.model.load import open_model
    from zhllama.vocab.any_tokenizer import load_any_tokenizer

    if not options.text and not options.tasks:
        raise OptionError("eval", "has nothing to measure", "Give --text FILE or --tasks NAME")
    files = find_files(options.text)
    texts = {str(path): read_text(path, options.limit) for path in files}
    rows: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    if options.adapter and len(options.models) > 1:
        raise OptionError(
            "adapter", "is for one model", "Name one model, and evaluate the others by themselves"
        )
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
            scores += [
                {"model": name, **score}
                for score in run_tasks(opened, options.tasks.split(","), options.task_path, options.samples)
            ]
    if as_json:
        print_json({"texts": rows, "tasks": scores})
        return
    if rows:
        screen.print(_bits_table(rows))
    if scores:
        screen.print(_scores_table(scores))


def _bits_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(*headings("model", "text", "bits/byte", "bits/character", "tokens/character"))
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
    table = Table(*headings("model", "task", "metric", "value", "±"))
    for score in scores:
        error = score["error"]
        table.add_row(
            *(str(score[name]) for name in ("model", "task", "metric")),
            f"{score['value']:.4f}",
            "" if error is None else f"{error:.4f}",
        )
    return table
