"""Splits the rendered text of a conversation into context and answers, by rendering the text before each answer."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from zhllama.conversation.records import Conversation, ToolCall, Turn
from zhllama.conversation.template import SHIPPED, ChatTemplate
from zhllama.errors import InputError
from zhllama.io.json import parse_row

Thoughts = Literal["keep", "drop", "mask"]
Render = Callable[..., str]
# The end of a generation prompt that begins a thought, as DeepSeek-R1's, or leaves it empty.
_PROMPT_THOUGHT = re.compile(r"<think>\s*(</think>\s*)?\Z")
_HEAD = re.compile(r"\s*(?:<think>)?(.*?)</think>\s*", re.S)


@dataclass(frozen=True)
class Segment:
    """A part of a text: context, or the text of an answer, which its end token follows."""

    text: str
    answer: bool = False
    trained: bool = False


@dataclass(frozen=True)
class _Answer:
    """An answer in its place: the text before it, its thought, the rest of it, and the text from its end token on."""

    prompt: str
    thought: str
    text: str
    ending: str

    @property
    def whole(self) -> str:
        return self.prompt + self.thought + self.text + self.ending


def segments(
    conversation: Conversation, tokenizer: Any, template: ChatTemplate, thoughts: Thoughts = "keep"
) -> list[list[Segment]]:
    """The samples of a conversation as segments; every answer to be trained is in exactly one of them.

    The last sample is the whole conversation. An earlier answer that the template renders differently once later turns
    follow, as Qwen3's does, has a sample of its own, which ends with it. Answers that are not trained are context.
    Errors: InputError, with the conversation's place, for a template that changes or drops a text.
    """
    turns = conversation.turns
    if thoughts == "drop":
        turns = tuple(replace(turn, thought="") for turn in turns)

    def render(count: int, opened: bool = False) -> str:
        return template.render(tokenizer, turns[:count], opened=opened, tools=conversation.tools)

    places = [number for number, turn in enumerate(turns) if turn.role == "assistant"]
    whole, answers = render(len(turns)), {}
    for number in places:
        alike = number == len(turns) - 1 or template.jinja in SHIPPED
        text = whole if alike else render(number + 1)
        answers[number] = _answer(
            render(number, opened=True), text, turns[number], template, conversation.where
        )
    if places and places[-1] == len(turns) - 1:
        whole = answers[places[-1]].whole
    _refuse_dropped(conversation, whole, lambda: template.render(tokenizer, turns))
    stop = template.stop
    inside = {n: a for n, a in answers.items() if whole.startswith(f"{a.prompt}{a.thought}{a.text}{stop}")}
    alone = [a for n, a in answers.items() if n not in inside and turns[n].trained]
    samples = [_sample(a.whole, [a], thoughts) for a in alone]
    trained = [a for n, a in inside.items() if turns[n].trained]
    return [*samples, *([_sample(whole, trained, thoughts)] if trained else [])]


def _sample(whole: str, answers: Sequence[_Answer], thoughts: Thoughts) -> list[Segment]:
    parts: list[Segment] = []
    at = 0
    for answer in answers:
        parts.append(Segment(whole[at : len(answer.prompt)]))
        if thoughts == "mask" and answer.thought:
            parts.append(Segment(answer.thought, answer=True))
            parts.append(Segment(answer.text, answer=True, trained=True))
        else:
            parts.append(Segment(answer.thought + answer.text, answer=True, trained=True))
        at = len(answer.prompt) + len(answer.thought) + len(answer.text)
    return [*parts, Segment(whole[at:])]


def _answer(prompt: str, whole: str, turn: Turn, template: ChatTemplate, where: str) -> _Answer:
    """The answer after its prompt; `whole` is a text that continues it."""
    written = None if whole.startswith(prompt) else _PROMPT_THOUGHT.search(prompt)
    begin = len(prompt) if written is None else written.start()
    if not begin or not whole.startswith(prompt[:begin]):
        reason = "the template renders the text before an answer differently once the answer follows"
        raise unfit(where, reason)
    end = whole.find(template.stop, begin)
    if end < 0:
        raise unfit(where, f"no {template.stop} follows an answer")
    thought, text = _parts(whole[begin:end], turn, where)
    if written is not None:
        thought = _thought_after(written, turn, where)
        text = text.lstrip()
    elif turn.thought and turn.thought not in thought:
        raise _dropped_thought(where)
    elif _PROMPT_THOUGHT.search(prompt):
        thought = thought.lstrip("\n")  # tokenizers merge it with the line end of the prompt
    return _Answer(prompt, thought, text, whole[end:])


def _parts(body: str, turn: Turn, where: str) -> tuple[str, str]:
    """A rendered answer as its thought with its marks, and the rest. Errors: InputError for a changed answer."""
    text = turn.text.strip()
    head = "" if body.strip() == text and not turn.thought else _head_of(body)
    rest = body[len(head) :]
    marked = _HEAD.fullmatch(head)
    if marked is not None and marked[1].strip() not in ("", turn.thought.strip()):
        raise unfit(where, "the template changes the thought of an answer")
    if turn.calls:
        missing = [call.name for call in turn.calls if not _writes(rest, call)]
        if missing:
            raise unfit(where, f"the template does not write tool_calls ({missing[0]})")
        if text not in rest:
            raise unfit(where, "the template changes an answer")
    elif rest.strip() != text:
        raise unfit(where, "the template changes an answer")
    return head, rest


def _head_of(body: str) -> str:
    found = _HEAD.match(body)
    return "" if found is None else found[0]


def _thought_after(written: "re.Match[str]", turn: Turn, where: str) -> str:
    """The thought that follows a generation prompt with a thought's beginning, which the template itself leaves out."""
    if written[1] is None:
        return f"{turn.thought}\n</think>\n\n" if turn.thought else "</think>\n\n"
    if turn.thought:
        raise _dropped_thought(where)
    return ""


def _writes(text: str, call: ToolCall) -> bool:
    """Whether a text contains the name and every argument of a call, plain or as JSON."""
    return call.name in text and all(contains(text, value) for value in _leaves(parse_row(call.arguments)))


def _leaves(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [leaf for name, part in value.items() for leaf in (name, *_leaves(part))]
    if isinstance(value, list):
        return [leaf for part in value for leaf in _leaves(part)]
    return [value if isinstance(value, str) else json.dumps(value)]


def contains(text: str, part: str) -> bool:
    """Whether a text contains another one, plain or escaped as in JSON; the ends of templates' turns are stripped."""
    plain = part.strip()
    forms = (plain, json.dumps(plain, ensure_ascii=False)[1:-1], json.dumps(plain)[1:-1])
    return any(form in text for form in forms)


def _refuse_dropped(conversation: Conversation, whole: str, without_tools: Callable[[], str]) -> None:
    """Raise InputError where the text lacks a turn or a tool of the conversation."""
    for number, turn in enumerate(conversation.turns, 1):
        if turn.role != "assistant" and not contains(whole, turn.text):
            raise unfit(conversation.where, f"the template does not write turn {number} ({turn.role})")
    if conversation.tools:
        names = [tool["function"]["name"] for tool in parse_row(conversation.tools)]
        if whole == without_tools() or not all(name in whole for name in names):
            raise unfit(conversation.where, "the template does not write tools")


def _dropped_thought(where: str) -> InputError:
    return InputError(
        where, "the template drops the thought of an answer", "Give `thoughts` drop, or another `template`"
    )


def unfit(where: str, what: str) -> InputError:
    """The error for a conversation that a template cannot write."""
    return InputError(where, what, "Give another `template`")
