"""Writes conversations, ranked pairs and labelled answers in the forms of LLaMA-Factory, TRL and OpenAI.

What a form cannot express is refused with a reason, never left out.
"""

import json
from collections.abc import Sequence
from typing import Any, Literal

from zhllama.conversation.records import Comparison, Conversation, LabelledAnswer, ToolCall, Turn
from zhllama.errors import InputError
from zhllama.io.json import parse_row

Target = Literal["llama-factory", "trl", "openai"]
Record = Conversation | Comparison | LabelledAnswer
Row = dict[str, Any]
REMEDY = "Choose another form"
SENDERS = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}
TAGS = {
    "role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt",
    "observation_tag": "observation", "function_tag": "function_call", "system_tag": "system",
}  # fmt: skip


def row_for(record: Record, target: Target) -> Row:
    """The row of a record in another project's form. Errors: InputError for what the form cannot express."""
    if target == "llama-factory":
        return _llama_factory(record)
    return _trl(record) if target == "trl" else _openai(record)


def dataset_entry(file_name: str, record: type[Record], *, tools: bool) -> Row:
    """The entry of a file of `row_for` in LLaMA-Factory's dataset_info.json; `tools`: whether a row has tools.

    LLaMA-Factory fails on a column that is named and exists in no row.
    """
    columns = {"messages": "conversations"} | ({"tools": "tools"} if tools else {})
    entry: Row = {"file_name": file_name, "formatting": "sharegpt"}
    if record is Comparison:
        entry["ranking"] = True
        columns |= {"chosen": "chosen", "rejected": "rejected"}
    if record is LabelledAnswer:
        columns["kto_tag"] = "kto_tag"
    return {**entry, "columns": columns, "tags": TAGS}


def has_call_ids(record: Record) -> bool:
    """Whether tool calls have ids, which LLaMA-Factory's form does not contain."""
    conversation = conversation_in(record)
    return any(turn.call_id or any(call.id for call in turn.calls) for turn in conversation.turns)


def conversation_in(record: Record) -> Conversation:
    """The conversation of a record, of a pair its prompt."""
    if isinstance(record, Conversation):
        return record
    return record.prompt if isinstance(record, Comparison) else record.conversation


def _llama_factory(record: Record) -> Row:
    conversation = conversation_in(record)
    tools = [tool["function"] for tool in parse_row(conversation.tools)] if conversation.tools else []
    row: Row = {"id": conversation.id} if conversation.id else {}
    row["conversations"] = _senders(conversation.turns, trained=isinstance(record, Conversation))
    if tools:
        row["tools"] = _json(tools)
    if isinstance(record, Comparison):
        row |= {name: {"from": "gpt", "value": text} for name, text in _answers(record)}
    if isinstance(record, LabelledAnswer):
        row["kto_tag"] = record.good
    return row


def _senders(turns: Sequence[Turn], *, trained: bool) -> list[Row]:
    """LLaMA-Factory's turns, which alternate: a person or a tool, and the model."""
    rows: list[Row] = []
    before = ""
    for number, turn in enumerate(turns, 1):
        if trained and turn.role == "assistant" and not turn.trained:
            raise _refused(number, "has an answer that is not trained, for which LLaMA-Factory has no switch")
        if turn.role == "tool" and before == "tool":
            raise _refused(number, "is a second tool result in a row, for which LLaMA-Factory has no form")
        if turn.calls and (turn.text or turn.thought):
            raise _refused(number, "has text beside tool calls, for which LLaMA-Factory has no form")
        if turn.calls:
            calls = [{"name": call.name, "arguments": parse_row(call.arguments)} for call in turn.calls]
            rows.append({"from": "function_call", "value": _json(calls[0] if len(calls) == 1 else calls)})
        else:
            rows.append({"from": SENDERS[turn.role], "value": _text(turn)})
        before = turn.role
    return rows


def _trl(record: Record) -> Row:
    conversation = conversation_in(record)
    row: Row = {"id": conversation.id} if conversation.id else {}
    if isinstance(record, Comparison):
        row["prompt"] = [_message(turn) for turn in conversation.turns]
        row |= {name: [{"role": "assistant", "content": text}] for name, text in _answers(record)}
    elif isinstance(record, LabelledAnswer):
        row["prompt"] = [_message(turn) for turn in conversation.turns[:-1]]
        row |= {"completion": [_message(conversation.turns[-1])], "label": record.good}
    else:
        untrained = (n for n, turn in enumerate(conversation.turns, 1) if not turn.trained)
        if (number := next(untrained, None)) is not None:
            raise _refused(number, "has an answer that is not trained, for which TRL has no switch")
        row["messages"] = [_message(turn) for turn in conversation.turns]
    if conversation.tools:
        row["tools"] = parse_row(conversation.tools)
    return row


def _message(turn: Turn) -> Row:
    """A turn as templates of transformers take it: arguments of calls are objects."""
    message: Row = {"role": turn.role, "content": _text(turn)}
    if turn.calls:
        message["tool_calls"] = [
            _call(call, call.id, {"name": call.name, "arguments": parse_row(call.arguments)})
            for call in turn.calls
        ]
    return message | ({"tool_call_id": turn.call_id} if turn.call_id else {})


def _openai(record: Record) -> Row:
    conversation = conversation_in(record)
    if isinstance(record, LabelledAnswer):
        raise InputError(conversation.where, "is a labelled answer, for which OpenAI has no form", REMEDY)
    tools = {"tools": parse_row(conversation.tools)} if conversation.tools else {}
    messages = _openai_messages(conversation.turns, trained=isinstance(record, Conversation))
    if isinstance(record, Conversation):
        return {"messages": messages, **tools}
    outputs = {name: [{"role": "assistant", "content": text}] for name, text in _answers(record)}
    return {
        "input": {"messages": messages, **tools},
        "preferred_output": outputs["chosen"], "non_preferred_output": outputs["rejected"],
    }  # fmt: skip


def _openai_messages(turns: Sequence[Turn], *, trained: bool) -> list[Row]:
    """Messages whose calls have ids, as the API requires; results without an id belong to the calls in their order."""
    messages: list[Row] = []
    waiting: list[str] = []
    for number, turn in enumerate(turns, 1):
        message: Row = {"role": turn.role, "content": _text(turn) or None if turn.calls else _text(turn)}
        if turn.calls:
            waiting = [call.id or f"call_{number}_{n}" for n, call in enumerate(turn.calls, 1)]
            message["tool_calls"] = [
                _call(call, id, {"name": call.name, "arguments": call.arguments})
                for call, id in zip(turn.calls, waiting, strict=True)
            ]
        if turn.role == "tool":
            id = turn.call_id or next(iter(waiting), "")
            if id not in waiting:
                raise _refused(number, "is a tool result without a call")
            waiting.remove(id)
            message["tool_call_id"] = id
        if trained and turn.role == "assistant" and not turn.trained:
            message["weight"] = 0
        messages.append(message)
    return messages


def _call(call: ToolCall, id: str, function: Row) -> Row:
    return {**({"id": id} if id else {}), "type": "function", "function": function}


def _answers(record: Comparison) -> list[tuple[str, str]]:
    return [("chosen", record.chosen), ("rejected", record.rejected)]


def _text(turn: Turn) -> str:
    """The text of a turn, after its thought within <think>, as templates and `answer_turn` read it."""
    if not turn.thought:
        return turn.text
    return f"<think>\n{turn.thought}\n</think>\n\n{turn.text}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _refused(number: int, reason: str) -> InputError:
    return InputError("", f"turn {number} {reason}", REMEDY)
