"""The records of this package: turns, conversations, and pairs of ranked answers."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Turn:
    """One message of a conversation."""

    role: Role
    text: str


@dataclass(frozen=True)
class Conversation:
    """Turns in order: an optional system turn, then user and assistant alternately. `where` is FILE:LINE, for errors."""

    turns: tuple[Turn, ...]
    where: str
    id: str = ""


@dataclass(frozen=True)
class Comparison:
    """Two answers to one prompt, a conversation that ends with the user's turn; `chosen` is the better one."""

    prompt: Conversation
    chosen: str
    rejected: str
