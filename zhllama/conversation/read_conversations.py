"""Reads conversations in every common format; a bad row is reported with its line and reason."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, StringConstraints

from zhllama.conversation.records import Comparison, Conversation, Role, Turn
from zhllama.errors import InputError
from zhllama.io.rows import MEND, NotJson, checked, read_rows_or_faults
from zhllama.io.text import Advance

ROLES: dict[str, Role] = {
    "system": "system", "human": "user", "user": "user", "prompter": "user", "gpt": "assistant",
    "assistant": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
}  # fmt: skip
Text = Annotated[str, StringConstraints(strip_whitespace=True)]
Check = Callable[[Conversation], str | None]


@dataclass(frozen=True)
class BadRow:
    """An invalid row; `where` is FILE:LINE."""

    where: str
    reason: str


Read = TypeVar("Read", Conversation, Comparison)


class _Alpaca(BaseModel):
    instruction: Text
    input: Text | None = None
    output: Text | None = None
    history: list[tuple[Text, Text]] | None = None
    system: Text | None = None

    def turns(self) -> list[Turn]:
        question = self.instruction if not self.input else f"{self.instruction}\n{self.input}"
        before = [turn for user, assistant in self.history or [] for turn in _pair(user, assistant)]
        return [*_system(self.system), *before, *_pair(question, self.output)]


class _Belle(BaseModel):
    input: Text
    target: Text | None = None

    def turns(self) -> list[Turn]:
        return _pair(self.input, self.target)


class ShareGptTurn(BaseModel):
    sender: str = Field(alias="from")
    value: Text


class _ShareGpt(BaseModel):
    conversations: list[ShareGptTurn]
    system: Text | None = None

    def turns(self) -> list[Turn]:
        return [
            *_system(self.system),
            *(Turn(parse_role(turn.sender), turn.value) for turn in self.conversations),
        ]


class Message(BaseModel):
    role: str
    content: Text


class _Messages(BaseModel):
    messages: list[Message]

    def turns(self) -> list[Turn]:
        return turns_from_messages(self.messages)


class _Exchange(BaseModel):
    human: Text
    assistant: Text


class _Firefly(BaseModel):
    conversation: list[_Exchange]

    def turns(self) -> list[Turn]:
        return [turn for pair in self.conversation for turn in _pair(pair.human, pair.assistant)]


# Formats by their distinctive field, in this order: an Alpaca row has an `input` too.
FORMS: dict[str, type[_ShareGpt | _Messages | _Firefly | _Alpaca | _Belle]] = {
    "conversations": _ShareGpt, "messages": _Messages, "conversation": _Firefly, "instruction": _Alpaca,
    "input": _Belle,
}  # fmt: skip


def _pair(question: str, answer: str | None) -> list[Turn]:
    return [Turn("user", question), *([Turn("assistant", answer)] if answer else [])]


def _system(text: str | None) -> list[Turn]:
    return [Turn("system", text)] if text else []


def turns_from_messages(messages: Sequence[Message]) -> list[Turn]:
    """The turns of messages in OpenAI's format."""
    return [Turn(parse_role(message.role), message.content) for message in messages]


def parse_role(name: str) -> Role:
    """The role of a sender's name; InputError for an unknown one."""
    if name not in ROLES:
        raise InputError("", f"unknown role {name!r}; known are {', '.join(ROLES)}")
    return ROLES[name]


def read_conversations(
    path: Path, check: Check | None = None, advance: Advance | None = None
) -> Iterator[Conversation | BadRow]:
    """Read Alpaca, BELLE, ShareGPT, Firefly, `messages` or seed-task rows from a JSON list or JSON lines.

    Texts are stripped. `check` returns a conversation's fault (`training_fault`, `prompt_fault`); without it the order of
    turns is not checked. Errors: InputError for a file that cannot be read or has no rows.
    """

    def parse(row: Any, where: str) -> list[Conversation]:
        conversations = [
            Conversation(tuple(turns_of(one, where)), where, row_id(one)) for one in _expand_instances(row)
        ]
        reasons = [check(conversation) for conversation in conversations] if check else []
        for reason in filter(None, reasons):
            raise InputError(where, reason, MEND)
        return conversations

    return read_each(path, parse, advance)


def _expand_instances(row: Any) -> list[Any]:
    """A seed task in Self-Instruct's format as one Alpaca row per instance; any other row unchanged."""
    instances = row.get("instances") if isinstance(row, dict) else None
    if not isinstance(instances, list) or not all(isinstance(one, dict) for one in instances):
        return [row]
    return [{**row, **one} for one in instances] or [row]


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
        others = f", and {len(bad) - 1:,} more rows are bad" if len(bad) > 1 else ""
        raise InputError(bad[0].where, bad[0].reason + others, "Correct them, or give `skip_bad`")


def training_fault(conversation: Conversation) -> str | None:
    """Why a conversation cannot be trained on, or None."""
    turns = conversation.turns
    return order_fault(turns) or ("has no answer at its end" if turns[-1].role != "assistant" else None)


def prompt_fault(conversation: Conversation) -> str | None:
    """Why a conversation cannot be answered, or None."""
    turns = conversation.turns
    return order_fault(turns) or ("does not end with a user's turn" if turns[-1].role != "user" else None)


def order_fault(turns: Sequence[Turn]) -> str | None:
    """The fault in the turns, which must be an optional system turn, then user and assistant alternately, none empty."""
    dialogue = turns[1:] if turns and turns[0].role == "system" else turns
    if not dialogue:
        return "contains no user turn"
    for number, turn in enumerate(turns, 1):
        if not turn.text.strip():
            return f"turn {number} ({turn.role}) is empty"
    first = len(turns) - len(dialogue) + 1
    for number, turn in enumerate(dialogue):
        if turn.role != ("user", "assistant")[number % 2]:
            expected = ("a user's", "an assistant's")[number % 2]
            return f"turn {first + number} is {turn.role}'s where {expected} is expected"
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
            yield BadRow(where, error.what)
    if empty:
        raise InputError(path, "contains no rows", "Give a JSON list, or one JSON object per line")


def turns_of(row: Any, where: str) -> list[Turn]:
    """The turns of a row in any format; InputError for an unknown format."""
    if not isinstance(row, dict):
        raise InputError(where, "is not a JSON object", MEND)
    for field, form in FORMS.items():
        if field in row:
            return checked(form, row, where).turns()
    raise InputError(where, f"has none of the fields {', '.join(FORMS)}", MEND)


def row_id(row: dict[str, Any]) -> str:
    """The row's id, or an empty string."""
    id = row.get("id", row.get("conversation_id"))
    return str(id) if isinstance(id, str | int) else ""
