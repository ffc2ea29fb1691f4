"""Conversations in zhllama's own JSON, as the caches of packed blocks store them."""

from dataclasses import asdict
from typing import Any

from zhllama.conversation.records import Conversation, ToolCall, Turn


def to_json(conversation: Conversation) -> dict[str, Any]:
    """A conversation as plain values."""
    return asdict(conversation)


def from_json(row: dict[str, Any]) -> Conversation:
    """The conversation that `to_json` wrote."""
    turns = [{**turn, "calls": tuple(ToolCall(**call) for call in turn["calls"])} for turn in row["turns"]]
    return Conversation(**{**row, "turns": tuple(Turn(**turn) for turn in turns)})
