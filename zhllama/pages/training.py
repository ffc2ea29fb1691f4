"""report.html of a training run: its figures and its curves from the log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import fmean
from typing import Any

from zhllama.pages.charts import Curve, LineChart, Point, bar_rows, line_chart, smoothed
from zhllama.pages.render import render

# The ends of the figures' names, and the page's text for each.
UNITS = {
    "_bits_per_character": "bits_per_character",
    "_bits_per_byte": "bits_per_byte",
    "_validation": "validation_pairs",
}


@dataclass(frozen=True)
class ValidationFigure:
    """A figure on a validation text or on validation pairs; `values` are its steps and values in order."""

    name: str  # the label of the text, or of the metric on pairs
    unit: str  # a key of the page's texts
    values: Sequence[Point]
    before: float | None = None
    after: float | None = None

    @property
    def chart(self) -> LineChart:
        """Its curve on an axis of its own: Chinese and English differ by more than training changes either."""
        return line_chart([Curve(self.name, self.values, 1, strong=True)])


@dataclass(frozen=True)
class TrainingCurves:
    """What a run logged, by step."""

    loss: Sequence[Point]
    learning_rate: Sequence[Point]
    tokens_per_second: Sequence[Point]
    validation: Sequence[ValidationFigure]


def read_curves(figures: Mapping[str, Any], log: Sequence[Mapping[str, Any]]) -> TrainingCurves:
    """The curves of a log; `figures` may contain the values before and after training as well."""

    def curve(key: str) -> list[Point]:
        return [(line["step"], line[key]) for line in log if key in line]

    compared = {
        key: value for key, value in figures.items() if isinstance(value, Mapping) and "before" in value
    }
    names = dict.fromkeys([*compared, *(key for line in log for key in line)])
    validation = []
    for end, unit in UNITS.items():
        for key in names:
            if key.endswith(end):
                ends = compared.get(key, {})
                validation.append(
                    ValidationFigure(
                        key.removesuffix(end),
                        unit,
                        curve(key),
                        ends.get("before"),
                        ends.get("after"),
                    )
                )
    return TrainingCurves(curve("loss"), curve("learning_rate"), curve("tokens_per_second"), validation)


def training_page(name: str, figures: Mapping[str, Any], log: Sequence[Mapping[str, Any]]) -> str:
    """The page of a run named `name` from its figures and the lines of its log."""
    curves = read_curves(figures, log)
    loss = smoothed(curves.loss)
    seconds = figures.get("training_seconds")
    met = figures.get("new_rows", {}).get("by_times_met")
    return render(
        "training",
        title=name,
        figures=figures,
        curves=curves,
        duration=None if seconds is None else str(timedelta(seconds=round(seconds))),
        met_bars=None if met is None else bar_rows(met),
        last_loss=fmean(y for _, y in curves.loss[-max(1, len(curves.loss) // 20) :]) if loss else None,
        loss_chart=line_chart([Curve("", curves.loss, 2, faint=True), Curve("", loss, 2, strong=True)])
        if loss
        else None,
        rate_chart=line_chart([Curve("", curves.learning_rate, 4)], from_zero=True)
        if curves.learning_rate
        else None,
        speed_chart=line_chart([Curve("", curves.tokens_per_second, 3)], from_zero=True)
        if curves.tokens_per_second
        else None,
    )
