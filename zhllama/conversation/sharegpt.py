"""Writes conversations in ShareGPT's format."""

from typing import Any

from zhllama.conversation.records import Conversation, Role

NAMES: dict[Role, str] = {"user": "human", "assistant": "gpt", "system": "system"}


def sharegpt_row(conversation: Conversation, **more: Any) -> dict[str, Any]:
    """A conversation in ShareGPT's form: its id where it has one, what else is to be said of it, and the turns."""
    named = {"id": conversation.id} if conversation.id else {}
    turns = [{"from": NAMES[turn.role], "value": turn.text} for turn in conversation.turns]
    return {**named, **more, "conversations": turns}
