"""Writes conversations in ShareGPT's format."""

from typing import Any

from zhllama.conversation.records import Conversation, Role

NAMES: dict[Role, str] = {"user": "human", "assistant": "gpt", "system": "system"}


def sharegpt_row(conversation: Conversation, **more: Any) -> dict[str, Any]:
    """A conversation as a ShareGPT row: its id if it has one, the fields `more`, and the turns."""
    id_field = {"id": conversation.id} if conversation.id else {}
    turns = [{"from": NAMES[turn.role], "value": turn.text} for turn in conversation.turns]
    return {**id_field, **more, "conversations": turns}
