"""Reads conversations in every common format; a bad row is reported with its line and reason."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from zhllama.conversation.records import Comparison, Conversation, LabelledAnswer, Turn
from zhllama.conversation.row_fields import (
    LABELS,
    SWITCHES,
    THOUGHTS,
    MarkedRow,
    RowFields,
    RowReading,
    is_empty,
)
from zhllama.conversation.row_turns import ANSWERS, QUESTIONS, exchange, question_of, turns_of_list
from zhllama.errors import InputError
from zhllama.io.rows import MEND, NotJson, read_rows_or_faults
from zhllama.io.text import Advance

LISTS = ("conversations", "messages", "conversation")
FORMS = (*LISTS, "instruction", "input", "prompt", "query", "question")  # one of which a row must have
SYSTEM = ("system", "system_prompt")
Check = Callable[[Conversation], str | None]


@dataclass(frozen=True)
class BadRow:
    """A row that is not used; `where` is FILE:LINE.

    `marked`: the row is valid, and says by a field of its own that it must not be trained on.
    """

    where: str
    reason: str
    marked: bool = False


Read = TypeVar("Read", Conversation, Comparison, LabelledAnswer)


def read_conversations(
    path: Path,
    check: Check | None = None,
    advance: Advance | None = None,
    reading: RowReading | None = None,
) -> Iterator[Conversation | BadRow]:
    """Read the rows of a JSON list, JSON lines, Parquet or CSV, in any format of docs/sft.md.

    Texts are stripped. `reading` renames fields and counts those without a use. `check` returns a conversation's fault (`training_fault`, `prompt_fault`); without it the order of
    turns is not checked. Errors: InputError for a file that cannot be read or has no rows.
    """

    reading = reading or RowReading()

    def parse(row: Any, where: str) -> list[Conversation]:
        conversations = [conversation_of(one, where, reading) for one in expand_instances(row)]
        reasons = [check(conversation) for conversation in conversations] if check else []
        for reason in filter(None, reasons):
            raise InputError(where, reason, MEND)
        return conversations

    return read_each(path, parse, advance)


def expand_instances(row: Any) -> list[Any]:
    """A seed task in Self-Instruct's format as one Alpaca row per instance; any other row unchanged."""
    instances = row.get("instances") if isinstance(row, dict) else None
    if not isinstance(instances, list) or not all(isinstance(one, dict) for one in instances):
        return [row]
    task = {name: value for name, value in row.items() if name != "instances"}
    return [{**task, **one} for one in instances] or [row]


def accepted_rows(rows: Iterable[Read | BadRow], bad: list[BadRow]) -> Iterator[Read]:
    """The valid rows; bad rows are appended to `bad`."""
    for row in rows:
        if isinstance(row, BadRow):
            bad.append(row)
        else:
            yield row


def refuse_bad_rows(bad: Sequence[BadRow]) -> None:
    """Raise InputError with the first bad row and the number of bad rows, if there are any."""
    if bad:
        remedy = (
            f"{len(bad) - 1:,} more rows are bad. Correct them, or give `skip_bad`"
            if len(bad) > 1
            else "Correct them, or give `skip_bad`"
        )
        raise InputError(bad[0].where, bad[0].reason, remedy)


def training_fault(conversation: Conversation) -> str | None:
    """Why a conversation cannot be trained on, or None."""
    turns = conversation.turns
    return order_fault(turns) or ("has no answer at its end" if turns[-1].role != "assistant" else None)


def prompt_fault(conversation: Conversation) -> str | None:
    """Why a conversation cannot be answered, or None."""
    turns = conversation.turns
    return order_fault(turns) or ("does not end with a user's turn" if turns[-1].role != "user" else None)


def order_fault(turns: Sequence[Turn]) -> str | None:
    """The fault in the turns: an optional system turn, then user and assistant alternately, none empty.

    An answer with calls is followed by the tools' turns and another answer, or ends the conversation.
    """
    dialogue = turns[1:] if turns and turns[0].role == "system" else turns
    if not dialogue:
        return "contains no user turn"
    for number, turn in enumerate(turns, 1):
        if not turn.text.strip() and not turn.calls and turn.role != "tool":
            return f"turn {number} ({turn.role}) is empty"
    expected: tuple[str, ...] = ("user",)
    for number, turn in enumerate(dialogue, len(turns) - len(dialogue) + 1):
        if turn.role not in expected:
            owners = " or ".join(
                "an assistant's" if role == "assistant" else f"a {role}'s" for role in expected
            )
            return f"turn {number} is {turn.role}'s where {owners} is expected"
        if turn.role == "assistant":
            expected = ("tool",) if turn.calls else ("user",)
        else:
            expected = ("assistant",) if turn.role == "user" else ("assistant", "tool")
    return None


def read_each(
    path: Path, parse: Callable[[Any, str], list[Read]], advance: Advance | None
) -> Iterator[Read | BadRow]:
    """The results of `parse` on each row and its FILE:LINE; a BadRow where it raises InputError."""
    empty = True
    for number, row in read_rows_or_faults(path, advance):
        empty, where = False, f"{path}:{number}"
        if isinstance(row, NotJson):
            yield BadRow(where, row.reason)
            continue
        try:
            yield from parse(row, where)
        except InputError as error:
            yield BadRow(where, error.what, isinstance(error, MarkedRow))
    if empty:
        raise InputError(path, "contains no rows", "Give a JSON list, or one JSON object per line")


def conversation_of(row: Any, where: str, reading: RowReading) -> Conversation:
    """The conversation of a row in any format, every field of which is read, refused or counted.

    Errors: InputError for an unknown format or a field that is not supported; MarkedRow.
    """
    fields = reading.fields(row, where)
    conversation = turns_and_tools(fields, where)
    refuse_marked(fields, where)
    answers = [turn for turn in conversation.turns if turn.role == "assistant"]
    if answers and not any(turn.trained for turn in answers):
        raise MarkedRow(where, "has no answer that is to be trained on")
    fields.refuse_unsupported()
    reading.count(fields.unused())
    return conversation


def turns_and_tools(fields: RowFields, where: str) -> Conversation:
    """The conversation in a row's fields, whose marks are not read. Errors: InputError for an unknown format."""
    return Conversation(tuple(dialogue(fields, where)), where, row_id(fields.row), tools_of(fields))


def refuse_marked(fields: RowFields, where: str) -> None:
    """Raise MarkedRow where the row's own label or switch says that it must not be trained on."""
    for name in LABELS:
        if is_label(fields.row.get(name)) and (off := fields.switch(name)) is not None:
            raise MarkedRow(where, f"is marked as a bad answer ({off})")
    if (off := fields.switch(*SWITCHES)) is not None:
        raise MarkedRow(where, f"is marked as not to be trained on ({off})")


def is_label(value: Any) -> bool:
    """Whether a value says that an answer is good or bad; any other `label` is a name of a class."""
    return value in (True, False, 0, 1) or str(value).lower() in ("true", "false")


def dialogue(fields: RowFields, where: str, *, answers: Sequence[str] = ANSWERS) -> list[Turn]:
    """The turns of a row's fields; without `answers` those of a prompt. Errors: InputError for an unknown format."""
    if (name := next((name for name in LISTS if fields.has(name)), None)) is not None:
        turns = turns_of_list(fields.items(name), name, fields)
    elif not fields.has(*QUESTIONS):
        raise InputError(where, f"has none of the fields {', '.join(FORMS)}", MEND)
    elif fields.has("prompt") and isinstance(fields.json("prompt"), list):
        prompt = turns_of_list(fields.items("prompt"), "prompt", fields)
        completion = _completion(fields, answers)
        turns = _as_context(prompt) + completion if completion else prompt
    else:
        turns = _history(fields)
        answer = fields.text(*answers) if answers else None
        thought = fields.text(*THOUGHTS) if answer else None
        turns += exchange(
            question_of(fields), answer, thought or "", fields.first(*answers) or "" if answers else ""
        )
    return with_system(fields, turns)


def _as_context(prompt: list[Turn]) -> list[Turn]:
    """The turns of a prompt whose answers are not trained: of such rows trl trains the completion alone."""
    return [replace(turn, trained=turn.trained and turn.role != "assistant") for turn in prompt]


def _completion(fields: RowFields, answers: Sequence[str]) -> list[Turn]:
    """The turns after a prompt of messages: messages too, one message, or a text."""
    name = fields.first(*answers) if answers else None
    if name is None:
        return []
    value = fields.json(name)
    if isinstance(value, list | dict):
        return turns_of_list(value if isinstance(value, list) else [value], name, fields)
    return exchange("", fields.text(name), path=name)[1:]


def _history(fields: RowFields) -> list[Turn]:
    return (
        [] if is_empty(fields.take("history")) else turns_of_list(fields.items("history"), "history", fields)
    )


def with_system(fields: RowFields, turns: list[Turn]) -> list[Turn]:
    """The turns after the row's own system prompt. Errors: InputError where a system turn differs from it."""
    system = fields.text(*SYSTEM)
    if not system:
        return turns
    if turns and turns[0].role == "system":
        if turns[0].text != system:
            raise InputError("", "system: differs from the system turn", MEND)
        return turns
    return [Turn("system", system), *turns]


def tools_of(fields: RowFields) -> str:
    """The row's tools as the JSON text of a list in OpenAI's form, empty without any. Errors: InputError."""
    name = fields.first("tools", "functions")
    listed = None if name is None else fields.json(name)
    if is_empty(listed):
        return ""
    listed = listed if isinstance(listed, list) else [listed]
    for number, tool in enumerate(listed):
        inner = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
            raise InputError("", f"{name}.{number}: is not a tool with a name", MEND)
    whole = [tool if "function" in tool else {"type": "function", "function": tool} for tool in listed]
    return json.dumps(whole, ensure_ascii=False)


def row_id(row: Mapping[str, Any]) -> str:
    """The row's id, or an empty string."""
    id = row.get("id", row.get("conversation_id"))
    return str(id) if isinstance(id, str | int) else ""
