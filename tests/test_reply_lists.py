"""Lists of instructions, instances, decisions and rankings in the forms that models write."""

import random

import pytest

from tests.test_reply_styles import awkward, imitates
from zhllama.generation.parse_replies import (
    Unreadable,
    parse_instances,
    parse_list,
    parse_question,
    parse_ranking,
    parse_yes_no,
)
from zhllama.generation.tasks import Task

LISTS = [
    "九、写诗。\n十、作画。", "（9）写诗。\n（10）作画。", "⑨写诗。\n⑩作画。", "- 写诗。\n- 作画。", "* 写诗。\n* 作画。", "• 写诗。\n• 作画。", "**9.** 写诗。\n**10.** 作画。",
    "9. 写诗。\n\n10. 作画。", "### 9. 写诗。\n### 10. 作画。", "第9条：写诗。\n第10条：作画。", "9) 写诗。\n10) 作画。", "好的：\n\n9． 写诗。\n10． 作画。\n", "[9] 写诗。\n[10] 作画。",
    "```\n9. 写诗。\n10. 作画。\n```", "任务9：写诗。\n任务10：作画。", "IX. 写诗。\nX. 作画。", "9️⃣ 写诗。\n🔟 作画。", "指令9：写诗。\n指令10：作画。", "9、**写诗。**\n10、**作画。**",
    "9. 写诗。\n10. 作画。\n\n希望对您有帮助！", "9. 写诗。\n10. 作画。\n\n---\n以上共8条指令。", "9. 指令：写诗。\n10. 指令：作画。", "(九) 写诗。\n(十) 作画。",
]  # fmt: skip


@pytest.mark.parametrize("reply", LISTS)
def test_lists_with_any_marker(reply: str) -> None:
    assert parse_list(reply) == ["写诗。", "作画。"]


@pytest.mark.parametrize(
    "reply",
    [
        "9. 写诗，要求：\n1. 五言\n2. 押韵\n10. 作画。",
        "9. 写诗，要求：\n- 五言\n- 押韵\n10. 作画。",
        "9. 写诗，要求如下。\n\n用五言。\n10. 作画。",
        "9. 写诗，要求：\n（1）五言\n10. 作画。",
        "9. 写诗，要求：\n   1. 五言\n10. 作画。",
        "9. 写诗，要求\n输入：某句\n10. 作画。",
    ],
)
def test_an_item_of_several_lines_is_rejected(reply: str) -> None:
    items = parse_list(reply)
    assert [item for item in items if isinstance(item, str)] == ["作画。"]
    assert any(isinstance(item, Unreadable) and item.text.startswith("写诗，要求") for item in items)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("答案是：否", False), ("我觉得没有固定标签，需要组织语句，所以不属于分类任务。", False), ("是的，这是分类任务。", True), ("不是分类任务", False),
        ("否，因为答案是开放的", False), ("是分类任务吗：否", False), ("是否为分类任务：是", True), ("Yes, it is a classification task.", True), ("No.", False),
        ("这是一个分类任务。", True), ("该任务不是分类任务，答案：否", False), ("虽然看起来是分类任务，但答案需要组织语句，因此不属于分类任务", False),
        ("**否**", False), ("No, this is not a classification task", False), ("它属于分类任务", True), ("这条指令要求写诗，答案是开放的，不是从固定标签里选。", None),
        ("是，因为标签不需要组织", True), ("答：否", False), ("判断结果：是", True), ("指令：写诗\n是分类任务吗：否", False), ("这是不是分类任务？不是。", False),
        ("答案：是\n答案：否", None),
    ],
)  # fmt: skip
def test_decisions(reply: str, said: bool | None) -> None:
    assert parse_yes_no(reply) is said


@pytest.mark.parametrize(
    ("reply", "ranks"),
    [
        ("答案2 > 答案1", [1, 0]), ("回答2＞回答1", [1, 0]), ("[2] > [1]", [1, 0]), ("②>①", [1, 0]), ("先看 1 > 2，不对。\n排名：2 > 1", [1, 0]), ("1 > 2\n2 > 1", None),
        ("<think>1 > 2</think>2 > 1", [1, 0]), ("Answer 2 > Answer 1", [1, 0]), ("**2 > 1**", [1, 0]), ("第2个 > 第1个", [1, 0]), ("3 > 2 > 1", None), ("1.2 > 1", None),
        ("2 < 1", None), ("排名：2 = 1", [0, 0]),
    ],
)  # fmt: skip
def test_rankings(reply: str, ranks: list[int] | None) -> None:
    assert parse_ranking(reply, 2) == ranks


PAIRS = [Task("译", "你好", "Hello"), Task("译", "再见", "Goodbye")]


@pytest.mark.parametrize(
    "reply",
    [
        "输入：你好\n输出：Hello\n输入：再见\n输出：Goodbye",
        "第一组：\n输入：你好\n输出：Hello\n\n第二组：\n输入：再见\n输出：Goodbye",
        "例1\n输入：你好\n输出：Hello\n例2\n输入：再见\n输出：Goodbye",
        "1.\n输入：你好\n输出：Hello\n2.\n输入：再见\n输出：Goodbye",
        "1. 输入：你好\n   输出：Hello\n2. 输入：再见\n   输出：Goodbye",
        "**示例 1**\n- 输入：你好\n- 输出：Hello\n\n**示例 2**\n- 输入：再见\n- 输出：Goodbye",
        "输入1：你好\n输出1：Hello\n\n输入2：再见\n输出2：Goodbye",
        "指令：译\n输入：你好\n输出：Hello\n\n指令：译\n输入：再见\n输出：Goodbye",
        "輸入：你好\n輸出：Hello\n\n輸入：再见\n輸出：Goodbye",
    ],
)
def test_instances_in_any_style(reply: str) -> None:
    assert parse_instances("译", reply, label_first=False) == PAIRS


def test_labels_after_inputs_are_not_shifted() -> None:
    reply = "输入：很好吃\n标签：好评\n输入：太咸\n标签：差评"
    assert parse_instances("判", reply, label_first=True) == [
        Task("判", "很好吃", "好评"),
        Task("判", "太咸", "差评"),
    ]


def test_instances_of_another_instruction_are_not_taken() -> None:
    reply = "你好\n输出：Hello\n\n指令：写一首诗。\n输入：<无>\n输出：春眠不觉晓"
    assert parse_instances("译", reply, label_first=False, label_in_prompt=True) == [
        Task("译", "你好", "Hello")
    ]
    items = parse_instances("译", f"输入：{reply}", label_first=False)
    assert all(isinstance(item, Unreadable) for item in items)


def test_awkward_instances_come_back_equal_or_are_rejected() -> None:
    templates = ("输入：{}\n输出：{}", "第{n}组：\n输入：{}\n输出：{}", "{n}. 输入：{}\n   输出：{}", "输入{n}：{}\n输出{n}：{}", "例{n}\n**输入**：{}\n**输出**：{}")  # fmt: skip
    for seed in range(400):
        chance = random.Random(seed)
        texts = [
            (awkward(chance, 3, 0.3), awkward(chance, 4, 0.3).rstrip("-*#=\n ") or "好")
            for _ in range(chance.randint(1, 5))
        ]
        if any("输入" in text or "输出" in text or imitates(text) for pair in texts for text in pair):
            continue  # a whole pair in a text cannot be told from the others
        template = templates[seed % len(templates)]
        reply = "\n\n".join(template.format(*pair, n=number) for number, pair in enumerate(texts, 1))
        wrote = [Task("题", "" if i in ("无", "<无>") else i, o) for i, o in texts]
        for item in parse_instances("题", reply, label_first=False):
            assert isinstance(item, Unreadable) or item in wrote, seed


def test_questions_with_more_than_a_question_are_rejected() -> None:
    assert isinstance(parse_question("指令：改错\n输入：I is\n输出：I am"), Unreadable)
    assert isinstance(parse_question("指令：改错\n指令：造句"), Unreadable)
    assert parse_question("改错\n输入：I is\n\n参考指令：造句", label_in_prompt=True) == Task("改错", "I is")
