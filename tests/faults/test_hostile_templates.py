"""Chat templates of others: one that takes too much is refused in time, and public ones render as transformers renders them."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.chat_toys import BY_PIECES, write_parrot
from tests.model_toys import base_vocabulary, line, write_tokenizer
from zhllama.conversation.records import Turn
from zhllama.conversation.sandboxed_templates import Exceeds, Renderer, renderer
from zhllama.conversation.template import FRAMED, PLAIN, SHIPPED, ChatTemplate, template_for
from zhllama.conversation.template_worker import MEMORY, SECONDS
from zhllama.errors import InputError
from zhllama.model.load import load_transformers_tokenizer

LONG = "{% for a in range(99999) %}"
HOSTILE = {
    "the issue's loops": f"{LONG}{LONG}{{% endfor %}}{{% endfor %}}",
    "the issue's padding": "{{ '%0999999999d' % 1 }}",
    "folded at compile time": "{{ 'a' * 10**10 }}",
    "power of powers": "{{ 9**(9**9) }}",
    "power by a variable": "{% set n = 9 %}{{ n ** (n ** n) % 7 }}",
    "center": "{{ 'x' | center(10**10) }}",
    "format method": "{{ '{:>9999999999}'.format('x') }}",
    "format of a float": "{{ '%.999999999f' % 1.5 }}",
    "ljust": "{{ 'x'.ljust(9999999999) }}",
    "zfill": "{{ messages[0].content.zfill(9999999999) }}",
    "expandtabs": "{{ '\\t\\t'.expandtabs(2000000000) }}",
    "join of lists": "{{ (['abcdefgh'] * 10**9) | join }}",
    "doubling": "{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}{{ n.s | length }}",
    "replace": "{% set n = namespace(s='a') %}{% for i in range(40) %}{% set n.s = n.s | replace('a', 'aa') %}{% endfor %}",
    "recursive macro": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "macros that branch": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "recursive loop": "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "lipsum": f"{LONG}{{{{ lipsum(n=1000) }}}}{{% endfor %}}",
    "sorting": f"{LONG}{{% set s = range(99999) | map('string') | sort %}}{{% endfor %}}",
    "product of sums": f"{LONG}{{% set x = range(99999) | sum %}}{{% endfor %}}",
    "batch": "{{ 'ab' | batch(10**10, 'x') | list | length }}",
    "slice": "{{ 'ab' | slice(10**10) | list | length }}",
    "indent": "{{ ('a\\n' * 10**6) | indent(10**5) }}",
    "wordwrap": "{% for i in range(9999) %}{{ ('a ' * 10**6) | wordwrap(1) | length }}{% endfor %}",
    "tojson": "{{ ['x'] | tojson(indent=2000000000) }}",
    "split and list": f"{LONG}{{% for c in ('a' * 10**7) | list %}}{{% endfor %}}{{% endfor %}}",
    "big numbers": "{% set n = namespace(x=3) %}{% for i in range(40) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "much text": "{% for i in range(99999) %}0123456789{% endfor %}",
    "only with three turns": f"{{% if messages|length > 2 %}}{LONG}{LONG}{{% endfor %}}{{% endfor %}}{{% endif %}}",
    "only where an answer begins": "{% if add_generation_prompt %}{{ 'x' * 10**10 }}{% endif %}",
    "deep brackets": "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
    "urlize": f"{LONG}{{% set s = (messages[0].content * 10**5) | urlize %}}{{% endfor %}}",
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_transformers_tokenizer(
        write_tokenizer(base_vocabulary(), tmp_path_factory.mktemp("tokenizer"))
    )


# Each takes all of its time: two seconds of the processor.
SLOW = ("sorting", "product of sums", "lipsum", "replace", "macros that branch", "slice", "batch", "split and list", "big numbers",
        "wordwrap", "urlize", "doubling")  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in HOSTILE]
)
def test_it_is_refused_in_one_line(tokenizer: Any, name: str) -> None:
    tokenizer.chat_template = HOSTILE[name] + "{{ messages[-1].content }}</s>"
    with pytest.raises(InputError) as error:
        template_for("own", tokenizer)
    told = str(error.value)
    assert "\n" not in told and len(told) < 400 and ": template own: " in told
    assert any(
        word in told for word in ("takes more", "writes ", "calls itself", "fails on a conversation")
    ), told


# Its own process, since the peak memory of a child counts what its parent had when it was forked.
MEASURE = """
import json, os, signal, sys
from zhllama.conversation import sandboxed_templates as own

used, end = {}, own._end

def ended(child):
    os.kill(child.pid, signal.SIGKILL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    used[name] = [usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]
    return end(child)

own._end = ended
for name, jinja in json.load(sys.stdin).items():
    try:
        own.try_out(jinja, {})
        sys.exit(name + " was accepted")
    except own.Exceeds:
        own.renderer.close()
print(json.dumps(used))
"""


def check_bounds(names: Sequence[str]) -> None:
    """Processor time and peak memory of the child that tries each template, as the system accounts for them."""
    templates = {name: HOSTILE[name] + "{{ messages[-1].content }}</s>" for name in names}
    words = [sys.executable, "-c", MEASURE]
    told = subprocess.run(
        words, input=json.dumps(templates), capture_output=True, text=True, encoding="utf-8"
    )
    assert told.returncode == 0, told.stderr
    used = json.loads(told.stdout)
    assert used.keys() == templates.keys()
    for name, (seconds, megabytes) in used.items():
        # One conversation takes all that it may, the few before it and the start of the child little.
        assert seconds < SECONDS + 2, (name, seconds)
        assert megabytes < (MEMORY >> 20) + 100, (name, megabytes)


def test_the_child_stays_within_its_bounds() -> None:
    check_bounds(["the issue's loops", "the issue's padding", "doubling"])


@pytest.mark.slow
def test_the_child_stays_within_its_bounds_for_all() -> None:
    check_bounds(list(HOSTILE))


def test_the_bound_is_on_each_conversation(tokenizer: Any) -> None:
    """A template that minds its manners when it is tried, and not with the content that it waits for."""
    waits = "{% if 'now' in messages[-1].content %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{% endif %}"
    tokenizer.chat_template = waits + "{{ messages[-1].content }}</s>"
    found = template_for("own", tokenizer)
    assert found.render(tokenizer, [Turn("user", "later")]) == "later</s>"
    with pytest.raises(InputError, match="template own: takes more than 2 s on a conversation"):
        found.render(tokenizer, [Turn("user", "now")])
    assert found.render(tokenizer, [Turn("user", "later")]) == "later</s>", "the next one is served again"


def test_a_verdict_is_kept(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    template = ChatTemplate("own", "{{ 'x' * 10**10 }}", "")
    for _ in range(2):
        with pytest.raises(InputError, match="takes more memory"):
            template.try_out(tokenizer)
        monkeypatch.setattr(renderer, "render", lambda *_: pytest.fail("tried again"))


def test_the_child_does_not_outlive_us() -> None:
    code = "from zhllama.conversation.sandboxed_templates import renderer as r\nprint(r.render('x', [], {}, False), r._worker.pid)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True)  # fmt: skip
    text, child = ended.stdout.split()
    assert text == "x" and not Path(f"/proc/{child}").exists()


def test_after_a_fork_each_has_its_own() -> None:
    ours = Renderer()
    assert ours.render("a", [], {}, False) == "a"
    child = os.fork()
    if child == 0:
        os._exit(0 if ours.render("b", [], {}, False) == "b" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ours.render("c", [], {}, False) == "c"
    ours.close()


def test_what_is_shipped_needs_no_child(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renderer, "render", lambda *_: pytest.fail("rendered elsewhere"))
    assert len(SHIPPED) == 2 * (len(PLAIN) + len(FRAMED))
    for name in PLAIN:
        found = template_for(name, tokenizer)
        assert found.render(tokenizer, [Turn("user", "a")])
        tokenizer.chat_template = found.jinja
        assert template_for("own", tokenizer).jinja == found.jinja


@pytest.mark.parametrize("words", [("chat", "m", "--prompt", "a"), ("serve", "m", "--port", "0"), ("answer", "m", "--questions", "q.jsonl", "--out", "o")])  # fmt: skip
def test_commands_refuse_it(tmp_path: Path, words: tuple[str, ...]) -> None:
    write_parrot(tmp_path / "m", BY_PIECES, HOSTILE["the issue's loops"])
    (tmp_path / "q.jsonl").write_text('{"id": "1", "instruction": "a"}\n', encoding="utf-8")
    told = line(tmp_path, *words)
    assert told.code == 1 and told.err.count("\n") == 1
    assert "template own: takes more than 2 s on a conversation. Give --template" in told.err


# The forms that public templates have, by the models that they are known from; shortened, their constructions kept.
PUBLIC = {
    "chatml": "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "llama-2": "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    "llama-3": "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
    "llama-3.1 date": "{{- bos_token }}\n{%- if not date_string is defined %}\n    {%- set date_string = \"26 Jul 2024\" %}\n{%- endif %}\n{%- if messages[0]['role'] == 'system' %}\n    {%- set system_message = messages[0]['content']|trim %}\n    {%- set messages = messages[1:] %}\n{%- else %}\n    {%- set system_message = \"\" %}\n{%- endif %}\n{{- \"Today Date: \" + date_string + \"\\n\\n\" + system_message }}\n{%- for message in messages %}\n    {{- message.role + ':' + message['content'] | trim + '<|eot_id|>' }}\n{%- endfor %}",
    "mistral": "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}",
    "gemma": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}",
    "qwen-2.5": "{%- if tools %}\n    {{- '# Tools' }}\n{%- else %}\n    {%- if messages[0]['role'] != 'system' %}\n        {{- '<|im_start|>system\\nYou are a helpful assistant<|im_end|>\\n' }}\n    {%- endif %}\n{%- endif %}\n{%- for message in messages %}\n    {%- if (message.role == \"user\") or (message.role == \"system\" and not loop.first) or (message.role == \"assistant\" and not message.tool_calls) %}\n        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n    {%- endif %}\n{%- endfor %}",
    "qwen-3 thinking": "{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}\n{%- for message in messages[::-1] %}\n    {%- set index = (messages|length - 1) - loop.index0 %}\n    {%- if ns.multi_step_tool and message.role == \"user\" and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}\n        {%- set ns.multi_step_tool = false %}\n        {%- set ns.last_query_index = index %}\n    {%- endif %}\n{%- endfor %}\n{%- for message in messages %}\n    {%- set content = message.content %}\n    {%- if '</think>' in message.content %}\n        {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}\n    {%- endif %}\n    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n    {%- if enable_thinking is defined and enable_thinking is false %}\n        {{- '<think>\\n\\n</think>\\n\\n' }}\n    {%- endif %}\n{%- endif %}",
    "deepseek": "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\\n\\n' }}{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token }}{% elif message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}",
    "deepseek-r1": "{% set ns = namespace(is_first=false, system_prompt='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}{%- for message in messages %}{%- if message['role'] == 'user' %}{{'<｜User｜>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is not none %}{% set content = message['content'] %}{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- endfor -%}",
    "zephyr": "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\\n'  + message['content'] + eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
    "phi-3": "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\\n' + message['content'] + '<|end|>\\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}",
    "glm-4": "[gMASK]<sop>{% for item in messages %}{% if item['role'] != 'system' and item['tools'] is defined %}{{ item['tools'] | tojson(indent=4) }}{% endif %}<|{{ item['role'] }}|>\n{{ item['content'] }}{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    "baichuan": "{% for message in messages %}{% if message.role == 'user' %}{{ '<reserved_106>' ~ message.content }}{% else %}{{ '<reserved_107>' ~ message.content }}{% endif %}{% endfor %}",
    "yi": "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "vicuna": "{% for message in messages %}{% if message['role'] == 'user' %}{{ 'USER: ' + message['content'] }}{% else %}{{ ' ASSISTANT: ' ~ message['content']|string ~ eos_token }}{% endif %}{% endfor %}",
    "smollm generation": "{% for message in messages %}{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}{% else %}{{ message['content'] }}{% endif %}{% endfor %}",
    "command-r": "{{ bos_token }}{% for message in messages %}{% set content = message['content'] %}{% if message['role'] == 'user' %}{{ '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% elif message['role'] == 'assistant' %}{{ '<|CHATBOT_TOKEN|>'  + content.strip() }}{% endif %}{% endfor %}",
    "gpt-oss date": "{%- macro turn(message) -%}{{ '<|start|>' + message.role + '<|message|>' + message.content + '<|end|>' }}{%- endmacro -%}{{ 'Date: ' + strftime_now('%Y') }}{%- for message in messages %}{{ turn(message) }}{% endfor %}",
    "json of turns": "{% for message in messages %}{{ message | tojson }}{{ message.items() | list | length }}{% if loop.last %}{% break %}{% endif %}{% endfor %}",
    "olmo": "{{ bos_token }}{% for message in messages %}{{ '<|' ~ message['role'] ~ '|>\\n' }}{{ message['content'] | replace('\\r', '') }}{% if not loop.last %}{{ '\\n' }}{% else %}{{ eos_token }}{% endif %}{% endfor %}",
    "block content": "{% for message in messages %}{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}{{ message.content | length }}{% endfor %}",
}  # fmt: skip
TURNS = (
    (Turn("user", "你好 \n"),),
    (Turn("user", "问？\u2028\ud800"), Turn("assistant", " 答\t<b>&amp;'\"</b> ")),
    (
        Turn("system", "诗人"),
        Turn("user", "写"),
        Turn("assistant", "<think>a</think>\n春"),
        Turn("user", "再"),
    ),
)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_templates_render_as_transformers_renders_them(tokenizer: Any, name: str) -> None:
    template = ChatTemplate("own", PUBLIC[name], "")
    template.try_out(tokenizer)
    for turns in TURNS:
        for opened in (False, True):
            messages = [{"role": turn.role, "content": turn.text} for turn in turns]
            try:
                wanted = tokenizer.apply_chat_template(
                    messages, chat_template=PUBLIC[name], tokenize=False, add_generation_prompt=opened
                )
            except Exception as error:  # it refuses this conversation; so do we, in its words
                with pytest.raises(InputError) as told:
                    template.render(tokenizer, turns, opened=opened)
                assert str(error) in str(told.value)
            else:
                assert template.render(tokenizer, turns, opened=opened) == wanted


def test_without_the_short_way_into_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its modules lie otherwise, the whole package is imported in the child."""
    from zhllama.conversation import template_worker as render_child

    whole = dict(sys.modules)
    monkeypatch.setattr(
        render_child, "find_spec", lambda _: SimpleNamespace(origin="/nowhere/transformers/__init__.py")
    )
    try:
        for name in [m for m in sys.modules if m.partition(".")[0] == "transformers"]:
            del sys.modules[name]
        render = render_child.load()
    finally:
        for name in [m for m in sys.modules if m.partition(".")[0] == "transformers"]:
            del sys.modules[name]
        sys.modules.update(whole)
    assert render(conversations=[[{"role": "user", "content": "a"}]], chat_template="{{ messages[0].content }}")[0] == ["a"]  # fmt: skip


def test_a_crash_is_not_called_the_template_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from zhllama.conversation import sandboxed_templates as bounded

    (tmp_path / "broken.py").write_text("raise SystemExit(3)", encoding="utf-8")
    monkeypatch.setattr(bounded, "WORKER", tmp_path / "broken.py")
    with pytest.raises(bounded.Fails, match="the process that renders it ended with"):
        Renderer().render("a", [], {}, False)
    with pytest.raises(Exceeds):
        renderer.render("{{ 'x' * 10**10 }}", [], {}, False)
