"""Masks under the chat templates of public models that trl ships: each answer is trained once, or one line refuses the template."""

import importlib.util
import re
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.test_answer_segments import A1, A2, Q1, Q2, encoder_of, trained
from tests.test_conversation_template import byte_level
from zhllama.conversation.prepare_tokenizer import prepare_tokenizer
from zhllama.errors import InputError
from zhllama.model.load import load_transformers_tokenizer

_trl = importlib.util.find_spec("trl")
_folder = Path(_trl.origin).parent / "chat_templates" if _trl is not None and _trl.origin else Path("none")
# Those that end in `_training` are trl's own changes, which its trainers need for their masks.
TEMPLATES = {
    path.stem: path.read_text(encoding="utf-8")
    for path in sorted(_folder.glob("*.jinja"))
    if not path.stem.endswith("_training")
}
# What their own tokenizers hold as special tokens.
MARKS = re.compile(
    r"<[|｜][^<>|｜\s'\"]{1,40}[|｜]>|<(?:start_of_turn|end_of_turn|end_of_utterance|turn\||\|turn)>"
)
NO_END = "writes no special token after an answer"
REFUSED = {
    "glm4moe": NO_END,  # an answer ends at the next <|user|>
    "smolvlm": NO_END,  # with text it writes nothing: these three take lists of parts, images among them
    "idefics3": NO_END,
    "llava_next": "fails on a conversation",
    "gptoss": "the template changes an answer",  # it writes a channel before it
    "muse_glimmer": "the template changes an answer",
}
BEFORE = {
    "": "",
    "empty": "<think>\n\n</think>\n\n",
    "open": "</think>\n\n",
}  # what precedes an answer without a thought


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("shipped")
    prepare_tokenizer(byte_level(folder / "base", "llama-3"), "chatml", folder / "chatml")
    tokenizer = load_transformers_tokenizer(folder / "chatml")
    marks = sorted({mark for text in TEMPLATES.values() for mark in MARKS.findall(text)})
    tokenizer.add_special_tokens({"additional_special_tokens": marks}, replace_extra_special_tokens=False)
    return tokenizer


@pytest.mark.parametrize("name", TEMPLATES)
def test_each_answer_is_trained_once_or_one_line_refuses_the_template(tokenizer: Any, name: str) -> None:
    try:
        encoder = encoder_of(tokenizer, TEMPLATES[name])
        texts = list(chain(*trained(encoder, Q1, A1, Q2, A2)))
    except InputError as error:
        assert REFUSED.get(name, "not refused") in str(error)
        return
    assert name not in REFUSED and encoder.template.stop in MARKS.findall(TEMPLATES[name])
    said = [text.removesuffix(encoder.template.stop) for text in texts]
    assert any(said == [f"{before}二。", f"{before}五。"] for before in BEFORE.values()), texts


def test_most_of_them_are_right() -> None:
    if not TEMPLATES:
        pytest.skip("trl is not installed, or ships no templates")
    assert len(TEMPLATES) - len(REFUSED) >= 25
