"""The form of the rows in a file, as LLaMA-Factory's dataset_info.json describes it: the names of columns, keys and roles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zhllama.errors import InputError
from zhllama.io.files import to_json

# Our name of each column that a description can name. The alpaca form has prompt to history, the sharegpt form messages.
COLUMNS = {
    "prompt": "instruction", "query": "input", "response": "output", "history": "history", "messages": "conversations",
    "system": "system", "tools": "tools", "images": "images", "videos": "videos", "audios": "audios",
    "chosen": "chosen", "rejected": "rejected", "kto_tag": "kto_tag",
}  # fmt: skip
# The sender of a turn whose role a tag names, and the role by default.
ROLE_TAGS = {
    "user_tag": "human", "assistant_tag": "gpt", "observation_tag": "observation", "function_tag": "function_call",
    "system_tag": "system",
}  # fmt: skip
KEY_TAGS = {"role_tag": "from", "content_tag": "value"}
TURNS = ("conversations", "messages", "chosen", "rejected")  # columns whose members have a role and a content
FORMATS = ("alpaca", "sharegpt", "openai")
NO_EFFECT = ("file_name", "file_sha1", "hf_hub_url", "ms_hub_url", "om_hub_url", "ranking", "formatting")
REMEDY = "Correct the description, or name the data file itself and give `field_map`"


@dataclass(frozen=True)
class RowForm:
    """Which fields of a row are read, and as what.

    `columns`: our name to the file's; None reads every field by its own name. `keys`: our names of a message's role and content to
    the file's; `senders`: the file's name of a role to ours. Both are empty where the description names no tags.
    """

    columns: Mapping[str, str] | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    senders: Mapping[str, str] = field(default_factory=dict)

    def identity(self) -> str:
        """Text that is equal for equal forms."""
        return to_json(
            [
                sorted((self.columns or {"": ""}).items()),
                sorted(self.keys.items()),
                sorted(self.senders.items()),
            ]
        )

    def apply(self, row: Mapping[str, Any], kept: frozenset[str]) -> tuple[dict[str, Any], list[str]]:
        """The row under our names, and the fields that the form leaves aside, `kept` ones apart."""
        if self.columns is None:
            return {name: self._turns(value) if name in TURNS else value for name, value in row.items()}, []
        named = set(self.columns.values())
        read = {ours: row[theirs] for ours, theirs in self.columns.items() if theirs in row}
        read = {name: self._turns(value) if name in TURNS else value for name, value in read.items()}
        rest = {name: value for name, value in row.items() if name not in named}
        aside = [
            name
            for name, value in rest.items()
            if name.lower() not in kept and value not in (None, "", [], {})
        ]
        return {name: value for name, value in rest.items() if name.lower() in kept} | read, aside

    def _turns(self, value: Any) -> Any:
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [self._message(one) for one in value]
        return self._message(value)

    def _message(self, message: Any) -> Any:
        if not self.keys or not isinstance(message, dict):
            return message
        read = {ours: message[theirs] for ours, theirs in self.keys.items() if theirs in message}
        if isinstance(sender := read.get("from"), str):
            read["from"] = self.senders.get(sender, sender)
        return read | {
            name: part for name, part in message.items() if name not in (*self.keys.values(), *self.keys)
        }


def row_form(entry: Mapping[str, Any], where: str) -> RowForm:
    """The form that an entry of dataset_info.json describes. Errors: InputError names a key that is not supported."""
    formatting = entry.get("formatting", "alpaca")
    if formatting not in FORMATS:
        raise InputError(where, f"formatting: is {formatting!r}, not {', '.join(FORMATS)}", REMEDY)
    if entry.get("split", "train") != "train":
        raise InputError(where, f"split: is {entry['split']!r}; a local file is the split train", REMEDY)
    known = (*NO_EFFECT, "columns", "tags", "split")
    for name, value in entry.items():
        if name not in known and value is not None:
            raise InputError(where, f"{name}: is not supported", REMEDY)
    columns = _names(entry, "columns", COLUMNS, where)
    tags = _names(entry, "tags", KEY_TAGS | ROLE_TAGS, where)
    ours = None if columns is None else {COLUMNS[name]: theirs for name, theirs in columns.items()}
    if ours is not None and formatting != "alpaca":
        ours = {"conversations": "conversations"} | ours
    if tags is None:
        return RowForm(ours)
    senders = {tags.get(tag, default): default for tag, default in ROLE_TAGS.items()}
    if len(senders) < len(ROLE_TAGS):
        raise InputError(where, "tags: gives one name to two roles", REMEDY)
    return RowForm(ours, {ours_key: tags.get(tag, ours_key) for tag, ours_key in KEY_TAGS.items()}, senders)


def _names(entry: Mapping[str, Any], key: str, known: Mapping[str, str], where: str) -> dict[str, str] | None:
    """The names in `columns` or `tags`; None where there are none."""
    names = entry.get(key)
    if names is None:
        return None
    if not isinstance(names, dict):
        raise InputError(where, f"{key}: is not a JSON object", REMEDY)
    given = {name: value for name, value in names.items() if value is not None}
    for name, value in given.items():
        if name not in known:
            raise InputError(where, f"{key}.{name}: is not supported; known are {', '.join(known)}", REMEDY)
        if not isinstance(value, str) or not value:
            raise InputError(where, f"{key}.{name}: is not a name", REMEDY)
    if key == "columns" and len(set(given.values())) < len(given):
        raise InputError(where, "columns: names one field twice", REMEDY)
    return given
