"""The shipped prompts render for both kinds of model; mistakes in a user's are told by file and line."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from zhllama.errors import InputError
from zhllama.generation.tasks import Task
from zhllama.llm.prompts import VARIABLES, Api, Prompts
from zhllama.resources import shipped

GIVEN: dict[str, Any] = {
    "shots": [Task("甲{{ x }}", "乙", "丙"), Task("丁", "", "戊")], "count": 20, "structured": False, "instruction": "判断",
    "task": Task("问", "材料"), "answers": ["一", "二"], "first": "一", "second": "二", "reference": "", "answer": "一", "way": "加条件",
}  # fmt: skip


@pytest.mark.parametrize("api", ["chat", "completion"])
@pytest.mark.parametrize("name", VARIABLES)
def test_shipped(name: str, api: Api) -> None:
    prompts = Prompts(shipped("prompts_zh"), api)
    prompts.check(name)
    text = prompts.render(name, **{k: v for k, v in GIVEN.items() if k in VARIABLES[name]})
    assert text and "\n\n\n" not in text and "{%" not in text and "{#" not in text
    assert not re.search(r"[\u4e00-\u9fff][,;!?][\u4e00-\u9fff]", text), "half-width punctuation in Chinese"
    if name != "answer":
        assert re.search("[\u4e00-\u9fff]", text)
    if "shots" in VARIABLES[name]:
        assert "甲{{ x }}" in text, "what a shot says is no template"


@pytest.mark.parametrize("name", VARIABLES)
def test_the_header_names_every_variable(name: str) -> None:
    header = shipped("prompts_zh", f"{name}.jinja").read_text(encoding="utf-8").split("#}")[0]
    assert set(re.findall(r"^   ([a-z]+) ", header, re.MULTILINE)) == VARIABLES[name]


def test_structured_asks_for_json() -> None:
    prompts = Prompts(shipped("prompts_zh"))
    assert '{"tasks": [{"instruction"' in prompts.render(
        "tasks", shots=GIVEN["shots"], count=20, structured=True
    )


@pytest.mark.parametrize(
    ("source", "line", "what"),
    [
        ("好\n{{ shot }}", 2, "unknown variable 'shot'"),
        (
            "{# x #}\n\n{% for s in shots %}{{ s.instruction }}{% endfor %}\n{% if apj %}{% endif %}",
            4,
            "unknown variable 'apj'",
        ),
        ("好\n\n{% for s in shots %}", 3, "Unexpected end of template"),
    ],
)
def test_mistakes_found_before_anything_is_asked(tmp_path: Path, source: str, line: int, what: str) -> None:
    (tmp_path / "tasks.jinja").write_text(source, encoding="utf-8")
    with pytest.raises(InputError) as error:
        Prompts(tmp_path).check("tasks")
    assert str(error.value).startswith(f"{tmp_path}/tasks.jinja:{line}: {what}")


def test_mistakes_found_while_rendering(tmp_path: Path) -> None:
    shutil.copytree(shipped("prompts_zh"), tmp_path, dirs_exist_ok=True)
    (tmp_path / "answer.jinja").write_text("好\n{{ task.question }}", encoding="utf-8")
    prompts = Prompts(tmp_path)
    prompts.check("answer")
    with pytest.raises(InputError, match=r"answer\.jinja:2: .*has no attribute 'question'"):
        prompts.render("answer", task=GIVEN["task"])
    (tmp_path / "judge.jinja").write_text("{{ first.__class__.__mro__ }}{{ 1 // 0 }}", encoding="utf-8")
    with pytest.raises(InputError, match=r"judge\.jinja:1"):
        prompts.render("judge", **{k: v for k, v in GIVEN.items() if k in VARIABLES["judge"]})
    (tmp_path / "widen.jinja").unlink()
    with pytest.raises(InputError, match="no such prompt"):
        prompts.check("widen")
