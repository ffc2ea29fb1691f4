"""Labels of the tokenizers and texts that are compared: given as LABEL=PATH, or taken from the file name."""

from collections.abc import Sequence
from pathlib import Path

from zhllama.errors import OptionError

_GENERIC = ("tokenizer", "tekken", "spiece", "model", "vocab")  # file names that do not identify a tokenizer


def names_by_label(entries: Sequence[str], field: str) -> dict[str, str]:
    """Return names by label, of `label=name`, or of names alone, whose label comes from the file name.

    Errors: OptionError for the option `field` where a label is empty or stands twice.
    """
    names: dict[str, str] = {}
    for entry in entries:
        label, equals, name = entry.partition("=")
        if not equals or Path(entry).exists():
            label, name = _own_label(entry), entry
        label = " ".join(label.split())
        if not label or not name:
            raise OptionError(f"{field} {entry}", "has an empty label or path", "Write it as LABEL=PATH")
        if label in names:
            raise OptionError(
                f"{field} {entry}",
                f"has the label {label!r}, which {names[label]} has already",
                "Give them labels: LABEL=PATH",
            )
        names[label] = name
    return names


def _own_label(name: str) -> str:
    """The stem of a file's name, or its folder's name where the file has a generic one."""
    path = Path(name)
    stem = path.name.split(".")[0] if path.is_file() else path.name
    stem = stem or path.name or path.resolve().name
    return path.resolve().parent.name if path.is_file() and stem in _GENERIC else stem
