"""Every style of reply gives the tasks that the model wrote; whatever the tasks contain, none is ever changed."""

import json
import os
import random
import re
from pathlib import Path

import pytest

from tests.reply_styles import STYLES
from zhllama.generation.filters import convert_to_simplified
from zhllama.generation.parse_replies import Unreadable, parse_tasks, strip_thinking
from zhllama.generation.tasks import Task

SIMPLE = [
    Task("写一句劝人早睡的话。", "", "别再刷手机了，明天的精神要靠今晚的觉来还。"),
    Task("把下面的句子改成问句。", "他每天骑车上学。", "他每天骑车上学吗？"),
    Task("列出两种水果，各用一句话说明。", "", "1. 苹果：脆甜。\n\n2. 梨：多汁。"),
]
# What texts contain that looks like the structure of a reply.
LINES = [
    "今天下雨，出门要带伞。", "她问：“你去吗？”", "1. 苹果", "2. 梨", "5. 香蕉", "6. 写作", "（1）先洗手", "① 准备材料", "- 要点一", "* 要点二", "一、背景",
    "二、方法", "### 小结", "## 一、背景", "#### 输入格式", "# 标题", "标题：通知", "答：共12个。", "注意：别迟到", "问题：为什么下雨？", "答案：因为冷。",
    "输入：1 2", "输出：3", "1. 输入：键盘", "2. 输出：屏幕", "**重点**：守时", "**输出**：屏幕", "任务1：买菜", "任务二：做饭", "步骤1：切菜", "示例：", "示例1：",
    '{"a": 1, "b": [2]}', '{"instruction": "假", "output": "的"}', '[{"指令": "假"}]', "|名称|价格|", "|---|---|", "> 引用一句", "    缩进四格", "  缩进两格",
    "key: value", "无", "<无>", "第一步：洗菜", "Q：几点？", "A：三点。", "以上就是全部内容。", "希望对您有帮助。", "如有疑问，请随时联系。", "5", "a = 1", "---", "***",
    "###", "5.", "五、", "任务5：", "### 任务 5", "**任务5**", "指令：假的", "5. 指令：假的", "</think>", "<think>想</think>", "<b>粗</b>", "…", "例2", "第二组：",
]  # fmt: skip
CODE = ["```python\nprint(1)\n```", "```\n输入：1\n输出：2\n```", "```\n5. 指令：假\n```", "def f(x):\n    return x\n\nprint(f(1))", "~~~\na\n~~~"]  # fmt: skip


RULES = ("bold, colon outside", "**任务4**", "### 4 and rules")


def awkward(chance: random.Random, lines: int, wild: float) -> str:
    """A text of a task: at most `lines` parts, of which the share `wild` looks like structure."""
    parts = []
    for _ in range(chance.randint(1, lines)):
        if chance.random() < 0.12:
            parts.append(chance.choice(CODE))
        elif chance.random() < wild:
            parts.append(chance.choice(LINES))
        else:
            parts.append(f"第{chance.randrange(1000)}号商店今天卖出{chance.randrange(100)}斤苹果。")
    return chance.choice(("\n", "\n", "\n\n")).join(parts).strip()


def imitates(text: str) -> bool:
    """True if a text contains a whole task: where no number and no separator is broken, nothing tells it from the others."""
    return bool(re.search(r"指令：(.|\n)*输出", text))


def some_tasks(chance: random.Random, count: int, wild: float) -> list[Task]:
    tasks = [
        Task(
            f"{awkward(chance, 1 if chance.random() < 0.8 else 3, wild)}（{number}）",
            "" if chance.random() < 0.5 else f"材料{number}：{awkward(chance, 3, wild)}".strip(),
            # A separator at the end of the last output cannot be told from that of the reply.
            awkward(chance, 5, wild).rstrip("-*#=\n ") or "好",
        )
        for number in range(count)
    ]
    return [
        task
        for task in tasks
        if not imitates(f"{task.instruction}\n{task.input}") and not imitates(task.output)
    ]


def read(reply: str) -> list[Task | Unreadable]:
    text = strip_thinking(reply)
    return [text] if isinstance(text, Unreadable) else parse_tasks(text)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_style_gives_the_tasks(style: str, count: int) -> None:
    tasks = SIMPLE[:count]
    if style in RULES and count < 3:
        # A rule at the end of so few outputs may be part of them: at most the last task is rejected.
        kept = [task for task in read(STYLES[style](tasks)) if isinstance(task, Task)]
        assert len(kept) >= count - 1 and all(task in tasks for task in kept)
        return
    if "indented" in style or "bulleted" in style:
        tasks = tasks[
            :2
        ]  # the next test: whose indentation it is, shows only where a field starts below its label
    assert read(STYLES[style](tasks)) == tasks


def changed(style: str, tasks: list[Task]) -> list[Task]:
    """Tasks in the reply that are not among those that were written, in their order."""
    remaining = iter(tasks)
    return [task for task in read(STYLES[style](tasks)) if isinstance(task, Task) and not any(task == wrote for wrote in remaining)]  # fmt: skip


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("seeds", [range(12), pytest.param(range(12, 60), marks=pytest.mark.slow)], ids=str)
def test_awkward_tasks_come_back_equal_or_are_rejected(style: str, seeds: range) -> None:
    for seed in seeds:
        chance = random.Random(f"{style}/{seed}")
        tasks = some_tasks(chance, 20 if seed % 2 else chance.randint(1, 4), chance.choice((0.1, 0.5)))
        assert changed(style, tasks) == [], f"seed {seed}"


@pytest.mark.parametrize("style", STYLES)
def test_most_ordinary_tasks_are_accepted(style: str) -> None:
    """Lists, headings and code in outputs do not make a reply unreadable."""
    texts = ["1. 苹果\n2. 梨\n3. 桃", "### 小结\n\n- 要点一\n- 要点二", "```python\nprint(1)\n```", "第一段。\n\n第二段。", "注意：别迟到", "**重点**：守时", '{"a": 1}']  # fmt: skip
    tasks = [
        Task(f"指出第{n}条要求。", f"材料{n}" if n % 2 else "", texts[n % len(texts)]) for n in range(17)
    ]
    kept = [task for task in read(STYLES[style](tasks)) if isinstance(task, Task)]
    assert changed(style, tasks) == [] and len(kept) >= (
        8 if "indented" in style or "bulleted" in style else 16
    )


CASES = Path(os.environ.get("ZHLLAMA_TEST_DATA", "../shared/data")).parent / "cases" / "replies"


@pytest.mark.skipif(not CASES.is_dir(), reason="no shared cases beside ZHLLAMA_TEST_DATA")
def test_shared_cases() -> None:
    right = [Task(**row) for row in json.loads((CASES / "right.json").read_text(encoding="utf-8"))]
    for path in sorted(CASES.glob("*.txt")):
        tasks = read(path.read_text(encoding="utf-8"))
        assert [convert_to_simplified(task) for task in tasks if isinstance(task, Task)] == right, path.name
