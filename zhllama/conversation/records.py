"""The records of this package: turns, conversations, pairs of ranked answers, and answers labelled good or bad."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool by the assistant; `arguments` is JSON text."""

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True)
class Turn:
    """One message of a conversation.

    `thought`: the reasoning before an answer, without its marks. `calls`: the tools that an answer calls. An answer that
    is not `trained` is context alone. `call_id`: the call whose result a tool's turn is.
    """

    role: Role
    text: str
    thought: str = ""
    calls: tuple[ToolCall, ...] = ()
    trained: bool = True
    call_id: str = ""


@dataclass(frozen=True)
class Conversation:
    """Turns in order: an optional system turn, then user and assistant alternately, with tools' turns after calls.

    `where` is FILE:LINE, for errors; `tools` is the JSON text of the list of tools that the assistant may call.
    """

    turns: tuple[Turn, ...]
    where: str
    id: str = ""
    tools: str = ""


@dataclass(frozen=True)
class Comparison:
    """Two answers to one prompt, a conversation that ends with the user's turn; `chosen` is the better one."""

    prompt: Conversation
    chosen: str
    rejected: str


@dataclass(frozen=True)
class LabelledAnswer:
    """A conversation that ends with an answer, and whether this answer is good; the answers before it are context."""

    conversation: Conversation
    good: bool
