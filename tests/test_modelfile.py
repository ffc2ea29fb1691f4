"""Ollama's Modelfile: its template gives the text of the model's own chat template, or it is left out."""

import re
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from zhllama.conversation.records import Turn
from zhllama.conversation.template import FRAMED, PLAIN, ChatTemplate
from zhllama.inference.modelfile import frame_of, modelfile


def toy(jinja: str | None) -> Any:
    """What a template needs of a tokenizer."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(BPE()), bos_token="<s>", eos_token="</s>", chat_template=jinja,
        additional_special_tokens=["<|im_end|>"],
    )  # fmt: skip


def template(name: str, begin: str = "{{ bos_token }}") -> ChatTemplate:
    if name in FRAMED:
        jinja, tokens = FRAMED[name]
        return ChatTemplate(name, begin + jinja, tokens[-1], tokens)
    return ChatTemplate(name, begin + PLAIN[name], "</s>")


def as_ollama(text: str, turns: list[Turn]) -> str:
    """Run the part of Go's template language that a Modelfile of ours uses."""
    system = next((turn.text for turn in turns if turn.role == "system"), "")
    match = re.fullmatch(
        r"\{\{ if \.System \}\}(.*?)\{\{ \.System \}\}(.*?)\{\{ else \}\}(.*?)\{\{ end \}\}\{\{ range \.Messages \}\}"
        r'\{\{ if eq \.Role "user" \}\}(.*?)\{\{ \.Content \}\}(.*?)\{\{ else if eq \.Role "assistant" \}\}(.*?)'
        r"\{\{ \.Content \}\}(.*?)\{\{ end \}\}\{\{ end \}\}",
        text, re.S,
    )  # fmt: skip
    assert match, text
    before, after, default, user, mid, opening, answer = (
        part.replace('{{ "{{" }}', "{{") for part in match.groups()
    )
    parts = [f"{before}{system}{after}" if system else default]
    for turn in turns:
        if turn.role == "user":
            parts.append(f"{user}{turn.text}{mid}")
        elif turn.role == "assistant":
            parts.append(f"{opening}{turn.text}{answer}")
    return "".join(parts)


@pytest.mark.parametrize("name", [*PLAIN, *FRAMED])
@pytest.mark.parametrize("begin", ["", "{{ bos_token }}"])
def test_the_shipped_templates_say_the_same_in_ollama(name: str, begin: str) -> None:
    chosen = template(name, begin)
    frame = frame_of(chosen, toy(None))
    assert frame is not None
    for roles in ("u", "su", "uau", "suauau"):
        turns = [
            Turn({"s": "system", "u": "user", "a": "assistant"}[role], f"{role}{n}\n内容 ")  # type: ignore[arg-type]
            for n, role in enumerate(roles)
        ]
        own = chosen.render(toy(None), turns, opened=True).removeprefix("<s>" if begin else "")
        assert as_ollama(frame.template(), turns) == own == frame.rendered(turns)


@pytest.mark.parametrize(
    "jinja",
    [
        "{% for m in messages %}{{ m['content'] | trim }}<|im_end|>{% endfor %}",  # changes the text
        "{% for m in messages %}[{{ loop.index }}]{{ m['role'] }}:{{ m['content'] }}<|im_end|>{% endfor %}",  # counts turns
        "{{ raise_exception('no') }}",
    ],
)
def test_templates_that_frames_cannot_say_are_left_out(jinja: str) -> None:
    assert frame_of(ChatTemplate("own", jinja, "<|im_end|>"), toy(jinja)) is None


def test_braces_and_quotes_of_a_template_stay_text() -> None:
    jinja = (
        FRAMED["chatml"][0].replace("<|im_start|>", "<|im_start|>{{ '{{x}}' }}")
        if False
        else (
            "{% for m in messages %}{{ '{{' + m['role'] + '}}' + m['content'] + '<|im_end|>' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '{{assistant}}' }}{% endif %}"
        )
    )
    frame = frame_of(ChatTemplate("own", jinja, "<|im_end|>"), toy(jinja))
    assert frame is not None and '{{ "{{" }}user}}{{ .Content }}' in frame.template()


def test_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert modelfile("m.gguf", toy(None)) == "FROM ./m.gguf\n"
    chatml = toy(FRAMED["chatml"][0])
    monkeypatch.setattr(
        "zhllama.inference.modelfile.template_for", lambda name, tokenizer: template("chatml", "")
    )
    told = modelfile("m.gguf", chatml)
    assert told.startswith('FROM ./m.gguf\nTEMPLATE """{{ if .System }}<|im_start|>system\n')
    assert told.endswith('PARAMETER stop "<|im_end|>"\n')
