"""The answers of the seeds, recomputed; every check also fails on deliberately wrong answers."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import seed_answers
from tests.seed_answers import PURE, absent, amount_in_capitals, equations, tones, value
from tests.seed_checks import SEEDS, Task


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    return [json.loads(line) for line in SEEDS.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("check", PURE, ids=lambda c: c.__name__)
def test_answers(check: Callable[[list[Task]], list[str]], tasks: list[Task]) -> None:
    assert check(tasks) == []


def test_python(tasks: list[Task]) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed: seed_086 cannot be run")
    assert seed_answers.check_python(tasks) == []


@pytest.mark.parametrize(
    ("check", "programs"),
    [("check_find", ("bash", "find")), ("check_c", ("gcc",)), ("check_java", ("java", "javac"))],
)
def test_compiled(check: str, programs: tuple[str, ...], tasks: list[Task], tmp_path: Path) -> None:
    if (program := absent(*programs)) is not None:
        pytest.skip(f"{program} is not on this machine")
    assert getattr(seed_answers, check)(tasks, tmp_path) == []


def test_node(tasks: list[Task]) -> None:
    if absent("node"):
        pytest.skip("node is not on this machine")
    assert seed_answers.check_node(tasks) == []


# --- wrong answers: (seed, old text, new text, the check that must complain) ----------------

SPOILED = [
    ("seed_044", "= 10612.08", "= 10612.80", "check_arithmetic"),
    ("seed_012", "= -10.0%", "= 10.0%", "check_arithmetic"),
    ("seed_139", "3 × 4² = 24", "3 × 4² = 48", "check_arithmetic"),
    ("seed_078", "35° = 55°", "35° = 65°", "check_arithmetic"),
    ("seed_003", "三轮车7辆，小汽车11辆", "三轮车8辆，小汽车10辆", "check_puzzles"),
    ("seed_015", "所以花瓶是丙", "所以花瓶是甲", "check_puzzles"),
    ("seed_011", "概率是1/3", "概率是1/4", "check_puzzles"),
    ("seed_159", "他戴的是红帽子", "他戴的是蓝帽子", "check_puzzles"),
    ("seed_151", "n² + 3n + 1", "n² + 3n + 2", "check_proof"),
    ("seed_014", "某市", "某市的许多许多许多许多许多许多", "check_lengths"),
    ("seed_158", "需要说明的是", "需要说明的是" * 40, "check_lengths"),
    ("seed_132", "16点须在线，并完成当日工作", "16点须保持在线，并完成当日的工作", "check_lengths"),
    ("seed_169", "甜得很嘞，你", "甜得很嘞。你", "check_counts"),
    ("seed_043", "、蓝色碳汇", "", "check_counts"),
    ("seed_148", "？#", "？#周末# #", "check_counts"),
    ("seed_045", "| 180 | 720 |", "| 180 | 700 |", "check_tables"),
    ("seed_045", "|  |  | 1880 |", "|  |  | 1890 |", "check_tables"),
    ("seed_158", "54人，占27%", "54人，占29%", "check_tables"),
    ("seed_112", "14至23秒", "15至23秒", "check_tables"),
    ("seed_144", "小结（5分钟）", "小结（6分钟）", "check_tables"),
    ("seed_160", "山亭雨霁", "山雨亭霁", "check_verse"),
    ("seed_160", "绿杨中", "绿杨深", "check_verse"),
    ("seed_074", "巷深自有", "巷旧自有", "check_verse"),
    ("seed_095", "蝉声落满阶", "蝉声落满台阶", "check_verse"),
    ("seed_118", "回家流泪", "雨天流泪", "check_verse"),
    ("seed_025", '"年龄": 3', '"年龄": 4', "check_formats"),
    ("seed_075", "程一诺", "程一诚", "check_formats"),
    ("seed_173", "8080", "8000", "check_formats"),
    ("seed_136", "頭髮", "頭發", "check_formats"),
    ("seed_066", "[9, 36, 81]\n```", "[9, 36, 80]\n```", "check_python_inputs"),
    ("seed_048", ">= 3", "> 3", "check_sql"),
    ("seed_005", "# 输出 3", "# 输出 4", "check_python"),
    ("seed_096", "-s[", "s[", "check_python"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "check"), SPOILED)
def test_spoiled_answers_fail(name: str, old: str, new: str, check: str, tasks: list[Task]) -> None:
    spoiled = copy.deepcopy(tasks)
    instance = next(task for task in spoiled if task["id"] == name)["instances"][0]
    assert old in instance["output"]
    instance["output"] = instance["output"].replace(old, new)
    given = {"names": (name,)} if check == "check_python" else {}
    assert any(name in complaint for complaint in getattr(seed_answers, check)(spoiled, **given))


def test_spoiled_programs_fail(tasks: list[Task], tmp_path: Path) -> None:
    spoiled = copy.deepcopy(tasks)
    for name, old, new in (
        ("seed_067", "!= 0x80", "== 0x80"),
        ("seed_059", "pendingZero = result", "pendingZero = false && result"),
        ("seed_165", "length > LIMIT;", "length >= LIMIT;"),
        ("seed_109", "await load();\n  console", "load();\n  console"),
    ):
        instance = next(task for task in spoiled if task["id"] == name)["instances"][0]
        assert old in instance["output"]
        instance["output"] = instance["output"].replace(old, new)
    if not absent("gcc"):
        assert seed_answers.check_c(spoiled, tmp_path) != []
    if not absent("java", "javac"):
        assert seed_answers.check_java(spoiled, tmp_path) != []
    if not absent("node"):
        assert len(seed_answers.check_node(spoiled)) == 2


@pytest.mark.parametrize("counted", ["text.value", "text.value.split('')"])
def test_a_page_that_counts_code_points_or_units_fails(counted: str, tasks: list[Task]) -> None:
    if absent("node"):
        pytest.skip("node is not on this machine")
    spoiled = copy.deepcopy(tasks)
    page = next(task for task in spoiled if task["id"] == "seed_165")["instances"][0]
    assert "[...segmenter.segment(text.value)]" in page["output"]
    page["output"] = page["output"].replace("segmenter.segment(text.value)", counted)
    (complaint,) = seed_answers.check_node(spoiled)
    assert complaint.startswith("seed_165")


# --- the helpers themselves -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "worth"),
    [("5/6 ÷ 5/12", 2), ("1/3 × 0 + 2/3 × 1/2", 1 / 3), ("√(9² + 12²)", 15), ("√225", 15), ("1.02³", 1.061208), ("-10.0%", -0.1),
     ("3(4)", None), ("2 - 3 × 4", -10), ("90° - 35°", 55)],
)  # fmt: skip
def test_value(expression: str, worth: float | None) -> None:
    if worth is None:
        with pytest.raises(TypeError):
            value(expression)
    else:
        assert float(value(expression)) == pytest.approx(worth)


def test_equations() -> None:
    text = "设x + y = 18，共有3 + 2 = 5种，22x + 33 = 143；\n10 ÷ 4 = 2.5（元）。\n- 2月：1 - 2 = -1%\n```\n1 + 1 = 3\n```\n65 ∶ 2 = 6.5克"
    assert equations(text) == [["3 + 2", "5"], ["10 ÷ 4", "2.5"], ["1 - 2", "-1%"]]


def test_capitals_and_tones() -> None:
    assert [amount_in_capitals(n) for n in (1, 10, 105, 1005, 1010, 1200, 9999)] == [
        "壹元整",
        "壹拾元整",
        "壹佰零伍元整",
        "壹仟零伍元整",
        "壹仟零壹拾元整",
        "壹仟贰佰元整",
        "玖仟玖佰玖拾玖元整",
    ]
    assert tones("山亭雨，x好") == "平平仄？"
