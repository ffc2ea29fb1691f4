"""report.md: the figures as tables for a README."""

from collections.abc import Sequence
from typing import Any

_KINDS = {
    "simplified": "Simplified",
    "traditional": "Traditional",
    "english": "English",
    "code": "code",
    "other": "other",
}
_COLUMNS = (
    ("characters per token", "characters_per_token", "{:.3f}"),
    ("words per token", "words_per_token", "{:.3f}"),
    ("tokens", "tokens_against_base", "{:.2f}×"),
    ("partial-character tokens", "byte_share", "{:.1%}"),
    ("characters in 2,048 tokens", "context_characters", "{:,}"),
    ("training cost", "training_cost", "{:.2f}×"),
    ("serving cost", "serving_cost", "{:.2f}×"),
)


def tables(report: dict[str, Any]) -> str:
    """Markdown from the object of report.json: characters per token by language, by text, then more on Chinese."""
    settings, languages = report["settings"], report["languages"]
    labels = [t["label"] for t in report["tokenizers"]]
    chinese = next(row for row in languages if row["name"] in ("simplified", "traditional"))
    columns = [(_KINDS[row["name"]], row) for row in languages]
    parts = [
        "# Tokenizer efficiency\n",
        f"Characters per token; more is better. Costs are of a model of hidden size {settings['hidden']:,} and "
        f"{settings['layers']} layers, against {_cell(settings['base'])}. Definitions: docs/metrics.md.\n",
        _table(
            ["tokenizer", "size", *(name for name, _ in columns)],
            [
                [t["label"], f"{t['size']:,}", *(_ratio(row, t["label"]) for _, row in columns)]
                for t in report["tokenizers"]
            ],
        ),
        "## By text\n",
        _table(
            ["text", "characters", *labels],
            [
                [row["name"], f"{row['characters']:,}", *(_ratio(row, label) for label in labels)]
                for row in report["texts"]
            ],
        ),
        f"## {_KINDS[chinese['name']]} Chinese\n",
        _table(
            ["tokenizer", *(name for name, _, _ in _COLUMNS)],
            [
                [label, *(form.format(chinese["tokenizers"][label][key]) for _, key, form in _COLUMNS)]
                for label in labels
            ],
        ),
    ]
    return "\n".join(parts)


def _ratio(row: dict[str, Any], label: str) -> str:
    return f"{row['tokenizers'][label]['characters_per_token']:.3f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    """A label as the text of a table cell, with bars and markup escaped."""
    plain = " ".join(text.split())
    return "".join(f"\\{c}" if c in "|\\`*_[]<>" else c for c in plain)
