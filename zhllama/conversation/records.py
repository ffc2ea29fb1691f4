"""The records of this package: a turn, a conversation, a comparison of two answers."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Turn:
    """What one side said."""

    role: Role
    text: str


@dataclass(frozen=True)
class Conversation:
    """Turns in order: perhaps a system's, then user and assistant by turns. `where` is FILE:LINE, for messages."""

    turns: tuple[Turn, ...]
    where: str
    id: str = ""


@dataclass(frozen=True)
class Comparison:
    """Two answers to one prompt, a conversation that ends with the user's turn; `chosen` is the better one."""

    prompt: Conversation
    chosen: str
    rejected: str
