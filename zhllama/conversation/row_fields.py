"""The fields of a row: each is read, refused by its name, or counted as unused; none is dropped silently."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zhllama.conversation.row_forms import RowForm
from zhllama.errors import InputError, OptionError
from zhllama.io.json import parse_row
from zhllama.io.rows import MEND
from zhllama.io.text import LONE_SURROGATE

# Fields that say nothing about what is learned: names, origins, dates, and scores that others gave (docs/sft.md).
METADATA = frozenset(
    ["id", "idx", "index", "uid", "uuid", "_id", "row_id", "conversation_id", "prompt_id", "chosen_id", "message_id", "sample_id", "hash", "md5", "source", "sources", "dataset", "dataset_name", "origin", "url", "link", "license", "author", "model", "model_name", "generator", "lang", "language", "locale", "category", "categories", "task", "task_type", "task_name", "type", "topic", "domain", "subject", "difficulty", "tags", "tag", "keywords", "date", "time", "timestamp", "created", "created_at", "create_time", "update_time", "version", "split", "subset", "title", "length", "num_turns", "turn", "turns", "n_turns", "tokens", "token_count", "char_count", "is_classification", "parallel_tool_calls", "name", "metadata", "meta"]
)  # fmt: skip
MEDIA = frozenset(["image", "images", "image_url", "audio", "audios", "input_audio", "video", "videos"])
RANKED = frozenset(
    ["chosen", "rejected", "rejected_response", "rejected_messages", "ranked_outputs", "preferred_output", "non_preferred_output"]
)  # fmt: skip
SHARES = frozenset(
    [
        "loss_scale",
        "loss_mask",
        "loss_weight",
        "sample_weight",
        "mask",
        "train_detail",
        "masks",
        "loss_weights",
        "weights",
    ]
)
# Switches of training, on a row or an answer: OpenAI's, ms-swift's and InternLM's, axolotl's, transformers'.
SWITCHES = ("weight", "loss", "train", "training", "train_on_turn", "trainable")
LABELS = ("kto_tag", "label")  # of rows with a good or a bad answer: LLaMA-Factory's, trl's and ms-swift's
THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thought", "thoughts", "think", "<think>")
# What a row keeps beside the fields that its form names: they are metadata, or forbid training on it.
NOT_TEXT = METADATA | MEDIA | SHARES | {*SWITCHES, *LABELS}
_TRUE, _FALSE = ("true", "1", "1.0", "yes"), ("false", "0", "0.0", "no")


class MarkedRow(InputError):
    """A valid row that says by a field of its own that it must not be trained on."""


@dataclass
class RowReading:
    """How rows are read: in a described form, and fields renamed by `field_map` (our name: theirs).

    `unused` counts the fields without a use.
    """

    field_map: Mapping[str, str] = field(default_factory=dict)
    unused: Counter[str] = field(default_factory=Counter)
    form: RowForm | None = None

    def fields(self, row: Any, where: str) -> "RowFields":
        """The fields of a row by our names. Errors: InputError for a row that is not an object, and for a name used twice."""
        if not isinstance(row, dict):
            raise InputError(where, "is not a JSON object", MEND)
        renamed, aside = (dict(row), []) if self.form is None else self.form.apply(row, NOT_TEXT)
        for ours, theirs in self.field_map.items():
            if theirs not in renamed:
                continue
            value = renamed.pop(theirs)
            if renamed.get(ours) not in (None, ""):
                raise InputError(where, f"has {ours} beside {theirs}, which `field_map` renames to it", MEND)
            renamed[ours] = value
        fields = RowFields(renamed)
        fields.unused_inside += aside
        return fields

    def count(self, names: Iterable[str]) -> None:
        """Count the unused fields of one row, each once."""
        self.unused.update(set(names))


def unused_field(file: str, name: str, rows: int) -> str:
    """The note on a field without a use."""
    return f"{file}: the field {name!r} of {rows:,} rows is not used"


def parse_field_map(values: Sequence[str]) -> dict[str, str]:
    """The map of `NEW=OLD` options: our name to the file's. Errors: OptionError."""
    pairs = [value.partition("=") for value in values]
    for value, (ours, _, theirs) in zip(values, pairs, strict=True):
        if not ours.strip() or not theirs.strip():
            raise OptionError(
                "field_map", f"{value!r} is not of the form NEW=OLD", "Give e.g. instruction=题目"
            )
    if len({ours for ours, _, _ in pairs}) < len(pairs):
        raise OptionError("field_map", "names one new field twice", "Give each once")
    return {ours.strip(): theirs.strip() for ours, _, theirs in pairs}


class RowFields:
    """The fields of one row or message, which remember whether they were read; null counts as absent.

    Errors are InputError without a place, which name the field by its path, e.g. messages.0.content.
    """

    def __init__(self, row: Mapping[str, Any], path: str = "") -> None:
        self.row, self.path = row, path
        self._read: set[str] = set()
        self.unused_inside: list[str] = []

    def has(self, *names: str) -> bool:
        """Whether one of the fields has a value that is not null."""
        return any(self.row.get(name) is not None for name in names)

    def first(self, *names: str) -> str | None:
        """The first of the fields that has a value that is not null or empty, else that is not null."""
        present = [name for name in names if self.row.get(name) is not None]
        return next((name for name in present if not is_empty(self.row[name])), next(iter(present), None))

    def take(self, name: str) -> Any:
        """The value of a field, or None."""
        self._read.add(name)
        return self.row.get(name)

    def one_of(self, *names: str) -> tuple[str, Any]:
        """The name and the value of the only one of these fields that is not empty. Errors: two are not, and differ."""
        name = self.first(*names)
        if name is None:
            return names[0], None
        for other in names:
            value = self.row.get(other)
            if other != name and not is_empty(value) and value != self.row[name]:
                raise InputError("", f"has both {self.path}{name} and {self.path}{other}, which differ", MEND)
            self._read.add(other)
        return name, self.row[name]

    def text(self, *names: str) -> str | None:
        """The stripped text of the only one of these fields that is not empty; None where none exists."""
        name, value = self.one_of(*names)
        return None if value is None else text_of_value(value, self.path + name)

    def items(self, name: str) -> list[Any]:
        """The list in a field, which may be written as JSON text, as in CSV, or as an object of lists, as `datasets` stores it."""
        value = _of_columns(_from_json(self.take(name)))
        if not isinstance(value, list):
            raise InputError("", f"{self.path}{name}: input should be a valid list", MEND)
        return value

    def json(self, name: str) -> Any:
        """The value of a field, parsed where it is JSON text."""
        return _from_json(self.take(name))

    def switch(self, *names: str) -> str | None:
        """The name and value of a switch that is off, e.g. `loss: false`. Errors: a value between on and off."""
        off = None
        for name in names:
            value = self.take(name)
            if value is None or value == "":
                continue
            text = str(value).strip().lower()
            if text in _FALSE:
                off = f"{self.path}{name}: {str(value).lower() if isinstance(value, bool) else value}"
            elif text not in _TRUE:
                reason = (
                    f"{self.path}{name}: is {str(value)[:40]}; only 0 and 1, false and true are supported"
                )
                raise InputError("", reason, MEND)
        return off

    def refuse_switched_on(self, role: str, *names: str) -> None:
        """Raise InputError for a switch that would train on a turn that is not the assistant's."""
        for name in names:
            if self.row.get(name) not in (None, "") and self.switch(name) is None:
                reason = f"is on at a {role}'s turn; only the assistant's turns are trained"
                raise InputError("", f"{self.path}{name}: {reason}", MEND)

    def refuse(self, names: Iterable[str], reason: str) -> None:
        """Raise InputError for the first of these fields that has a value."""
        for name in names:
            if not is_empty(self.row.get(name)):
                raise InputError("", f"{self.path}{name}: {reason}", MEND)

    def refuse_unsupported(self) -> None:
        """Raise InputError for an unread field that would change what is learned."""
        unread = [name for name in self.row if name not in self._read]
        self.refuse([n for n in unread if n.lower() in MEDIA], "only text can be trained on")
        self.refuse([n for n in unread if n in SHARES], "only loss, weight or train as 0 or 1 is supported")
        self.refuse([n for n in unread if n in THOUGHTS], "is a thought without its answer")
        self.refuse([n for n in unread if n in RANKED], "is of a ranked pair; give the file to dpo or reward")
        self.refuse([n for n in unread if n in SWITCHES], "belongs to an answer or a row, not to this turn")
        self.refuse([n for n in unread if n in ("tools", "functions", "tool_calls", "function_call")],
                    "is not supported here")  # fmt: skip

    def unused(self) -> list[str]:
        """The fields that have a value, were not read and are not metadata."""
        own = [
            self.path_of_name(name)
            for name, value in self.row.items()
            if name not in self._read and not is_empty(value) and name.lower() not in METADATA
        ]
        return own + self.unused_inside

    def path_of_name(self, name: str) -> str:
        """The field's path without the numbers of list members."""
        return ".".join(p for p in (self.path + name).split(".") if not p.isdecimal())


def is_empty(value: Any) -> bool:
    """Whether a value says nothing: null, or an empty text, list or object."""
    return value is None or (isinstance(value, str) and not value.strip()) or value in ([], {})


def text_of_value(value: Any, path: str) -> str:
    """The stripped text of a value, or the texts of its parts in OpenAI's form joined by newlines. Errors: InputError."""
    if isinstance(value, list):
        value = "\n".join(_text_of_part(part, f"{path}.{number}", path) for number, part in enumerate(value))
    if not isinstance(value, str):
        raise InputError("", f"{path}: input should be a valid string", MEND)
    if LONE_SURROGATE.search(value):
        raise InputError("", f"{path}: contains a lone surrogate", MEND)
    return value.strip()


def _text_of_part(part: Any, at: str, path: str) -> str:
    if isinstance(part, dict) and part.get("type", "text") != "text":
        raise InputError("", f"{at}: is {str(part['type'])[:40]}; only text can be trained on", MEND)
    if not isinstance(part, dict) or not isinstance(part.get("text"), str):
        raise InputError("", f"{path}: input should be a valid string", MEND)
    return str(part["text"])


def _of_columns(value: Any) -> Any:
    """The members of an object whose values are lists of one length; any other value unchanged."""
    if not isinstance(value, dict) or not value or not all(isinstance(part, list) for part in value.values()):
        return value
    if len({len(part) for part in value.values()}) > 1:
        return value
    return [dict(zip(value, parts, strict=True)) for parts in zip(*value.values(), strict=True)]


def _from_json(value: Any) -> Any:
    """The value of a text that looks like a JSON list or object; any other value unchanged."""
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        try:
            return parse_row(value)
        except ValueError:
            return value
    return value
