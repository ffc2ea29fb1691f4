"""The texts of a row of any form, each with its path in the row's JSON, so that it can be shown, edited and chosen."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from zhllama.conversation.read_comparisons import REJECTED
from zhllama.conversation.read_conversations import LISTS, SYSTEM
from zhllama.conversation.row_fields import METADATA, THOUGHTS
from zhllama.conversation.row_turns import ANSWERS, QUESTIONS, ROLE_FIELDS, ROLES, TEXT_FIELDS
from zhllama.io.json import parse_row

RowKind = Literal["task", "conversation", "pair", "verdict", "score", "other", "broken"]
Path = tuple[str | int, ...]
RESULTS = {
    "win": "1",
    "loss": "2",
    "tie": "tie",
}  # of judge, as a verdict on the left answer and the right one
FIELD = 500  # characters of another field that are shown
NESTED = (*LISTS, "prompt", "history", "instances")
READING = (*SYSTEM, *LISTS, "history", "prompt", *QUESTIONS, "instances", *THOUGHTS, *ANSWERS)
ORDER = {
    name: place for place, name in reversed([*enumerate(READING)])
}  # of the fields, the first of a name counts


@dataclass(frozen=True)
class RowPart:
    """One text of a row: `name` is its role or field; `path` is None where it cannot be edited."""

    name: str
    text: str
    path: Path | None = None


@dataclass(frozen=True)
class RowParts:
    """A row as texts. `answers` are those to choose from, best first as in the data, which says so by `own`."""

    kind: RowKind
    parts: tuple[RowPart, ...]
    answers: tuple[RowPart, ...] = ()
    own: str | None = None

    @property
    def characters(self) -> int:
        return sum(len(part.text) for part in (*self.parts, *self.answers))

    @property
    def texts(self) -> Iterator[str]:
        return (part.text for part in (*self.parts, *self.answers))


def row_parts(row: Any) -> RowParts:
    """The texts of a row: a verdict, ranked answers, a conversation, a task, or anything else as JSON."""
    if not isinstance(row, dict):
        return RowParts("other", (RowPart("json", _json(row)),))
    if isinstance(row.get("result"), str) and "left" in row and "right" in row:
        return RowParts("verdict", tuple(_said(row)), own=RESULTS.get(row["result"]))
    if "of" in row and "score" in row and "said" in row:
        said = RowPart("judge", str(row["said"]))
        return RowParts("score", (RowPart("score", f"{row['score']}"), said), own=None)
    if answers := _answers(row):
        return RowParts("pair", tuple(_prompt(row)), tuple(answers), "1")
    parts = tuple(_dialogue(row))
    if any(
        isinstance(_value(value), list)
        for name, value in row.items()
        if name in NESTED and name != "instances"
    ):
        return RowParts("conversation", parts)
    if any(isinstance(row.get(name), str) for name in QUESTIONS):
        return RowParts("task", parts)
    texts = {name: value for name, value in row.items() if isinstance(value, str) and name not in METADATA}
    fields = tuple(RowPart(name, value, (name,)) for name, value in texts.items())
    return RowParts("other", fields or (RowPart("json", _json(row)),))


def prompt_of(parts: RowParts) -> str:
    """What is asked: the first question with its input."""
    asked = [part.text for part in parts.parts if part.name in (*QUESTIONS, "user")]
    return "\n".join(asked[:2] if parts.kind == "task" else asked[:1]) or next(parts.texts, "")


def other_fields(row: Any, parts: RowParts) -> dict[str, str]:
    """The fields that are not among the parts, shortened for display."""
    shown = {part.path[0] for part in (*parts.parts, *parts.answers) if part.path}
    hidden = {*shown, *(LISTS if parts.kind in ("conversation", "pair") else ()), "orders", "said"}
    fields = row.items() if isinstance(row, Mapping) else ()
    return {
        name: (value if isinstance(value, str) else _json(value))[:FIELD]
        for name, value in fields
        if name not in hidden and value not in (None, "", [], {})
    }


def text_at(row: Any, path: Path) -> str | None:
    """The text at a path, or None where the row has no text there."""
    for step in path:
        inside = isinstance(row, dict) and step in row
        if not inside and not (isinstance(row, list) and isinstance(step, int) and 0 <= step < len(row)):
            return None
        row = row[step]
    return row if isinstance(row, str) else None


def with_texts(row: Any, texts: Mapping[Path, Any]) -> Any:
    """A copy of the row with other values at some paths, each of which the row has."""
    copy = parse_copy(row)
    for path, value in texts.items():
        place = copy
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
    return copy


def parse_copy(value: Any) -> Any:
    """A deep copy of a JSON value."""
    if isinstance(value, dict):
        return {name: parse_copy(one) for name, one in value.items()}
    return [parse_copy(one) for one in value] if isinstance(value, list) else value


def with_choice(row: dict[str, Any], answers: Sequence[RowPart], best: int) -> dict[str, Any]:
    """The row with answer number `best`, from 0, in the place of the better one; the others keep their order."""
    if best == 0:
        return row
    order = [answers[best], *(one for number, one in enumerate(answers) if number != best)]
    places = [_unit(row, part) for part in answers]
    values = [_unit(row, part) for part in order]
    if len({type(value_at(row, path)) for path in places}) > 1:  # a turn of a conversation beside a text
        places, values = [part.path or () for part in answers], [part.path or () for part in order]
    changed = with_texts(
        row, {place: value_at(row, value) for place, value in zip(places, values, strict=True)}
    )
    if isinstance(row.get("pairs"), list):  # gen-zh's comparisons: the pairs that both orders agreed on
        texts = [text_at(row, part.path or ()) for part in answers]
        text = texts[best]
        rest = [pair for pair in row["pairs"] if text not in (pair.get("chosen"), pair.get("rejected"))]
        won = [{"chosen": text, "rejected": one} for one in texts if one != text]
        changed["pairs"] = [*won, *rest]
    return dict(changed)


def value_at(row: Any, path: Path) -> Any:
    """The value at a path that the row has."""
    for step in path:
        row = row[step]
    return row


def _unit(row: dict[str, Any], part: RowPart) -> Path:
    """The path of what is exchanged with an answer: the whole message or list of messages that contains it."""
    path = part.path or ()
    whole = path[:1] if path and path[0] in ("chosen", *REJECTED) and isinstance(row[path[0]], dict) else path
    is_messages = path and path[0] in ("chosen", *REJECTED) and len(path) == 3
    return path[:1] if is_messages else whole


def _answers(row: dict[str, Any]) -> list[RowPart]:
    """The answers of a ranked row, best first; none where the row is not ranked."""
    rejected = next((name for name in REJECTED if row.get(name) not in (None, "", [])), None)
    if rejected is not None:
        better = _answer(row, "chosen") if row.get("chosen") else _last_answer(row)
        worse = row[rejected]
        if isinstance(worse, list) and all(isinstance(one, str) for one in worse):
            others = [RowPart("answer", text, (rejected, n)) for n, text in enumerate(worse)]
        else:
            others = _answer(row, rejected)
        return [*better, *others] if better and others else []
    if isinstance(row.get("completion_a"), str) and isinstance(row.get("completion_b"), str):
        return [RowPart("answer", row[name], (name,)) for name in ("completion_a", "completion_b")]
    scored = row.get("responses_and_scores")
    if isinstance(scored, list) and len(scored) > 1 and all(map(_is_scored, scored)):
        ranked = sorted(range(len(scored)), key=lambda n: -float(scored[n]["score"]))
        return [
            RowPart("answer", scored[n]["response"], ("responses_and_scores", n, "response")) for n in ranked
        ]
    for name, value in row.items():
        ranked_here = isinstance(value, list) and len(value) > 1 and name in ("ranked_outputs", *ANSWERS)
        if ranked_here and all(isinstance(one, str) for one in value):
            return [RowPart("answer", text, (name, n)) for n, text in enumerate(value)]
    return []


def _is_scored(value: Any) -> bool:
    score = value.get("score") if isinstance(value, dict) else None
    return isinstance(score, int | float) and isinstance(value.get("response"), str)


def _answer(row: dict[str, Any], name: str) -> list[RowPart]:
    """The answer in a field: a text, a message, or the last of several messages."""
    value = row[name]
    if isinstance(value, str):
        return [RowPart("answer", value, (name,))]
    message, path = (value[-1], (name, len(value) - 1)) if isinstance(value, list) and value else (value, (name,))  # fmt: skip
    field = _text_field(message)
    return [] if field is None else [RowPart("answer", message[field], (*path, field))]


def _last_answer(row: dict[str, Any]) -> list[RowPart]:
    parts = [part for part in _dialogue(row) if part.path and part.path[0] not in REJECTED]
    last = parts[-1] if parts and parts[-1].name in ("assistant", *ANSWERS) else None
    return [] if last is None else [RowPart("answer", last.text, last.path)]


def _text_field(message: Any) -> str | None:
    fields = TEXT_FIELDS if isinstance(message, dict) else ()
    return next((name for name in fields if isinstance(message.get(name), str)), None)


def _prompt(row: dict[str, Any]) -> Iterator[RowPart]:
    """The prompt of ranked answers; it may be repeated as the beginning of their messages."""
    answers = {part.path for part in _answers(row)}
    if isinstance(row.get("user_input"), str) and not isinstance(row.get("instruction"), str):
        yield RowPart("user", row["user_input"], ("user_input",))
    parts = [part for part in _dialogue(row) if part.path not in answers]
    chosen = row.get("chosen")
    if isinstance(chosen, list) and not parts:
        parts = [RowPart(part.name, part.text) for part in _members(chosen[:-1], ("chosen",))]
    yield from parts


def _dialogue(row: dict[str, Any]) -> Iterator[RowPart]:
    """The parts of a task or a conversation in their order of reading."""
    for name in sorted((name for name in row if name in ORDER), key=ORDER.__getitem__):
        raw = row[name]
        value = _value(raw)
        if isinstance(value, list) and name in NESTED:
            parts = _members(value, (name,))
            yield from parts if value is raw else (RowPart(part.name, part.text) for part in parts)
        elif isinstance(raw, str) and (raw or name in ANSWERS):
            yield RowPart(name, raw, (name,))


def _value(value: Any) -> Any:
    """A value, or the list that it contains as JSON text, as in CSV."""
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            return parse_row(value)
        except ValueError:
            return value
    return value


def _members(values: Sequence[Any], path: Path) -> Iterator[RowPart]:
    """The texts of a list of messages, of question and answer objects, or of pairs."""
    for number, member in enumerate(values):
        here = (*path, number)
        if isinstance(member, list | tuple):
            for n, text in enumerate(member):
                name = ("user", "assistant")[n] if n < 2 else "text"
                yield RowPart(name, text if isinstance(text, str) else _json(text), (*here, n) if isinstance(text, str) else None)  # fmt: skip
        elif isinstance(member, dict):
            yield from _message(member, here) if any(name in member for name in ROLE_FIELDS) else _fields(member, here)  # fmt: skip
        else:
            yield RowPart("json", _json(member))


def _message(message: dict[str, Any], path: Path) -> Iterator[RowPart]:
    role = str(next(message[name] for name in ROLE_FIELDS if name in message))
    name: str = ROLES.get(role.strip().lower(), role)
    for thought in THOUGHTS:
        if isinstance(message.get(thought), str) and message[thought]:
            yield RowPart("thought", message[thought], (*path, thought))
    content = next((message[field] for field in TEXT_FIELDS if message.get(field) is not None), None)
    field = _text_field(message)
    if field is not None:
        yield RowPart(name, message[field], (*path, field))
    elif isinstance(content, list):
        for n, part in enumerate(content):
            text = part.get("text") if isinstance(part, dict) else None
            where = next(field for field in TEXT_FIELDS if message.get(field) is not None)
            yield RowPart(name, text, (*path, where, n, "text")) if isinstance(text, str) else RowPart(name, _json(part))  # fmt: skip
    elif content is not None:
        yield RowPart(name, _json(content))
    for call in ("tool_calls", "function_call"):
        if message.get(call):
            yield RowPart("call", _json(message[call]))


def _fields(member: dict[str, Any], path: Path) -> Iterator[RowPart]:
    names = {**dict.fromkeys(QUESTIONS, "user"), **dict.fromkeys(ANSWERS, "assistant")}
    for name, value in member.items():
        if isinstance(value, str) and value:
            yield RowPart(names.get(name, name), value, (*path, name))


def _said(row: dict[str, Any]) -> Iterator[RowPart]:
    """The judge's replies, in the order of presentation."""
    orders = row.get("orders")
    for order in orders if isinstance(orders, list) else ():
        if isinstance(order, dict):
            yield RowPart("judge", str(order.get("said", "")))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)
