"""Writes conversations in ShareGPT's format."""

from typing import Any

from zhllama.conversation.records import Conversation, Role, Turn
from zhllama.io.json import parse_row

NAMES: dict[Role, str] = {"user": "human", "assistant": "gpt", "system": "system", "tool": "tool"}


def sharegpt_row(conversation: Conversation, **more: Any) -> dict[str, Any]:
    """A conversation as a ShareGPT row: its id if it has one, the fields `more`, and the turns."""
    id_field = {"id": conversation.id} if conversation.id else {}
    tools = {"tools": parse_row(conversation.tools)} if conversation.tools else {}
    return {**id_field, **more, "conversations": [_turn(turn) for turn in conversation.turns], **tools}


def _turn(turn: Turn) -> dict[str, Any]:
    row: dict[str, Any] = {"from": NAMES[turn.role], "value": turn.text}
    if turn.thought:
        row["reasoning_content"] = turn.thought
    if turn.calls:
        row["tool_calls"] = [
            {"type": "function", **({"id": call.id} if call.id else {}),
             "function": {"name": call.name, "arguments": call.arguments}}
            for call in turn.calls
        ]  # fmt: skip
    if turn.call_id:
        row["tool_call_id"] = turn.call_id
    if not turn.trained:
        row["loss"] = False
    return row
