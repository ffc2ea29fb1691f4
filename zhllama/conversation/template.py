"""Chat templates: render turns as the text that a model reads, equally in training and inference.

The shipped templates use only Jinja that transformers, vLLM and llama.cpp support: no filters, macros or namespaces. An
answer follows a line end or a colon and precedes a special token. No common tokenizer merges text across these, so the
ids of a prompt are a prefix of the ids of its conversation.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from zhllama.conversation.records import Turn
from zhllama.conversation.sandboxed_templates import Exceeds, renderer, try_out
from zhllama.errors import InputError, OptionError
from zhllama.io.json import parse_row

Name = Literal["alpaca", "vicuna", "chatml", "llama3", "own"]
ThoughtForm = Literal["content", "reasoning_content", "none"]  # where a template expects an answer's thought
NAMES: tuple[str, ...] = get_args(Name)
REMEDY = "Give `template` alpaca, vicuna, chatml or llama3"

# Alpaca's prompt without input. The published Chinese-Alpaca ends it with a space in training (build_dataset.py) and with
# two line ends in inference (inference_hf.py); after a space the prompt's ids are no prefix of the conversation's ids.
ALPACA = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
# FastChat's v1.1.
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)

_SYSTEM_OR = (
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% else %}{{ 'PLAIN' }}{% endif %}"
)
_EACH = "{% for message in messages %}BODY{% endfor %}{% if add_generation_prompt %}{{ 'OPEN' }}{% endif %}"
_ROLES = "{% if message['role'] == 'user' %}{{ USER }}{% elif message['role'] == 'assistant' %}{{ ANSWER }}{% endif %}"


def _plain(before: str, user: str, opening: str, space: str) -> str:
    """A template of plain words; the tokenizer's end token ends an answer."""
    body = _ROLES.replace("USER", f"'{user}' + message['content']").replace(
        "ANSWER", f"'{opening}{space}' + message['content'] + eos_token"
    )
    plain = before.replace("'", "\\'")
    return _SYSTEM_OR.replace("PLAIN", plain) + _EACH.replace("BODY", body).replace("OPEN", opening)


def _framed(begin: str, after: str, end: str) -> str:
    """A template with special tokens around each turn."""
    body = f"{{{{ '{begin}' + message['role'] + '{after}' + message['content'] + '{end}' }}}}"
    return _EACH.replace("BODY", body).replace("OPEN", f"{begin}assistant{after}")


@dataclass(frozen=True)
class ChatTemplate:
    """A Jinja template; `stop` is the special token that ends an answer, `tokens` are all special tokens that it writes."""

    name: str
    jinja: str
    stop: str
    tokens: tuple[str, ...] = ()

    def render(self, tokenizer: Any, turns: Sequence[Turn], *, opened: bool = False, tools: str = "") -> str:
        """Render turns as transformers does; `opened` adds the prompt of the next answer, `tools` is a JSON list.

        A template that zhllama does not ship is rendered in a separate process with limits on time, memory and text.
        Errors: InputError where the template fails or exceeds a bound.
        """
        form: ThoughtForm = "content"
        if self.jinja not in SHIPPED and any(turn.thought for turn in turns):
            form = _thought_form(self, tokenizer)
        return self._rendered(tokenizer, turns, form, opened, tools)

    def _rendered(
        self, tokenizer: Any, turns: Sequence[Turn], form: ThoughtForm, opened: bool = False, tools: str = ""
    ) -> str:
        messages = [message_of(turn, form) for turn in turns]
        try:
            if self.jinja in SHIPPED:
                return str(
                    tokenizer.apply_chat_template(
                        messages, chat_template=self.jinja, tokenize=False, add_generation_prompt=opened
                    )
                )
            listed = parse_row(tools) if tools else None
            return renderer.render(self.jinja, messages, tokenizer.special_tokens_map, opened, listed)
        except Exceeds as error:
            raise InputError(_place(self.name, tokenizer), str(error), REMEDY) from None
        except Exception as error:  # a foreign template can raise anything
            reason = " ".join(str(error).split())[:160]
            raise InputError(
                _place(self.name, tokenizer), f"fails on a conversation ({reason})", REMEDY
            ) from error

    def try_out(self, tokenizer: Any) -> None:
        """Raise InputError for a foreign template that exceeds a limit on typical conversations; tested once per process."""
        if self.jinja not in SHIPPED:
            try:
                try_out(self.jinja, tokenizer.special_tokens_map)
            except Exceeds as error:
                raise InputError(_place(self.name, tokenizer), str(error), REMEDY) from None


def message_of(turn: Turn, form: ThoughtForm = "content") -> dict[str, Any]:
    """A turn as transformers' templates expect it; without thought and calls only its role and content."""
    message: dict[str, Any] = {"role": turn.role, "content": turn.text}
    if turn.thought and form == "content":
        message["content"] = with_thought(turn)
    elif turn.thought:
        message["reasoning_content"] = turn.thought
    if turn.calls:
        message["tool_calls"] = [
            {"type": "function", **({"id": call.id} if call.id else {}),
             "function": {"name": call.name, "arguments": parse_row(call.arguments)}}
            for call in turn.calls
        ]  # fmt: skip
    if turn.call_id:
        message["tool_call_id"] = turn.call_id
    return message


def with_thought(turn: Turn) -> str:
    """The text of an answer after its thought, in the form of Qwen3 and DeepSeek-R1."""
    return f"<think>\n{turn.thought}\n</think>\n\n{turn.text}"


def _thought_form(template: ChatTemplate, tokenizer: Any) -> ThoughtForm:
    """Where the template expects a thought, found by rendering one; `none` where it writes none."""
    key = (template.jinja, json.dumps(tokenizer.special_tokens_map, default=str, sort_keys=True))
    if key not in _FORMS:
        turns = (Turn("user", "zhllama-user"), Turn("assistant", "zhllama-answer", "zhllama-thought"))
        forms: tuple[ThoughtForm, ...] = ("content", "reasoning_content")
        written = [template._rendered(tokenizer, turns, form) for form in forms]
        marked = re.compile(r"<think>\s*zhllama-thought\s*</think>\s*zhllama-answer")
        fits = [len(marked.findall(text)) == 1 and text.count("</think>") == 1 for text in written]
        _FORMS[key] = next((form for form, fit in zip(forms, fits, strict=True) if fit), "none")
    return _FORMS[key]


_FORMS: dict[tuple[str, str], ThoughtForm] = {}


# `bos_token` comes first where the tokenizer begins every text with it.
_BEGIN = "{{ bos_token }}"
_CHATML = ("<|im_start|>", "<|im_end|>")
_LLAMA3 = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
PLAIN: dict[str, str] = {
    "alpaca": _plain(ALPACA, r"\n\n### Instruction:\n", r"\n\n### Response:\n", ""),
    "vicuna": _plain(VICUNA, " USER: ", " ASSISTANT:", " "),
}
FRAMED: dict[str, tuple[str, tuple[str, ...]]] = {
    "chatml": (_framed(_CHATML[0], r"\n", _CHATML[1] + r"\n"), _CHATML),
    "llama3": (_framed(_LLAMA3[0], _LLAMA3[1] + r"\n\n", _LLAMA3[2]), _LLAMA3),
}
SHIPPED = frozenset(
    begin + jinja
    for begin in ("", _BEGIN)
    for jinja in (*PLAIN.values(), *(framed for framed, _ in FRAMED.values()))
)


def special_tokens(name: str) -> tuple[str, ...]:
    """The special tokens of a template besides the tokenizer's own; the last one ends answers."""
    return FRAMED[name][1] if name in FRAMED else ()


def template_for(name: str, tokenizer: Any) -> ChatTemplate:
    """The named template for a transformers tokenizer; `own` is the tokenizer's chat_template.

    Errors: OptionError for an unknown name, InputError for a tokenizer without an end token, and for an own template
    that writes no special token after an answer.
    """
    if name == "own":
        return _own(tokenizer)
    begin = _BEGIN if begins_with_bos(tokenizer) else ""
    if name in FRAMED:
        jinja, tokens = FRAMED[name]
        return ChatTemplate(name, begin + jinja, tokens[-1], tokens)
    if name not in PLAIN:
        raise OptionError("template", f"{name!r} is not known", f"Give one of {', '.join(NAMES)}")
    if not tokenizer.eos_token:
        place = _folder(tokenizer) or "tokenizer"
        raise InputError(place, "names no end of text (eos_token)", "Name one in its tokenizer_config.json")
    return ChatTemplate(name, begin + PLAIN[name], str(tokenizer.eos_token))


def template_chosen(template: ChatTemplate, requested: str | None) -> str:
    """The note on which template is used."""
    own = "the model's own chat_template" if template.name == "own" else template.name
    return f"template: {own}" if requested else f"template: {own}, by default"


def refuse_lacking(template: ChatTemplate, tokenizer: Any, remedy: str) -> None:
    """Raise InputError for a template with special tokens that the tokenizer lacks."""
    known = tokenizer.get_vocab()
    for token in template.tokens:
        if token not in known:
            reason = f"needs the special token {token}, which this model does not know"
            raise InputError(f"`template` {template.name}", reason, remedy)


def begins_with_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer begins every text with its BOS token."""
    ids = tokenizer("a").input_ids
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]


def _own(tokenizer: Any) -> ChatTemplate:
    jinja = tokenizer.chat_template
    if not isinstance(jinja, str) or not jinja.strip():
        reason = "is not there: the tokenizer has no chat_template"
        raise InputError(_place("own", tokenizer), reason, "Give `template` alpaca")
    own = ChatTemplate("own", jinja, "")
    own.try_out(tokenizer)
    sample = (Turn("user", "zhllama-user"), Turn("assistant", "zhllama-answer"))
    text = own.render(tokenizer, sample)
    _, answer, rest = text.partition("zhllama-answer")
    stops = [t for t in special_token_texts(tokenizer) if rest.lstrip().startswith(t)]
    if not answer or not stops:
        reason = "writes no special token after an answer, so a model could not learn to end"
        remedy = "Give `template` alpaca, or add one to the chat_template"
        raise InputError(_place("own", tokenizer), reason, remedy)
    return ChatTemplate("own", jinja, max(stops, key=len))


def _place(name: str, tokenizer: Any) -> str:
    """What an error names: the template, and the folder that an own one came from."""
    folder = _folder(tokenizer) if name == "own" else ""
    return f"{folder}: template {name}" if folder else f"template {name}"


def _folder(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "name_or_path", None) or "")


def special_token_texts(tokenizer: Any) -> list[str]:
    """The texts of the tokenizer's special tokens."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return list(dict.fromkeys([*added, *tokenizer.all_special_tokens]))
