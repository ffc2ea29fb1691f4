"""report.html of `eval --serving`: quality over cost, speeds, memory and context."""

from pathlib import Path

from zhllama.evaluation.measure_serving import ServingFigures
from zhllama.evaluation.serving import Spread
from zhllama.pages.charts import Curve, LineChart, line_chart
from zhllama.pages.render import render


def serving_page(served: ServingFigures) -> str:
    """The page of all models on one text."""
    names = [Path(model.model).name for model in served.models]
    return render(
        "serving",
        title=" · ".join(names),
        served=served,
        names=names,
        cache=served.cache_megabytes(),
        charts_by_engine=[(engine.engine, chart) for engine in served.engines if (chart := cost_chart(served, engine.engine))],
        ratio=_ratio,
    )  # fmt: skip


def cost_chart(served: ServingFigures, engine: str) -> LineChart | None:
    """Bits per character over the milliseconds that a character takes to be written, a point for each model.

    The time is the median after the longest prompt. None if the bits are not known.
    """
    speeds = next(figures for figures in served.engines if figures.engine == engine).speeds
    longest = max(speed.prompt_characters for speed in speeds)
    last = [speed for speed in speeds if speed.prompt_characters == longest]
    points = [
        Curve(Path(model.model).name, [(1e3 / speed.written.median, model.bits)], color)
        for color, (model, speed) in enumerate(zip(served.models, last, strict=True), 1)
        if model.bits is not None
    ]
    return line_chart(points) if points else None


def _ratio(ratio: Spread | None) -> str:
    return "" if ratio is None else f"{ratio.median:.2f} ({ratio.low:.2f}–{ratio.high:.2f})"
