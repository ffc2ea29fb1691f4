"""Extracts the text of a record by field names; shared by every reader of JSON lines, Parquet and Hub datasets."""

from collections.abc import Mapping
from typing import Any

Fields = tuple[str, ...]


def text_of(record: Mapping[str, Any], fields: Fields) -> str | None:
    """The text of a record: its fields joined by newlines; None if it has none of them.

    A dot descends into an object or into each object of a list: `{"段落": [{"内容": "甲"}, {"内容": "乙"}]}` has
    the text 甲, newline, 乙 under 段落.内容.
    """
    parts = [part for field in fields for part in _strings(record, field)]
    return "\n".join(parts) if parts else None


def _strings(value: object, path: str) -> list[str]:
    if isinstance(value, list):
        return [text for item in value for text in _strings(item, path)]
    if not path:
        return [value] if isinstance(value, str) else []
    if not isinstance(value, Mapping):
        return []
    if path in value:
        return _strings(value[path], "")
    first, _, rest = path.partition(".")
    return _strings(value[first], rest) if rest and first in value else []
