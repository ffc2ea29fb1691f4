"""The turns of a conversation that a row contains as a list: of messages, of question and answer objects, or of pairs."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from zhllama.conversation.records import Role, ToolCall, Turn
from zhllama.conversation.row_fields import SWITCHES, THOUGHTS, RowFields, is_empty, text_of_value
from zhllama.errors import InputError
from zhllama.io.json import parse_row
from zhllama.io.rows import MEND

ROLES: dict[str, Role] = {
    "system": "system", "human": "user", "user": "user", "prompter": "user", "gpt": "assistant",
    "assistant": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant", "model": "assistant",
    "bot": "assistant", "chatbot": "assistant", "developer": "system", "tool": "tool", "observation": "tool",
    "function": "tool", "tool_response": "tool",
}  # fmt: skip
CALLERS = (
    "function_call",
    "tool_call",
)  # the assistant's turns whose text is a call: LLaMA-Factory's, ms-swift's
ROLE_FIELDS, TEXT_FIELDS = ("from", "role"), ("value", "content", "text")
QUESTIONS = ("human", "user", "instruction", "prompt", "query", "question", "input")
ANSWERS = ("assistant", "bot", "gpt", "output", "completion", "response", "target", "answer")
_THOUGHT = re.compile(r"\s*<(think|thinking)>(.*?)</\1>\s*", re.S)
_THOUGHT_END = re.compile(r"</(?:think|thinking)>\s*")


def parse_role(name: str) -> Role:
    """The role of a sender's name in any case; InputError for an unknown one."""
    role = ROLES.get(name.strip().lower())
    if role is None:
        raise InputError("", f"unknown role {name!r}; known are {', '.join((*ROLES, *CALLERS))}")
    return role


def answer_turn(text: str, thought: str = "", path: str = "the answer") -> Turn:
    """An answer with its thought, which may precede it in the text within <think> and </think>.

    Errors: InputError for a thought without an end, and for two thoughts.
    """
    inline, rest = "", text
    if begun := _THOUGHT.match(text):
        inline, rest = begun[2].strip(), text[begun.end() :]
    elif re.match(r"\s*<think(ing)?>", text):
        raise InputError("", f"{path}: has <think> without </think>", MEND)
    elif (end := _THOUGHT_END.search(text)) and "<think" not in text[: end.start()]:
        # the beginning was part of the prompt, as with DeepSeek-R1
        inline, rest = text[: end.start()].strip(), text[end.end() :]
    if inline and thought and inline != thought:
        raise InputError("", f"{path}: has two thoughts that differ", MEND)
    return Turn("assistant", rest.strip(), thought or inline)


def exchange(question: str, answer: str | None, thought: str = "", path: str = "the answer") -> list[Turn]:
    """The turns of a question and its answer, if it has one."""
    return [Turn("user", question), *([answer_turn(answer, thought, path)] if answer else [])]


def turns_of_list(values: Sequence[Any], path: str, fields: RowFields) -> list[Turn]:
    """The turns of a list, whose members may be of several forms; unused fields are added to those of the row.

    An empty system turn is left out: it means none. Consecutive calls become one turn.
    """
    turns: list[Turn] = []
    for number, value in enumerate(values):
        turns += _turns_of_member(value, f"{path}.{number}", fields)
    return _joined_calls([turn for turn in turns if turn.role != "system" or turn.text])


def _turns_of_member(value: Any, at: str, fields: RowFields) -> list[Turn]:
    if isinstance(value, list | tuple):
        if len(value) != 2:
            raise InputError("", f"{at}: has {len(value)} members, not a question and an answer", MEND)
        question, answer = (text_of_value(part, f"{at}.{n}") for n, part in enumerate(value))
        return exchange(question, answer, path=f"{at}.1")
    if not isinstance(value, dict):
        raise InputError("", f"{at}: input should be a valid dictionary", MEND)
    member = RowFields(value, f"{at}.")
    turns = [_message(member)] if member.has(*ROLE_FIELDS) else _exchange(member)
    member.refuse_unsupported()
    fields.unused_inside += member.unused()
    return turns


def _exchange(member: RowFields) -> list[Turn]:
    """A question with its answer, as in Firefly's and xtuner's lists."""
    if not member.has(*QUESTIONS, *ANSWERS):
        raise InputError("", f"{member.path}role: field required", MEND)
    system, question, answer = member.text("system"), question_of(member), member.text(*ANSWERS)
    thought = member.text(*THOUGHTS) if answer and member.has(*THOUGHTS) else None
    off = member.switch(*SWITCHES)
    turns = exchange(question, answer, thought or "", f"{member.path}answer")
    if off is not None:
        turns[-1] = replace(turns[-1], trained=False)
    return [*([Turn("system", system)] if system else []), *turns]


def question_of(fields: RowFields) -> str:
    """The question of a row or list member: one field, or an instruction with its input."""
    name = fields.first(*(q for q in QUESTIONS if q != "input"))
    if name is None:
        return fields.text("input") or ""
    question, more = fields.text(*(q for q in QUESTIONS if q != "input")) or "", fields.text("input")
    return f"{question}\n{more}" if question and more else question or more or ""


def _message(member: RowFields) -> Turn:
    """One message in ShareGPT's or OpenAI's form."""
    name = member.text(*ROLE_FIELDS) or ""
    caller = name.lower() in CALLERS
    role: Role = "assistant" if caller else parse_role(name)
    calls = _calls(member)
    if not member.has(*TEXT_FIELDS) and not calls:
        first = "value" if member.has("from") else "content"
        raise InputError("", f"{member.path}{first}: field required", MEND)
    text = member.text(*TEXT_FIELDS) or ""
    if role != "assistant":
        if calls:
            raise InputError("", f"{member.path}tool_calls: is a {role}'s", MEND)
        member.refuse_switched_on(role, *SWITCHES)
        call_id = str(member.take("tool_call_id") or "") if role == "tool" else ""
        return Turn(role, text, call_id=call_id)
    if caller:
        parts = _parsed(text, f"{member.path}{member.first(*TEXT_FIELDS)}")
        calls, text = tuple(tool_call(part, f"{member.path}value") for part in parts), ""
    thought = member.text(*THOUGHTS) or ""
    member.refuse(("refusal",), "an answer that the server refused is not supported")
    turn = answer_turn(text, thought, f"{member.path}content") if text else Turn(role, "", thought)
    return replace(turn, calls=calls, trained=member.switch(*SWITCHES) is None)


def _calls(member: RowFields) -> tuple[ToolCall, ...]:
    """The calls in OpenAI's fields."""
    listed, single = member.json("tool_calls"), member.json("function_call")
    listed = [] if is_empty(listed) else listed if isinstance(listed, list) else [listed]
    if not is_empty(single):
        listed = [*listed, single]
    return tuple(tool_call(part, f"{member.path}tool_calls.{n}") for n, part in enumerate(listed))


def tool_call(value: Any, path: str) -> ToolCall:
    """A call `{name, arguments}`, which may be in the field `function`. Errors: InputError."""
    outer = value if isinstance(value, dict) else {}
    inner = outer.get("function", outer)
    name = inner.get("name") if isinstance(inner, dict) else None
    if not isinstance(name, str) or not name.strip():
        raise InputError("", f"{path}: is not a tool call with a name and arguments", MEND)
    arguments = inner.get("arguments", inner.get("parameters"))
    if isinstance(arguments, str) and arguments.strip():
        (arguments,) = _parsed(arguments, f"{path}.arguments", single=True)
    if arguments is not None and not isinstance(arguments, dict | str):
        raise InputError("", f"{path}.arguments: is not a JSON object", MEND)
    return ToolCall(name.strip(), json.dumps(arguments or {}, ensure_ascii=False), str(outer.get("id") or ""))


def _parsed(text: str, path: str, *, single: bool = False) -> list[Any]:
    try:
        value = parse_row(text)
    except ValueError:
        raise InputError("", f"{path}: is not the JSON of a tool call", MEND) from None
    return [value] if single or not isinstance(value, list) else value


def _joined_calls(turns: list[Turn]) -> list[Turn]:
    """The turns with consecutive calls of the assistant as one turn, as ms-swift writes parallel ones."""
    joined: list[Turn] = []
    for turn in turns:
        before = joined[-1] if joined else None
        plain_call = turn.role == "assistant" and turn.calls and not turn.text and not turn.thought
        if plain_call and before is not None and before.role == "assistant":
            trained = before.trained and turn.trained
            joined[-1] = replace(before, calls=(*before.calls, *turn.calls), trained=trained)
        else:
            joined.append(turn)
    return joined
