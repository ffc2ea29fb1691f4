"""The shipped prompts render for chat and completion models; errors in user prompts name file and line."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.seed_checks import MAX_INPUT, MAX_SENTENCES, spaced
from zhllama.errors import InputError
from zhllama.generation.rewrite import DEEPENING_OPERATIONS
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
    assert spaced(text) == [], "a space between Han and figures or Latin"
    if name != "answer":
        assert re.search("[\u4e00-\u9fff]", text)
    if "shots" in VARIABLES[name]:
        assert "甲{{ x }}" in text, "what a shot says is no template"


@pytest.mark.parametrize("name", VARIABLES)
def test_the_header_names_every_variable(name: str) -> None:
    header = shipped("prompts_zh", f"{name}.jinja").read_text(encoding="utf-8").split("#}")[0]
    assert set(re.findall(r"^   ([a-z]+) ", header, re.MULTILINE)) == VARIABLES[name]
    assert spaced(header) == []


def rendered(name: str, **changed: Any) -> str:
    given = {**GIVEN, **changed}
    return Prompts(shipped("prompts_zh")).render(
        name, **{k: v for k, v in given.items() if k in VARIABLES[name]}
    )


def test_structured_speaks_of_json_alone() -> None:
    shots = [Task('比较“a < b”与"c"', "一\n二", "丙"), Task("丁", "", "戊")]
    text = rendered("tasks", structured=True, shots=shots)
    assert '{"tasks": [{"instruction"' in text and "###" not in text and "<无>" not in text
    shown = json.loads(text[text.rindex('{"tasks"') :])["tasks"]
    assert [Task(**row) for row in shown] == shots and "\\u" not in text
    plain = rendered("tasks")
    assert "###" in plain and "<无>" in plain and "JSON" not in plain and "空字符串" not in plain


def test_the_classification_question_has_balanced_examples() -> None:
    examples = re.findall(r"^指令：(.+)\n是分类任务吗：([是否])$", rendered("classify"), re.MULTILINE)
    said = [answer for _, answer in examples]
    assert len(dict(examples)) == len(examples) >= 14 and said.count("是") == said.count("否")
    assert not re.search("(.)\\1{3}", "".join(said)), "no long run of one answer"


@pytest.mark.parametrize("name", ["tasks", "answer", "instances_input_first", "instances_output_first"])
def test_other_scripts_are_allowed_wherever_simplified_is_asked_for(name: str) -> None:
    text = Prompts(shipped("prompts_zh"), "completion").render(
        name, **{k: v for k, v in GIVEN.items() if k in VARIABLES[name]}
    )
    (sentence,) = [s for s in re.split("[。\n]", text) if "简体中文" in s]
    assert "繁体字" in sentence and "方言" in sentence and re.search("除非|除了", sentence)


def test_an_input_is_nowhere_required() -> None:
    for name in ("tasks", "instances_input_first", "instances_output_first", "deepen", "widen", "translate"):
        assert "输入写“<无>”" in rendered(name)
    assert "不是每道任务都需要输入" in rendered("tasks") and "输出的长短" in rendered("tasks")
    shown = rendered("instances_output_first").split("指令：")[1:]
    assert [s.count("标签：") for s in shown if "<无>" in s] == [1], "without an input there is one label"


def test_the_prompt_and_the_seeds_agree_on_lengths() -> None:
    """tests/seed_checks.py checks that each seed, an example in this prompt, obeys these limits."""
    text = rendered("tasks")
    assert (MAX_SENTENCES, MAX_INPUT) == (5, 300) and "至多五句" in text and "不超过三百字" in text


def test_deepening_changes_material_only_where_the_way_says_so() -> None:
    for way in DEEPENING_OPERATIONS:
        text = rendered("deepen", way=way)
        assert f"办法是：{way}。" in text and "除非上述办法要求改动材料" in text
    assert [way for way in DEEPENING_OPERATIONS if "材料" in way] == [DEEPENING_OPERATIONS[-1]]


def test_a_wrong_result_scores_the_same_by_both_rules() -> None:
    text = rendered("judge_score", reference="参考")
    scale = re.search(r"^3～4分：(.+)$", text, re.MULTILINE)
    assert scale is not None and "结论有误" in scale[1] and "属于结论有误，按上面的标准最高给4分" in text
    assert "答错" not in text.split("分数的含义")[1].split("篇幅")[0]


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
def test_errors_are_reported_before_the_first_request(
    tmp_path: Path, source: str, line: int, what: str
) -> None:
    (tmp_path / "tasks.jinja").write_text(source, encoding="utf-8")
    with pytest.raises(InputError) as error:
        Prompts(tmp_path).check("tasks")
    assert str(error.value).startswith(f"{tmp_path}/tasks.jinja:{line}: {what}")


def test_errors_while_rendering(tmp_path: Path) -> None:
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
