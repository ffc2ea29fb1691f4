"""Masks under templates with thoughts and tools: each answer is trained once, after the ids of its own generation prompt."""

from dataclasses import replace
from itertools import chain
from typing import Any

import pytest

from tests.faults.test_hostile_templates import PUBLIC
from tests.test_conversation_template import byte_level
from zhllama.conversation.encode_conversation import ConversationEncoder
from zhllama.conversation.prepare_tokenizer import prepare_tokenizer
from zhllama.conversation.records import Conversation, ToolCall, Turn
from zhllama.conversation.template import message_of, template_for
from zhllama.errors import InputError
from zhllama.model.load import load_transformers_tokenizer

# Written for this test after the way in which Qwen3's, DeepSeek-R1's and others' templates treat thoughts and tools.
OPEN = "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}"
SPLIT = (
    "{%- set content = message.content %}{%- set thought = message.reasoning_content | default('', true) %}"
    "{%- if '</think>' in content %}"
    "{%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}"
)
CALLS = (
    '{%- for call in message.tool_calls or [] %}{{ \'\\n<tool_call>\\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{ call.function.arguments | tojson }}{{ '}\\n</tool_call>' }}{%- endfor %}"
)
LAST = (
    "{%- set ns = namespace(last=-1) %}{%- for m in messages %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}"
    "{%- endif %}{%- endfor %}"
)
TOOLS = (
    "{%- if tools %}{{ '<|im_start|>system\\n# Tools\\n' }}{%- for tool in tools %}{{ tool | tojson }}{%- endfor %}"
    "{{ '<|im_end|>\\n' }}{%- endif %}"
)
PLAIN = "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
QWEN3 = (
    TOOLS + LAST + "{%- for message in messages %}{%- if message.role == 'assistant' %}" + SPLIT
    + "{{ '<|im_start|>assistant\\n' }}"
    "{%- if loop.index0 > ns.last and (loop.last or thought) %}{{ '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}"
    "{%- endif %}{{ content }}" + CALLS + "{{ '<|im_end|>\\n' }}"
    "{%- elif message.role == 'tool' %}{{ '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}"
    "{%- else %}" + PLAIN + "{%- endif %}{%- endfor %}"
)  # fmt: skip
R1 = (
    "{%- for message in messages %}{%- if message.role == 'assistant' %}{%- set content = message.content %}"
    "{%- if '</think>' in content %}{%- set content = content.split('</think>')[-1] %}{%- endif %}"
    "{{ '<|im_start|>' + content + '<|im_end|>' }}{%- else %}{{ '[' + message.role + ']' + message.content }}{%- endif %}"
    "{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|><think>\\n' }}{%- endif %}"
)
TEMPLATES = {
    "qwen-3": QWEN3 + OPEN,
    "qwen-3 without thinking": QWEN3 + OPEN.replace("assistant\\n", "assistant\\n<think>\\n\\n</think>\\n\\n"),
    "qwen-3 thinking": QWEN3 + OPEN.replace("assistant\\n", "assistant\\n<think>\\n"),
    "deepseek-r1": R1,
    "r1 with an empty thought": R1.replace("<think>\\n'", "<think></think>'"),
    "qwen-2.5": TOOLS + "{%- for message in messages %}{%- if message.role == 'assistant' %}{{ '<|im_start|>assistant' }}"
    "{%- if message.content %}{{ '\\n' + message.content }}{%- endif %}" + CALLS + "{{ '<|im_end|>\\n' }}{%- else %}" + PLAIN
    + "{%- endif %}{%- endfor %}" + OPEN,
    "reasoning field": "{%- for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.reasoning_content %}{{ '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}{%- endif %}"
    "{{ message.content | replace('<think>', '') | replace('</think>', '') }}{{ '<|im_end|>\\n' }}{%- endfor %}" + OPEN,
}  # fmt: skip

Q1, A1, Q2, A2 = (
    Turn("user", "一加一？"),
    Turn("assistant", "二。"),
    Turn("user", "再加三？"),
    Turn("assistant", "五。"),
)
T1, T2 = Turn("assistant", "二。", "先想"), Turn("assistant", "五。", "再想")
CALL = Turn("assistant", "", calls=(ToolCall("weather", '{"city": "杭州", "days": 2}'),))
WEATHER = '[{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]'


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("thoughts")
    prepare_tokenizer(byte_level(folder / "base", "llama-3"), "chatml", folder / "chatml")
    return load_transformers_tokenizer(folder / "chatml")


def encoder_of(tokenizer: Any, jinja: str, thoughts: Any = "keep") -> ConversationEncoder:
    tokenizer.chat_template = jinja
    return ConversationEncoder(tokenizer, template_for("own", tokenizer), thoughts)


def trained(encoder: ConversationEncoder, *turns: Turn, tools: str = "") -> list[list[str]]:
    """The trained texts of each sample, with their ends; every answer follows the ids of its own generation prompt."""
    conversation, tokenizer = Conversation(turns, "a:1", tools=tools), encoder.tokenizer
    if encoder.thoughts == "drop":
        turns = tuple(replace(turn, thought="") for turn in turns)
    encoder.prove(conversation)
    samples, result = encoder.samples(conversation), []
    prompts = [
        tokenizer(encoder.template.render(tokenizer, turns[:n], opened=True, tools=tools), add_special_tokens=False).input_ids
        for n, turn in enumerate(turns)
        if turn.role == "assistant" and turn.trained
    ]  # fmt: skip
    for sample in samples:
        texts = []
        for start, end in zip(sample.starts, sample.ends, strict=True):
            assert all(sample.mask[start:end])
            texts.append(tokenizer.decode(sample.ids[start:end]))
            assert any(sample.ids[: len(p)] == p and len(p) <= start for p in prompts)
            if encoder.thoughts != "mask":
                prompts.remove(sample.ids[:start])
        assert sum(sample.mask) == sum(
            end - start for start, end in zip(sample.starts, sample.ends, strict=True)
        )
        result.append(texts)
    assert encoder.thoughts == "mask" or not prompts  # each answer once
    return result


NONE, FIRST, SECOND = ("<think>\n" + t + "\n</think>\n\n" for t in ("", "先想", "再想"))
END = "<|im_end|>"


@pytest.mark.parametrize(
    ("name", "plain", "thinking"),
    [
        ("qwen-3", [[NONE + "二。" + END], [NONE + "五。" + END]], [[FIRST + "二。" + END], [SECOND + "五。" + END]]),
        ("qwen-3 thinking", [["</think>\n\n二。" + END], ["</think>\n\n五。" + END]],
         [["先想\n</think>\n\n二。" + END], ["再想\n</think>\n\n五。" + END]]),
        ("deepseek-r1", [["</think>\n\n二。" + END], ["</think>\n\n五。" + END]],
         [["先想\n</think>\n\n二。" + END], ["再想\n</think>\n\n五。" + END]]),
        ("qwen-3 without thinking", [["二。" + END], ["五。" + END]], None),
        ("r1 with an empty thought", [["二。" + END], ["五。" + END]], None),
        ("reasoning field", [["二。" + END, "五。" + END]], [[FIRST + "二。" + END, SECOND + "五。" + END]]),
    ],
)  # fmt: skip
def test_each_answer_is_trained_once_after_its_own_prompt(
    tokenizer: Any, name: str, plain: list[list[str]], thinking: list[list[str]] | None
) -> None:
    encoder = encoder_of(tokenizer, TEMPLATES[name])
    assert trained(encoder, Q1, A1, Q2, A2) == plain
    assert trained(encoder, Turn("system", "算"), Q1, A1) == plain[:1] if len(plain) > 1 else [["二。" + END]]
    assert trained(encoder_of(tokenizer, TEMPLATES[name], "drop"), Q1, T1, Q2, T2) == plain
    encoder = encoder_of(tokenizer, TEMPLATES[name])
    if thinking is not None:
        assert trained(encoder, Q1, T1, Q2, T2) == thinking
        masked = trained(encoder_of(tokenizer, TEMPLATES[name], "mask"), Q1, T1, Q2, T2)
        assert list(chain(*masked)) == ["二。" + END, "五。" + END]
    else:
        with pytest.raises(InputError, match="the template drops the thought of an answer"):
            encoder.samples(Conversation((Q1, T1), "a:1"))


def test_answers_that_are_not_trained_are_context(tokenizer: Any) -> None:
    silent = Turn("assistant", "二。", trained=False)
    for name, wanted in (("chatml", "五。" + END), ("qwen-3", NONE + "五。" + END)):
        encoder = encoder_of(tokenizer, {**PUBLIC, **TEMPLATES}[name])
        assert trained(encoder, Q1, silent, Q2, A2) == [[wanted]]
    encoder = encoder_of(tokenizer, TEMPLATES["qwen-3"])
    assert trained(encoder, Q1, A1, Q2, Turn("assistant", "五。", trained=False)) == [[NONE + "二。" + END]]
    with pytest.raises(InputError, match="a:1: has no answer that is to be trained on"):
        encoder.samples(Conversation((Q1, silent), "a:1"))


@pytest.mark.parametrize("name", ["qwen-3", "qwen-2.5"])
def test_tool_calls_are_trained_in_the_templates_own_form(tokenizer: Any, name: str) -> None:
    encoder = encoder_of(tokenizer, TEMPLATES[name])
    texts = trained(encoder, Q1, CALL, Turn("tool", "晴，12 度"), A2, tools=WEATHER)
    call = '\n<tool_call>\n{"name": "weather", "arguments": {"city": "杭州", "days": 2}}\n</tool_call>' + END
    assert list(chain(*texts)) == (
        [NONE + call, NONE + "五。" + END] if name == "qwen-3" else [call.lstrip("\n"), "五。" + END]
    )


@pytest.mark.parametrize(
    ("name", "turns", "tools", "told"),
    [
        ("chatml", (Q1, CALL, Turn("tool", "晴"), A2), "", "the template does not write tool_calls (weather)"),
        ("chatml", (Q1, A1), WEATHER, "the template does not write tools"),
        ("deepseek-r1", (Q1, CALL, Turn("tool", "晴"), A2), "", "the template does not write tool_calls (weather)"),
        ("qwen-2.5 without system", (Turn("system", "算"), Q1, A1), "", "the template does not write turn 1 (system)"),
    ],
)  # fmt: skip
def test_dropped_turns_and_tools_are_refused_by_name(
    tokenizer: Any, name: str, turns: tuple[Turn, ...], tools: str, told: str
) -> None:
    without = PUBLIC["chatml"].replace("{% for message in messages %}", "{% for message in messages %}{% if message.role != 'system' %}") \
        .replace("{% endfor %}", "{% endif %}{% endfor %}", 1)  # fmt: skip
    encoder = encoder_of(tokenizer, {**PUBLIC, **TEMPLATES, "qwen-2.5 without system": without}[name])
    with pytest.raises(InputError) as error:
        encoder.samples(Conversation(turns, "a:1", tools=tools))
    assert error.value.what == told


@pytest.mark.parametrize("thought", ["content", "reasoning_content"])
def test_messages_of_thoughts(thought: Any) -> None:
    message = message_of(T1, thought)
    assert message == (
        {"role": "assistant", "content": "<think>\n先想\n</think>\n\n二。"} if thought == "content"
        else {"role": "assistant", "content": "二。", "reasoning_content": "先想"}
    )  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_public_templates_train_each_answer_once_or_are_refused(tokenizer: Any, name: str) -> None:
    """With every end of an answer that they write as a special token, as in their own tokenizers."""
    try:
        encoder = encoder_of(tokenizer, PUBLIC[name].replace("<|eot_id|>", END).replace("<end_of_turn>", END)
                             .replace("<|end|>", END).replace("<｜end▁of▁sentence｜>", END))  # fmt: skip
        texts = trained(encoder, Q1, A1, Q2, A2)
    except InputError as error:
        assert (
            str(error)
            .removeprefix(f"{tokenizer.name_or_path}: ")
            .startswith(("template own: writes no special token", "a:1: the template", "template own: fails"))
        )
        assert name in REFUSED
    else:
        said = [text.replace(" ", "").replace("</s>", END) for text in list(chain(*texts))]
        assert said == [f"二。{END}", f"五。{END}"] and name not in REFUSED


# The shortened forms of these have no generation prompt, write no special token after an answer, or, like olmo's, write
# the end of the last answer alone.
REFUSED = {
    "llama-3.1 date", "qwen-2.5", "deepseek-r1", "glm-4", "baichuan", "vicuna", "command-r", "gpt-oss date",
    "json of turns", "olmo", "block content",
}  # fmt: skip
