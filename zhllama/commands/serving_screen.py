"""The tables of `eval --serving`: speeds by engine and prompt length, memory and context, in 80 columns."""

from pathlib import Path

from rich.table import Table

from zhllama.commands.shared import headings, say, screen
from zhllama.commands.translation import translated
from zhllama.evaluation.measure_serving import ServingFigures
from zhllama.evaluation.serving import Spread


def draw(served: ServingFigures) -> None:
    """Print the figures; ratios are to the first model, the median and in brackets the range of the rounds."""
    for engine in served.engines:
        table = _table(
            f"{engine.engine}, {translated('characters per second')}",
            headings("prompt", "model", "first token", "read/s", "×", "written/s", "×"),
        )
        for speed in engine.speeds:
            table.add_row(
                f"{speed.prompt_characters:,}",
                _name(speed.model),
                _seconds(speed.first_token.median),
                _rate(speed.read.median),
                _ratio(speed.read_ratio),
                _rate(speed.written.median),
                _ratio(speed.written_ratio),
            )
        screen.print(table)
    if served.costs:
        table = _table(
            f"{translated('arithmetic')}: {served.shape}",
            headings("prompt", "model", "rows", "GFLOP/read", "×", "GB/written", "×"),
        )
        for cost in served.costs:
            table.add_row(
                f"{cost.prompt_characters:,}",
                _name(cost.model),
                f"{cost.rows:,}",
                f"{cost.operations_read / 1e9:.2f}",
                "" if cost.read_ratio is None else f"{cost.read_ratio:.2f}",
                f"{cost.bytes_written / 1e9:.2f}",
                "" if cost.written_ratio is None else f"{cost.written_ratio:.2f}",
            )
        screen.print(table)
    screen.print(_memory(served))
    if served.costs:
        say("Computed for this shape, in 16 bits, at batch size 1; nothing was measured.")
    else:
        first = _name(served.models[0].model)
        say(f"×: to {first}, median and range of {served.rounds} rounds. Threads: {served.threads}")


def _memory(served: ServingFigures) -> Table:
    """Tokens, context and KV cache of each model."""
    cache = served.cache_megabytes()
    names = headings("model", "bits/character", "tokens/character", "context")
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    for name in names:
        table.add_column(name, justify="left" if name == names[0] else "right", no_wrap=name != names[0])
    for engine in cache:
        table.add_column(f"MB/1,000 {translated(engine)}", justify="right")
    for number, model in enumerate(served.models):
        fits = model.context_characters
        table.add_row(
            _name(model.model),
            "" if model.bits is None else f"{model.bits:.3f}",
            f"{model.tokens_per_character:.3f}",
            "" if fits is None else f"{fits:,.0f}",
            *(f"{values[number]:,.2f}" for values in cache.values()),
        )
    return table


def _table(title: str, names: list[str]) -> Table:
    table = Table(
        box=None, padding=(0, 1, 0, 0), header_style="dim", title=title, title_style="bold", title_justify="left"
    )  # fmt: skip
    for number, name in enumerate(names):
        table.add_column(name, justify="left" if number == 1 else "right", no_wrap=number != 1)
    return table


def _name(model: str) -> str:
    return Path(model).name


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.0f} ms"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"


def _ratio(ratio: Spread | None) -> str:
    return "" if ratio is None else f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"
