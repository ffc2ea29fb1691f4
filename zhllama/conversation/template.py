"""Chat templates: how turns become the text that a model reads, the same in training and inference.

Kept to the Jinja that transformers, vLLM and llama.cpp all run: no filters, no macros, no namespaces. Before an answer
stands a line end or a colon and after it a special token, since no tokenizer in use joins text across either: the ids of
a prompt alone, and of the conversation that goes on from it, are then the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from zhllama.conversation.records import Turn
from zhllama.conversation.sandboxed_templates import Exceeds, renderer, try_out
from zhllama.errors import InputError, OptionError

Name = Literal["alpaca", "vicuna", "chatml", "llama3", "own"]
NAMES: tuple[str, ...] = get_args(Name)
REMEDY = "Give --template alpaca, vicuna, chatml or llama3"

# Alpaca's prompt without input. The published Chinese-Alpaca ends it with a space in training (build_dataset.py) and with
# two line ends in use (inference_hf.py), and at a space the ids of the prompt alone are others than those of the whole.
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
_ROLES = "{% if message['role'] == 'user' %}{{ USER }}{% elif message['role'] == 'assistant' %}{{ TOLD }}{% endif %}"


def _plain(before: str, user: str, opening: str, space: str) -> str:
    """A template in plain words, ended by the tokenizer's own end of text."""
    body = _ROLES.replace("USER", f"'{user}' + message['content']").replace(
        "TOLD", f"'{opening}{space}' + message['content'] + eos_token"
    )
    plain = before.replace("'", "\\'")
    return _SYSTEM_OR.replace("PLAIN", plain) + _EACH.replace("BODY", body).replace("OPEN", opening)


def _framed(begin: str, after: str, end: str) -> str:
    """A template of special tokens around each turn."""
    body = f"{{{{ '{begin}' + message['role'] + '{after}' + message['content'] + '{end}' }}}}"
    return _EACH.replace("BODY", body).replace("OPEN", f"{begin}assistant{after}")


@dataclass(frozen=True)
class ChatTemplate:
    """`stop` is the special token that ends an answer; `tokens` are all special ones that the text is made with."""

    name: str
    jinja: str
    stop: str
    tokens: tuple[str, ...] = ()

    def render(self, tokenizer: Any, turns: Sequence[Turn], *, opened: bool = False) -> str:
        """The text of some turns, as transformers renders it; `opened` up to where the next answer begins.

        A template of others is rendered in a process of its own, under bounds on time, memory and text.
        Errors: InputError where the template fails or exceeds a bound.
        """
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        try:
            if self.jinja in SHIPPED:
                return str(
                    tokenizer.apply_chat_template(
                        messages, chat_template=self.jinja, tokenize=False, add_generation_prompt=opened
                    )
                )
            return renderer.render(self.jinja, messages, tokenizer.special_tokens_map, opened)
        except Exceeds as error:
            raise InputError(f"template {self.name}", str(error), REMEDY) from None
        except Exception as error:  # whatever a stranger's template raises
            told = " ".join(str(error).split())[:160]
            raise InputError(f"template {self.name}", f"fails on a conversation ({told})", REMEDY) from error

    def try_out(self, tokenizer: Any) -> None:
        """InputError for a template of others that exceeds a bound on a few usual conversations; once a process for each."""
        if self.jinja not in SHIPPED:
            try:
                try_out(self.jinja, tokenizer.special_tokens_map)
            except Exceeds as error:
                raise InputError(f"template {self.name}", str(error), REMEDY) from None


# The special token `bos_token` comes first where the tokenizer begins every text with it.
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
    """The special tokens that a template writes beside the tokenizer's own begin and end; the last one ends answers."""
    return FRAMED[name][1] if name in FRAMED else ()


def template_for(name: str, tokenizer: Any) -> ChatTemplate:
    """The template of a name for a transformers tokenizer; `own` is the one that the tokenizer has already.

    Errors: OptionError for an unknown name, InputError for a tokenizer without what the template needs, or an own template
    that writes no end after an answer.
    """
    if name == "own":
        return _own(tokenizer)
    begin = _BEGIN if begins_with_bos(tokenizer) else ""
    if name in FRAMED:
        jinja, tokens = FRAMED[name]
        return ChatTemplate(name, begin + jinja, tokens[-1], tokens)
    if name not in PLAIN:
        raise OptionError("--template", f"{name!r} is not known", f"Give one of {', '.join(NAMES)}")
    if not tokenizer.eos_token:
        raise InputError(
            "tokenizer", "names no end of text (eos_token)", "Name one in its tokenizer_config.json"
        )
    return ChatTemplate(name, begin + PLAIN[name], str(tokenizer.eos_token))


def refuse_lacking(template: ChatTemplate, tokenizer: Any, remedy: str) -> None:
    """InputError for a template whose special tokens the tokenizer does not have."""
    known = tokenizer.get_vocab()
    for token in template.tokens:
        if token not in known:
            told = f"needs the special token {token}, which this model does not know"
            raise InputError(f"--template {template.name}", told, remedy)


def begins_with_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer puts its begin of text before every text."""
    ids = tokenizer("a").input_ids
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]


def _own(tokenizer: Any) -> ChatTemplate:
    jinja = tokenizer.chat_template
    if not isinstance(jinja, str) or not jinja.strip():
        raise InputError(
            "template own", "is not there: the tokenizer has no chat_template", "Give --template alpaca"
        )
    own = ChatTemplate("own", jinja, "")
    own.try_out(tokenizer)
    asked = (Turn("user", "zhllama-user"), Turn("assistant", "zhllama-answer"))
    text = own.render(tokenizer, asked)
    _, answer, rest = text.partition("zhllama-answer")
    stops = [t for t in special_token_texts(tokenizer) if rest.lstrip().startswith(t)]
    if not answer or not stops:
        told = "writes no special token after an answer, so a model could not learn to end"
        raise InputError("template own", told, "Give --template alpaca, or add one to the chat_template")
    return ChatTemplate("own", jinja, max(stops, key=len))


def special_token_texts(tokenizer: Any) -> list[str]:
    """The texts that the tokenizer reads as special tokens."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return list(dict.fromkeys([*added, *tokenizer.all_special_tokens]))
